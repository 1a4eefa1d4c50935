/*
 * qparams.c - see qparams.h
 */
#include "moecal/qparams.h"

#include <math.h>
#include <string.h>

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

bool mc_args_mx(const struct mc_quant_args *args)
{
	return args->type == MC_QUANT_FLOAT && args->group_size == 32 &&
	       strcmp(args->scale_dtype, "torch.uint8") == 0;
}

bool mc_args_e4m3_scale(const struct mc_quant_args *args)
{
	return strcmp(args->scale_dtype, "torch.float8_e4m3fn") == 0;
}

/* --- MX scales -------------------------------------------------------------------------------- */

/* absmax down to a power of two; from 1.75 of one on, up to the next. By the bits of dt, as the
 * reference does, so that subnormal numbers come out as there; 0 where nothing is left. */
static float power_of_two(enum mc_dtype dt, float absmax)
{
	if (dt == MC_F16)
		return mc_f16_to_f32((uint16_t)((mc_f32_to_f16(absmax) + 0x100u) & 0xfc00u));
	return mc_bits_float((mc_float_bits(absmax) + 0x200000u) & 0xff800000u);
}

uint8_t mc_mx_exponent(const struct mc_quant_args *args, enum mc_dtype dt, float absmax)
{
	float power = power_of_two(dt, absmax);
	int e;

	if (power == 0)
		return 0; /* log2 is minus infinity */
	if (isinf(power))
		return 255;
	(void)frexpf(power, &e);
	e += 126 - (args->num_bits == 4 ? 2 : 8);
	return (uint8_t)(e < 0 ? 0 : e);
}

/* 2^(e - 127) in dt; what F16 rounds to 0 is 1 in the reference. */
static float mx_scale(const struct mc_quant_args *args, enum mc_dtype dt, float absmax)
{
	int e = mc_mx_exponent(args, dt, absmax);
	float scale = mc_round_to(dt, ldexpf(1.0f, e - 127));

	return scale == 0 ? 1.0f : scale;
}

/* --- one range -------------------------------------------------------------------------------- */

static float absmax_of(float min, float max)
{
	min = min < 0 ? min : 0.0f;
	max = max > 0 ? max : 0.0f;
	return -min > max ? -min : max;
}

static struct mc_qparam asymmetric(
    struct mc_code_range range, enum mc_dtype dt, float min, float max)
{
	struct mc_qparam q;

	min = min < 0 ? min : 0.0f;
	max = max > 0 ? max : 0.0f;
	q.scale = mc_round_to(dt, mc_round_to(dt, max - min) / (range.max - range.min));
	float z = mc_round_to(dt, range.min - mc_round_to(dt, min / q.scale));
	z = z < range.min ? range.min : z > range.max ? range.max : z;
	/* 0 / 0 has no zero point in the reference; everything dequantizes to 0 with any */
	q.zero_point = isnan(z) ? 0 : (int32_t)rintf(z);
	return q;
}

struct mc_qparam mc_qparam_make(
    const struct mc_quant_args *args, enum mc_dtype dt, float min, float max)
{
	struct mc_code_range range = mc_code_range(args);
	struct mc_qparam q = {0};

	if (mc_args_mx(args)) {
		q.scale = mx_scale(args, dt, absmax_of(min, max));
		return q;
	}
	if (args->symmetric)
		q.scale = mc_round_to(dt, absmax_of(min, max) / ((range.max - range.min) / 2));
	else
		q = asymmetric(range, dt, min, max);
	if (mc_args_e4m3_scale(args)) {
		q.scale = mc_round_to(MC_F8_E4M3, q.scale);
		if (q.scale == 0)
			q.scale = 0.125f;
	}
	if (q.scale == 0)
		q.scale = epsilon(dt);
	return q;
}

/* --- global scales ---------------------------------------------------------------------------- */

float mc_global_scale(enum mc_dtype dt, float absmax)
{
	float tiny = dt == MC_F16 ? 0x1p-14f : 0x1p-126f;
	float inverse = mc_round_to(dt, 1.0f / (absmax > tiny ? absmax : tiny));
	float g = mc_round_to(dt, inverse * 2688.0f);

	return isfinite(g) && !isnan(absmax) ? g : 1.0f;
}

struct mc_qparam mc_qparam_make_local(
    const struct mc_quant_args *args, enum mc_dtype dt, float min, float max, float global_scale)
{
	struct mc_code_range range = mc_code_range(args);
	float scale = mc_round_to(dt, absmax_of(min, max) / ((range.max - range.min) / 2));

	mc_assert(args->symmetric);
	scale = mc_round_to(MC_F8_E4M3, global_scale * scale);
	return (struct mc_qparam){.scale = scale == 0 ? 0.125f : scale};
}

/* --- shapes ----------------------------------------------------------------------------------- */

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
static int8_t code_of_any(enum mc_code_kind kind, enum mc_dtype dt, struct mc_run run, float x)
{
	if (isfinite(x))
		return (int8_t)mc_code(kind, dt, run, x);
	if (isnan(x))
		return kind == MC_CODE_E4M3 ? 0x7f : 0;
	float v = x > 0 ? run.max : run.min;
	return kind == MC_CODE_E4M3   ? (int8_t)mc_f32_to_e4m3(v)
	       : kind == MC_CODE_E2M1 ? (int8_t)mc_f32_to_e2m1(v)
				      : (int8_t)v;
}

void mc_quantize(const struct mc_quant_args *args, enum mc_dtype dt, struct mc_qparam qparam,
    const float *x, int8_t *codes, size_t n)
{
	struct mc_run run = run_of(args, qparam);
	enum mc_code_kind kind = mc_code_kind(args);

	mc_assert(args->num_bits <= 8);
	for (size_t i = 0; i < n; i++)
		codes[i] = code_of_any(kind, dt, run, x[i]);
}

#define DEQUANTIZE(name, kind, dt)                                                                 \
	MC_SIMD static void name(struct mc_run run, const int8_t *codes, float *y, size_t n)       \
	{                                                                                          \
		size_t i = 0;                                                                      \
		for (; i + MC_LANES <= n; i += MC_LANES)                                           \
			for (size_t l = 0; l < MC_LANES; l++)                                      \
				y[i + l] = mc_value(kind, dt, run, codes[i + l]);                  \
		for (; i < n; i++)                                                                 \
			y[i] = mc_value(kind, dt, run, codes[i]);                                  \
	}
MC_KERNELS(DEQUANTIZE, dequantize)

typedef void dequantize_fn(struct mc_run run, const int8_t *codes, float *y, size_t n);
static dequantize_fn *const dequantizers[3][3] = MC_KERNEL_TABLE(dequantize);

void mc_dequantize(const struct mc_quant_args *args, enum mc_dtype dt, struct mc_qparam qparam,
    const int8_t *codes, float *y, size_t n)
{
	dequantizers[mc_code_kind(args)][mc_kernel_dtype(dt)](run_of(args, qparam), codes, y, n);
}
