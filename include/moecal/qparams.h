/*
 * qparams.h - scales and zero points from ranges; shapes; quantize and dequantize one value
 *
 * "dt" is the dtype that the reference would compute in (the weights' dtype): with BF16 and F16 every
 * single operation is rounded to it, so results are bit-equal to the eager reference.
 */
#ifndef MC_QPARAMS_H
#define MC_QPARAMS_H

#include "moecal/scheme.h"

struct mc_code_range {
	float min, max; /* int: -2^(b-1), 2^(b-1)-1; E4M3 +-448; E2M1 +-6 */
};
struct mc_code_range mc_code_range(const struct mc_quant_args *args);

struct mc_qparam {
	float scale;        /* representable in dt */
	int32_t zero_point; /* 0 when symmetric */
};
/* calculate_qparams (3.2) for one range; edge cases of 3.10. Integers and E4M3. */
struct mc_qparam mc_qparam_make(const struct mc_quant_args *args, enum mc_dtype dt, float min, float max);

/* Rows and columns of the scale of a weight [rows, cols]. Errors: INVALID when a group does not divide
 * the columns ("group_size 128 does not divide the 96 input channels"); `name` goes into the error. */
bool mc_scale_shape(const struct mc_quant_args *args, size_t rows, size_t cols, const char *name,
    size_t *ret_rows, size_t *ret_cols, struct mc_error *err) MC_CHECKED;

/* n values of one scale: codes as integers (int types) or E4M3 bytes (as uint8_t in int8_t). */
void mc_quantize(const struct mc_quant_args *args, enum mc_dtype dt, struct mc_qparam qparam,
    const float *x, int8_t *codes, size_t n);
/* (code - z) * s rounded to dt */
void mc_dequantize(const struct mc_quant_args *args, enum mc_dtype dt, struct mc_qparam qparam,
    const int8_t *codes, float *y, size_t n);

#endif
