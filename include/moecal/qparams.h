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
/* calculate_qparams (3.2) for one range, without a global scale; edge cases of 3.10. MX arguments
 * give the power of two itself. */
struct mc_qparam mc_qparam_make(const struct mc_quant_args *args, enum mc_dtype dt, float min, float max);

/* Whether scales are powers of two, stored as E8M0: floats in groups of 32, scale_dtype uint8. */
bool mc_args_mx(const struct mc_quant_args *args);
/* Whether scales are E4M3 numbers. */
bool mc_args_e4m3_scale(const struct mc_quant_args *args);
/* The stored exponent of an MX scale (3.5): 127 + floor(log2(absmax)) - 2 (4 bits) or - 8 (8 bits),
 * where a significand from 1.75 on counts as the next power. absmax >= 0 in dt. */
uint8_t mc_mx_exponent(const struct mc_quant_args *args, enum mc_dtype dt, float absmax);

/* The multiplier that all local scales of a tensor (of fused tensors) carry (3.4): 2688 / absmax,
 * each operation in dt; 1 where that is not finite. */
float mc_global_scale(enum mc_dtype dt, float absmax);
/* The E4M3 scale of one range under a global scale: E4M3(global * range / 6), 0.125 where that is 0.
 * Values are then quantized in F32 by scale / global. */
struct mc_qparam mc_qparam_make_local(const struct mc_quant_args *args, enum mc_dtype dt, float min,
    float max, float global_scale);

/* Rows and columns of the scale of a weight [rows, cols]. Errors: INVALID when a group does not divide
 * the columns ("group_size 128 does not divide the 96 input channels"); `name` goes into the error. */
bool mc_scale_shape(const struct mc_quant_args *args, size_t rows, size_t cols, const char *name,
    size_t *ret_rows, size_t *ret_cols, struct mc_error *err) MC_CHECKED;

/* n values of one scale: codes as integers (int types), E4M3 bytes (as uint8_t in int8_t) or E2M1
 * nibbles, 0 to 15. With a global scale: dt F32 and qparam.scale = local / global. */
void mc_quantize(const struct mc_quant_args *args, enum mc_dtype dt, struct mc_qparam qparam,
    const float *x, int8_t *codes, size_t n);
/* (code - z) * s rounded to dt */
void mc_dequantize(const struct mc_quant_args *args, enum mc_dtype dt, struct mc_qparam qparam,
    const int8_t *codes, float *y, size_t n);

#endif
