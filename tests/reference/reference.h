/*
 * reference.h - the operations of lib/math by their definitions: one value at a time, in float64
 *
 * Rows are contiguous here. Slow and plain on purpose; the tests compare the real ones with these.
 */
#ifndef MC_REFERENCE_H
#define MC_REFERENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- formats: 1 sign bit, exponent bits, mantissa bits, bias
 * -------------------------------------- */

struct ref_format {
	int exponent_bits, mantissa_bits, bias;
	double largest;
	bool has_infinity; /* the highest exponent is kept for infinities and NaN */
};
extern const struct ref_format ref_bf16, ref_f16, ref_e4m3, ref_e2m1;

/* Value of a code that is neither infinite nor NaN. */
double ref_decode(const struct ref_format *format, unsigned code);
/* The format's value next to v, ties to the even mantissa; past the largest: infinity or
 * saturation. */
double ref_round(const struct ref_format *format, double v);

/* --- products -----------------------------------------------------------------------------------
 */

/* y[t][n] = sum over k of x[t][k] w[n][k], + b[n] when b is given */
void ref_linear(
    const float *x, const float *w, const float *b, size_t tokens, size_t k, size_t n, double *y);

/* --- rows ---------------------------------------------------------------------------------------
 */

void ref_rms_norm(const float *x, const float *w, double eps, size_t n, double *y);
double ref_silu(double z);
void ref_softmax(const double *x, size_t n, double *y);
double ref_cross_entropy(const float *logits, size_t n, size_t target);
/* One head: q, k, v, out [tokens, head_dim]. */
void ref_attention(const float *q, const float *k, const float *v, size_t tokens, size_t head_dim,
    double scale, size_t window, double *out);
/* One row of one head at a position; the first 2 * half values turn. */
void ref_rotary_half(const float *x, const float *inv_freq, size_t half, size_t n, size_t position,
    double factor, double *y);
/* Softmax over all, sorted by (weight down, index up), first k, then ascending by index. */
void ref_top_k_softmax(const float *logits, size_t experts, size_t k, bool renormalise,
    uint32_t *index, double *weight);

#endif
