/*
 * test_coverage.c - counting the router's choices and what is said about them
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "moecal/coverage.h"

static struct mc_error err;

static struct mc_coverage_layer *layer_with(
    struct mc_coverage *coverage, size_t experts, size_t k, uint64_t tokens, const uint64_t *routed)
{
	struct mc_coverage_layer *layer;

	mc_error_init(&err);
	mc_coverage_init(coverage);
	assert_true(mc_coverage_layer_new(coverage, 3, experts, k, &layer, &err));
	for (size_t e = 0; e < experts; e++)
		layer->expert[e].routed = routed[e];
	layer->tokens = tokens;
	return layer;
}

static struct mc_coverage_summary summary_of(
    size_t experts, size_t k, uint64_t tokens, const uint64_t *routed, uint64_t floor)
{
	struct mc_coverage coverage;
	struct mc_coverage_summary ret;
	struct mc_coverage_layer *layer = layer_with(&coverage, experts, k, tokens, routed);

	assert_true(mc_coverage_summarise(layer, floor, &ret, &err));
	mc_coverage_release(&coverage);
	return ret;
}

static void test_counts(void **state)
{
	const uint32_t first[] = {0, 2, 1, 2}, second[] = {2, 3};
	const float first_weight[] = {0.75f, 0.25f, 0.5f, 0.5f}, second_weight[] = {0.625f, 0.375f};
	struct mc_tap_routing a = {.first_token = 0,
	    .tokens = 2,
	    .k = 2,
	    .experts = 5,
	    .index = first,
	    .weight = first_weight};
	struct mc_tap_routing b = {.first_token = 2,
	    .tokens = 1,
	    .k = 2,
	    .experts = 5,
	    .index = second,
	    .weight = second_weight};
	const uint64_t expected[] = {1, 1, 3, 1, 0};
	const double weights[] = {0.75, 0.5, 1.375, 0.375, 0};
	struct mc_coverage coverage;
	struct mc_coverage_layer *layer;

	(void)state;
	mc_error_init(&err);
	mc_coverage_init(&coverage);
	assert_true(mc_coverage_layer_new(&coverage, 0, 5, 2, &layer, &err));
	assert_true(mc_coverage_share(layer, 2) == 0);
	assert_true(mc_coverage_add(layer, &a, &err));
	assert_true(mc_coverage_add(layer, &b, &err));
	assert_int_equal(layer->tokens, 3);
	for (size_t e = 0; e < 5; e++) {
		assert_int_equal(layer->expert[e].routed, expected[e]);
		assert_true(layer->expert[e].routing_weight == weights[e]);
		assert_int_equal(layer->expert[e].seen, 0);
		assert_true(mc_coverage_share(layer, e) == (double)expected[e] / 6);
	}
	mc_coverage_release(&coverage);
	assert_int_equal(coverage.count, 0);
}

static void test_wrong_choice_counts_nothing(void **state)
{
	const uint32_t index[] = {0, 1, 1, 4};
	const float weight[] = {0.5f, 0.5f, 0.5f, 0.5f};
	struct mc_tap_routing routing = {
	    .first_token = 7, .tokens = 2, .k = 2, .experts = 4, .index = index, .weight = weight};
	struct mc_coverage coverage;
	struct mc_coverage_layer *layer;

	(void)state;
	mc_error_init(&err);
	mc_coverage_init(&coverage);
	assert_true(mc_coverage_layer_new(&coverage, 2, 4, 2, &layer, &err));
	assert_false(mc_coverage_add(layer, &routing, &err));
	assert_int_equal(err.code, MC_INTERNAL);
	assert_non_null(strstr(err.text, "token 8"));
	assert_non_null(strstr(err.text, "expert 4 of 4"));
	assert_int_equal(layer->tokens, 0);
	assert_int_equal(layer->expert[0].routed, 0);

	mc_error_init(&err);
	routing.k = 1;
	assert_false(mc_coverage_add(layer, &routing, &err));
	assert_int_equal(err.code, MC_INTERNAL);
	mc_coverage_release(&coverage);
}

static void test_layers_in_order(void **state)
{
	struct mc_coverage coverage;
	struct mc_coverage_layer *layer;

	(void)state;
	mc_error_init(&err);
	mc_coverage_init(&coverage);
	for (size_t l = 1; l < 100; l += 2) {
		assert_true(mc_coverage_layer_new(&coverage, l, 3, 1, &layer, &err));
		assert_int_equal(layer->layer, l);
		assert_int_equal(layer->experts, 3);
		assert_int_equal(layer->k, 1);
	}
	assert_int_equal(coverage.count, 50);
	for (size_t i = 0; i < coverage.count; i++)
		assert_int_equal(coverage.layers[i].layer, 2 * i + 1);
	assert_false(mc_coverage_layer_new(&coverage, 99, 3, 1, &layer, &err));
	assert_int_equal(err.code, MC_CONFLICT);
	assert_int_equal(coverage.count, 50);
	mc_coverage_release(&coverage);
}

static void test_middle(void **state)
{
	const uint64_t odd[] = {9, 1, 5}, even[] = {10, 1, 4, 7}, one[] = {6};
	struct mc_coverage_summary s;

	(void)state;
	s = summary_of(3, 1, 15, odd, 1);
	assert_int_equal(s.min, 1);
	assert_int_equal(s.median, 5);
	assert_int_equal(s.max, 9);
	s = summary_of(4, 1, 22, even, 1);
	assert_int_equal(s.median, 5); /* (4 + 7) / 2, rounded down */
	s = summary_of(1, 1, 6, one, 1);
	assert_int_equal(s.min, 6);
	assert_int_equal(s.median, 6);
	assert_int_equal(s.max, 6);
}

/* Half of the mean absolute difference over the mean: another way to say the same. */
static double gini_by_pairs(const uint64_t *x, size_t n)
{
	double differences = 0, sum = 0;

	for (size_t i = 0; i < n; i++) {
		sum += (double)x[i];
		for (size_t j = 0; j < n; j++)
			differences += (double)(x[i] > x[j] ? x[i] - x[j] : x[j] - x[i]);
	}
	return differences / (2 * (double)n * sum);
}

static void test_gini(void **state)
{
	const uint64_t even[] = {8, 8, 8, 8}, all_to_one[] = {0, 32, 0, 0}, none[] = {0, 0, 0, 0};
	const uint64_t some[] = {3, 17, 0, 12, 5, 5, 40, 1};

	(void)state;
	assert_true(summary_of(4, 1, 32, even, 1).gini == 0);
	assert_true(summary_of(4, 1, 32, all_to_one, 1).gini == 0.75);
	assert_true(summary_of(4, 1, 0, none, 1).gini == 0);
	double found = summary_of(8, 1, 83, some, 1).gini;
	assert_true(found > 0.5 && found < 0.6);
	assert_true(fabs(found - gini_by_pairs(some, 8)) < 1e-15);
}

static void test_starved(void **state)
{
	const uint64_t routed[] = {0, 63, 64, 65};
	struct mc_coverage coverage;
	struct mc_coverage_layer *layer = layer_with(&coverage, 4, 1, 192, routed);

	(void)state;
	assert_true(mc_coverage_is_starved(layer, 0, 64));
	assert_true(mc_coverage_is_starved(layer, 1, 64));
	assert_false(mc_coverage_is_starved(layer, 2, 64));
	assert_false(mc_coverage_is_starved(layer, 3, 64));
	mc_coverage_release(&coverage);
	assert_int_equal(summary_of(4, 1, 192, routed, 64).starved, 2);
	assert_int_equal(summary_of(4, 1, 192, routed, 1).starved, 1);
}

static void test_tokens_to_floor(void **state)
{
	const uint64_t there[] = {8, 9}, poor[] = {3, 97}, none[] = {0, 100}, exact[] = {5, 95};
	const uint64_t huge[] = {1, UINT64_MAX - 1};

	(void)state;
	assert_int_equal(summary_of(2, 1, 17, there, 8).tokens_to_floor, 0);
	/* 3 of 100 tokens; 7 more at 3 % each: 233.3 */
	assert_int_equal(summary_of(2, 1, 100, poor, 10).tokens_to_floor, 234);
	/* 5 more at 5 %: 100 and no more */
	assert_int_equal(summary_of(2, 1, 100, exact, 10).tokens_to_floor, 100);
	assert_true(summary_of(2, 1, 100, none, 1).tokens_to_floor == UINT64_MAX);
	assert_true(summary_of(2, 1, UINT64_MAX, huge, 1000).tokens_to_floor == UINT64_MAX);
}

static void test_no_experts(void **state)
{
	struct mc_coverage_layer empty = {0};
	struct mc_coverage_summary s;

	(void)state;
	mc_error_init(&err);
	assert_true(mc_coverage_summarise(&empty, 1, &s, &err));
	assert_int_equal(s.starved, 0);
	assert_int_equal(s.max, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_counts),
	    cmocka_unit_test(test_wrong_choice_counts_nothing),
	    cmocka_unit_test(test_layers_in_order),
	    cmocka_unit_test(test_middle),
	    cmocka_unit_test(test_gini),
	    cmocka_unit_test(test_starved),
	    cmocka_unit_test(test_tokens_to_floor),
	    cmocka_unit_test(test_no_experts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
