/*
 * attention.c - causal attention of one head
 *
 * A block of queries at a time: its scores against all keys that any of them may see are one
 * product, the softmax runs over what each row may see, the values are a second product. The block
 * is a constant, so nothing depends on who computes the head.
 */
#include "moecal/ops.h"

#include "moecal/error.h"
#include "moecal/linalg.h"
#include "moecal/simd.h"
#include "softmax.h"

#define BLOCK 128

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

size_t mc_attention_scratch(size_t tokens)
{
	return BLOCK * (tokens + 1); /* scores of a block, and one factor a row */
}

/* First position that the query at `position` sees. */
static size_t first_seen(size_t position, size_t window)
{
	return window > 0 && position + 1 > window ? position + 1 - window : 0;
}

MC_SIMD static void scale_in_place(float *x, size_t n, float factor)
{
	for (size_t i = 0; i < n; i++)
		x[i] *= factor;
}

/*
 * Scores of queries first..first+rows-1 against keys key..key+keys-1 -> terms of the softmax, zero
 * where masked; factor[row] = 1 / sum. Dividing the output row instead of the terms saves a pass.
 */
static void make_probabilities(float *scores, size_t first, size_t rows, size_t key, size_t keys,
    float scale, size_t window, float *factor)
{
	for (size_t row = 0; row < rows; row++) {
		float *line = scores + row * keys;
		size_t begin = first_seen(first + row, window) - key;
		size_t end = first + row + 1 - key;
		for (size_t u = 0; u < begin; u++)
			line[u] = 0.0f;
		for (size_t u = end; u < keys; u++)
			line[u] = 0.0f;
		factor[row] = (float)(1.0 / mc_softmax_terms(line + begin, end - begin, scale));
	}
}

void mc_attention_head(const float *q, size_t ldq, const float *k, const float *v, size_t ldkv,
    size_t tokens, size_t head_dim, float scale, size_t window, float *out, size_t ldo,
    float *scratch)
{
	mc_assert(ldq >= head_dim && ldkv >= head_dim && ldo >= head_dim);
	float *factor = scratch;
	float *scores = scratch + BLOCK;
	for (size_t first = 0; first < tokens; first += BLOCK) {
		size_t rows = smaller(BLOCK, tokens - first);
		size_t key = first_seen(first, window);
		size_t keys = first + rows - key;
		mc_gemm_nt(rows, keys, head_dim, q + first * ldq, ldq, k + key * ldkv, ldkv, 0.0f,
		    scores, keys);
		make_probabilities(scores, first, rows, key, keys, scale, window, factor);
		mc_gemm_nn(rows, head_dim, keys, scores, keys, v + key * ldkv, ldkv, 0.0f,
		    out + first * ldo, ldo);
		for (size_t row = 0; row < rows; row++)
			scale_in_place(out + (first + row) * ldo, head_dim, factor[row]);
	}
}
