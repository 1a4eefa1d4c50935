/*
 * test_linalg.c - products: exact on integers, near the definition, the same for any number of
 * workers
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/linalg.h"
#include "reference/reference.h"

struct place {
	struct mc_arena arena;
	struct mc_env env;
	struct mc_error err;
};

static void open_place(struct place *place, unsigned workers)
{
	*place = (struct place){0};
	mc_error_init(&place->err);
	assert_true(mc_arena_init(&place->arena, 256 << 20, &place->err));
	place->env.arena = &place->arena;
	place->env.pool = mc_pool_new(workers, &place->err);
	assert_non_null(place->env.pool);
	if (!mc_linalg_init(place->env.pool, &place->err))
		fail_msg("%s", place->err.text);
}

static void close_place(struct place *place)
{
	mc_pool_free(place->env.pool);
	mc_arena_release(&place->arena);
}

static uint32_t mix(uint32_t i)
{
	uint32_t bits = (i + 1) * 2654435761u;
	bits ^= bits >> 15;
	bits *= 2246822519u;
	return bits ^ bits >> 13;
}

static float small_integer(uint32_t i)
{
	return (float)(mix(i) % 15) - 7;
}

static float fraction(uint32_t i)
{
	return (float)(mix(i) >> 8) / 8388608.0f - 1.0f;
}

static float *make(size_t n, float (*value)(uint32_t), uint32_t seed)
{
	float *x = malloc((n > 0 ? n : 1) * sizeof(*x));
	assert_non_null(x);
	for (size_t i = 0; i < n; i++)
		x[i] = value((uint32_t)i + seed);
	return x;
}

static void test_variant(void **state)
{
	(void)state;
	struct mc_error err;
	mc_error_init(&err);
	assert_true(mc_linalg_check_variant(1, "OpenBLAS 0.3.21 DYNAMIC_ARCH", &err));
	assert_int_equal(err.code, MC_OK);
	const struct {
		int parallel;
		const char *word;
	} rows[] = {{0, "serial"}, {2, "OpenMP"}, {7, "not known"}};
	for (size_t i = 0; i < 3; i++) {
		mc_error_init(&err);
		assert_false(mc_linalg_check_variant(rows[i].parallel, "OpenBLAS 9.8.7 X", &err));
		assert_int_equal(err.code, MC_UNSUPPORTED);
		assert_non_null(strstr(err.text, rows[i].word));
		assert_non_null(strstr(err.text, "OpenBLAS 9.8.7 X"));
		assert_non_null(strstr(err.text, "apt-get install libopenblas0-pthread"));
		assert_non_null(strstr(err.text, "update-alternatives --config libopenblas.so.0-"));
	}
}

static void test_kernel_name(void **state)
{
	(void)state;
	struct place place;
	open_place(&place, 2);
	assert_int_equal(strncmp(mc_linalg_kernel(), "openblas-sgemm/", 15), 0);
	assert_non_null(strstr(mc_linalg_kernel(), " 0."));
	const char *kept = mc_linalg_kernel();
	close_place(&place);
	open_place(&place, 1); /* again: same text, same storage */
	assert_ptr_equal(mc_linalg_kernel(), kept);
	close_place(&place);
}

/* Both products with strides and with beta, on integers: no tolerance. */
static void test_gemm_exact(void **state)
{
	(void)state;
	const size_t sizes[][3] = {
	    {1, 1, 1}, {1, 37, 64}, {5, 1, 9}, {33, 17, 65}, {64, 64, 300}, {70, 90, 110}};
	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		size_t m = sizes[s][0], n = sizes[s][1], k = sizes[s][2];
		size_t lda = k + 3, ldb = k + 5, ldt = n + 7, ldc = n + 2;
		float *a = make(m * lda, small_integer, 1), *b = make(n * ldb, small_integer, 500);
		float *turned = make(k * ldt, small_integer, 0);
		float *c = make(m * ldc, small_integer, 9), *d = make(m * ldc, small_integer, 9);
		for (size_t i = 0; i < n; i++)
			for (size_t j = 0; j < k; j++)
				turned[j * ldt + i] = b[i * ldb + j];
		for (int beta = 0; beta <= 1; beta++) {
			if (beta == 0) /* what c held must not matter, NaN included */
				for (size_t i = 0; i < m; i++)
					for (size_t j = 0; j < n; j++)
						c[i * ldc + j] = d[i * ldc + j] = NAN;
			mc_gemm_nt(m, n, k, a, lda, b, ldb, (float)beta, c, ldc);
			mc_gemm_nn(m, n, k, a, lda, turned, ldt, (float)beta, d, ldc);
			for (size_t i = 0; i < m; i++) {
				for (size_t j = 0; j < n; j++) {
					double sum = 0;
					for (size_t l = 0; l < k; l++)
						sum +=
						    (double)a[i * lda + l] * (double)b[j * ldb + l];
					assert_true((double)c[i * ldc + j] == sum * (beta + 1));
					assert_true((double)d[i * ldc + j] == sum * (beta + 1));
				}
				assert_true(
				    c[i * ldc + n] == small_integer((uint32_t)(i * ldc + n) + 9));
			}
		}
		free(d);
		free(c);
		free(turned);
		free(b);
		free(a);
	}
}

/* mc_linear of rows of x with strides; what lies beside y stays. */
static void run_linear(const float *x, size_t tokens, const float *w, enum mc_dtype dtype,
    const float *bias, size_t k, size_t n, unsigned workers, float *y)
{
	size_t ldx = k + 1, ldy = n + 3;
	float *wide_x = calloc(tokens * ldx + 1, sizeof(float));
	float *wide_y = make(tokens * ldy, small_integer, 3);
	unsigned char *data = malloc(n * k * 4);
	assert_true(wide_x != NULL && data != NULL);
	for (size_t t = 0; t < tokens; t++)
		memcpy(wide_x + t * ldx, x + t * k, k * sizeof(float));
	mc_narrow(w, dtype, data, n * k);
	struct mc_weight weight = {
	    .dtype = dtype, .rows = n, .cols = k, .data = data, .bias = bias};
	struct place place;
	open_place(&place, workers);
	size_t used = place.arena.used;
	assert_true(mc_linear(wide_x, ldx, tokens, &weight, wide_y, ldy, &place.env, &place.err));
	assert_int_equal(place.arena.used, used); /* scratch is given back */
	close_place(&place);
	for (size_t t = 0; t < tokens; t++) {
		memcpy(y + t * n, wide_y + t * ldy, n * sizeof(float));
		for (size_t i = n; i < ldy; i++)
			assert_true(
			    wide_y[t * ldy + i] == small_integer((uint32_t)(t * ldy + i) + 3));
	}
	free(data);
	free(wide_y);
	free(wide_x);
}

static const struct shape {
	size_t tokens, k, n;
} shapes[] = {{1, 8, 5}, {3, 1, 1}, {130, 70, 300}, {600, 96, 520}, {17, 2500, 40}, {5, 4100, 270}};
#define SHAPES (sizeof(shapes) / sizeof(shapes[0]))

static void test_linear_exact(void **state)
{
	(void)state;
	const enum mc_dtype dtypes[] = {MC_F32, MC_F16, MC_BF16};
	for (size_t s = 0; s < SHAPES; s++) {
		size_t tokens = shapes[s].tokens, k = shapes[s].k, n = shapes[s].n;
		float *x = make(tokens * k, small_integer, 1),
		      *w = make(n * k, small_integer, 1000);
		float *bias = make(n, small_integer, 5), *y = make(tokens * n, small_integer, 0);
		double *needed = malloc(tokens * n * sizeof(*needed));
		assert_non_null(needed);
		for (size_t d = 0; d < 3; d++) {
			const float *b = d == 1 ? NULL : bias;
			ref_linear(x, w, b, tokens, k, n, needed);
			run_linear(x, tokens, w, dtypes[d], b, k, n, 2, y);
			for (size_t i = 0; i < tokens * n; i++)
				if ((double)y[i] != needed[i])
					fail_msg("shape %zu: element %zu is %g, needed %g", s, i,
					    (double)y[i], needed[i]);
		}
		free(needed);
		free(y);
		free(bias);
		free(w);
		free(x);
	}
}

/* Tolerance: float32 roundings (6e-8) of sums of k terms below 1 add up like a random walk, so with
 * the root of k; a factor of 8 times that and a little for the bias. */
static void test_linear_near_definition(void **state)
{
	(void)state;
	for (size_t s = 0; s < SHAPES; s++) {
		size_t tokens = shapes[s].tokens, k = shapes[s].k, n = shapes[s].n;
		float *x = make(tokens * k, fraction, 1), *w = make(n * k, fraction, 1000);
		float *y = make(tokens * n, fraction, 0), *bias = make(n, fraction, 5);
		double *needed = malloc(tokens * n * sizeof(*needed));
		assert_non_null(needed);
		for (size_t i = 0; i < n * k; i++)
			w[i] = mc_round_to(MC_BF16, w[i]);
		ref_linear(x, w, bias, tokens, k, n, needed);
		run_linear(x, tokens, w, MC_BF16, bias, k, n, 1, y);
		double limit = 1e-7 * (8 * sqrt((double)k) + 4);
		for (size_t i = 0; i < tokens * n; i++)
			if (!(fabs((double)y[i] - needed[i]) <= limit))
				fail_msg("shape %zu: element %zu is %.9g, needed %.9g", s, i,
				    (double)y[i], needed[i]);
		free(needed);
		free(bias);
		free(y);
		free(w);
		free(x);
	}
}

/* Same bits for any number of workers; and a weight stored as bf16 gives the same as float32. */
static void test_linear_same_bits(void **state)
{
	(void)state;
	for (size_t s = 0; s < SHAPES; s++) {
		size_t tokens = shapes[s].tokens, k = shapes[s].k, n = shapes[s].n;
		float *x = make(tokens * k, fraction, 1), *w = make(n * k, fraction, 1000);
		float *y = make(tokens * n, fraction, 0), *again = make(tokens * n, fraction, 0);
		for (size_t i = 0; i < n * k; i++)
			w[i] = mc_round_to(MC_BF16, w[i]);
		run_linear(x, tokens, w, MC_BF16, NULL, k, n, 1, y);
		const unsigned workers[] = {2, 3, 5};
		for (size_t i = 0; i < 3; i++) {
			run_linear(x, tokens, w, MC_BF16, NULL, k, n, workers[i], again);
			assert_memory_equal(y, again, tokens * n * sizeof(float));
		}
		run_linear(x, tokens, w, MC_F32, NULL, k, n, 2, again);
		assert_memory_equal(y, again, tokens * n * sizeof(float));
		free(again);
		free(y);
		free(w);
		free(x);
	}
}

static bool always(void *ctx)
{
	atomic_fetch_add((atomic_int *)ctx, 1);
	return true;
}

static void test_linear_failures(void **state)
{
	(void)state;
	struct place place;
	open_place(&place, 2);
	static float x[64], y[64];
	static uint16_t data[64];
	struct mc_weight w = {.dtype = MC_BF16, .rows = 8, .cols = 8, .data = data};
	/* nothing to do is fine */
	assert_true(mc_linear(x, 8, 0, &w, y, 8, &place.env, &place.err));
	atomic_int asked = 0;
	place.env.canceled = always;
	place.env.hook_ctx = &asked;
	size_t used = place.arena.used;
	assert_false(mc_linear(x, 8, 8, &w, y, 8, &place.env, &place.err));
	assert_int_equal(place.err.code, MC_CANCELED);
	assert_int_equal(place.arena.used, used);
	assert_true(atomic_load(&asked) >= 1);
	place.env.canceled = NULL;
	mc_error_init(&place.err);
	struct mc_arena small;
	assert_true(mc_arena_init(&small, 64, &place.err));
	place.env.arena = &small;
	assert_false(mc_linear(x, 8, 8, &w, y, 8, &place.env, &place.err));
	assert_int_equal(place.err.code, MC_NO_MEMORY);
	assert_non_null(strstr(place.err.text, "converted weights"));
	mc_arena_release(&small);
	close_place(&place);
}

static void test_measure(void **state)
{
	(void)state;
	struct place place;
	open_place(&place, 2);
	double gflops = 0;
	size_t used = place.arena.used;
	assert_true(mc_linalg_measure(64, 64, 64, 0.02, &place.env, &gflops, &place.err));
	assert_true(isfinite(gflops) && gflops > 0.01);
	assert_int_equal(place.arena.used, used);
	assert_false(mc_linalg_measure(20000, 20000, 64, 0.02, &place.env, &gflops, &place.err));
	assert_int_equal(place.err.code, MC_NO_MEMORY);
	close_place(&place);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_variant),
	    cmocka_unit_test(test_kernel_name),
	    cmocka_unit_test(test_gemm_exact),
	    cmocka_unit_test(test_linear_exact),
	    cmocka_unit_test(test_linear_near_definition),
	    cmocka_unit_test(test_linear_same_bits),
	    cmocka_unit_test(test_linear_failures),
	    cmocka_unit_test(test_measure),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
