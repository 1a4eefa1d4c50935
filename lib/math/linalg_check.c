/*
 * linalg_check.c - is the BLAS right, and how fast is it
 */
#include "moecal/linalg.h"

#include <stdlib.h>
#include <time.h>

#include "linalg_backend.h"
#include "moecal/alloc.h"

/* --- self-test -------------------------------------------------------------------------------- */

/* Sizes that are no multiples of a kernel's tile. Values are small integers: every sum is exact. */
#define TEST_M 45
#define TEST_N 83
#define TEST_K 131
#define TEST_ITEMS 192

struct self_test {
	float *a, *b, *b_turned; /* [M, K], [N, K], [K, N] */
	float *expected;         /* [M, N] */
	float *results;          /* [M, N] a worker */
};

static float test_value(size_t i)
{
	return (float)(i * 2654435761u % 15u) - 7.0f;
}

static void fill_self_test(struct self_test *test)
{
	for (size_t i = 0; i < TEST_M * TEST_K; i++)
		test->a[i] = test_value(i);
	for (size_t n = 0; n < TEST_N; n++)
		for (size_t k = 0; k < TEST_K; k++)
			test->b[n * TEST_K + k] = test->b_turned[k * TEST_N + n] =
			    test_value(n * TEST_K + k + 12345);
	for (size_t m = 0; m < TEST_M; m++) {
		for (size_t n = 0; n < TEST_N; n++) {
			long sum = 0;
			for (size_t k = 0; k < TEST_K; k++)
				sum +=
				    (long)test->a[m * TEST_K + k] * (long)test->b[n * TEST_K + k];
			test->expected[m * TEST_N + n] = (float)sum;
		}
	}
}

static bool self_test_item(void *ctx, size_t item, unsigned worker, struct mc_error *err)
{
	const struct self_test *test = ctx;
	float *result = test->results + worker * TEST_M * TEST_N;
	if (item % 2 == 0)
		mc_gemm_nt(
		    TEST_M, TEST_N, TEST_K, test->a, TEST_K, test->b, TEST_K, 0.0f, result, TEST_N);
	else
		mc_gemm_nn(TEST_M, TEST_N, TEST_K, test->a, TEST_K, test->b_turned, TEST_N, 0.0f,
		    result, TEST_N);
	for (size_t i = 0; i < TEST_M * TEST_N; i++)
		if (!(result[i] == test->expected[i]))
			return mc_fail(err, MC_INTERNAL, "OpenBLAS",
			    "self-test: product %zu gave %g at element %zu, needed %g; this BLAS "
			    "cannot "
			    "be used",
			    item, (double)result[i], i, (double)test->expected[i]);
	return true;
}

bool mc_linalg_init(struct mc_pool *pool, struct mc_error *err)
{
	if (!mc_linalg_openblas.init(err))
		return false;
	size_t result_floats = (size_t)TEST_M * TEST_N * mc_pool_workers(pool);
	size_t floats = (size_t)TEST_M * TEST_K + 2 * (size_t)TEST_N * TEST_K +
			(size_t)TEST_M * TEST_N + result_floats;
	float *memory = mc_alloc(floats, sizeof(float), "self-test of the BLAS", err);
	if (memory == NULL)
		return false;
	struct self_test test = {.a = memory};
	test.b = test.a + TEST_M * TEST_K;
	test.b_turned = test.b + TEST_N * TEST_K;
	test.expected = test.b_turned + TEST_N * TEST_K;
	test.results = test.expected + TEST_M * TEST_N;
	fill_self_test(&test);
	bool done = mc_pool_run(pool, TEST_ITEMS, self_test_item, &test, err);
	free(memory);
	return done;
}

/* --- speed ------------------------------------------------------------------------------------ */

struct measure {
	size_t m, n, k, calls; /* calls: products an item */
	float *a, *b, *c;      /* one of each a worker */
};

static bool measure_item(void *ctx, size_t item, unsigned worker, struct mc_error *err)
{
	(void)item;
	(void)err;
	const struct measure *measure = ctx;
	size_t m = measure->m, n = measure->n, k = measure->k;
	for (size_t call = 0; call < measure->calls; call++)
		mc_gemm_nt(m, n, k, measure->a + worker * m * k, k, measure->b + worker * n * k, k,
		    0.0f, measure->c + worker * m * n, n);
	return true;
}

static double now_seconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* One round of one item a worker. */
static bool time_round(
    struct measure *measure, const struct mc_env *env, double *ret_seconds, struct mc_error *err)
{
	if (!mc_env_go_on(env, err))
		return false;
	double begin = now_seconds();
	if (!mc_pool_run(env->pool, mc_pool_workers(env->pool), measure_item, measure, err))
		return false;
	*ret_seconds = now_seconds() - begin;
	return true;
}

static bool measure_rounds(struct measure *measure, double seconds, const struct mc_env *env,
    double *ret_gflops, struct mc_error *err)
{
	double round_seconds;
	measure->calls = 1; /* touches the memory; its time only sizes the rounds */
	if (!time_round(measure, env, &round_seconds, err))
		return false;
	double calls = seconds / 4 / (round_seconds > 1e-7 ? round_seconds : 1e-7);
	measure->calls = calls < 1 ? 1 : calls > 1e6 ? 1000000 : (size_t)calls;
	double spent = 0, products = 0;
	while (spent < seconds) {
		if (!time_round(measure, env, &round_seconds, err))
			return false;
		spent += round_seconds;
		products += (double)measure->calls * mc_pool_workers(env->pool);
	}
	double flops =
	    2.0 * (double)measure->m * (double)measure->n * (double)measure->k * products;
	*ret_gflops = flops / spent / 1e9;
	return true;
}

bool mc_linalg_measure(size_t m, size_t n, size_t k, double seconds, const struct mc_env *env,
    double *ret_gflops, struct mc_error *err)
{
	mc_assert(m >= 1 && n >= 1 && k >= 1 && seconds > 0);
	size_t workers = mc_pool_workers(env->pool), mark = mc_arena_mark(env->arena);
	struct measure measure = {.m = m, .n = n, .k = k};
	const char *what = "matrices of the speed measurement";
	measure.a = mc_arena_alloc(env->arena, workers * m * k, sizeof(float), what, err);
	if (measure.a != NULL)
		measure.b = mc_arena_alloc(env->arena, workers * n * k, sizeof(float), what, err);
	if (measure.b != NULL)
		measure.c = mc_arena_alloc(env->arena, workers * m * n, sizeof(float), what, err);
	bool done = measure.c != NULL;
	if (done) {
		for (size_t i = 0; i < workers * m * k; i++)
			measure.a[i] = test_value(i);
		for (size_t i = 0; i < workers * n * k; i++)
			measure.b[i] = test_value(i + 7);
		done = measure_rounds(&measure, seconds, env, ret_gflops, err);
	}
	mc_arena_rewind(env->arena, mark);
	return done;
}
