/*
 * test_rtn.c - whole weights: scales as the reference's observer finds them, codes as the
 * definition says
 */
#include "moecal/rtn.h"

#include <math.h>
#include <unistd.h>

#include "golden.h"
#include "reference/rtn.h"

static struct mc_arena arena;

static int open_arena(void **state)
{
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	return mc_arena_init(&arena, 64u << 20, &err) ? 0 : -1;
}

static int close_arena(void **state)
{
	(void)state;
	mc_arena_release(&arena);
	return 0;
}

static void weight_observer_is_the_references(void **state)
{
	struct golden g;
	size_t cases = 0;

	(void)state;
	golden_open(&g);
	while (golden_next(&g, "weight_observer")) {
		struct mc_quant_config config;
		struct mc_quantized q;
		struct mc_error err;
		mc_error_init(&err);
		golden_scheme(&g, &config);
		const struct mc_quant_args *args = &config.schemes[0].weights;
		if (strcmp(args->observer, "memoryless_minmax") != 0 ||
		    !mc_scheme_require_supported(&config.schemes[0], &err)) {
			mc_quant_config_release(&config);
			continue;
		}
		struct mc_tensor w = golden_tensor(&g, "in", "weight");
		struct mc_tensor scale = golden_tensor(&g, "out", "scale"),
				 zero = golden_tensor(&g, "out", "zero_point");
		struct mc_weight weight = {
		    .dtype = w.dtype, .rows = w.shape[0], .cols = w.shape[1], .data = w.data};
		float *s = golden_floats(&scale), *z = golden_floats(&zero);
		size_t mark = mc_arena_mark(&arena), scales = mc_tensor_elements(&scale);
		if (!mc_rtn(&weight, args, g.name, &arena, &q, &err))
			fail_msg("%s: %s", g.name, err.text);
		assert_int_equal(q.scale_rows * q.scale_cols, scales);
		/* the last row is zero: its zero point is not defined there */
		size_t defined = args->symmetric ? scales : scales - q.scale_cols;
		for (size_t i = 0; i < scales; i++) {
			if (memcmp(&q.scale[i], &s[i], sizeof s[i]) != 0)
				fail_msg(
				    "%s: scale %zu is %g; needed %g", g.name, i, q.scale[i], s[i]);
			if (i < defined && q.zero_point != NULL && (float)q.zero_point[i] != z[i])
				fail_msg("%s: zero point %zu is %d; needed %g", g.name, i,
				    q.zero_point[i], z[i]);
		}
		mc_arena_rewind(&arena, mark);
		free(s), free(z), free(w.data), free(scale.data), free(zero.data);
		mc_quant_config_release(&config);
		cases++;
	}
	golden_close(&g);
	assert_true(cases >= 18);
}

/* 4 x 6 = 0..23 in BF16, of the reference's own tests. */
static void fake_quantized_by_hand(void **state)
{
	static const float channel[4][6] = {{0, 1.3359375f, 2, 2.671875f, 4, 4.6875f},
	    {5.875f, 7.34375f, 7.34375f, 8.8125f, 10.25f, 10.25f},
	    {11.3125f, 13.625f, 13.625f, 15.875f, 15.875f, 15.875f},
	    {18.375f, 18.375f, 21.5f, 21.5f, 21.5f, 21.5f}};
	static const float block[4][6] = {{0, 1.0703125f, 2.140625f, 2.9375f, 4.40625f, 4.40625f},
	    {6.4375f, 7.5f, 7.5f, 8.8125f, 10.25f, 10.25f},
	    {10.6875f, 13.375f, 13.375f, 15.3125f, 15.3125f, 18.375f},
	    {18.75f, 18.75f, 18.75f, 21.5f, 21.5f, 21.5f}};
	struct mc_quant_args args = {
	    .num_bits = 4, .symmetric = true, .strategy = MC_STRATEGY_CHANNEL};
	uint16_t data[24];
	struct mc_weight weight = {.dtype = MC_BF16, .rows = 4, .cols = 6, .data = data};
	struct mc_quantized q;
	struct mc_error err;
	float row[6];

	(void)state;
	mc_error_init(&err);
	for (size_t i = 0; i < 24; i++)
		data[i] = mc_f32_to_bf16((float)i);
	assert_true(mc_rtn(&weight, &args, "m", &arena, &q, &err));
	assert_true(q.scale[0] == 0.66796875f && q.scale[1] == 1.46875f && q.scale[3] == 3.0625f);
	assert_true(q.scale_min == 0.66796875f && q.scale_max == 3.0625f && q.weight_absmax == 23);
	for (size_t r = 0; r < 4; r++) {
		mc_quantized_row(&q, &args, MC_BF16, r, row);
		assert_memory_equal(row, channel[r], sizeof row);
	}
	args = (struct mc_quant_args){.num_bits = 4,
	    .symmetric = true,
	    .strategy = MC_STRATEGY_BLOCK,
	    .block_rows = 2,
	    .block_cols = 3};
	assert_true(mc_rtn(&weight, &args, "m", &arena, &q, &err));
	for (size_t r = 0; r < 4; r++) {
		mc_quantized_row(&q, &args, MC_BF16, r, row);
		assert_memory_equal(row, block[r], sizeof row);
	}
}

/* --- against the definition ------------------------------------------------------------------- */

struct shape {
	enum mc_strategy strategy;
	size_t rows, cols, band, width;
};

static void check_definition(
    enum mc_dtype dt, unsigned bits, bool symmetric, const struct shape *shape)
{
	const struct ref_format *format = dt == MC_BF16  ? &ref_bf16
					  : dt == MC_F16 ? &ref_f16
							 : NULL;
	struct ref_rtn how = {.bits = (int)bits, .symmetric = symmetric, .dt = format};
	struct mc_quant_args args = {.type = bits == 0 ? MC_QUANT_FLOAT : MC_QUANT_INT,
	    .num_bits = bits == 0 ? 8 : bits,
	    .symmetric = symmetric,
	    .strategy = shape->strategy,
	    .group_size = (int64_t)shape->width,
	    .block_rows = shape->band,
	    .block_cols = shape->width};
	size_t rows = shape->rows, cols = shape->cols, n = rows * cols;
	static float x[64 * 1024], group[64 * 1024], row[1024];
	static double codes[64 * 1024], values[64 * 1024];
	static unsigned char data[4 * 64 * 1024];
	struct mc_weight weight = {.dtype = dt, .rows = rows, .cols = cols, .data = data};
	size_t mark = mc_arena_mark(&arena);
	struct mc_arena small;
	struct mc_quantized q;
	struct mc_error err;
	double errors = 0, squares = 0;

	mc_error_init(&err);
	for (size_t i = 0; i < n; i++) {
		double v = sin((double)i * 0.7 + bits) * exp(cos((double)i * 0.013) * 3);
		x[i] = mc_round_to(dt, (float)(i % 61 == 7 ? 0 : v));
	}
	mc_narrow(x, dt, data, n);
	/* just the memory that it says it needs */
	assert_true(mc_arena_sub(&arena, mc_rtn_bytes(&args, rows, cols), "small", &small, &err));
	if (!mc_rtn(&weight, &args, "m", &small, &q, &err))
		fail_msg("%s", err.text);
	for (size_t r0 = 0; r0 < rows; r0 += shape->band) {
		for (size_t c0 = 0; c0 < cols; c0 += shape->width) {
			size_t r1 = r0 + shape->band < rows ? r0 + shape->band : rows, count = 0,
			       k = 0;
			size_t c1 = c0 + shape->width < cols ? c0 + shape->width : cols;
			size_t at = r0 / shape->band * q.scale_cols + c0 / shape->width;
			double scale, zero;
			for (size_t r = r0; r < r1; r++)
				for (size_t c = c0; c < c1; c++)
					group[count++] = x[r * cols + c];
			ref_rtn_group(&how, group, count, &scale, &zero, codes, values);
			assert_true(q.scale[at] == (float)scale);
			assert_true(symmetric || q.zero_point[at] == (int32_t)zero);
			for (size_t r = r0; r < r1; r++) {
				mc_quantized_row(&q, &args, dt, r, row);
				for (size_t c = c0; c < c1; c++, k++) {
					int8_t code = q.codes[r * cols + c];
					double number = bits == 0
							    ? (double)mc_e4m3_to_f32((uint8_t)code)
							    : (double)code;
					if (number != codes[k] || (double)row[c] != values[k])
						fail_msg("%s, %u bits: [%zu, %zu] is %g, %g; "
							 "needed %g, %g",
						    mc_dtype_name(dt), bits, r, c, number,
						    (double)row[c], codes[k], values[k]);
					errors += ((double)x[r * cols + c] - values[k]) *
						  ((double)x[r * cols + c] - values[k]);
					squares +=
					    (double)x[r * cols + c] * (double)x[r * cols + c];
				}
			}
		}
	}
	assert_true(fabs(q.error_sum - errors) <= 1e-5 * errors);
	assert_true(fabs(q.square_sum - squares) <= 1e-12 * squares);
	mc_arena_rewind(&arena, mark);
}

static void codes_are_the_definitions(void **state)
{
	static const enum mc_dtype dtypes[] = {MC_F32, MC_BF16, MC_F16};
	static const struct shape shapes[] = {{MC_STRATEGY_GROUP, 9, 256, 1, 128},
	    {MC_STRATEGY_GROUP, 5, 51, 1, 17}, {MC_STRATEGY_CHANNEL, 7, 350, 1, 350},
	    {MC_STRATEGY_TENSOR, 6, 33, 6, 33}, {MC_STRATEGY_BLOCK, 11, 100, 4, 48}};

	(void)state;
	for (size_t d = 0; d < 3; d++)
		for (size_t s = 0; s < 5; s++)
			for (unsigned bits = 0; bits <= 8; bits++) {
				check_definition(dtypes[d], bits, true, &shapes[s]);
				if (bits > 0)
					check_definition(dtypes[d], bits, false, &shapes[s]);
			}
}

/* MX groups of 4 and 8 bits, and groups under a global scale: scales, codes and values. */
static void check_fp4(enum mc_dtype dt, int bits, bool global)
{
	enum { ROWS = 5, COLS = 96 };
	const struct ref_format *format = dt == MC_BF16  ? &ref_bf16
					  : dt == MC_F16 ? &ref_f16
							 : NULL;
	size_t width = global ? 16 : 32;
	struct mc_quant_args args = {.type = MC_QUANT_FLOAT,
	    .num_bits = bits == 0 ? 8 : 4,
	    .symmetric = true,
	    .strategy = global ? MC_STRATEGY_TENSOR_GROUP : MC_STRATEGY_GROUP,
	    .group_size = (int64_t)width};
	struct ref_rtn how = {.bits = bits, .symmetric = true, .dt = global ? NULL : format};
	float x[ROWS * COLS], row[COLS];
	unsigned char data[4 * ROWS * COLS];
	double codes[32], values[32], absmax = 0;
	struct mc_weight weight = {.dtype = dt, .rows = ROWS, .cols = COLS, .data = data};
	size_t mark = mc_arena_mark(&arena);
	struct mc_quantized q;
	struct mc_error err;

	mc_error_init(&err);
	snprintf(args.scale_dtype, sizeof args.scale_dtype, "torch.%s",
	    global ? "float8_e4m3fn" : "uint8");
	for (size_t i = 0; i < ROWS * COLS; i++) {
		x[i] = mc_round_to(dt, (float)(sin((double)i) * exp(cos((double)i * 0.1) * 4)));
		if (i / COLS == 3)
			x[i] = i % COLS < 32 ? 0 : x[i] * 0x1p-14f; /* zeros, tiny numbers */
		x[i] = mc_round_to(dt, x[i]);
		absmax = fmax(absmax, fabs((double)x[i]));
	}
	mc_narrow(x, dt, data, ROWS * COLS);
	if (!mc_rtn(&weight, &args, "m", &arena, &q, &err))
		fail_msg("%s", err.text);
	double g = global ? ref_global_scale(format, absmax) : 0;
	assert_true(q.global_scale == (float)g);
	for (size_t r = 0; r < ROWS; r++) {
		mc_quantized_row(&q, &args, MC_F32, r, row);
		for (size_t c = 0; c < COLS; c += width) {
			const float *group = x + r * COLS + c;
			double most = 0;
			for (size_t i = 0; i < width; i++)
				most = fmax(most, fabs((double)group[i]));
			double scale = global ? ref_local_scale(format, most, g)
					      : ref_mx_scale(bits, most);
			if (dt == MC_F16 && scale < 0x1p-24)
				scale = 1; /* F16 has no such number */
			assert_true(q.scale[r * q.scale_cols + c / width] == (float)scale);
			scale = global ? (double)((float)scale / (float)g) : scale;
			ref_rtn_codes(&how, group, width, scale, 0, codes, values);
			for (size_t i = 0; i < width; i++) {
				uint8_t code = (uint8_t)q.codes[r * COLS + c + i];
				float number = bits == 0 ? mc_e4m3_to_f32(code) : mc_e2m1_to_f32(code);
				if ((double)number != codes[i] || (double)row[c + i] != values[i])
					fail_msg("%s, %d bits: [%zu, %zu] is %g, %g; needed %g, %g",
					    mc_dtype_name(dt), bits, r, c + i, (double)number,
					    (double)row[c + i], codes[i], values[i]);
			}
		}
	}
	mc_arena_rewind(&arena, mark);
}

static void fp4_and_mx_are_the_definitions(void **state)
{
	static const enum mc_dtype dtypes[] = {MC_F32, MC_BF16, MC_F16};

	(void)state;
	for (size_t d = 0; d < 3; d++) {
		check_fp4(dtypes[d], -4, true);
		check_fp4(dtypes[d], -4, false);
		check_fp4(dtypes[d], 0, false);
	}
}

/* --- what is refused -------------------------------------------------------------------------- */

static void refused(
    struct mc_weight *weight, const struct mc_quant_args *args, enum mc_code code, const char *text)
{
	struct mc_quantized q;
	struct mc_error err;
	size_t mark = mc_arena_mark(&arena);

	mc_error_init(&err);
	assert_false(mc_rtn(weight, args, "model.m", &arena, &q, &err));
	assert_int_equal(err.code, code);
	assert_string_equal(err.where, "model.m");
	if (strstr(err.text, text) == NULL)
		fail_msg("'%s' lacks '%s'", err.text, text);
	mc_arena_rewind(&arena, mark);
}

static void bad_weights_are_refused(void **state)
{
	float data[2 * 32];
	struct mc_weight weight = {.dtype = MC_F32, .rows = 2, .cols = 32, .data = data};
	struct mc_quant_args args = {
	    .num_bits = 4, .symmetric = true, .strategy = MC_STRATEGY_GROUP, .group_size = 16};
	static const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
	uint16_t half[32];

	(void)state;
	for (size_t i = 0; i < 64; i++)
		data[i] = (float)i;
	for (size_t i = 0; i < 4; i++) {
		data[47] = bad[i];
		refused(&weight, &args, MC_CORRUPT, "at row 1, column 15");
	}
	data[47] = 47;
	args.group_size = 24;
	refused(&weight, &args, MC_INVALID, "group_size 24 does not divide the 32 input channels");
	args.group_size = 16;
	args.num_bits = 12;
	refused(&weight, &args, MC_UNSUPPORTED, "not there yet");
	args.num_bits = 1; /* a / 0.5 does not fit F16 */
	for (size_t i = 0; i < 32; i++)
		half[i] = mc_f32_to_f16(60000.0f);
	struct mc_weight narrow = {.dtype = MC_F16, .rows = 1, .cols = 32, .data = half};
	refused(&narrow, &args, MC_UNSUPPORTED, "too wide for a scale in F16");
}

static void no_memory_is_said(void **state)
{
	float data[64] = {1};
	struct mc_weight weight = {.dtype = MC_F32, .rows = 2, .cols = 32, .data = data};
	struct mc_quant_args args = {
	    .num_bits = 4, .strategy = MC_STRATEGY_GROUP, .group_size = 16};
	struct mc_quantized q;
	struct mc_error err;
	uint64_t need = mc_rtn_bytes(&args, 2, 32);

	(void)state;
	for (uint64_t have = 0; have <= need; have += 64) {
		size_t mark = mc_arena_mark(&arena);
		struct mc_arena small;
		mc_error_init(&err);
		if (have > 0) {
			assert_true(mc_arena_sub(&arena, have, "small", &small, &err));
			assert_int_equal(
			    mc_rtn(&weight, &args, "m", &small, &q, &err), have == need);
			assert_int_equal(err.code, have == need ? MC_OK : MC_NO_MEMORY);
		}
		mc_arena_rewind(&arena, mark);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(weight_observer_is_the_references),
	    cmocka_unit_test(fake_quantized_by_hand),
	    cmocka_unit_test(codes_are_the_definitions),
	    cmocka_unit_test(fp4_and_mx_are_the_definitions),
	    cmocka_unit_test(bad_weights_are_refused),
	    cmocka_unit_test(no_memory_is_said),
	};
	return cmocka_run_group_tests_name("rtn", tests, open_arena, close_arena);
}
