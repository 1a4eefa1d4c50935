/*
 * test_ops.c - norms, activations, softmax, routing, reductions against their definitions
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "moecal/ops.h"
#include "reference/reference.h"

/* Numbers in -1 .. 1, the same on every machine. */
static float number(uint32_t i)
{
	uint32_t bits = (i + 1) * 2654435761u;
	bits ^= bits >> 15;
	bits *= 2246822519u;
	bits ^= bits >> 13;
	return (float)(bits >> 8) / 8388608.0f - 1.0f;
}

static void fill(float *x, size_t n, float scale, uint32_t seed)
{
	for (size_t i = 0; i < n; i++)
		x[i] = scale * number((uint32_t)i + seed);
}

static void close_to(double found, double needed, double relative, double absolute)
{
	double limit = fabs(needed) * relative + absolute;
	if (!(fabs(found - needed) <= limit))
		fail_msg("found %.17g, needed %.17g", found, needed);
}

/* Distance in units of the last place of the true value (subnormals: of the smallest). */
static double ulps(float found, double needed)
{
	if (isinf(found) || (double)found == needed)
		return (double)found == (double)(float)needed ? 0 : INFINITY;
	int exponent = ilogb(needed) < -126 ? -126 : ilogb(needed);
	return fabs((double)found - needed) / ldexp(1, exponent - 23);
}

static void test_exp(void **state)
{
	(void)state;
	enum { N = 1 << 12 };
	static float x[N], y[N];
	double worst = 0;
	for (int part = 0; part < 128; part++) {
		for (size_t i = 0; i < N; i++)
			x[i] =
			    -105.0f +
			    195.0f * ((float)part + (float)i / N + number((uint32_t)i) / N) / 128;
		mc_exp_many(x, y, N);
		for (size_t i = 0; i < N; i++)
			worst = fmax(worst, ulps(y[i], exp((double)x[i])));
	}
	if (worst > 4)
		fail_msg("worst error %g units in the last place", worst);
	float edge[] = {0, -0.0f, INFINITY, -INFINITY, NAN, 88.72283f, 88.7229f, -87.33655f,
	    -103.9f, -104.5f, 3e38f, -3e38f, 1e-40f};
	float out[sizeof(edge) / sizeof(edge[0])];
	mc_exp_many(edge, out, sizeof(edge) / sizeof(edge[0]));
	assert_true(out[0] == 1 && out[1] == 1 && isinf(out[2]) && out[3] == 0 && isnan(out[4]));
	assert_true(isfinite(out[5]) && isinf(out[6]));
	assert_true(
	    ulps(out[5], exp((double)edge[5])) <= 4 && ulps(out[7], exp((double)edge[7])) <= 4);
	assert_true(
	    out[8] == 0x1p-149f && out[9] == 0 && isinf(out[10]) && out[11] == 0 && out[12] == 1);
}

static void test_silu_mul(void **state)
{
	(void)state;
	enum { N = 1003 };
	float gate[N], up[N], act[N];
	fill(gate, N, 30, 1);
	fill(up, N, 2, 2);
	mc_silu_mul(gate, up, act, N);
	for (size_t i = 0; i < N; i++)
		close_to((double)act[i], ref_silu((double)gate[i]) * (double)up[i], 1e-6, 0);
	mc_silu_mul(gate, up, gate, N); /* in place */
	assert_memory_equal(gate, act, sizeof(act));
	float edge[] = {INFINITY, -INFINITY, NAN, -100, -88, 0, 1e30f};
	float one[] = {1, 1, 1, 1, 1, 1, 1}, out[7];
	mc_silu_mul(edge, one, out, 7);
	assert_true(
	    isinf(out[0]) && out[1] == 0 && isnan(out[2]) && out[5] == 0 && out[6] == 1e30f);
	close_to((double)out[3], ref_silu(-100), 0, 1e-43);
	close_to((double)out[4], ref_silu(-88), 1e-3, 0);
}

static void test_rms_norm(void **state)
{
	(void)state;
	enum { ROWS = 3, N = 77, LDX = 80, LDY = 90 };
	float x[ROWS * LDX], w[N], y[ROWS * LDY];
	double needed[N];
	fill(x, ROWS * LDX, 3, 1);
	fill(w, N, 2, 9);
	memset(y, 0, sizeof(y));
	mc_rms_norm(x, LDX, w, 1e-6f, ROWS, N, y, LDY);
	for (size_t row = 0; row < ROWS; row++) {
		ref_rms_norm(x + row * LDX, w, (double)1e-6f, N, needed);
		for (size_t i = 0; i < N; i++)
			close_to((double)y[row * LDY + i], needed[i], 4e-7, 0);
		for (size_t i = N; i < LDY; i++)
			assert_true(y[row * LDY + i] == 0); /* nothing past the row */
	}
	mc_rms_norm(x, LDX, w, 1e-6f, ROWS, N, x, LDX);
	for (size_t row = 0; row < ROWS; row++)
		assert_memory_equal(x + row * LDX, y + row * LDY, N * sizeof(float));
	float zero[4] = {0}, ones[4] = {1, 1, 1, 1};
	mc_rms_norm(zero, 4, ones, 1e-6f, 1, 4, zero, 4);
	assert_true(zero[0] == 0);
}

static void test_softmax(void **state)
{
	(void)state;
	float row[130];
	double x[130], needed[130];
	for (size_t n = 1; n <= 130; n += n < 40 ? 1 : 30) {
		fill(row, n, 20, (uint32_t)n);
		for (size_t i = 0; i < n; i++)
			x[i] = (double)row[i];
		ref_softmax(x, n, needed);
		mc_softmax(row, n);
		for (size_t i = 0; i < n; i++)
			close_to((double)row[i], needed[i], 4e-6, 1e-45);
	}
	float masked[] = {1000, -INFINITY, 1000};
	mc_softmax(masked, 3);
	assert_true(masked[0] == 0.5f && masked[1] == 0 && masked[2] == 0.5f);
	for (size_t place = 0; place < 40; place++) {
		fill(row, 40, 1, 3);
		row[place] = NAN;
		mc_softmax(row, 40);
		for (size_t i = 0; i < 40; i++)
			assert_true(isnan(row[i]));
	}
}

static void test_cross_entropy(void **state)
{
	(void)state;
	enum { N = 1111 };
	float logits[N];
	fill(logits, N, 40, 5);
	for (size_t target = 0; target < N; target += 100)
		close_to(mc_cross_entropy(logits, N, target), ref_cross_entropy(logits, N, target),
		    1e-12, 1e-13);
	float far[] = {0, -3000, -INFINITY};
	close_to(mc_cross_entropy(far, 3, 1), 3000, 0, 0);
	close_to(mc_cross_entropy(far, 3, 0), 0, 0, 0);
	assert_true(isinf(mc_cross_entropy(far, 3, 2)));
	far[1] = NAN;
	assert_true(isnan(mc_cross_entropy(far, 3, 0)));
}

static void check_top_k(const float *logits, size_t experts, size_t k)
{
	uint32_t index[64], needed_index[64];
	float weight[64];
	double needed[64];
	for (int renormalise = 0; renormalise <= 1; renormalise++) {
		mc_top_k_softmax(logits, experts, k, renormalise != 0, index, weight);
		ref_top_k_softmax(logits, experts, k, renormalise != 0, needed_index, needed);
		for (size_t i = 0; i < k; i++) {
			assert_int_equal(index[i], needed_index[i]);
			close_to((double)weight[i], needed[i], 2e-6, 0);
		}
	}
}

static void test_top_k(void **state)
{
	(void)state;
	float logits[128];
	for (uint32_t token = 0; token < 50; token++) {
		fill(logits, 128, 6, token * 128);
		check_top_k(logits, 128, 8);
		check_top_k(logits, 60, 4);
		check_top_k(logits, 8, 2);
		check_top_k(logits, 16, 16);
		check_top_k(logits, 1, 1);
		for (size_t e = 0; e < 128; e++) /* many ties */
			logits[e] = floorf(logits[e]);
		check_top_k(logits, 128, 8);
	}
	const float ties[] = {1, 3, 3, 3, 2, 3};
	uint32_t index[3];
	float weight[3];
	mc_top_k_softmax(ties, 6, 3, true, index, weight);
	assert_true(index[0] == 1 && index[1] == 2 && index[2] == 3);
	assert_true(weight[0] == weight[1] && weight[1] == weight[2]);
	/* a NaN gives indices that are valid and distinct all the same */
	const float broken[] = {1, NAN, 5, NAN, 2};
	mc_top_k_softmax(broken, 5, 3, true, index, weight);
	assert_true(index[0] < index[1] && index[1] < index[2] && index[2] < 5);
}

static void test_reductions(void **state)
{
	(void)state;
	float x[100], y[100];
	for (size_t n = 1; n <= 100; n++) {
		fill(x, n, 10, (uint32_t)n);
		fill(y, n, 10, (uint32_t)n + 7);
		float low = x[0], high = x[0], min, max;
		double sum = 0, squares = 0, difference = 0, got[4];
		for (size_t i = 0; i < n; i++) {
			low = fminf(low, x[i]);
			high = fmaxf(high, x[i]);
			sum += (double)x[i];
			squares += (double)x[i] * (double)x[i];
			difference += pow((double)x[i] - (double)y[i], 2);
		}
		mc_range(x, n, &min, &max);
		assert_true(min == low && max == high);
		mc_sums(x, n, &got[0], &got[1]);
		mc_error_sums(x, y, n, &got[2], &got[3]);
		close_to(got[0], sum, 1e-13, 1e-12);
		close_to(got[1], squares, 1e-13, 0);
		close_to(got[2], difference, 1e-13, 0);
		close_to(got[3], squares, 1e-13, 0);
		assert_true(mc_all_finite(x, n));
		for (size_t place = 0; place < n; place += 1 + n / 10) {
			float kept = x[place];
			x[place] = NAN;
			mc_range(x, n, &min, &max);
			assert_true(isnan(min) && isnan(max) && !mc_all_finite(x, n));
			x[place] = -INFINITY;
			mc_range(x, n, &min, &max);
			assert_true(isinf(min) && !mc_all_finite(x, n));
			x[place] = kept;
		}
	}
	assert_true(mc_all_finite(x, 0));
}

/* Rows wider apart than they are long; what was seen before stays. */
static void test_range_rows(void **state)
{
	enum { ROWS = 7, APART = 53 };
	float x[ROWS * APART];

	(void)state;
	fill(x, ROWS * APART, 10, 4);
	for (size_t n = 1; n < APART; n++)
		for (size_t rows = 0; rows <= ROWS; rows++) {
			float low = -0.5f, high = 0.25f, min = low, max = high;
			for (size_t i = 0; i < rows * n; i++) {
				low = fminf(low, x[i / n * APART + i % n]);
				high = fmaxf(high, x[i / n * APART + i % n]);
			}
			mc_range_rows(x, APART, rows, n, &min, &max);
			assert_true(min == low && max == high);
			mc_range_rows(x, APART, 1, 1, &min, &max);
			assert_true(min == fminf(low, x[0]) && max == fmaxf(high, x[0]));
		}
	for (size_t place = 0; place < 2 * APART; place += 5) {
		float kept = x[place], min = INFINITY, max = -INFINITY;
		bool inside = place % APART < 40;
		x[place] = NAN;
		mc_range_rows(x, APART, 2, 40, &min, &max);
		assert_true(isnan(min) == inside && isnan(max) == inside);
		x[place] = kept;
		mc_range_rows(x, APART, 2, 40, &min, &max);
		assert_true(isnan(min) == inside && isnan(max) == inside); /* and stays */
	}
}

static void test_add(void **state)
{
	(void)state;
	float x[37], y[37], z[37];
	fill(x, 37, 1, 1);
	fill(y, 37, 1, 2);
	memcpy(z, y, sizeof(z));
	mc_axpy(0.3f, x, y, 36);
	for (size_t i = 0; i < 36; i++) {
		float product = 0.3f * x[i];
		assert_true(y[i] == z[i] + product);
	}
	assert_true(y[36] == z[36]);
	memcpy(y, z, sizeof(y));
	mc_add_to(x, y, 36);
	for (size_t i = 0; i < 36; i++)
		assert_true(y[i] == z[i] + x[i]);
	assert_true(y[36] == z[36]);
}

static void test_channel_stats(void **state)
{
	(void)state;
	enum { ROWS = 9, N = 1030, LD = 1040 };
	static float x[ROWS * LD], absmax[N], only_absmax[N];
	static double sum[N], squares[N], only_sum[N], only_squares[N];
	fill(x, ROWS * LD, 5, 11);
	mc_channel_stats_add(x, LD, 4, N, sum, squares, absmax); /* in two parts: it adds */
	mc_channel_stats_add(x + 4 * LD, LD, ROWS - 4, N, sum, squares, absmax);
	mc_channel_stats_add(x, LD, ROWS, N, only_sum, NULL, NULL);
	mc_channel_stats_add(x, LD, ROWS, N, NULL, only_squares, NULL);
	mc_channel_stats_add(x, LD, ROWS, N, NULL, NULL, only_absmax);
	for (size_t i = 0; i < N; i++) {
		double needed_sum = 0, needed_squares = 0;
		float needed_absmax = 0;
		for (size_t row = 0; row < ROWS; row++) {
			double v = (double)x[row * LD + i];
			needed_sum += v;
			needed_squares += v * v;
			needed_absmax = fmaxf(needed_absmax, (float)fabs(v));
		}
		/* row order is part of the contract: no tolerance */
		assert_true(sum[i] == needed_sum && squares[i] == needed_squares);
		assert_true(absmax[i] == needed_absmax);
	}
	assert_memory_equal(sum, only_sum, sizeof(sum));
	assert_memory_equal(squares, only_squares, sizeof(squares));
	assert_memory_equal(absmax, only_absmax, sizeof(absmax));
	x[2 * LD + 3] = NAN;
	mc_channel_stats_add(x, LD, ROWS, N, NULL, NULL, absmax);
	assert_true(isnan(absmax[3]) && isfinite(absmax[4]));
}

static uint64_t hash(uint64_t h, const void *bytes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		h = (h ^ ((const unsigned char *)bytes)[i]) * 1099511628211u;
	return h;
}

/*
 * The bits do not depend on the width of the vectors: every build on every machine must come to
 * this number (sanitizer builds have no clones, others take the widest the processor has).
 */
static void test_same_bits_everywhere(void **state)
{
	(void)state;
	enum { N = 999 };
	float x[N], w[N], y[N];
	double sums[4];
	uint64_t h = 14695981039346656037u;
	fill(x, N, 9, 1);
	fill(w, N, 2, 2);
	mc_exp_many(x, y, N);
	h = hash(h, y, sizeof(y));
	mc_silu_mul(x, w, y, N);
	h = hash(h, y, sizeof(y));
	mc_rms_norm(x, N, w, 1e-5f, 1, N, y, N);
	h = hash(h, y, sizeof(y));
	mc_sums(x, N, &sums[0], &sums[1]);
	mc_error_sums(x, w, N, &sums[2], &sums[3]);
	h = hash(h, sums, sizeof(sums));
	mc_axpy(0.7f, w, y, N);
	h = hash(h, y, sizeof(y));
	mc_softmax(x, N);
	h = hash(h, x, sizeof(x));
	if (h != UINT64_C(0x9a18338863fb6db4))
		fail_msg("found %#llx", (unsigned long long)h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_exp),
	    cmocka_unit_test(test_silu_mul),
	    cmocka_unit_test(test_rms_norm),
	    cmocka_unit_test(test_softmax),
	    cmocka_unit_test(test_cross_entropy),
	    cmocka_unit_test(test_top_k),
	    cmocka_unit_test(test_reductions),
	    cmocka_unit_test(test_range_rows),
	    cmocka_unit_test(test_add),
	    cmocka_unit_test(test_channel_stats),
	    cmocka_unit_test(test_same_bits_everywhere),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
