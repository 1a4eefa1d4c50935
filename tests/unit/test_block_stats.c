/*
 * test_block_stats.c - one pass over a block of rows against its definition
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "moecal/ops.h"

enum { ROWS = 11, N = 301, LDX = 320 };

struct result {
	double sum[N], squares[N];
	float absmax[N], min, max;
};

static void fill(float *x)
{
	for (size_t r = 0; r < ROWS; r++)
		for (size_t c = 0; c < LDX; c++)
			x[r * LDX + c] = sinf((float)(r * 131 + c * 17)) * (float)(c % 9) - 0.25f;
	for (size_t r = 0; r < ROWS; r++) /* what lies between rows is nobody's */
		for (size_t c = N; c < LDX; c++)
			x[r * LDX + c] = NAN;
}

static struct result start(void)
{
	struct result r = {.min = INFINITY, .max = -INFINITY};
	return r;
}

static void add(struct result *r, const float *x, const uint32_t *rows, size_t count)
{
	mc_block_stats_add(x, LDX, rows, count, N, r->sum, r->squares, r->absmax, &r->min, &r->max);
}

static void add_naively(struct result *r, const float *x, const uint32_t *rows, size_t count)
{
	for (size_t i = 0; i < count; i++)
		for (size_t c = 0; c < N; c++) {
			float v = x[(rows != NULL ? rows[i] : i) * LDX + c];
			r->sum[c] += (double)v;
			r->squares[c] += (double)v * (double)v;
			r->absmax[c] = fmaxf(r->absmax[c], fabsf(v));
			r->min = fminf(r->min, v);
			r->max = fmaxf(r->max, v);
		}
}

static void assert_same(const struct result *a, const struct result *b)
{
	assert_memory_equal(a->sum, b->sum, sizeof a->sum);
	assert_memory_equal(a->squares, b->squares, sizeof a->squares);
	assert_memory_equal(a->absmax, b->absmax, sizeof a->absmax);
	assert_true(a->min == b->min && a->max == b->max);
}

/* The same bits: the definition adds rows in the same order. */
static void test_definition(void **state)
{
	static const uint32_t rows[] = {0, 3, 4, 5, 9, 10};
	static float x[ROWS * LDX];

	(void)state;
	fill(x);
	for (size_t count = 0; count <= ROWS; count++) {
		struct result fast = start(), naive = start();
		add(&fast, x, NULL, count);
		add(&fast, x, NULL, count);
		add_naively(&naive, x, NULL, count);
		add_naively(&naive, x, NULL, count);
		assert_same(&fast, &naive);
	}
	for (size_t count = 0; count <= sizeof rows / sizeof rows[0]; count++) {
		struct result fast = start(), naive = start();
		add(&fast, x, rows, count);
		add_naively(&naive, x, rows, count);
		assert_same(&fast, &naive);
	}
}

static void test_not_finite(void **state)
{
	static float x[ROWS * LDX];

	(void)state;
	for (size_t r = 0; r < ROWS; r++)
		for (size_t c = 0; c < N; c += 60) {
			struct result s = start();
			fill(x);
			x[r * LDX + c] = NAN;
			add(&s, x, NULL, ROWS);
			assert_true(isnan(s.min) && isnan(s.max));

			s = start();
			x[r * LDX + c] = -INFINITY;
			add(&s, x, NULL, ROWS);
			assert_true(s.min == -INFINITY && isfinite(s.max));
			assert_true(isinf(s.absmax[c]));
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_definition),
	    cmocka_unit_test(test_not_finite),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
