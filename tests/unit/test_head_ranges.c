/*
 * test_head_ranges.c - ranges of attention's heads against their definition
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "moecal/alloc.h"
#include "moecal/observer.h"
#include "reference/input_stats.h"

enum { T = 61, SEQUENCES = 6, MOST = 1560 };

/* Of one token, of many, and empty ones at the front, inside and at the end. */
static const uint64_t starts[SEQUENCES + 1] = {0, 0, 1, 25, 25, T, T};

/* Heads that slices do not cut, cut in two, cut in three, and cut at their very end. */
static const struct {
	size_t heads, head_dim;
} shapes[] = {
    {2, 32}, {1, 512}, {4, 128}, {8, 96}, {13, 120}, {3, 520}, {1, 1200}, {5, 64}, {520, 3}};
#define SHAPES (sizeof shapes / sizeof *shapes)

static struct mc_error err;

struct fixture {
	struct mc_arena arena;
	struct mc_env env;
	float *x; /* [T, MOST] */
};

static int set_up(void **state)
{
	struct fixture *f = test_calloc(1, sizeof *f);
	uint32_t seed = 4711;

	mc_error_init(&err);
	if (!mc_arena_init(&f->arena, 64u << 20, &err))
		return -1;
	f->env.arena = &f->arena;
	f->x = mc_arena_alloc(&f->arena, (size_t)T * MOST, sizeof *f->x, "x", &err);
	for (size_t i = 0; i < (size_t)T * MOST; i++) {
		seed = seed * 1664525u + 1013904223u;
		f->x[i] = (float)(seed >> 8) / 16777216.0f * 6 - 2.5f;
	}
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	mc_arena_release(&f->arena);
	test_free(f);
	return 0;
}

struct work {
	struct mc_head_ranges *ranges;
	const float *x;
	size_t block;
};

/* One slice of channels, the tokens in blocks, as forward does. */
static bool add_slice(void *ctx, size_t item, unsigned worker, struct mc_error *error)
{
	struct work *work = ctx;
	size_t channels = work->ranges->heads * work->ranges->head_dim;
	size_t first = item * MC_TAP_CHANNELS;
	bool ok = true;

	for (size_t t = 0; ok && t < T; t += work->block) {
		struct mc_tap_slice slice = {.site = MC_SITE_KEY,
		    .expert = MC_NO_INDEX,
		    .first_channel = first,
		    .channels = channels - first < MC_TAP_CHANNELS ? channels - first
								   : MC_TAP_CHANNELS,
		    .x = work->x + t * channels + first,
		    .ldx = channels,
		    .count = T - t < work->block ? T - t : work->block,
		    .first_token = t,
		    .worker = worker};
		ok = mc_head_ranges_add(work->ranges, &slice, starts, error);
	}
	return ok;
}

static struct mc_head_ranges filled(struct fixture *f, size_t shape, size_t block, unsigned workers)
{
	struct mc_head_ranges ranges;
	size_t heads = shapes[shape].heads, head_dim = shapes[shape].head_dim;
	size_t before = f->arena.used;
	struct work work = {.ranges = &ranges, .x = f->x, .block = block};
	struct mc_pool *pool = mc_pool_new(workers, &err);

	assert_true(heads * head_dim <= MOST);
	assert_non_null(pool);
	assert_true(mc_head_ranges_init(&ranges, heads, head_dim, SEQUENCES, &f->env, &err));
	assert_int_equal(f->arena.used - before, mc_head_ranges_bytes(heads, head_dim, SEQUENCES));
	assert_true(mc_pool_run(pool, (heads * head_dim + MC_TAP_CHANNELS - 1) / MC_TAP_CHANNELS,
	    add_slice, &work, &err));
	mc_pool_free(pool);
	return ranges;
}

/* Of one head, or of all of them: the fold over the definition's ranges. */
static struct mc_range expected(
    const struct fixture *f, size_t shape, size_t head, const struct mc_observer *observer)
{
	size_t heads = shapes[shape].heads, head_dim = shapes[shape].head_dim;
	float mins[SEQUENCES], maxs[SEQUENCES];

	if (head == MC_NO_INDEX) {
		head_dim *= heads;
		heads = 1;
		head = 0;
	}
	for (size_t s = 0; s < SEQUENCES; s++)
		ref_head_range(
		    f->x, heads, head_dim, head, starts[s], starts[s + 1], &mins[s], &maxs[s]);
	return mc_observe(observer, mins, maxs, SEQUENCES);
}

static void test_every_head(void **state)
{
	static const enum mc_dtype dtypes[] = {MC_F32, MC_BF16};
	struct fixture *f = *state;

	for (size_t i = 0; i < SHAPES; i++) {
		struct mc_head_ranges ranges = filled(f, i, 16, 1);
		for (int kind = MC_OBSERVER_MEMORYLESS; kind <= MC_OBSERVER_MOVING; kind++)
			for (size_t d = 0; d < 2; d++) {
				struct mc_observer observer = {
				    (enum mc_observer_kind)kind, 0.25, dtypes[d]};
				for (size_t h = 0; h <= shapes[i].heads; h++) {
					size_t head = h < shapes[i].heads ? h : MC_NO_INDEX;
					struct mc_range e = expected(f, i, head, &observer);
					struct mc_range r = mc_head_ranges_range(
					    &ranges, head, &observer);
					assert_true(r.seen && r.min == e.min && r.max == e.max);
				}
			}
	}
}

static void test_blocks_and_workers_do_not_matter(void **state)
{
	static const size_t blocks[] = {1, 7, T};
	static const unsigned workers[] = {1, 2, 3, 5};
	struct fixture *f = *state;

	for (size_t i = 0; i < SHAPES; i++) {
		struct mc_head_ranges whole = filled(f, i, 32, 1);
		size_t bytes = whole.pieces * SEQUENCES * sizeof(float);
		for (size_t b = 0; b < 3; b++)
			for (size_t w = 0; w < 4; w++) {
				struct mc_head_ranges ranges = filled(f, i, blocks[b], workers[w]);
				assert_memory_equal(ranges.min, whole.min, bytes);
				assert_memory_equal(ranges.max, whole.max, bytes);
			}
	}
}

/* Packed to [heads, sequences] and back nothing that is folded changes. */
static void test_packing_changes_no_fold(void **state)
{
	struct fixture *f = *state;
	const struct mc_observer moving = {
	    .kind = MC_OBSERVER_MOVING, .averaging_constant = 0.3, .dtype = MC_BF16};

	for (size_t shape = 0; shape < SHAPES; shape++) {
		size_t mark = mc_arena_mark(&f->arena), heads = shapes[shape].heads;
		struct mc_head_ranges kept = filled(f, shape, 7, 1), moved = filled(f, shape, 7, 1);

		mc_head_ranges_pack(&moved);
		for (size_t i = heads * SEQUENCES; i < moved.pieces * SEQUENCES; i++)
			moved.min[i] = moved.max[i] = NAN; /* of no use any more */
		mc_head_ranges_unpack(&moved);
		for (size_t head = 0; head <= heads; head++) {
			size_t which = head < heads ? head : MC_NO_INDEX;
			struct mc_range a = mc_head_ranges_range(&kept, which, &moving),
					b = mc_head_ranges_range(&moved, which, &moving);
			assert_memory_equal(&a.min, &b.min, sizeof a.min);
			assert_memory_equal(&a.max, &b.max, sizeof a.max);
			assert_int_equal(a.seen, b.seen);
		}
		mc_arena_rewind(&f->arena, mark);
	}
}

static void test_nothing_seen(void **state)
{
	const struct mc_observer observer = {MC_OBSERVER_STATIC, 0, MC_F32};
	struct fixture *f = *state;
	struct mc_head_ranges ranges;

	assert_true(mc_head_ranges_init(&ranges, 4, 300, SEQUENCES, &f->env, &err));
	for (size_t h = 0; h < 4; h++)
		assert_false(mc_head_ranges_range(&ranges, h, &observer).seen);
	assert_false(mc_head_ranges_range(&ranges, MC_NO_INDEX, &observer).seen);
}

static void test_not_finite_is_refused_by_token_and_head(void **state)
{
	static const float bad[] = {NAN, INFINITY, -INFINITY};
	struct fixture *f = *state;
	struct mc_head_ranges ranges;
	struct work work = {.ranges = &ranges, .x = f->x, .block = 8};

	for (size_t i = 0; i < 3; i++) {
		float *place = &f->x[43 * 1200 + 7 * 150 + 149], kept = *place;
		mc_error_init(&err);
		assert_true(mc_head_ranges_init(&ranges, 8, 150, SEQUENCES, &f->env, &err));
		*place = bad[i];
		assert_true(add_slice(&work, 0, 0, &err));
		assert_false(add_slice(&work, 2, 0, &err));
		*place = kept;
		assert_int_equal(err.code, MC_CORRUPT);
		assert_non_null(strstr(err.text, "token 43, head 7"));
	}
}

static void test_no_memory(void **state)
{
	struct fixture *f = *state;
	struct mc_env poor = {0};
	struct mc_head_ranges ranges;
	uint64_t need = mc_head_ranges_bytes(4, 128, 100);
	struct mc_arena small;

	poor.arena = &small;
	for (uint64_t bytes = 64; bytes <= need; bytes += need - 64) {
		mc_error_init(&err);
		assert_true(mc_arena_sub(&f->arena, bytes, "small", &small, &err));
		assert_int_equal(
		    mc_head_ranges_init(&ranges, 4, 128, 100, &poor, &err), bytes == need);
		assert_int_equal(err.code, bytes == need ? MC_OK : MC_NO_MEMORY);
	}
	mc_error_init(&err);
	assert_int_equal(mc_head_ranges_bytes(SIZE_MAX / 2, 128, 1), UINT64_MAX);
	assert_false(mc_head_ranges_init(&ranges, SIZE_MAX / 2, 128, 1, &f->env, &err));
	assert_int_equal(err.code, MC_NO_MEMORY);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_every_head),
	    TEST(test_blocks_and_workers_do_not_matter),
	    TEST(test_packing_changes_no_fold),
	    TEST(test_nothing_seen),
	    TEST(test_not_finite_is_refused_by_token_and_head),
	    TEST(test_no_memory),
	};
	return cmocka_run_group_tests_name("head_ranges", tests, NULL, NULL);
}
