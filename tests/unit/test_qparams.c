/*
 * test_qparams.c - scales, zero points and codes against the reference's vectors, bit for bit
 */
#include "moecal/qparams.h"

#include <math.h>
#include <unistd.h>

#include "golden.h"

static bool skipped(const struct golden *g)
{
	struct mc_quant_config config;
	struct mc_error err;

	mc_error_init(&err);
	golden_scheme(g, &config);
	bool ok = mc_scheme_require_supported(&config.schemes[0], &err);
	mc_quant_config_release(&config);
	return !ok;
}

static void calculate_qparams_is_the_references(void **state)
{
	struct golden g;
	size_t cases = 0, values = 0;

	(void)state;
	golden_open(&g);
	while (golden_next(&g, "calculate_qparams")) {
		struct mc_quant_config config;
		golden_scheme(&g, &config);
		const struct mc_quant_args *args = &config.schemes[0].weights;
		struct mc_tensor min = golden_tensor(&g, "in", "min"),
				 max = golden_tensor(&g, "in", "max");
		struct mc_tensor scale = golden_tensor(&g, "out", "scale");
		struct mc_tensor zero = golden_tensor(&g, "out", "zero_point");
		float *fmin = golden_floats(&min), *fmax = golden_floats(&max),
		      *s = golden_floats(&scale);
		struct mc_tensor global = golden_tensor(&g, "in", "global_scale");
		float *z = golden_floats(&zero);
		float *gs = global.data == NULL ? NULL : golden_floats(&global);
		for (size_t i = 0; i < mc_tensor_elements(&min); i++) {
			struct mc_qparam q =
			    gs == NULL ? mc_qparam_make(args, min.dtype, fmin[i], fmax[i])
				       : mc_qparam_make_local(
					     args, min.dtype, fmin[i], fmax[i], gs[0]);
			/* an asymmetric range from 0 whose scale rounds to 0 has no zero point
			 * there */
			struct mc_code_range range = mc_code_range(args);
			float high = fmax[i] > 0 ? fmax[i] : 0;
			bool undefined =
			    !args->symmetric && fmin[i] >= 0 &&
			    mc_round_to(min.dtype, high / (range.max - range.min)) == 0;
			if (q.scale != s[i] || (!undefined && (float)q.zero_point != z[i]))
				fail_msg("%s: [%g, %g] gives %g, %d; needed %g, %g", g.name,
				    fmin[i], fmax[i], q.scale, q.zero_point, s[i], z[i]);
			values++;
		}
		free(fmin), free(fmax), free(s), free(z), free(gs), free(global.data);
		free(min.data), free(max.data), free(scale.data), free(zero.data);
		mc_quant_config_release(&config);
		cases++;
	}
	golden_close(&g);
	assert_int_equal(cases, 69);
	assert_true(values >= 2700);
}

static void global_scales_are_the_references(void **state)
{
	struct golden g;
	size_t values = 0;

	(void)state;
	golden_open(&g);
	while (golden_next(&g, "generate_gparam")) {
		struct mc_tensor min = golden_tensor(&g, "in", "min"),
				 max = golden_tensor(&g, "in", "max");
		struct mc_tensor global = golden_tensor(&g, "out", "global_scale");
		float *fmin = golden_floats(&min), *fmax = golden_floats(&max),
		      *want = golden_floats(&global);
		for (size_t i = 0; i < mc_tensor_elements(&global); i++) {
			float absmax = isnan(fmin[i]) ? fmin[i]
				       : -fmin[i] > fmax[i] || isnan(fmax[i]) ? -fmin[i]
									      : fmax[i];
			if (isnan(fmax[i]))
				absmax = fmax[i];
			float have = mc_global_scale(min.dtype, absmax);
			if (memcmp(&have, &want[i], sizeof have) != 0)
				fail_msg("%s: %g gives %.9g; needed %.9g", g.name, absmax, have,
				    want[i]);
			values++;
		}
		free(fmin), free(fmax), free(want);
		free(min.data), free(max.data), free(global.data);
	}
	golden_close(&g);
	assert_true(values >= 100);
}

static void mx_exponents_are_the_references(void **state)
{
	struct golden g;
	size_t values = 0;

	(void)state;
	golden_open(&g);
	while (golden_next(&g, "generate_mx_scales")) {
		struct mc_quant_args args = {.type = MC_QUANT_FLOAT,
		    .num_bits = (unsigned)mc_json_integer(
			mc_json_get(mc_json_get(g.entry, "args"), "num_bits")),
		    .group_size = 32,
		    .scale_dtype = "torch.uint8"};
		struct mc_tensor x = golden_tensor(&g, "in", "x"),
				 exponent = golden_tensor(&g, "out", "exponent");
		float *fx = golden_floats(&x), *want = golden_floats(&exponent);
		for (size_t i = 0; i < mc_tensor_elements(&x); i++) {
			/* the reference's own value is clamped to what a byte holds later */
			float need = want[i] < 0 ? 0 : want[i] > 255 ? 255 : want[i];
			uint8_t have = mc_mx_exponent(&args, x.dtype, fx[i]);
			if (fx[i] >= 0 && (float)have != need)
				fail_msg("%s: %g gives %u; needed %g", g.name, fx[i], have, need);
			values++;
		}
		free(fx), free(want), free(x.data), free(exponent.data);
	}
	golden_close(&g);
	assert_true(values >= 300);
}

static void fp4_codes_are_the_references(void **state)
{
	struct mc_quant_args args = {.type = MC_QUANT_FLOAT, .num_bits = 4, .symmetric = true};
	struct mc_qparam one = {.scale = 1};
	struct golden g;
	size_t values = 0;

	(void)state;
	golden_open(&g);
	while (golden_next(&g, "cast_to_fp4")) {
		struct mc_tensor x = golden_tensor(&g, "in", "x"),
				 y = golden_tensor(&g, "out", "y");
		float *fx = golden_floats(&x), *want = golden_floats(&y);
		for (size_t i = 0; i < mc_tensor_elements(&x); i++) {
			int8_t code;
			if (!isfinite(fx[i]))
				continue;
			mc_quantize(&args, x.dtype, one, &fx[i], &code, 1);
			float have = mc_e2m1_to_f32((uint8_t)code);
			/* -0 is made +0 before, when a zero point of 0 is added */
			if (memcmp(&have, &want[i], sizeof have) != 0 && fx[i] != 0)
				fail_msg("%s: %g gives %g; needed %g", g.name, fx[i], have,
				    want[i]);
			values++;
		}
		free(fx), free(want), free(x.data), free(y.data);
	}
	golden_close(&g);
	assert_true(values >= 800);
}

/* -0 is not 0 here; one NaN is as good as another. */
static bool same_bits(float a, float b)
{
	return (isnan(a) && isnan(b)) || memcmp(&a, &b, sizeof a) == 0;
}

static void check_quantize(const struct golden *g)
{
	struct mc_quant_config config;
	golden_scheme(g, &config);
	const struct mc_quant_args *args = &config.schemes[0].weights;
	struct mc_tensor x = golden_tensor(g, "in", "x"), scale = golden_tensor(g, "in", "scale");
	struct mc_tensor zero = golden_tensor(g, "in", "zero_point"),
			 codes = golden_tensor(g, "out", "codes");
	struct mc_tensor back = golden_tensor(g, "out", "dequantized");
	struct mc_tensor global = golden_tensor(g, "in", "global_scale");
	float *gs = global.data == NULL ? NULL : golden_floats(&global);
	bool fp4 = args->type == MC_QUANT_FLOAT && args->num_bits == 4;
	/* under a global scale all is float32 */
	enum mc_dtype dt = gs == NULL ? x.dtype : MC_F32;
	float *fx = golden_floats(&x), *s = golden_floats(&scale), *y = golden_floats(&back);
	float *z = zero.data == NULL ? NULL : golden_floats(&zero), *c = golden_floats(&codes);
	bool skip_row = mc_json_get(g->entry, "note") != NULL; /* rows of zeros, asymmetric */

	for (size_t i = 0; i < mc_tensor_elements(&x); i++) {
		size_t row = i / x.shape[1],
		       at = golden_scale_at(args, x.shape[1], row, i % x.shape[1]);
		struct mc_qparam q = {.scale = s[at], .zero_point = z == NULL ? 0 : (int32_t)z[at]};
		int8_t code;
		float value;
		if (skip_row && row == 0)
			continue;
		if (gs != NULL)
			q.scale /= gs[0];
		mc_quantize(args, dt, q, &fx[i], &code, 1);
		mc_dequantize(args, dt, q, &code, &value, 1);
		value = mc_round_to(back.dtype, value);
		float number = fp4                            ? mc_e2m1_to_f32((uint8_t)code)
			       : args->type == MC_QUANT_FLOAT ? mc_e4m3_to_f32((uint8_t)code)
							      : (float)code;
		if (!same_bits(number, c[i]) || !same_bits(value, y[i]))
			fail_msg("%s: element %zu, %g by %g gives code %g, value %g; needed %g, %g",
			    g->name, i, fx[i], q.scale, number, value, c[i], y[i]);
	}
	free(fx), free(s), free(y), free(z), free(c), free(gs), free(global.data);
	free(x.data), free(scale.data), free(zero.data), free(codes.data), free(back.data);
	mc_quant_config_release(&config);
}

static void quantize_is_the_references(void **state)
{
	struct golden g;
	size_t cases = 0;

	(void)state;
	golden_open(&g);
	while (golden_next(&g, "quantize")) {
		if (skipped(&g))
			continue;
		check_quantize(&g);
		cases++;
	}
	golden_close(&g);
	assert_true(cases >= 40);
}

/* Runs of any length give what one value at a time gives. */
static void runs_are_their_values(void **state)
{
	struct mc_quant_args args = {.type = MC_QUANT_INT, .num_bits = 5};
	static const enum mc_dtype dtypes[] = {MC_F32, MC_BF16, MC_F16};
	float x[53], y[53], one;
	int8_t codes[53], code;

	(void)state;
	for (size_t d = 0; d < 9; d++) {
		args.type = d < 3 ? MC_QUANT_INT : MC_QUANT_FLOAT;
		args.num_bits = d < 3 ? 5 : d < 6 ? 8 : 4;
		struct mc_qparam q = {.scale = 0.0625f, .zero_point = d < 3 ? -3 : 0};
		for (size_t i = 0; i < 53; i++)
			x[i] = mc_round_to(dtypes[d % 3], (float)sin((double)i * 1.7) * 2.0f);
		mc_quantize(&args, dtypes[d % 3], q, x, codes, 53);
		mc_dequantize(&args, dtypes[d % 3], q, codes, y, 53);
		for (size_t i = 0; i < 53; i++) {
			mc_quantize(&args, dtypes[d % 3], q, &x[i], &code, 1);
			mc_dequantize(&args, dtypes[d % 3], q, &code, &one, 1);
			assert_int_equal(code, codes[i]);
			assert_memory_equal(&one, &y[i], sizeof one);
		}
	}
}

static void edge_cases(void **state)
{
	struct mc_quant_args args = {.type = MC_QUANT_INT, .num_bits = 8, .symmetric = true};
	struct mc_qparam q = mc_qparam_make(&args, MC_F32, 1, 1);
	float x[] = {1, -0.0f, NAN, INFINITY, -INFINITY};
	int8_t codes[5];

	(void)state;
	assert_true(q.scale == 1.0f / 127.5f && q.zero_point == 0);
	mc_quantize(&args, MC_F32, q, x, codes, 5);
	assert_int_equal(codes[0], 127);
	assert_int_equal(codes[1], 0);
	assert_int_equal(codes[3], 127);
	assert_int_equal(codes[4], -128);
	assert_true(mc_qparam_make(&args, MC_BF16, 0, 0).scale == 0x1p-7f);
	assert_true(mc_qparam_make(&args, MC_F16, 0, 0).scale == 0x1p-10f);
	assert_true(mc_qparam_make(&args, MC_F32, 0, 0).scale == 0x1p-23f);
	args.symmetric = false;
	q = mc_qparam_make(&args, MC_F32, 1, 1);
	assert_true(q.scale == 1.0f / 255.0f && q.zero_point == -128);
	q = mc_qparam_make(&args, MC_F32, 0, 0);
	assert_true(q.scale == 0x1p-23f && q.zero_point == 0);
	q = mc_qparam_make(&args, MC_F32, -1e-44f, 0); /* underflows */
	assert_true(q.scale == 0x1p-23f && q.zero_point == 127);
	args = (struct mc_quant_args){.type = MC_QUANT_FLOAT, .num_bits = 8, .symmetric = true};
	q = mc_qparam_make(&args, MC_BF16, -12.5f, 7);
	assert_true(q.scale == 0.0279541015625f);
	mc_quantize(&args, MC_F32, (struct mc_qparam){.scale = 1}, x, codes, 5);
	assert_int_equal((uint8_t)codes[1], 0x00);
	assert_int_equal((uint8_t)codes[2], 0x7f);
	assert_int_equal((uint8_t)codes[4], 0xfe);
}

static void shapes(void **state)
{
	struct mc_quant_args args = {
	    .type = MC_QUANT_INT, .num_bits = 4, .strategy = MC_STRATEGY_GROUP, .group_size = 128};
	struct mc_error err;
	size_t rows, cols;

	(void)state;
	mc_error_init(&err);
	assert_true(mc_scale_shape(&args, 768, 2048, "m", &rows, &cols, &err));
	assert_true(rows == 768 && cols == 16);
	assert_false(mc_scale_shape(&args, 768, 96, "model.m", &rows, &cols, &err));
	assert_int_equal(err.code, MC_INVALID);
	assert_string_equal(err.where, "model.m");
	assert_string_equal(err.text, "group_size 128 does not divide the 96 input channels");
	args = (struct mc_quant_args){
	    .strategy = MC_STRATEGY_BLOCK, .block_rows = 128, .block_cols = 128};
	assert_true(mc_scale_shape(&args, 10944, 300, "m", &rows, &cols, &err));
	assert_true(rows == 86 && cols == 3);
	args.strategy = MC_STRATEGY_CHANNEL;
	assert_true(mc_scale_shape(&args, 5, 7, "m", &rows, &cols, &err));
	assert_true(rows == 5 && cols == 1);
	args.strategy = MC_STRATEGY_TENSOR;
	assert_true(mc_scale_shape(&args, 5, 7, "m", &rows, &cols, &err));
	assert_true(rows == 1 && cols == 1);
	args.strategy = MC_STRATEGY_TOKEN;
	mc_error_init(&err);
	assert_false(mc_scale_shape(&args, 5, 7, "m", &rows, &cols, &err));
	assert_int_equal(err.code, MC_UNSUPPORTED);
	mc_error_init(&err);
	assert_false(mc_scale_shape(&args, 0, 7, "m", &rows, &cols, &err));
	assert_int_equal(err.code, MC_INVALID);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(calculate_qparams_is_the_references),
	    cmocka_unit_test(global_scales_are_the_references),
	    cmocka_unit_test(mx_exponents_are_the_references),
	    cmocka_unit_test(fp4_codes_are_the_references),
	    cmocka_unit_test(quantize_is_the_references),
	    cmocka_unit_test(runs_are_their_values),
	    cmocka_unit_test(edge_cases),
	    cmocka_unit_test(shapes),
	};
	return cmocka_run_group_tests_name("qparams", tests, NULL, NULL);
}
