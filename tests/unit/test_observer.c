/*
 * test_observer.c - the range observers, and input statistics against their definitions
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
#include "moecal/ops.h"
#include "reference/input_stats.h"

static struct mc_error err;

/* --- the observers alone ---------------------------------------------------------------------- */

static void test_names(void **state)
{
	enum mc_observer_kind kind;

	(void)state;
	assert_true(mc_observer_find("memoryless_minmax", &kind));
	assert_int_equal(kind, MC_OBSERVER_MEMORYLESS);
	assert_true(mc_observer_find("Static MinMax", &kind));
	assert_int_equal(kind, MC_OBSERVER_STATIC);
	assert_true(mc_observer_find("static-minmax", &kind));
	assert_int_equal(kind, MC_OBSERVER_STATIC);
	assert_true(mc_observer_find("MINMAX", &kind));
	assert_int_equal(kind, MC_OBSERVER_MOVING);
	assert_false(mc_observer_find("minmax_", &kind));
	assert_false(mc_observer_find("min", &kind));
	assert_false(mc_observer_find("mse", &kind));
	assert_false(mc_observer_find("", &kind));
}

/* Batches [0, 0], [-3, 1], [-1, 3]: the state after each. */
static void test_published_vectors(void **state)
{
	static const float mins[] = {0, -3, -1}, maxs[] = {0, 1, 3};
	static const struct {
		enum mc_observer_kind kind;
		float min[3], max[3];
	} cases[] = {
	    {MC_OBSERVER_MEMORYLESS, {0, -3, -1}, {0, 1, 3}},
	    {MC_OBSERVER_STATIC, {0, -3, -3}, {0, 1, 3}},
	    {MC_OBSERVER_MOVING, {0, -0.3f, -0.37f}, {0, 0.1f, 0.39f}},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		for (size_t n = 1; n <= 3; n++) {
			struct mc_range r = mc_observe(&(struct mc_observer){cases[i].kind, 0.1, MC_F32}, mins, maxs, n);
			assert_true(r.seen);
			assert_float_equal(r.min, cases[i].min[n - 1], 1e-6);
			assert_float_equal(r.max, cases[i].max[n - 1], 1e-6);
		}
}

/* In BF16 a step below half a unit is lost: from 1, one percent of 1.25 does not move the average. */
static void test_moving_average_in_bf16(void **state)
{
	static const float mins[] = {-1, -1.25f, -1.25f, -3}, maxs[] = {1, 1.25f, 1.25f, 3};

	(void)state;
	const struct mc_observer bf16 = {MC_OBSERVER_MOVING, 0.01, MC_BF16}, f32 = {MC_OBSERVER_MOVING, 0.01, MC_F32};
	assert_true(mc_observe(&bf16, mins, maxs, 3).max == 1.0f);
	assert_true(mc_observe(&f32, mins, maxs, 3).max > 1.004f);
	/* 1 * 0.99 -> 0.98828125; 3 * 0.01 -> 0.030029296875; the sum -> 1.015625 */
	assert_true(mc_observe(&bf16, mins, maxs, 4).max == 1.015625f);
	assert_true(mc_observe(&bf16, mins, maxs, 4).min == -1.015625f);
}

/* Every step of start * (1 - c) + end * c rounded to float32, bit for bit; 1 - c is taken in
 * double. */
static struct mc_range moving_by_steps(
    double c, const float *mins, const float *maxs, size_t batches)
{
	volatile float min = mins[0], max = maxs[0], a, b, keep = (float)(1 - c), take = (float)c;

	for (size_t i = 1; i < batches; i++) {
		a = min * keep;
		b = mins[i] * take;
		min = a + b;
		a = max * keep;
		b = maxs[i] * take;
		max = a + b;
	}
	return (struct mc_range){.min = min, .max = max, .seen = true};
}

static void test_moving_rounds_to_float32(void **state)
{
	enum { BATCHES = 24 };
	static const double constants[] = {0.01, 0.1, 0.3, 0.9, 0.003, 1, 0};
	float mins[BATCHES], maxs[BATCHES];

	(void)state;
	for (size_t i = 0; i < BATCHES; i++) {
		mins[i] = -1.0f / (float)(i + 3);
		maxs[i] = (float)((i * 37) % 11 + 1) / 7.0f;
	}
	for (size_t i = 0; i < sizeof constants / sizeof constants[0]; i++) {
		struct mc_range expected = moving_by_steps(constants[i], mins, maxs, BATCHES);
		struct mc_range r =
		    mc_observe(&(struct mc_observer){MC_OBSERVER_MOVING, constants[i], MC_F32}, mins, maxs, BATCHES);
		double exact = (double)maxs[0];
		for (size_t b = 1; b < BATCHES; b++)
			exact = exact * (1 - constants[i]) + (double)maxs[b] * constants[i];
		assert_true(r.min == expected.min && r.max == expected.max);
		assert_true(fabs((double)r.max - exact) < 1e-6);
	}
	/* and the order of batches matters: the first of 24 has 0.99^23 = 79 % of the weight */
	float before = mc_observe(&(struct mc_observer){MC_OBSERVER_MOVING, 0.01, MC_F32}, mins, maxs, BATCHES).max;
	maxs[0] += 1;
	float after = mc_observe(&(struct mc_observer){MC_OBSERVER_MOVING, 0.01, MC_F32}, mins, maxs, BATCHES).max;
	assert_float_equal(after - before, 0.7936, 1e-3);
}

static void test_batches_without_data_are_passed_over(void **state)
{
	const float mins[] = {INFINITY, -2, INFINITY, -4, INFINITY};
	const float maxs[] = {-INFINITY, 2, -INFINITY, 1, -INFINITY};
	struct mc_range r;

	(void)state;
	r = mc_observe(&(struct mc_observer){MC_OBSERVER_MEMORYLESS, 0, MC_F32}, mins, maxs, 5);
	assert_true(r.seen && r.min == -4 && r.max == 1);
	r = mc_observe(&(struct mc_observer){MC_OBSERVER_STATIC, 0, MC_F32}, mins, maxs, 5);
	assert_true(r.seen && r.min == -4 && r.max == 2);
	r = mc_observe(&(struct mc_observer){MC_OBSERVER_MOVING, 0.5, MC_F32}, mins, maxs, 5);
	assert_true(r.seen && r.min == -3 && r.max == 1.5f);
	for (int kind = MC_OBSERVER_MEMORYLESS; kind <= MC_OBSERVER_MOVING; kind++) {
		r = mc_observe(&(struct mc_observer){(enum mc_observer_kind)kind, 0.5, MC_F32}, mins, maxs, 1);
		assert_true(!r.seen && r.min == 0 && r.max == 0);
		assert_false(mc_observe(&(struct mc_observer){(enum mc_observer_kind)kind, 0.5, MC_F32}, NULL, NULL, 0).seen);
	}
}

/* --- statistics of inputs --------------------------------------------------------------------- */

enum { T = 203, CHANNELS = 1100, SEQUENCES = 7 };

/* Of one token, of many, and empty ones at the front, inside and at the end. */
static const uint64_t starts[SEQUENCES + 1] = {0, 0, 1, 70, 70, 71, T, T};

struct fixture {
	struct mc_arena arena;
	struct mc_env env;
	float *x; /* [T, CHANNELS] */
	bool all[T], some[T];
};

static int set_up(void **state)
{
	struct fixture *f = test_calloc(1, sizeof *f);
	uint32_t seed = 12345;

	mc_error_init(&err);
	if (!mc_arena_init(&f->arena, 64u << 20, &err))
		return -1;
	f->env.arena = &f->arena;
	f->x = mc_arena_alloc(&f->arena, (size_t)T * CHANNELS, sizeof *f->x, "x", &err);
	for (size_t i = 0; i < (size_t)T * CHANNELS; i++) {
		seed = seed * 1664525u + 1013904223u;
		f->x[i] =
		    (float)(seed >> 8) / 16777216.0f * 6 - 2.5f + (float)(i % CHANNELS) / 400.0f;
	}
	f->x[100 * CHANNELS + 1099] = -77.5f;
	f->x[3 * CHANNELS + 511] = 33.25f;
	for (size_t t = 0; t < T; t++) {
		f->all[t] = true;
		f->some[t] = t % 7 == 2 || (t > 80 && t < 97) || t == 70;
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

/* Offers the chosen tokens of one slice in blocks of `block` tokens, as forward does. */
static bool offer(struct mc_input_stats *stats, const float *x, const bool *chosen, size_t block,
    size_t slice_number, struct mc_error *error)
{
	size_t first = slice_number * MC_TAP_CHANNELS;
	uint32_t rows[T];
	bool ok = true;

	for (size_t t = 0; ok && t < T; t += block) {
		size_t n = T - t < block ? T - t : block, count = 0;
		for (size_t i = 0; i < n; i++)
			if (chosen[t + i])
				rows[count++] = (uint32_t)i;
		struct mc_tap_slice slice = {.site = MC_SITE_DOWN,
		    .expert = 0,
		    .first_channel = first,
		    .channels =
			CHANNELS - first < MC_TAP_CHANNELS ? CHANNELS - first : MC_TAP_CHANNELS,
		    .x = x + t * CHANNELS + first,
		    .ldx = CHANNELS,
		    .rows = count == n ? NULL : rows,
		    .count = count,
		    .first_token = t};
		ok = mc_input_stats_add(stats, &slice, starts, error);
	}
	return ok;
}

static struct mc_input_stats filled(struct fixture *f, const bool *chosen, size_t block)
{
	struct mc_input_stats stats;

	assert_true(mc_input_stats_init(&stats, CHANNELS, SEQUENCES, &f->env, &err));
	assert_int_equal(stats.slices, 3);
	for (size_t s = 0; s < stats.slices; s++)
		assert_true(offer(&stats, f->x, chosen, block, s, &err));
	return stats;
}

static void compare_ranges(
    struct fixture *f, const struct mc_input_stats *stats, const bool *chosen)
{
	float mins[SEQUENCES], maxs[SEQUENCES];

	for (size_t s = 0; s < SEQUENCES; s++)
		ref_range(f->x, CHANNELS, chosen, starts[s], starts[s + 1], &mins[s], &maxs[s]);
	for (int k = MC_OBSERVER_MEMORYLESS; k <= MC_OBSERVER_MOVING; k++) {
		enum mc_observer_kind kind = (enum mc_observer_kind)k;
		struct mc_range expected = mc_observe(&(struct mc_observer){kind, 0.3, MC_F32}, mins, maxs, SEQUENCES);
		struct mc_range r = mc_input_stats_range(stats, &(struct mc_observer){kind, 0.3, MC_F32});
		assert_true(r.seen && r.min == expected.min && r.max == expected.max);
	}
}

static void compare(struct fixture *f, const struct mc_input_stats *stats, const bool *chosen)
{
	struct ref_moments expected = ref_moments(f->x, CHANNELS, chosen, T);
	struct mc_moments m = mc_input_stats_moments(stats);
	float squares[CHANNELS];

	assert_int_equal(stats->tokens, expected.rows);
	for (size_t s = 0; s < stats->slices; s++)
		assert_int_equal(stats->slice_rows[s], expected.rows);
	compare_ranges(f, stats, chosen);
	assert_int_equal(m.tokens, expected.rows);
	assert_true(m.min == expected.min && m.max == expected.max && m.absmax == expected.absmax);
	assert_true(fabs(m.mean - expected.mean) < 1e-12);
	assert_true(fabs(m.variance - expected.variance) < 1e-11);
	mc_input_stats_mean_square(stats, squares);
	for (size_t c = 0; c < CHANNELS; c++) {
		double square = ref_channel_mean_square(f->x, CHANNELS, chosen, T, c);
		assert_true(stats->absmax[c] == ref_channel_absmax(f->x, CHANNELS, chosen, T, c));
		assert_true(fabs((double)squares[c] - square) <= square * 1e-7);
	}
}

static void test_all_tokens(void **state)
{
	struct fixture *f = *state;
	struct mc_input_stats stats = filled(f, f->all, 64);

	compare(f, &stats, f->all);
	/* sequences 0, 3 and 6 are empty and look so */
	for (size_t s = 0; s < SEQUENCES; s++)
		assert_true(
		    (stats.slice_min[s] > stats.slice_max[s]) == (starts[s] == starts[s + 1]));
}

static void test_chosen_rows(void **state)
{
	struct fixture *f = *state;
	struct mc_input_stats stats = filled(f, f->some, 64);

	assert_true(stats.tokens < T / 3);
	compare(f, &stats, f->some);
}

static void assert_same_bits(const struct mc_input_stats *a, const struct mc_input_stats *b)
{
	size_t ranges = a->slices * a->sequences;

	assert_memory_equal(a->slice_min, b->slice_min, ranges * sizeof(float));
	assert_memory_equal(a->slice_max, b->slice_max, ranges * sizeof(float));
	assert_memory_equal(a->slice_rows, b->slice_rows, a->slices * sizeof(uint64_t));
	assert_memory_equal(a->sum, b->sum, a->channels * sizeof(double));
	assert_memory_equal(a->sum_squares, b->sum_squares, a->channels * sizeof(double));
	assert_memory_equal(a->absmax, b->absmax, a->channels * sizeof(float));
	assert_int_equal(a->tokens, b->tokens);
}

/* How the tokens are cut into blocks changes no bit: sums run in token order. */
static void test_blocks_do_not_matter(void **state)
{
	static const size_t blocks[] = {1, 3, 64, 128, 1000};
	struct fixture *f = *state;

	for (int part = 0; part < 2; part++) {
		const bool *chosen = part ? f->some : f->all;
		struct mc_input_stats whole = filled(f, chosen, T);
		for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) {
			struct mc_input_stats stats = filled(f, chosen, blocks[i]);
			assert_same_bits(&whole, &stats);
		}
	}
}

struct work {
	struct fixture *fixture;
	struct mc_input_stats *stats;
};

static bool add_slice(void *ctx, size_t item, unsigned worker, struct mc_error *error)
{
	struct work *work = ctx;

	(void)worker;
	return offer(work->stats, work->fixture->x, work->fixture->all, 17, item, error);
}

static void test_workers_do_not_matter(void **state)
{
	struct fixture *f = *state;
	struct mc_input_stats alone = filled(f, f->all, 64);

	for (unsigned workers = 1; workers <= 4; workers++) {
		struct mc_pool *pool = mc_pool_new(workers, &err);
		struct mc_input_stats stats;
		struct work work = {.fixture = f, .stats = &stats};

		assert_non_null(pool);
		assert_true(mc_input_stats_init(&stats, CHANNELS, SEQUENCES, &f->env, &err));
		assert_true(mc_pool_run(pool, stats.slices, add_slice, &work, &err));
		mc_pool_free(pool);
		assert_same_bits(&alone, &stats);
	}
}

static void test_one_token_is_enough(void **state)
{
	struct fixture *f = *state;
	bool one[T] = {false};

	one[150] = true;
	struct mc_input_stats stats = filled(f, one, 64);
	compare(f, &stats, one);
	assert_int_equal(stats.tokens, 1);
}

static void test_no_token(void **state)
{
	struct fixture *f = *state;
	bool none[T] = {false};
	struct mc_input_stats stats = filled(f, none, 64);
	struct mc_moments m = mc_input_stats_moments(&stats);
	float squares[CHANNELS];

	assert_int_equal(stats.tokens, 0);
	assert_false(mc_input_stats_range(&stats, &(struct mc_observer){MC_OBSERVER_STATIC, 0, MC_F32}).seen);
	assert_false(mc_input_stats_range(&stats, &(struct mc_observer){MC_OBSERVER_MOVING, 0.01, MC_F32}).seen);
	assert_true(m.mean == 0 && m.variance == 0 && m.min == 0 && m.max == 0 && m.absmax == 0);
	mc_input_stats_mean_square(&stats, squares);
	for (size_t c = 0; c < CHANNELS; c++)
		assert_true(squares[c] == 0);
}

static void test_values_that_are_not_finite_are_refused(void **state)
{
	static const float bad[] = {NAN, INFINITY, -INFINITY};
	struct fixture *f = *state;

	for (size_t i = 0; i < 3; i++) {
		struct mc_input_stats stats;
		float *value = &f->x[93 * CHANNELS + 1050], kept = *value;

		*value = bad[i];
		mc_error_init(&err);
		assert_true(mc_input_stats_init(&stats, CHANNELS, SEQUENCES, &f->env, &err));
		assert_true(offer(&stats, f->x, f->all, 64, 0, &err));
		assert_true(offer(&stats, f->x, f->all, 64, 1, &err));
		assert_false(offer(&stats, f->x, f->all, 64, 2, &err));
		assert_int_equal(err.code, MC_CORRUPT);
		assert_non_null(strstr(err.text, "token 93, channel 1050"));

		mc_error_init(&err);
		assert_true(mc_input_stats_init(&stats, CHANNELS, SEQUENCES, &f->env, &err));
		assert_true(f->some[93]);
		assert_false(offer(&stats, f->x, f->some, 64, 2, &err));
		assert_int_equal(err.code, MC_CORRUPT);
		assert_non_null(strstr(err.text, "token 93, channel 1050"));
		*value = kept;
	}
}

static void test_memory(void **state)
{
	static const struct {
		size_t channels, sequences;
	} sizes[] = {{1, 1}, {512, 1}, {513, 33}, {7168, 512}, {0, 4}, {768, 0}};
	struct fixture *f = *state;
	struct mc_input_stats stats;

	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		size_t before = f->arena.used;
		assert_true(mc_input_stats_init(
		    &stats, sizes[i].channels, sizes[i].sequences, &f->env, &err));
		assert_int_equal(f->arena.used - before,
		    mc_input_stats_bytes(sizes[i].channels, sizes[i].sequences));
	}
	assert_true(mc_input_stats_bytes(SIZE_MAX, SIZE_MAX) == UINT64_MAX);

	struct mc_arena small;
	struct mc_env poor = {.arena = &small};
	uint64_t need = mc_input_stats_bytes(CHANNELS, SEQUENCES);
	assert_true(mc_arena_init(&small, need / 2, &err));
	assert_false(mc_input_stats_init(&stats, CHANNELS, SEQUENCES, &poor, &err));
	assert_int_equal(err.code, MC_NO_MEMORY);
	mc_arena_release(&small);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_names),
	    cmocka_unit_test(test_published_vectors),
	    cmocka_unit_test(test_moving_average_in_bf16),
	    cmocka_unit_test(test_moving_rounds_to_float32),
	    cmocka_unit_test(test_batches_without_data_are_passed_over),
	    cmocka_unit_test_setup_teardown(test_all_tokens, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_chosen_rows, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_blocks_do_not_matter, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_workers_do_not_matter, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_one_token_is_enough, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_no_token, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(
		test_values_that_are_not_finite_are_refused, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_memory, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
