/*
 * test_statistics.c - calibration.db: rows come back, a layer is all or nothing, coverage is summed
 * up
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "moecal/model.h"
#include "moecal/plan.h"
#include "moecal/statistics.h"
#include "moecal/verdict.h"

static char path[] = "/tmp/moecal-test-statistics-XXXXXX";

static int make_file(void **state)
{
	(void)state;
	int fd = mkstemp(path);
	if (fd < 0)
		return -1;
	close(fd);
	unlink(path);
	return 0;
}

static int remove_file(void **state)
{
	(void)state;
	return unlink(path);
}

static struct mc_statistics *open_it(bool read_only)
{
	struct mc_error err;
	mc_error_init(&err);
	struct mc_statistics *s = mc_statistics_open(path, read_only, &err);
	if (s == NULL)
		print_error("%s: %s\n", err.where, err.text);
	assert_non_null(s);
	return s;
}

static bool add_layer(
    struct mc_statistics *s, size_t index, const char *second_name, struct mc_error *err)
{
	struct mc_coverage_expert experts[4] = {
	    {10, 20, 5.5}, {0, 20, 0}, {7, 20, 3.25}, {23, 20, 11}};
	struct mc_coverage_layer coverage = {
	    .layer = index, .tokens = 20, .experts = 4, .k = 2, .expert = experts};
	const char *const source[4] = {"all-tokens", "all-tokens", "all-tokens", "all-tokens"};
	const float channels[2] = {1.5f, 2.5f};
	char name[32], first[32];
	snprintf(name, sizeof name, "model.layers.%zu", index);
	snprintf(first, sizeof first, "m%zu", index);
	struct mc_layer_row layer = {
	    .index = index, .name = name, .tokens = 20, .seconds = 0.5, .flops = 1e9};
	struct mc_module_row modules[2] = {{.name = first,
					       .layer = index,
					       .expert = 3,
					       .role = "gate",
					       .scheme = "group_0",
					       .algorithm = "rtn",
					       .source = "all-tokens",
					       .rows = 4,
					       .cols = 2,
					       .error_relative = 0.25,
					       .has_input = true,
					       .input_min = -1,
					       .input_max = 2,
					       .input_absmax = 2,
					       .input_mean = 0.5,
					       .input_var = 1,
					       .weight_absmax = 3,
					       .scale_min = 0.1,
					       .scale_max = 0.2,
					       .channel_absmax = channels},
	    {.name = second_name,
		.layer = index,
		.expert = MC_NO_INDEX,
		.role = "q",
		.source = "measured",
		.rows = 1,
		.cols = 2}};
	return mc_statistics_add_layer(s, &layer, &coverage, source, modules, 2, err);
}

static void test_round_trip(void **state)
{
	struct mc_error err;
	size_t done;
	char *value;
	(void)state;

	mc_error_init(&err);
	struct mc_statistics *s = open_it(false);
	assert_true(mc_statistics_set(s, "spec", "abc", &err));
	assert_true(add_layer(s, 0, "q0", &err));
	/* the second module's name is taken: nothing of the layer may stay */
	assert_false(add_layer(s, 1, "q0", &err));
	mc_error_init(&err);
	assert_true(mc_statistics_layers_done(s, &done, &err));
	assert_int_equal(done, 1);
	assert_true(add_layer(s, 1, "q1", &err));
	mc_statistics_close(s);

	s = open_it(true);
	assert_true(mc_statistics_get(s, "spec", &value, &err));
	assert_string_equal(value, "abc");
	free(value);
	assert_true(mc_statistics_get(s, "nothing", &value, &err));
	assert_null(value);
	assert_true(mc_statistics_layers_done(s, &done, &err));
	assert_int_equal(done, 2);
	struct mc_json *rows = mc_statistics_modules_json(
	    s, &(struct mc_module_filter){.layer = 1, .expert = MC_NO_INDEX}, &err);
	assert_int_equal(mc_json_size(rows), 2);
	const struct mc_json *row = mc_json_at(rows, 0);
	assert_string_equal(mc_json_string(mc_json_get(row, "name"), NULL), "m1");
	assert_true(mc_json_number(mc_json_get(row, "input_max")) == 2);
	assert_int_equal(mc_json_integer(mc_json_get(row, "expert")), 3);
	assert_true(mc_json_is_null(mc_json_get(mc_json_at(rows, 1), "input_max")));
	assert_true(mc_json_is_null(mc_json_get(mc_json_at(rows, 1), "expert")));
	mc_json_free(rows);
	rows = mc_statistics_modules_json(s,
	    &(struct mc_module_filter){.layer = MC_NO_INDEX, .expert = 3, .prefix = "m0"}, &err);
	assert_int_equal(mc_json_size(rows), 1);
	mc_json_free(rows);
	/* pages: the row after the first, by prefix, past the end */
	rows = mc_statistics_modules_json(s,
	    &(struct mc_module_filter){
		.layer = MC_NO_INDEX, .expert = MC_NO_INDEX, .prefix = "m", .skip = 1, .limit = 1},
	    &err);
	assert_int_equal(mc_json_size(rows), 1);
	assert_string_not_equal(
	    mc_json_string(mc_json_get(mc_json_at(rows, 0), "name"), NULL), "m0");
	mc_json_free(rows);
	rows = mc_statistics_modules_json(s,
	    &(struct mc_module_filter){.layer = MC_NO_INDEX, .expert = MC_NO_INDEX, .skip = 100},
	    &err);
	assert_int_equal(mc_json_size(rows), 0);
	mc_json_free(rows);
	mc_statistics_close(s);
}

static void test_coverage_document(void **state)
{
	struct mc_error err;
	(void)state;

	mc_error_init(&err);
	struct mc_statistics *s = open_it(true);
	struct mc_json *coverage = mc_statistics_coverage_json(s, 8, &err);
	assert_non_null(coverage);
	assert_int_equal(mc_json_integer(mc_json_get(coverage, "starved_total")), 4);
	assert_int_equal(mc_json_integer(mc_json_get(coverage, "floor_tokens")), 8);
	const struct mc_json *layer = mc_json_at(mc_json_get(coverage, "layers"), 0);
	assert_int_equal(mc_json_integer(mc_json_get(layer, "min")), 0);
	assert_int_equal(mc_json_size(mc_json_get(layer, "starved")), 2);
	assert_int_equal(mc_json_integer(mc_json_at(mc_json_get(layer, "starved"), 1)), 2);
	assert_true(mc_json_is_null(
	    mc_json_get(layer, "tokens_to_floor"))); /* expert 1 got none: cannot be said */
	const struct mc_json *expert = mc_json_at(mc_json_get(layer, "experts"), 3);
	assert_int_equal(mc_json_integer(mc_json_get(expert, "routed")), 23);
	assert_true(mc_json_number(mc_json_get(expert, "share")) == 23.0 / 40.0);
	assert_string_equal(mc_json_string(mc_json_get(expert, "source"), NULL), "all-tokens");
	mc_json_free(coverage);
	mc_statistics_close(s);
}

static void test_forget(void **state)
{
	struct mc_error err;
	size_t done;
	(void)state;

	mc_error_init(&err);
	struct mc_statistics *s = open_it(false);
	assert_true(mc_statistics_forget(s, 1, &err));
	assert_true(mc_statistics_layers_done(s, &done, &err));
	assert_int_equal(done, 1);
	assert_true(add_layer(s, 1, "q1", &err)); /* nothing of it was left behind */
	mc_statistics_close(s);
}

static void test_what_cannot_be_opened(void **state)
{
	struct mc_error err;
	(void)state;

	mc_error_init(&err);
	assert_null(mc_statistics_open("/nonexistent/x.db", true, &err));
	assert_int_equal(err.code, MC_NOT_FOUND);
	char text[] = "/tmp/moecal-test-text-XXXXXX";
	int fd = mkstemp(text);
	assert_int_equal(
	    write(fd, "this is not a database, it is a text of some length ......", 58), 58);
	close(fd);
	mc_error_init(&err);
	assert_null(mc_statistics_open(text, true, &err));
	assert_int_equal(err.code, MC_CORRUPT);
	unlink(text);
}

static void test_plan_refuses_with_numbers(void **state)
{
	struct mc_plan plan = {.memory_bytes = 5000000000u, .disk_bytes = 7000000000u};
	struct mc_error err;
	(void)state;

	mc_error_init(&err);
	assert_true(mc_plan_require_fits(&plan, 6000000000u, 8000000000u, &err));
	assert_false(mc_plan_require_fits(&plan, 4000000000u, 8000000000u, &err));
	assert_int_equal(err.code, MC_NO_MEMORY);
	assert_non_null(strstr(err.text, "4000000000"));
	mc_error_init(&err);
	assert_false(mc_plan_require_fits(&plan, 6000000000u, 6000000000u, &err));
	assert_int_equal(err.code, MC_NO_SPACE);
	assert_non_null(strstr(err.text, "7000000000"));
	assert_non_null(strstr(err.text, "6000000000"));
}

static void test_verdict_counts(void **state)
{
	struct mc_verdict verdict;
	struct mc_error err;
	(void)state;

	mc_error_init(&err);
	mc_verdict_init(&verdict);
	assert_false(mc_verdict_valid(&verdict)); /* nothing checked proves nothing */
	mc_verdict_pass(&verdict, MC_CHECK_FINITE, 5);
	assert_true(mc_verdict_valid(&verdict));
	for (int i = 0; i < 20; i++)
		mc_verdict_fail(&verdict, MC_CHECK_POSITIVE, "scale %d is zero", i);
	assert_false(mc_verdict_valid(&verdict));
	struct mc_json *json = mc_verdict_json(&verdict, &err);
	const struct mc_json *checks = mc_json_get(json, "checks");
	assert_int_equal(mc_json_size(checks), 2);
	const struct mc_json *check = mc_json_at(checks, 1);
	assert_string_equal(mc_json_string(mc_json_get(check, "name"), NULL), "scales-positive");
	assert_int_equal(mc_json_integer(mc_json_get(check, "failed")), 20);
	assert_int_equal(mc_json_size(mc_json_get(check, "examples")), MC_VERDICT_EXAMPLES);
	mc_json_free(json);
	mc_verdict_release(&verdict);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_round_trip),
	    cmocka_unit_test(test_coverage_document), cmocka_unit_test(test_forget),
	    cmocka_unit_test(test_what_cannot_be_opened),
	    cmocka_unit_test(test_plan_refuses_with_numbers),
	    cmocka_unit_test(test_verdict_counts)};
	return cmocka_run_group_tests_name("statistics", tests, make_file, remove_file);
}
