/*
 * test_problems.c - problems are kept in order, counted past the limit, and always fit for JSON
 */
#include "moecal/problems.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "moecal/fault.h"
#include "moecal/json.h"

static void kept_in_order_and_counted(void **state)
{
	struct mc_problems problems;

	(void)state;
	mc_problems_init(&problems);
	assert_null(problems.items);
	for (int i = 0; i < MC_MAX_PROBLEMS + 5; i++)
		mc_problems_add(&problems, "/a", "number %d", i);
	assert_int_equal(problems.count, MC_MAX_PROBLEMS);
	assert_int_equal(problems.total, MC_MAX_PROBLEMS + 5);
	assert_string_equal(problems.items[0].text, "number 0");
	assert_string_equal(problems.items[MC_MAX_PROBLEMS - 1].text, "number 63");
	assert_string_equal(problems.items[3].pointer, "/a");
	mc_problems_add_unknown_key(&problems, "", "x", NULL, 0);
	assert_int_equal(problems.total, MC_MAX_PROBLEMS + 6);
	mc_problems_release(&problems);
	assert_int_equal(problems.total, 0);
	mc_problems_release(&problems);
}

static void unknown_keys_name_the_nearest(void **state)
{
	static const char *const known[] = {"model", "dataset", "recipe"};
	struct mc_problems problems;

	(void)state;
	mc_problems_init(&problems);
	mc_problems_add_unknown_key(&problems, "", "modle", known, 3);
	mc_problems_add_unknown_key(&problems, "/x", "qqqqqqqq", known, 3);
	assert_string_equal(problems.items[0].pointer, "/modle");
	assert_string_equal(problems.items[0].text, "unknown key 'modle'; did you mean 'model'?");
	assert_string_equal(problems.items[1].pointer, "/x/qqqqqqqq");
	assert_string_equal(
	    problems.items[1].text, "unknown key 'qqqqqqqq'; known are model, dataset, recipe");
	mc_problems_release(&problems);
}

static void pointers_are_escaped(void **state)
{
	char out[160], longer[400];

	(void)state;
	assert_string_equal(mc_pointer_join(out, "", "a"), "/a");
	assert_string_equal(mc_pointer_join(out, "/x", "m~n/o"), "/x/m~0n~1o");
	assert_string_equal(mc_pointer_index(out, "/x", 12), "/x/12");
	assert_string_equal(mc_pointer_join(out, "/x", ""), "/x/");
	/* the result may be the pointer that it starts from */
	assert_string_equal(mc_pointer_join(out, out, "b"), "/x//b");
	memset(longer, '/', sizeof longer);
	longer[sizeof longer - 1] = '\0';
	mc_pointer_join(out, "", longer);
	assert_true(strlen(out) < 160);
	assert_string_equal(out + strlen(out) - 3, "...");
	for (size_t n = 150; n < 165; n++) {
		char pointer[400];
		memset(pointer, 'p', n);
		pointer[n] = '\0';
		mc_pointer_join(out, pointer, "k/~y");
		assert_true(strlen(out) < 160);
	}
}

/* Whatever was cut, and whatever bytes came in, JSON can carry it. */
static void texts_are_utf8(void **state)
{
	static const char *const bytes[] = {"\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xff",
	    "\xc0\x80", "\xed\xa0\x80", "\xe2\x82", "\xf5\x80\x80\x80"};
	struct mc_problems problems;
	char text[1200];

	(void)state;
	mc_problems_init(&problems);
	for (size_t b = 0; b < 8; b++) {
		size_t used = b % 3;
		memset(text, 'x', used);
		while (used < 1000) {
			memcpy(text + used, bytes[b], strlen(bytes[b]) + 1);
			used += strlen(bytes[b]);
		}
		mc_problems_add(&problems, text, "%s", text);
		mc_problems_add(&problems, "", "'%.65s'", text);
	}
	for (size_t i = 0; i < problems.count; i++) {
		struct mc_json *one = mc_json_new_string(problems.items[i].text);
		struct mc_json *two = mc_json_new_string(problems.items[i].pointer);
		assert_non_null(one);
		assert_non_null(two);
		mc_json_free(one);
		mc_json_free(two);
	}
	assert_non_null(strstr(problems.items[0].text, "\xc3\xa9..."));
	mc_problems_release(&problems);
}

#ifdef MC_FAULTS
static void out_of_memory_only_counts(void **state)
{
	struct mc_problems problems;

	(void)state;
	mc_problems_init(&problems);
	mc_fault_arm("alloc", 1);
	mc_problems_add(&problems, "/a", "lost");
	mc_fault_disarm();
	assert_int_equal(problems.count, 0);
	assert_int_equal(problems.total, 1);
	mc_problems_add(&problems, "/a", "kept");
	assert_int_equal(problems.count, 1);
	assert_string_equal(problems.items[0].text, "kept");
	mc_problems_release(&problems);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(kept_in_order_and_counted),
	    cmocka_unit_test(unknown_keys_name_the_nearest),
	    cmocka_unit_test(pointers_are_escaped),
	    cmocka_unit_test(texts_are_utf8),
#ifdef MC_FAULTS
	    cmocka_unit_test(out_of_memory_only_counts),
#endif
	};
	return cmocka_run_group_tests_name("problems", tests, NULL, NULL);
}
