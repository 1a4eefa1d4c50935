/*
 * rtn.h - round to nearest: one linear's weight to codes, scales and zero points
 */
#ifndef MC_RTN_H
#define MC_RTN_H

#include "moecal/arena.h"
#include "moecal/qparams.h"
#include "moecal/tensor.h"
#include "moecal/weight_observer.h"

/* A quantized weight [rows, cols]; arrays from the arena given to mc_rtn. */
struct mc_quantized {
	size_t rows, cols;
	size_t scale_rows, scale_cols;
	float *scale;         /* [scale_rows, scale_cols], representable in dt; MX: powers of two */
	float global_scale;   /* tensor_group: values are codes * scale / global_scale; else 0 */
	int32_t *zero_point;  /* the same shape; NULL when symmetric */
	int8_t *codes;        /* [rows, cols]; E4M3: the bytes; E2M1: the nibbles, 0 to 15 */
	const int32_t *group; /* [cols]: the scale of each column, where not the order says it; or NULL */
	double error_sum;     /* sum of (w - dequantized)^2 */
	double square_sum;    /* sum of w^2; relative error = sqrt(error_sum / square_sum) */
	float scale_min, scale_max, weight_absmax;
};

/* Bytes that mc_rtn takes from the arena at most. */
uint64_t mc_rtn_bytes(const struct mc_quant_args *args, size_t rows, size_t cols);

/*
 * weight: F32, F16 or BF16; its dtype is dt. One thread: for use inside pool items, arena is the
 * worker's. The range of each scale is found by the observer that args name. Errors: CORRUPT (a
 * weight is not finite: name, row, column), INVALID (shape), NO_MEMORY, UNSUPPORTED.
 */
bool mc_rtn(const struct mc_weight *weight, const struct mc_quant_args *args, const char *name,
    struct mc_arena *arena, struct mc_quantized *ret, struct mc_error *err) MC_CHECKED;

/* What is known besides the weight; all may be absent. */
struct mc_rtn_given {
	const float *mean_square;           /* [cols] of the linear's input, for imatrix */
	const struct mc_observed *observed; /* of this weight: then it is not observed again */
	float fused_absmax; /* tensor_group: the greatest absmax of the fused weights; 0: its own */
};
bool mc_rtn_given(const struct mc_weight *weight, const struct mc_quant_args *args,
    const struct mc_rtn_given *given, const char *name, struct mc_arena *arena,
    struct mc_quantized *ret, struct mc_error *err) MC_CHECKED;

/* Row `row` dequantized, rounded to dt: out [cols]. */
void mc_quantized_row(const struct mc_quantized *q, const struct mc_quant_args *args, enum mc_dtype dt,
    size_t row, float *out);

/* What can be wrong with codes that somebody wrote: integers outside the range of their bits, floats that
 * are NaN; zero points likewise. How many. */
size_t mc_quantized_bad_codes(const struct mc_quantized *q, const struct mc_quant_args *args);
size_t mc_quantized_bad_zero_points(const struct mc_quantized *q, const struct mc_quant_args *args);
/* Whether every code stands for zero. */
bool mc_quantized_is_zero(const struct mc_quantized *q, const struct mc_quant_args *args);
/* How large its weights may be: mean log2 of what the last code stands for, over the scales that are
 * positive and finite; NAN when none is. */
double mc_quantized_level(const struct mc_quantized *q, const struct mc_quant_args *args);

#endif
