/*
 * test_pack.c - bit streams and checkpoint tensors against the reference's vectors, and back
 */
#include "moecal/pack.h"

#include <unistd.h>

#include "golden.h"

static void words_of_the_format(void **state)
{
	static const int8_t four[] = {-8, -7, -1, 0, 1, 2, 6, 7}, three[] = {1, 2, -3};
	static const int8_t twelve[] = {-4, -3, -2, -1, 0, 1, 2, 3, -4, -3, -2, -1};
	static const int8_t eight[] = {1, 2};
	uint32_t words[2] = {0};

	(void)state;
	mc_pack_bits(four, 1, 8, 4, words, 1);
	assert_int_equal(words[0], 0xfea98710);
	mc_pack_bits(three, 1, 3, 4, words, 1);
	assert_int_equal(words[0], 0x5a9);
	mc_pack_bits(eight, 1, 2, 8, words, 1);
	assert_int_equal(words[0], 0x8281);
	mc_pack_bits(twelve, 1, 12, 3, words, 1);
	assert_int_equal(words[0], 0x88fac688);
	assert_int_equal(words[1], 0x00000006);
}

static void pack_to_int32_is_the_references(void **state)
{
	struct golden g;
	size_t cases = 0;

	(void)state;
	golden_open(&g);
	while (golden_next(&g, "pack_to_int32")) {
		const struct mc_json *args = mc_json_get(g.entry, "args");
		unsigned bits = (unsigned)mc_json_integer(mc_json_get(args, "num_bits"));
		bool along_rows = mc_json_integer(mc_json_get(args, "packed_dim")) == 0;
		struct mc_tensor codes = golden_tensor(&g, "in", "codes"),
				 packed = golden_tensor(&g, "out", "packed");
		size_t rows = codes.shape[0], cols = codes.shape[1], n = rows * cols;
		size_t lines = along_rows ? cols : rows, length = along_rows ? rows : cols;
		size_t line_words = along_rows ? packed.shape[0] : packed.shape[1];
		uint32_t *words = malloc(mc_tensor_bytes(&packed));
		int8_t *back = malloc(n);

		assert_non_null(words);
		assert_non_null(back);
		assert_int_equal(codes.dtype, MC_I8);
		assert_int_equal(line_words, (length * bits + 31) / 32);
		for (size_t i = 0; i < lines; i++) {
			size_t code = along_rows ? i : i * cols,
			       word = along_rows ? i : i * line_words;
			size_t stride = along_rows ? cols : 1;
			mc_pack_bits((int8_t *)codes.data + code, stride, length, bits,
			    words + word, stride);
			mc_unpack_bits(words + word, stride, length, bits, back + code, stride);
		}
		if (memcmp(words, packed.data, mc_tensor_bytes(&packed)) != 0)
			fail_msg("%s: other words", g.name);
		assert_memory_equal(back, codes.data, n);
		free(words), free(back), free(codes.data), free(packed.data);
		cases++;
	}
	golden_close(&g);
	assert_true(cases >= 48);
}

static void round_trips(void **state)
{
	static const size_t lengths[] = {1, 31, 33, 64, 100, 1024};
	int8_t codes[1024], back[1024];
	uint32_t words[257];
	uint32_t seed = 7;

	(void)state;
	for (unsigned bits = 1; bits <= 8; bits++) {
		for (size_t l = 0; l < 6; l++) {
			size_t n = lengths[l], count = (n * bits + 31) / 32;
			for (size_t i = 0; i < n; i++) {
				seed = seed * 1664525 + 1013904223;
				codes[i] =
				    (int8_t)((int)(seed >> 24) % (1 << bits) - (1 << (bits - 1)));
			}
			words[count] = 0xdeadbeef;
			mc_pack_bits(codes, 1, n, bits, words, 1);
			assert_int_equal(words[count], 0xdeadbeef);
			if (n * bits % 32 != 0)
				assert_int_equal(words[count - 1] >> (n * bits % 32), 0);
			mc_unpack_bits(words, 1, n, bits, back, 1);
			assert_memory_equal(codes, back, n);
		}
	}
}

/* --- whole modules ---------------------------------------------------------------------------- */

/* The weight's codes by the scales of the vector; the caller frees the three arrays. */
static struct mc_quantized quantized(
    const struct golden *g, const struct mc_quant_args *args, struct mc_tensor *weight)
{
	*weight = golden_tensor(g, "in", "weight");
	struct mc_tensor scale = golden_tensor(g, "in", "weight_scale");
	struct mc_tensor zero = golden_tensor(g, "in", "weight_zero_point");
	size_t rows = weight->shape[0], cols = weight->shape[1],
	       scales = mc_tensor_elements(&scale);
	struct mc_quantized q = {.rows = rows, .cols = cols, .codes = malloc(rows * cols)};
	struct mc_error err;
	float *w = golden_floats(weight), *z = args->symmetric ? NULL : golden_floats(&zero);

	mc_error_init(&err);
	assert_true(mc_scale_shape(args, rows, cols, "", &q.scale_rows, &q.scale_cols, &err));
	assert_int_equal(scales, q.scale_rows * q.scale_cols);
	struct mc_tensor global = golden_tensor(g, "in", "weight_global_scale");
	if (global.data != NULL)
		memcpy(&q.global_scale, global.data, sizeof q.global_scale);
	free(global.data);
	q.scale = golden_floats(&scale);
	q.zero_point = z == NULL ? NULL : malloc(scales * sizeof *q.zero_point);
	for (size_t i = 0; z != NULL && i < scales; i++)
		q.zero_point[i] = (int32_t)z[i];
	for (size_t i = 0; i < rows * cols; i++) {
		size_t at = golden_scale_at(args, cols, i / cols, i % cols);
		struct mc_qparam qparam = {.scale = q.scale[at],
		    .zero_point = q.zero_point == NULL ? 0 : q.zero_point[at]};
		if (q.global_scale != 0)
			qparam.scale /= q.global_scale;
		mc_quantize(args, q.global_scale != 0 ? MC_F32 : weight->dtype, qparam, &w[i],
		    &q.codes[i], 1);
	}
	free(w), free(z), free(scale.data), free(zero.data);
	return q;
}

static void check_compress(const struct golden *g, struct mc_arena *arena)
{
	struct mc_quant_config config;
	struct mc_packed packed;
	struct mc_quantized back;
	struct mc_tensor weight, decompressed = golden_tensor(g, "out", "decompressed");
	struct mc_error err;
	size_t expected = mc_json_size(mc_json_get(g->entry, "out")) - 1,
	       mark = mc_arena_mark(arena);

	mc_error_init(&err);
	golden_scheme(g, &config);
	const struct mc_scheme *scheme = &config.schemes[0];
	struct mc_quantized q = quantized(g, &scheme->weights, &weight);
	if (!mc_pack(scheme, weight.dtype, &q, g->name, arena, &packed, &err))
		fail_msg("%s: %s", g->name, err.text);
	assert_int_equal(packed.count, expected);
	for (size_t i = 0; i < packed.count; i++) {
		struct mc_tensor *have = &packed.items[i].tensor;
		struct mc_tensor want = golden_tensor(g, "out", packed.items[i].suffix);
		if (want.data == NULL || want.dtype != have->dtype || want.rank != have->rank ||
		    memcmp(want.shape, have->shape, want.rank * sizeof want.shape[0]) != 0)
			fail_msg("%s.%s: other dtype or shape", g->name, packed.items[i].suffix);
		if (memcmp(want.data, have->data, mc_tensor_bytes(&want)) != 0)
			fail_msg("%s.%s: other bytes", g->name, packed.items[i].suffix);
		free(want.data);
	}
	if (!mc_unpack(scheme, &packed, q.rows, q.cols, g->name, arena, &back, &err))
		fail_msg("%s: %s", g->name, err.text);
	float *rows = malloc(q.cols * sizeof *rows), *want = golden_floats(&decompressed);
	/* bytes as scales: restored as BF16, whatever the weight was */
	enum mc_dtype dt = decompressed.dtype;
	for (size_t r = 0; r < q.rows; r++) {
		mc_quantized_row(&back, &scheme->weights, dt, r, rows);
		if (memcmp(rows, want + r * q.cols, q.cols * sizeof *rows) != 0)
			fail_msg("%s: row %zu is restored otherwise", g->name, r);
	}
	free(rows), free(want), free(q.codes), free(q.scale), free(q.zero_point);
	free(weight.data), free(decompressed.data);
	mc_quant_config_release(&config);
	mc_arena_rewind(arena, mark);
}

static void compress_is_the_references(void **state)
{
	struct golden g;
	struct mc_arena arena;
	struct mc_error err;
	size_t cases = 0;

	(void)state;
	mc_error_init(&err);
	assert_true(mc_arena_init(&arena, 16u << 20, &err));
	golden_open(&g);
	while (golden_next(&g, "compress")) {
		check_compress(&g, &arena);
		cases++;
	}
	golden_close(&g);
	mc_arena_release(&arena);
	assert_true(cases >= 34);
}

static void exponents_and_nibbles(void **state)
{
	struct mc_scheme scheme = {.has_weights = true,
	    .format = MC_FORMAT_MXFP4,
	    .weights = {.type = MC_QUANT_FLOAT,
		.num_bits = 4,
		.symmetric = true,
		.strategy = MC_STRATEGY_GROUP,
		.group_size = 32,
		.scale_dtype = "torch.uint8"}};
	struct mc_packed packed;
	struct mc_quantized back;
	struct mc_arena arena;
	struct mc_error err;
	static int8_t codes[255 * 32];
	static float scales[255];
	struct mc_quantized q = {
	    .rows = 255, .cols = 32, .scale_rows = 255, .scale_cols = 1, .codes = codes, .scale = scales};

	(void)state;
	mc_error_init(&err);
	assert_true(mc_arena_init(&arena, 1u << 20, &err));
	for (size_t i = 0; i < 255 * 32; i++)
		codes[i] = (int8_t)(i * 7 % 16);
	for (int e = 0; e < 255; e++)
		scales[e] = mc_e8m0_to_f32((uint8_t)e);
	assert_true(mc_pack(&scheme, MC_BF16, &q, "m", &arena, &packed, &err));
	assert_string_equal(packed.items[1].suffix, "weight_scale");
	for (size_t e = 0; e < 255; e++)
		assert_int_equal(((uint8_t *)packed.items[1].tensor.data)[e], e);
	assert_int_equal(((uint8_t *)packed.items[0].tensor.data)[0], 0x70); /* 0, 7 */
	assert_true(mc_unpack(&scheme, &packed, 255, 32, "m", &arena, &back, &err));
	assert_memory_equal(back.codes, codes, sizeof codes);
	assert_memory_equal(back.scale, scales, sizeof scales);
	mc_arena_release(&arena);
}

/* Older checkpoints: column c has the scale of column g_idx[c]. */
static void ordered_groups_are_read(void **state)
{
	struct mc_scheme scheme = {.has_weights = true,
	    .format = MC_FORMAT_PACK,
	    .weights = {.num_bits = 8,
		.symmetric = true,
		.strategy = MC_STRATEGY_GROUP,
		.group_size = 2}};
	float scales[2] = {1, 10}, row[4];
	int64_t shape[2] = {1, 4};
	int32_t group[4] = {1, 0, 1, 0};
	uint32_t word = 0x84838281; /* 1, 2, 3, 4 */
	struct mc_packed packed = {.count = 4,
	    .items = {
		{"weight_scale", {.dtype = MC_F32, .rank = 2, .shape = {1, 2}, .data = scales}},
		{"weight_packed", {.dtype = MC_I32, .rank = 2, .shape = {1, 1}, .data = &word}},
		{"weight_shape", {.dtype = MC_I64, .rank = 1, .shape = {2}, .data = shape}},
		{"weight_g_idx", {.dtype = MC_I32, .rank = 1, .shape = {4}, .data = group}}}};
	static const float ordered[4] = {10, 2, 30, 4}, plain[4] = {1, 2, 30, 40};
	struct mc_quantized q;
	struct mc_arena arena;
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	assert_true(mc_arena_init(&arena, 1u << 20, &err));
	assert_true(mc_unpack(&scheme, &packed, 1, 4, "m", &arena, &q, &err));
	mc_quantized_row(&q, &scheme.weights, MC_F32, 0, row);
	assert_memory_equal(row, ordered, sizeof row);
	group[2] = -1; /* not set */
	assert_true(mc_unpack(&scheme, &packed, 1, 4, "m", &arena, &q, &err));
	mc_quantized_row(&q, &scheme.weights, MC_F32, 0, row);
	assert_memory_equal(row, plain, sizeof row);
	group[2] = 2;
	assert_false(mc_unpack(&scheme, &packed, 1, 4, "m", &arena, &q, &err));
	assert_string_equal(err.where, "m.weight_g_idx");
	assert_string_equal(err.text, "column 2 is of group 2; needed 0 to 1");
	mc_arena_release(&arena);
}

/* --- layouts and faults ----------------------------------------------------------------------- */

static struct mc_scheme int4_group(bool symmetric)
{
	return (struct mc_scheme){.has_weights = true,
	    .format = MC_FORMAT_PACK,
	    .weights = {.num_bits = 4,
		.symmetric = symmetric,
		.strategy = MC_STRATEGY_GROUP,
		.group_size = 128}};
}

static void layout_of_an_expert(void **state)
{
	struct mc_scheme scheme = int4_group(false);
	struct mc_packed packed;
	struct mc_error err;
	char text[64];

	(void)state;
	mc_error_init(&err);
	assert_true(mc_pack_layout(&scheme, MC_BF16, 768, 2048, "m", &packed, &err));
	assert_int_equal(packed.count, 4);
	assert_string_equal(packed.items[0].suffix, "weight_packed");
	assert_string_equal(
	    mc_shape_text(2, packed.items[0].tensor.shape, text, sizeof text), "[768, 256]");
	assert_string_equal(packed.items[3].suffix, "weight_zero_point");
	assert_string_equal(
	    mc_shape_text(2, packed.items[3].tensor.shape, text, sizeof text), "[96, 16]");
	/* static asymmetric inputs */
	scheme.weights = (struct mc_quant_args){
	    .num_bits = 8, .symmetric = true, .strategy = MC_STRATEGY_CHANNEL};
	scheme.format = MC_FORMAT_INT;
	scheme.has_input = true;
	scheme.input = (struct mc_quant_args){.num_bits = 8, .strategy = MC_STRATEGY_TENSOR};
	assert_true(mc_pack_layout(&scheme, MC_F16, 5, 7, "m", &packed, &err));
	assert_int_equal(packed.count, 4);
	assert_int_equal(packed.items[0].tensor.dtype, MC_I8);
	assert_int_equal(packed.items[1].tensor.dtype, MC_F16);
	assert_string_equal(packed.items[2].suffix, "input_scale");
	assert_int_equal(packed.items[2].tensor.rank, 1);
	assert_string_equal(packed.items[3].suffix, "input_zero_point");
	assert_int_equal(packed.items[3].tensor.dtype, MC_I8);
	scheme.format = MC_FORMAT_NVFP4;
	assert_false(mc_pack_layout(&scheme, MC_F16, 5, 7, "m", &packed, &err));
	assert_int_equal(err.code, MC_UNSUPPORTED);
}

static void faults_are_named(void **state)
{
	struct mc_scheme scheme = int4_group(true);
	uint32_t words[4 * 16] = {0};
	float scales[4] = {1, 2, 3, 4};
	int64_t shape[2] = {4, 128};
	struct mc_packed packed = {.count = 3,
	    .items = {
		{"weight_scale", {.dtype = MC_F32, .rank = 2, .shape = {4, 1}, .data = scales}},
		{"weight_packed", {.dtype = MC_I32, .rank = 2, .shape = {4, 16}, .data = words}},
		{"weight_shape", {.dtype = MC_I64, .rank = 1, .shape = {2}, .data = shape}}}};
	struct mc_quantized q;
	struct mc_arena arena;
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	assert_true(mc_arena_init(&arena, 1u << 20, &err));
	assert_true(mc_unpack(&scheme, &packed, 4, 128, "m", &arena, &q, &err));
	assert_int_equal(q.codes[0], -8);
	assert_true(q.scale_min == 1 && q.scale_max == 4);
	shape[1] = 127;
	assert_false(mc_unpack(&scheme, &packed, 4, 128, "m", &arena, &q, &err));
	assert_int_equal(err.code, MC_CORRUPT);
	assert_string_equal(err.where, "m.weight_shape");
	assert_string_equal(err.text, "says [4, 127]; needed [4, 128]");
	mc_error_init(&err);
	shape[1] = 128;
	packed.items[1].tensor.shape[1] = 15;
	assert_false(mc_unpack(&scheme, &packed, 4, 128, "m", &arena, &q, &err));
	assert_string_equal(err.text, "has shape [4, 15]; needed [4, 16]");
	mc_error_init(&err);
	packed.items[1].tensor.shape[1] = 16;
	packed.items[1].tensor.dtype = MC_U32;
	assert_false(mc_unpack(&scheme, &packed, 4, 128, "m", &arena, &q, &err));
	assert_string_equal(err.text, "is U32; needed I32");
	mc_error_init(&err);
	packed.items[0].tensor.dtype = MC_I8;
	assert_false(mc_unpack(&scheme, &packed, 4, 128, "m", &arena, &q, &err));
	assert_string_equal(err.where, "m.weight_scale");
	mc_error_init(&err);
	packed.items[0].suffix = "scale";
	assert_false(mc_unpack(&scheme, &packed, 4, 128, "m", &arena, &q, &err));
	assert_string_equal(err.text, "is missing");
	mc_arena_release(&arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(words_of_the_format),
	    cmocka_unit_test(pack_to_int32_is_the_references),
	    cmocka_unit_test(round_trips),
	    cmocka_unit_test(compress_is_the_references),
	    cmocka_unit_test(exponents_and_nibbles),
	    cmocka_unit_test(ordered_groups_are_read),
	    cmocka_unit_test(layout_of_an_expert),
	    cmocka_unit_test(faults_are_named),
	};
	return cmocka_run_group_tests_name("pack", tests, NULL, NULL);
}
