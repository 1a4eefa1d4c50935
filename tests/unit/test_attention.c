/*
 * test_attention.c - attention of a head and rotary against their definitions
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/ops.h"
#include "reference/reference.h"

static float number(uint32_t i)
{
	uint32_t bits = (i + 1) * 2654435761u;
	bits ^= bits >> 15;
	bits *= 2246822519u;
	return (float)(bits >> 8) / 8388608.0f - 1.0f;
}

static float *numbers(size_t n, float scale, uint32_t seed)
{
	float *x = malloc(n * sizeof(*x));
	assert_non_null(x);
	for (size_t i = 0; i < n; i++)
		x[i] = scale * number((uint32_t)i + seed);
	return x;
}

static void close_to(double found, double needed, double limit)
{
	if (!(fabs(found - needed) <= limit))
		fail_msg("found %.9g, needed %.9g", found, needed);
}

/* The head lies among others: rows have strides, and what is beside it stays. */
static void check_attention(size_t tokens, size_t head_dim, size_t window)
{
	size_t ld = head_dim + 24, ldo = head_dim + 8;
	float *q = numbers(tokens * head_dim, 2, 1), *k = numbers(tokens * head_dim, 2, 77777);
	float *v = numbers(tokens * head_dim, 1, 999);
	float *wide_q = calloc(tokens * ld, sizeof(float)),
	      *wide_k = calloc(tokens * ld, sizeof(float));
	float *wide_v = calloc(tokens * ld, sizeof(float)),
	      *out = calloc(tokens * ldo, sizeof(float));
	float *scratch = malloc((mc_attention_scratch(tokens) + 1) * sizeof(float));
	double *needed = malloc(tokens * head_dim * sizeof(double));
	assert_true(wide_q && wide_k && wide_v && out && scratch && needed);
	for (size_t t = 0; t < tokens; t++) {
		memcpy(wide_q + t * ld, q + t * head_dim, head_dim * sizeof(float));
		memcpy(wide_k + t * ld, k + t * head_dim, head_dim * sizeof(float));
		memcpy(wide_v + t * ld, v + t * head_dim, head_dim * sizeof(float));
	}
	double scale = 1 / sqrt((double)head_dim);
	scratch[mc_attention_scratch(tokens)] = 42;
	mc_attention_head(wide_q, ld, wide_k, wide_v, ld, tokens, head_dim, (float)scale, window,
	    out, ldo, scratch);
	assert_true(scratch[mc_attention_scratch(tokens)] == 42);
	ref_attention(q, k, v, tokens, head_dim, scale, window, needed);
	for (size_t t = 0; t < tokens; t++) {
		for (size_t i = 0; i < head_dim; i++)
			close_to((double)out[t * ldo + i], needed[t * head_dim + i], 3e-6);
		for (size_t i = head_dim; i < ldo; i++)
			assert_true(out[t * ldo + i] == 0);
	}
	for (size_t i = 0; i < head_dim; i++) /* the first token sees itself only */
		close_to((double)out[i], (double)v[i], 1e-7);
	free(needed);
	free(scratch);
	free(out);
	free(wide_v);
	free(wide_k);
	free(wide_q);
	free(v);
	free(k);
	free(q);
}

static void test_causal(void **state)
{
	(void)state;
	check_attention(1, 32, 0);
	check_attention(7, 16, 0);
	check_attention(128, 64, 0);
	check_attention(129, 64, 0);
	check_attention(300, 40, 0);
}

static void test_window(void **state)
{
	(void)state;
	check_attention(40, 16, 1);
	check_attention(300, 32, 5);
	check_attention(300, 32, 128);
	check_attention(300, 32, 129);
	check_attention(300, 32, 299);
	check_attention(300, 32, 1000);
}

static void test_later_tokens_do_not_matter(void **state)
{
	(void)state;
	enum { T = 200, HD = 16 };
	float *x = numbers(3 * T * HD, 1, 5),
	      *scratch = malloc(mc_attention_scratch(T) * sizeof(float));
	static float before[T * HD], after[T * HD];
	assert_non_null(scratch);
	mc_attention_head(
	    x, HD, x + T * HD, x + 2 * T * HD, HD, T, HD, 0.25f, 0, before, HD, scratch);
	for (size_t part = 0; part < 3; part++)
		for (size_t i = 150 * HD; i < T * HD; i++)
			x[part * T * HD + i] *= -3;
	mc_attention_head(
	    x, HD, x + T * HD, x + 2 * T * HD, HD, T, HD, 0.25f, 0, after, HD, scratch);
	assert_memory_equal(before, after, 150 * HD * sizeof(float));
	assert_memory_not_equal(before + 150 * HD, after + 150 * HD, HD * sizeof(float));
	free(scratch);
	free(x);
}

static void test_rotary(void **state)
{
	(void)state;
	enum { T = 50, HD = 40, HALF = 16, LD = 48 };
	float inv_freq[HALF], cos_t[T * HALF], sin_t[T * HALF];
	double needed[LD];
	for (size_t j = 0; j < HALF; j++)
		inv_freq[j] = (float)pow(10000, -(double)j / HALF);
	mc_rotary_table(inv_freq, HALF, T, 1.25f, cos_t, sin_t);
	assert_true(cos_t[0] == 1.25f && sin_t[0] == 0);
	float *x = numbers(T * LD, 1, 3), *turned = numbers(T * LD, 1, 3);
	mc_rotary_half(turned, LD, T, HALF, cos_t, sin_t);
	for (size_t t = 0; t < T; t++) {
		ref_rotary_half(x + t * LD, inv_freq, HALF, LD, t, 1.25, needed);
		for (size_t i = 0; i < LD; i++)
			close_to((double)turned[t * LD + i], needed[i], i < 2 * HALF ? 4e-7 : 0);
	}
	free(turned);
	free(x);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_causal),
	    cmocka_unit_test(test_window),
	    cmocka_unit_test(test_later_tokens_do_not_matter),
	    cmocka_unit_test(test_rotary),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
