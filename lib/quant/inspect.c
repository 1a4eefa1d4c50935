/*
 * inspect.c - what codes, zero points and scales that somebody else wrote look like
 */
#include "moecal/rtn.h"

#include <math.h>

static bool is_e2m1(const struct mc_quant_args *args)
{
	return args->type == MC_QUANT_FLOAT && args->num_bits == 4;
}

size_t mc_quantized_bad_codes(const struct mc_quantized *q, const struct mc_quant_args *args)
{
	struct mc_code_range range = mc_code_range(args);
	size_t bad = 0, n = q->rows * q->cols;

	if (is_e2m1(args)) /* every nibble is a number */
		return 0;
	if (args->type == MC_QUANT_FLOAT) {
		for (size_t i = 0; i < n; i++)
			bad += ((uint8_t)q->codes[i] & 0x7f) == 0x7f;
		return bad;
	}
	for (size_t i = 0; i < n; i++)
		bad += (float)q->codes[i] < range.min || (float)q->codes[i] > range.max;
	return bad;
}

size_t mc_quantized_bad_zero_points(const struct mc_quantized *q, const struct mc_quant_args *args)
{
	struct mc_code_range range = mc_code_range(args);
	size_t bad = 0, n = q->scale_rows * q->scale_cols;

	for (size_t i = 0; q->zero_point != NULL && i < n; i++)
		bad += (float)q->zero_point[i] < range.min || (float)q->zero_point[i] > range.max;
	return bad;
}

bool mc_quantized_is_zero(const struct mc_quantized *q, const struct mc_quant_args *args)
{
	size_t n = q->rows * q->cols;
	/* of floats the sign does not count */
	uint8_t mask = args->type == MC_QUANT_INT ? 0xff : is_e2m1(args) ? 0x07 : 0x7f, any = 0;

	if (q->zero_point != NULL)
		return false; /* each group has another zero; nobody asks for them */
	for (size_t i = 0; i < n; i++)
		any |= (uint8_t)q->codes[i] & mask;
	return any == 0;
}

double mc_quantized_level(const struct mc_quantized *q, const struct mc_quant_args *args)
{
	size_t n = q->scale_rows * q->scale_cols, count = 0;
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		if (isfinite(q->scale[i]) && q->scale[i] > 0) {
			sum += log2(q->scale[i]);
			count++;
		}
	double global = q->global_scale > 0 ? log2(q->global_scale) : 0;
	return count == 0 ? NAN : sum / (double)count + log2(mc_code_range(args).max) - global;
}
