/*
 * test_arena.c - budgets, marks, sub-arenas, and that rewound pages go back to the system
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "moecal/arena.h"
#include "moecal/fault.h"

#define MIB ((size_t)1 << 20)

/* Pages of [p, p + bytes) that hold memory. */
static size_t resident_pages(void *p, size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), count = 0;
	unsigned char map[4096];

	assert_true(bytes / page <= sizeof(map));
	assert_int_equal(mincore(p, bytes, map), 0);
	for (size_t i = 0; i < bytes / page; i++)
		count += map[i] & 1;
	return count;
}

static void test_alloc_aligned_and_counted(void **state)
{
	struct mc_arena arena;
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	assert_true(mc_arena_init(&arena, MIB, &err));
	unsigned char *a = mc_arena_alloc(&arena, 3, 7, "a", &err);
	unsigned char *b = mc_arena_alloc(&arena, 1, 65, "b", &err);
	unsigned char *c = mc_arena_alloc(&arena, 0, 4, "c", &err);
	unsigned char *d = mc_arena_zalloc(&arena, 10, 8, "d", &err);
	assert_non_null(a);
	assert_non_null(c);
	assert_int_equal((uintptr_t)a % 64, 0);
	assert_ptr_equal(b, a + 64);
	assert_ptr_equal(c, b + 128);
	assert_ptr_equal(d, c + 64);
	assert_int_equal(arena.used, 64 + 128 + 64 + 128);
	assert_int_equal(arena.peak, arena.used);
	for (size_t i = 0; i < 80; i++)
		assert_int_equal(d[i], 0);
	mc_arena_release(&arena);
	assert_null(arena.base);
	mc_arena_release(&arena); /* a released one may be released again */
}

static void test_budget_is_kept(void **state)
{
	struct mc_arena arena;
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	assert_true(mc_arena_init(&arena, 1000, &err));
	assert_non_null(mc_arena_alloc(&arena, 1000, 1, "all of it", &err));
	assert_null(mc_arena_alloc(&arena, 2000, 4, "hidden states", &err));
	assert_int_equal(err.code, MC_NO_MEMORY);
	assert_non_null(strstr(err.text, "hidden states"));
	assert_non_null(strstr(err.text, "8000 bytes needed"));
	mc_error_init(&err);
	assert_null(mc_arena_alloc(&arena, SIZE_MAX / 2, 4, "overflow", &err));
	assert_int_equal(err.code, MC_NO_MEMORY);
	mc_error_init(&err);
	assert_null(mc_arena_alloc(&arena, SIZE_MAX, 1, "rounding overflow", &err));
	assert_int_equal(err.code, MC_NO_MEMORY);
	mc_arena_release(&arena);

	mc_error_init(&err);
	assert_true(mc_arena_init(&arena, 0, &err));
	assert_null(mc_arena_alloc(&arena, 1, 1, "one byte", &err));
	mc_arena_release(&arena);
	mc_error_init(&err);
	assert_false(mc_arena_init(&arena, UINT64_MAX, &err));
	assert_int_equal(err.code, MC_NO_MEMORY);
	mc_arena_release(&arena);
}

/* More than any machine has: addresses only. */
static void test_reserves_without_touching(void **state)
{
	struct mc_arena arena;
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	assert_true(mc_arena_init(&arena, (uint64_t)1 << 42, &err));
	unsigned char *far;
	assert_non_null(mc_arena_alloc(&arena, (size_t)1 << 41, 1, "half of it", &err));
	far = mc_arena_alloc(&arena, 64, 1, "behind it", &err);
	assert_non_null(far);
	far[0] = 1;
	/* Not rewound, whose bookkeeping under AddressSanitizer would touch the shadow of it all.
	 */
	arena.peak = arena.used = 0;
	mc_arena_release(&arena);
}

static void test_rewind(void **state)
{
	struct mc_arena arena;
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	assert_true(mc_arena_init(&arena, 16 * MIB, &err));
	size_t start = mc_arena_mark(&arena);
	unsigned char *keep = mc_arena_alloc(&arena, 100, 1, "keep", &err);
	memset(keep, 7, 100);
	size_t mark = mc_arena_mark(&arena);
	unsigned char *a = mc_arena_alloc(&arena, 8 * MIB, 1, "layer", &err);
	memset(a, 1, 8 * MIB);
	assert_true(resident_pages(arena.base, 8 * MIB) > 2000);
	mc_arena_rewind(&arena, mark);
	assert_int_equal(arena.used, mark);
	assert_true(arena.peak >= 8 * MIB);
	assert_true(resident_pages(arena.base, 8 * MIB) <= 2);
	for (size_t i = 0; i < 100; i++)
		assert_int_equal(keep[i], 7);
	unsigned char *b = mc_arena_alloc(&arena, MIB, 1, "next layer", &err);
	assert_ptr_equal(a, b);
	memset(b, 2, MIB);
	mc_arena_rewind(&arena, mark);
	mc_arena_rewind(&arena, mark); /* nothing to do */
	mc_arena_rewind(&arena, start);
	assert_int_equal(arena.used, 0);
	mc_arena_release(&arena);
}

static void test_sub_arena(void **state)
{
	struct mc_arena arena, child, other;
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	assert_true(mc_arena_init(&arena, 4 * MIB, &err));
	assert_true(mc_arena_sub(&arena, 2 * MIB, "scratch", &child, &err));
	assert_true(mc_arena_sub(&arena, MIB, "scratch", &other, &err));
	assert_false(child.owns_mapping);
	size_t mark = mc_arena_mark(&child);
	unsigned char *p = mc_arena_alloc(&child, 2 * MIB, 1, "all", &err);
	unsigned char *q = mc_arena_alloc(&other, MIB, 1, "all", &err);
	assert_non_null(p);
	assert_non_null(q);
	memset(p, 1, 2 * MIB);
	memset(q, 2, MIB);
	assert_int_equal(p[2 * MIB - 1], 1); /* they do not overlap */
	assert_null(mc_arena_alloc(&child, 1, 1, "one more", &err));
	assert_int_equal(err.code, MC_NO_MEMORY);
	mc_arena_rewind(&child, mark);
	assert_ptr_equal(mc_arena_alloc(&child, 64, 1, "again", &err), p);
	assert_int_equal(q[0], 2);
	mc_error_init(&err);
	assert_false(mc_arena_sub(&arena, 2 * MIB, "too much", &child, &err));
	assert_int_equal(err.code, MC_NO_MEMORY);
	/* A size that is no multiple of the alignment: the rest of the last unit may be used too.
	 */
	mc_error_init(&err);
	assert_true(mc_arena_sub(&arena, 100, "small", &child, &err));
	p = mc_arena_zalloc(&child, 128, 1, "all", &err);
	assert_non_null(p);
	mc_arena_release(&other); /* fine, and does not unmap */
	q[0] = 3;
	mc_arena_release(&arena);
}

#ifdef MC_FAULTS
static void test_faults(void **state)
{
	struct mc_arena arena;
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	mc_fault_arm("alloc", 1);
	assert_false(mc_arena_init(&arena, MIB, &err));
	assert_int_equal(err.code, MC_NO_MEMORY);
	mc_error_init(&err);
	assert_true(mc_arena_init(&arena, MIB, &err));
	mc_fault_arm("alloc", 1);
	assert_null(mc_arena_alloc(&arena, 1, 1, "x", &err));
	assert_int_equal(err.code, MC_NO_MEMORY);
	assert_int_equal(arena.used, 0);
	mc_fault_disarm();
	mc_arena_release(&arena);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_alloc_aligned_and_counted),
	    cmocka_unit_test(test_budget_is_kept),
	    cmocka_unit_test(test_reserves_without_touching),
	    cmocka_unit_test(test_rewind),
	    cmocka_unit_test(test_sub_arena),
#ifdef MC_FAULTS
	    cmocka_unit_test(test_faults),
#endif
	};

	return cmocka_run_group_tests_name("arena", tests, NULL, NULL);
}
