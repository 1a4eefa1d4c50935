/*
 * qparams.c - see qparams.h
 */
#include "moecal/qparams.h"

#include <math.h>

#include "kernel.h"

struct mc_code_range mc_code_range(const struct mc_quant_args *args)
{
	if (args->type == MC_QUANT_FLOAT)
		return args->num_bits == 4 ? (struct mc_code_range){-6.0f, 6.0f}
					   : (struct mc_code_range){-448.0f, 448.0f};
	float half = ldexpf(1.0f, (int)args->num_bits - 1);
	return (struct mc_code_range){-half, half - 1.0f};
}

/* What replaces a scale of zero: the distance from 1 to the next number of the dtype. */
static float epsilon(enum mc_dtype dt)
{
	return dt == MC_BF16 ? 0x1p-7f : dt == MC_F16 ? 0x1p-10f : 0x1p-23f;
}

struct mc_qparam mc_qparam_make(
    const struct mc_quant_args *args, enum mc_dtype dt, float min, float max)
{
	struct mc_code_range range = mc_code_range(args);
	float width = range.max - range.min;
	struct mc_qparam q = {0};

	min = min < 0 ? min : 0.0f;
	max = max > 0 ? max : 0.0f;
	if (args->symmetric) {
		float absmax = -min > max ? -min : max;
		q.scale = mc_round_to(dt, absmax / (width / 2));
	} else {
		q.scale = mc_round_to(dt, mc_round_to(dt, max - min) / width);
		float z = mc_round_to(dt, range.min - mc_round_to(dt, min / q.scale));
		z = z < range.min ? range.min : z > range.max ? range.max : z;
		/* 0 / 0 has no zero point in the reference; everything dequantizes to 0 with any */
		q.zero_point = isnan(z) ? 0 : (int32_t)rintf(z);
	}
	if (q.scale == 0)
		q.scale = epsilon(dt);
	return q;
}

static size_t ceiling(size_t a, uint64_t b)
{
	return (size_t)(a / b + (a % b != 0));
}

bool mc_scale_shape(const struct mc_quant_args *args, size_t rows, size_t cols, const char *name,
    size_t *ret_rows, size_t *ret_cols, struct mc_error *err)
{
	if (rows == 0 || cols == 0)
		return mc_fail(err, MC_INVALID, name,
		    "the weight is [%zu, %zu]: nothing to quantize", rows, cols);
	switch (args->strategy) {
	case MC_STRATEGY_TENSOR:
		*ret_rows = *ret_cols = 1;
		return true;
	case MC_STRATEGY_CHANNEL:
		*ret_rows = rows;
		*ret_cols = 1;
		return true;
	case MC_STRATEGY_GROUP:
	case MC_STRATEGY_TENSOR_GROUP:
		if (args->group_size <= 0 || cols % (uint64_t)args->group_size != 0)
			return mc_fail(err, MC_INVALID, name,
			    "group_size %lld does not divide the %zu input channels",
			    (long long)args->group_size, cols);
		*ret_rows = rows;
		*ret_cols = cols / (size_t)args->group_size;
		return true;
	case MC_STRATEGY_BLOCK:
		if (args->block_rows == 0 || args->block_cols == 0)
			return mc_fail(
			    err, MC_INVALID, name, "strategy 'block' needs block_structure");
		*ret_rows = ceiling(rows, args->block_rows);
		*ret_cols = ceiling(cols, args->block_cols);
		return true;
	case MC_STRATEGY_TOKEN:
	case MC_STRATEGY_ATTN_HEAD:
		break;
	}
	return mc_fail(err, MC_UNSUPPORTED, name, "weights have no scale per %s",
	    args->strategy == MC_STRATEGY_TOKEN ? "token" : "attention head");
}

/* --- many values ------------------------------------------------------------------------------ */

static struct mc_run run_of(const struct mc_quant_args *args, struct mc_qparam qparam)
{
	struct mc_code_range range = mc_code_range(args);

	return (struct mc_run){.scale = qparam.scale,
	    .zero = (float)qparam.zero_point,
	    .min = range.min,
	    .max = range.max};
}

/* NaN and infinities: none of the fast paths keeps them. */
static int8_t code_of_any(bool is_float, enum mc_dtype dt, struct mc_run run, float x)
{
	if (isfinite(x))
		return (int8_t)mc_code(is_float, dt, run, x);
	if (isnan(x))
		return is_float ? 0x7f : 0;
	float v = x > 0 ? run.max : run.min;
	return is_float ? (int8_t)mc_f32_to_e4m3(v) : (int8_t)v;
}

void mc_quantize(const struct mc_quant_args *args, enum mc_dtype dt, struct mc_qparam qparam,
    const float *x, int8_t *codes, size_t n)
{
	struct mc_run run = run_of(args, qparam);
	bool is_float = args->type == MC_QUANT_FLOAT;

	mc_assert(is_float ? args->num_bits == 8 : args->num_bits <= 8);
	for (size_t i = 0; i < n; i++)
		codes[i] = code_of_any(is_float, dt, run, x[i]);
}

#define DEQUANTIZE(name, is_float, dt)                                                             \
	MC_SIMD static void name(struct mc_run run, const int8_t *codes, float *y, size_t n)       \
	{                                                                                          \
		size_t i = 0;                                                                      \
		for (; i + MC_LANES <= n; i += MC_LANES)                                           \
			for (size_t l = 0; l < MC_LANES; l++)                                      \
				y[i + l] = mc_value(is_float, dt, run, codes[i + l]);              \
		for (; i < n; i++)                                                                 \
			y[i] = mc_value(is_float, dt, run, codes[i]);                              \
	}
DEQUANTIZE(dequantize_int_f32, false, MC_F32)
DEQUANTIZE(dequantize_int_bf16, false, MC_BF16)
DEQUANTIZE(dequantize_int_f16, false, MC_F16)
DEQUANTIZE(dequantize_fp8_f32, true, MC_F32)
DEQUANTIZE(dequantize_fp8_bf16, true, MC_BF16)
DEQUANTIZE(dequantize_fp8_f16, true, MC_F16)

void mc_dequantize(const struct mc_quant_args *args, enum mc_dtype dt, struct mc_qparam qparam,
    const int8_t *codes, float *y, size_t n)
{
	struct mc_run run = run_of(args, qparam);
	bool is_float = args->type == MC_QUANT_FLOAT;

	if (dt == MC_BF16)
		(is_float ? dequantize_fp8_bf16 : dequantize_int_bf16)(run, codes, y, n);
	else if (dt == MC_F16)
		(is_float ? dequantize_fp8_f16 : dequantize_int_f16)(run, codes, y, n);
	else
		(is_float ? dequantize_fp8_f32 : dequantize_int_f32)(run, codes, y, n);
}
