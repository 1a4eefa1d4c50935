/*
 * test_alloc.c - checked sizes, growing arrays, texts, the nearest word
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"
#include "moecal/fault.h"

static void test_checked_sizes(void **state)
{
	uint64_t n = 0;

	(void)state;
	assert_true(mc_mul(1u << 31, 1u << 31, &n));
	assert_true(n == (uint64_t)1 << 62);
	assert_false(mc_mul((uint64_t)1 << 33, (uint64_t)1 << 31, &n));
	assert_true(mc_mul(0, UINT64_MAX, &n));
	assert_true(n == 0);
	assert_true(mc_add(UINT64_MAX - 1, 1, &n));
	assert_true(n == UINT64_MAX);
	assert_false(mc_add(UINT64_MAX, 1, &n));
}

static void test_alloc_zeroed_and_refused(void **state)
{
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	unsigned char *p = mc_alloc(100, 3, "bytes", &err);
	assert_non_null(p);
	for (size_t i = 0; i < 300; i++)
		assert_int_equal(p[i], 0);
	free(p);
	p = mc_alloc(0, 8, "nothing", &err);
	assert_non_null(p);
	free(p);
	/* Kept from the compiler, which would warn about the size. */
	volatile size_t huge = SIZE_MAX / 2;
	assert_null(mc_alloc(huge, 4, "the moon", &err));
	assert_int_equal(err.code, MC_NO_MEMORY);
	assert_non_null(strstr(err.text, "the moon"));
}

static void test_grow(void **state)
{
	struct mc_error err;
	size_t capacity = 0, moves = 0, last = 0;
	void *items = NULL;

	(void)state;
	mc_error_init(&err);
	for (size_t i = 0; i < 10000; i++) {
		assert_true(mc_grow(&items, &capacity, i + 1, sizeof(int), "numbers", &err));
		assert_true(capacity >= i + 1);
		assert_int_equal(((int *)items)[i], 0);
		((int *)items)[i] = (int)i + 1;
		moves += capacity != last;
		last = capacity;
	}
	for (size_t i = 0; i < 10000; i++)
		assert_int_equal(((int *)items)[i], (int)i + 1);
	assert_true(moves < 20); /* doubling, not one by one */
	void *before = items;
	assert_false(mc_grow(&items, &capacity, SIZE_MAX / 2, sizeof(int), "numbers", &err));
	assert_int_equal(err.code, MC_NO_MEMORY);
	assert_ptr_equal(items, before);
	assert_int_equal(capacity, last);
	free(items);
}

static void test_texts(void **state)
{
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	char *copy = mc_strdup("expert 87", &err);
	char *made = mc_format(&err, "%s of layer %d", copy, 31);
	assert_string_equal(copy, "expert 87");
	assert_string_equal(made, "expert 87 of layer 31");
	free(copy);
	free(made);
	char *empty = mc_format(&err, "%s", "");
	assert_string_equal(empty, "");
	free(empty);
}

static void test_nearest(void **state)
{
	static const char *const words[] = {
	    "model", "dataset", "recipe", "max_seq_length", "seed", "W4A16", "W8A8"};
	static const struct {
		const char *word, *nearest;
	} rows[] = {
	    {"modle", "model"},      /* two letters swapped */
	    {"datasets", "dataset"}, /* one too many */
	    {"recpe", "recipe"},     /* one missing */
	    {"max_sequence_length", "max_seq_length"},
	    {"W4a16", "W4A16"},
	    {"seed", "seed"},
	    {"temperature", NULL},
	    {"x", NULL},
	    {"", NULL},
	};
	size_t count = sizeof(words) / sizeof(words[0]);

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const char *found = mc_nearest(rows[i].word, words, count);

		if (rows[i].nearest)
			assert_string_equal(found, rows[i].nearest);
		else
			assert_null(found);
	}
	assert_null(mc_nearest("model", words, 0));
	char longer[200];
	memset(longer, 'm', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	assert_null(mc_nearest(longer, words, count));
}

#ifdef MC_FAULTS
static void test_faults(void **state)
{
	struct mc_error err;
	char *text;

	(void)state;
	mc_error_init(&err);
	mc_fault_arm("alloc", 2);
	text = mc_strdup("first", &err);
	assert_non_null(text);
	assert_null(mc_strdup("second", &err));
	assert_int_equal(err.code, MC_NO_MEMORY);
	free(text);
	text = mc_strdup("third", &err); /* fails once only */
	assert_non_null(text);
	free(text);
	mc_fault_disarm();
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_checked_sizes),
	    cmocka_unit_test(test_alloc_zeroed_and_refused),
	    cmocka_unit_test(test_grow),
	    cmocka_unit_test(test_texts),
	    cmocka_unit_test(test_nearest),
#ifdef MC_FAULTS
	    cmocka_unit_test(test_faults),
#endif
	};

	return cmocka_run_group_tests_name("alloc", tests, NULL, NULL);
}
