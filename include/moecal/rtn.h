/*
 * rtn.h - round to nearest: one linear's weight to codes, scales and zero points
 */
#ifndef MC_RTN_H
#define MC_RTN_H

#include "moecal/arena.h"
#include "moecal/qparams.h"
#include "moecal/tensor.h"

/* A quantized weight [rows, cols]; arrays from the arena given to mc_rtn. */
struct mc_quantized {
	size_t rows, cols;
	size_t scale_rows, scale_cols;
	float *scale;         /* [scale_rows, scale_cols], representable in dt */
	int32_t *zero_point;  /* the same shape; NULL when symmetric */
	int8_t *codes;        /* [rows, cols]; E4M3: the bytes */
	double error_sum;     /* sum of (w - dequantized)^2 */
	double square_sum;    /* sum of w^2; relative error = sqrt(error_sum / square_sum) */
	float scale_min, scale_max, weight_absmax;
};

/* Bytes that mc_rtn takes from the arena at most. */
uint64_t mc_rtn_bytes(const struct mc_quant_args *args, size_t rows, size_t cols);

/*
 * weight: F32, F16 or BF16; its dtype is dt. One thread: for use inside pool items, arena is the
 * worker's. Observer: memoryless_minmax. Errors: INVALID (shape), NO_MEMORY, UNSUPPORTED.
 */
bool mc_rtn(const struct mc_weight *weight, const struct mc_quant_args *args, const char *name,
    struct mc_arena *arena, struct mc_quantized *ret, struct mc_error *err) MC_CHECKED;

/* Row `row` dequantized, rounded to dt: out [cols]. */
void mc_quantized_row(const struct mc_quantized *q, const struct mc_quant_args *args, enum mc_dtype dt,
    size_t row, float *out);

#endif
