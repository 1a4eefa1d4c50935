/*
 * ops.h - loops over elements: norms, rotary, attention, gates, top-k, reductions
 *
 * Single-threaded kernels on rows, for use inside pool items, written so that the compiler can use
 * vectors without changing the order of any sum: results do not depend on the vector width.
 * Letters: T tokens, D model width, F expert width, E experts, K active experts, H heads.
 * Each has a naive twin in tests/reference/.
 */
#ifndef MC_OPS_H
#define MC_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* y = w * x / sqrt(mean(x^2) + eps) a row; x, y [rows, n] with row strides; y may be x. The mean of
 * squares is summed in float64. */
void mc_rms_norm(const float *x, size_t ldx, const float *w, float eps, size_t rows, size_t n, float *y,
    size_t ldy);

/* act[i] = silu(gate[i]) * up[i]; silu(z) = z / (1 + exp(-z)). act may be gate. Relative error of the
 * exponential <= 4 units in the last place; exact limits at +-inf. */
void mc_silu_mul(const float *gate, const float *up, float *act, size_t n);

/* Natural exponential of n values, same accuracy; out may be in. */
void mc_exp_many(const float *in, float *out, size_t n);

/* In place, a row of n: softmax with the maximum subtracted, sum in float64. */
void mc_softmax(float *row, size_t n);

/*
 * Causal attention of one head of one sequence, T positions, positions from 0.
 * q [T, hd] row stride ldq; k, v [T, hd] row stride ldkv; out [T, hd] row stride ldo.
 * window 0: causal; else also u > t - window. scratch: mc_attention_scratch(T) floats.
 */
size_t mc_attention_scratch(size_t tokens);
void mc_attention_head(const float *q, size_t ldq, const float *k, const float *v, size_t ldkv,
    size_t tokens, size_t head_dim, float scale, size_t window, float *out, size_t ldo, float *scratch);

/* cos and sin [T, r/2] for positions 0..T-1 from inverse frequencies [r/2], each times `factor`. */
void mc_rotary_table(const float *inv_freq, size_t half, size_t tokens, float factor, float *cos_out,
    float *sin_out);
/* Half-split rotation of one head in place: x [T, hd] row stride ldx, first 2*half dims rotate. */
void mc_rotary_half(float *x, size_t ldx, size_t tokens, size_t half, const float *cos_t,
    const float *sin_t);

/*
 * Router "softmax over all, keep the K largest": logits [E] of one token -> experts ascending by
 * index, their weights. Ties choose the lower index. renormalise: weights divided by their sum.
 */
void mc_top_k_softmax(const float *logits, size_t experts, size_t k, bool renormalise, uint32_t *ret_index,
    float *ret_weight);

/* y += a * x */
void mc_axpy(float a, const float *x, float *y, size_t n);
void mc_add_to(const float *x, float *y, size_t n); /* y += x */

/* Range of n values, n >= 1; NaN anywhere makes both NaN. */
void mc_range(const float *x, size_t n, float *ret_min, float *ret_max);
/* The same of rows x [rows, n] (row stride ldx); *min and *max are widened to what was seen. */
void mc_range_rows(const float *x, size_t ldx, size_t rows, size_t n, float *min, float *max);
/* True when all n values are finite. */
bool mc_all_finite(const float *x, size_t n);
/* sum of x and of x^2 in float64 in a fixed order */
void mc_sums(const float *x, size_t n, double *ret_sum, double *ret_sum_squares);
/* sum over i of (a-b)^2 and of a^2, float64, fixed order: relative error = sqrt(first/second) */
void mc_error_sums(const float *a, const float *b, size_t n, double *ret_difference, double *ret_square);
/* |a - b| / max(|a|, |b|) of n pairs: the largest, their sum, and how many are not 0. Equal ones are 0,
 * others of which one is not finite are infinite. */
size_t mc_relative_differences(const float *a, const float *b, size_t n, double *ret_largest,
    double *ret_sum);
/* How many of n elements of `size` bytes (1, 2, 4 or 8) differ in any bit. */
size_t mc_count_unlike(const void *a, const void *b, size_t size, size_t n);

/*
 * Per-channel statistics of rows x [rows, n] (row stride ldx), added in row order:
 * sum[n], sum_squares[n] float64; absmax[n] float32 (may each be NULL).
 */
void mc_channel_stats_add(const float *x, size_t ldx, size_t rows, size_t n, double *sum,
    double *sum_squares, float *absmax);

/* -log softmax(logits)[target], in float64; logits [V]. */
double mc_cross_entropy(const float *logits, size_t n, size_t target);

/*
 * Range and per-channel statistics of rows x [., n] (row stride ldx) in one pass, added in row order:
 * row i stands at x + (rows ? rows[i] : i) * ldx. sum, sum_squares [n] float64, absmax [n]; *min and
 * *max are widened to what was seen; NaN anywhere makes both NaN. count 0 changes nothing.
 */
void mc_block_stats_add(const float *x, size_t ldx, const uint32_t *rows, size_t count, size_t n,
    double *sum, double *sum_squares, float *absmax, float *min, float *max);

#endif
