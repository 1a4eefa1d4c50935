/*
 * test_dequantize.c - reading compressed-tensors checkpoints: values, dtypes, refusals, also of
 * others
 */
#include "quantized_folder.h"

#include <math.h>

#include "moecal/fault.h"
#include "moecal/ops.h"

static char scratch[] = "/tmp/moecal-test-dequantize-XXXXXX";

static const char *place(const char *name)
{
	static char paths[4][QF_PATH];
	static unsigned next;
	char *p = paths[next++ % 4];

	snprintf(p, QF_PATH, "%s/%s", scratch, name);
	return p;
}

/* --- what this program writes ----------------------------------------------------------------- */

#define GROUPS(weights)                                                                            \
	"{\"QuantizationModifier\": {\"ignore\": [\"lm_head\"], \"config_groups\": {\"group_0\": " \
	"{\"targets\": [\"Linear\"], \"weights\": {" weights "}}}}}"

static const struct scheme {
	const char *name, *recipe;
	int bits;           /* 0: E4M3 */
	size_t band, width; /* 0: all rows, all columns */
	const char *format;
} schemes[] = {
    {"w4a16", "\"W4A16\"", 4, 1, 128, "compressed-tensors pack-quantized"},
    {"w8a8", "\"W8A8\"", 8, 1, 0, "compressed-tensors int-quantized"},
    {"fp8-dynamic", "\"FP8_DYNAMIC\"", 0, 1, 0, "compressed-tensors float-quantized"},
    {"fp8-block", "\"FP8_BLOCK\"", 0, 128, 128, "compressed-tensors float-quantized"},
    {"w3-asymmetric",
	GROUPS(
	    "\"num_bits\": 3, \"symmetric\": false, \"strategy\": \"group\", \"group_size\": 32"),
	3, 1, 32, "compressed-tensors pack-quantized"},
    {"w5-tensor", GROUPS("\"num_bits\": 5, \"strategy\": \"tensor\""), 5, 0, 0,
	"compressed-tensors pack-quantized"},
    {"fp8-weights", GROUPS("\"num_bits\": 8, \"type\": \"float\", \"strategy\": \"channel\""), 0, 1,
	0, "compressed-tensors naive-quantized"},
};
#define SCHEMES (sizeof schemes / sizeof *schemes)

static const char *folder_of(const char *name)
{
	static char path[QF_PATH];
	struct mc_error err;

	snprintf(path, sizeof path, "%s/model", place(name));
	mc_error_init(&err);
	for (size_t i = 0; i < SCHEMES; i++)
		if (strcmp(schemes[i].name, name) == 0 && !mc_file_exists(path))
			qf_run(QF_MODEL, schemes[i].recipe, "", place(name), 2);
	return path;
}

/* Every third row of layer 1 and of the first experts of layer 2. */
static void compare_module(const struct mc_model *model, const struct mc_module *m,
    const struct scheme *scheme, const struct mc_env *env)
{
	struct mc_weight weight;
	struct mc_error err;
	size_t mark = mc_arena_mark(env->arena);

	mc_error_init(&err);
	assert_true(mc_module_is_made(m));
	toy_require(mc_model_read_weight(model, m, MC_DTYPE_COUNT, &weight, env, &err), &err);
	assert_int_equal(weight.dtype, MC_BF16);
	assert_int_equal(weight.rows, m->rows);
	assert_int_equal(weight.cols, m->cols);
	struct ref_stored s = qf_stored(&model->checkpoint, m, scheme->bits,
	    scheme->band == 0 ? m->rows : scheme->band, scheme->width, "weight_scale");
	for (size_t r = 0; r < m->rows; r += 3)
		for (size_t c = 0; c < m->cols; c++) {
			float have = mc_bf16_to_f32(
			    ((const uint16_t *)weight.data)[r * m->cols + c]);
			if (have != (float)ref_dequantized(&s, r, c))
				fail_msg("%s: %s [%zu, %zu] is %g, not %g", scheme->name, m->name,
				    r, c, (double)have, ref_dequantized(&s, r, c));
		}
	qf_stored_free(&s);
	mc_arena_rewind(env->arena, mark);
}

static void test_weights_equal_the_reference(void **state)
{
	struct mc_model model;
	struct mc_error err;
	struct lab lab;

	(void)state;
	lab_open(&lab, 1);
	mc_error_init(&err);
	for (size_t i = 0; i < SCHEMES; i++) {
		toy_require(
		    mc_dequantize_open(&model, NULL, folder_of(schemes[i].name), &err), &err);
		assert_string_equal(mc_model_format(&model), schemes[i].format);
		assert_int_equal(mc_model_parameters(&model), 2299264);
		assert_int_equal(model.dtype, MC_BF16);
		for (size_t k = 0; k < model.modules_count; k++) {
			const struct mc_module *m = model.modules[k];
			if (m->kind == MC_KIND_LINEAR &&
			    (m->layer == 1 || (m->layer == 2 && m->expert < 2)))
				compare_module(&model, m, &schemes[i], &lab.env);
			/* everything else is stored as it is used */
			if (m->kind != MC_KIND_LINEAR || m->role == MC_ROLE_HEAD)
				assert_false(mc_module_is_made(m));
		}
		mc_model_close(&model);
	}
	assert_int_equal(lab.arena.used, 0);
	lab_close(&lab);
}

/* Reading takes what it says, in whatever precision, and gives the scratch back. */
static void test_memory_of_reading(void **state)
{
	static const enum mc_dtype precisions[] = {MC_DTYPE_COUNT, MC_F32, MC_F16};
	struct mc_weight weight;
	struct mc_model model;
	struct mc_error err;
	struct lab lab;

	(void)state;
	lab_open(&lab, 1);
	mc_error_init(&err);
	for (size_t i = 0; i < SCHEMES; i++) {
		toy_require(
		    mc_dequantize_open(&model, NULL, folder_of(schemes[i].name), &err), &err);
		const struct mc_module *m = mc_model_expert(&model, 3, 5, 3);
		for (size_t p = 0; p < 3; p++) {
			struct mc_arena arena;
			struct mc_env env = {.arena = &arena};
			toy_require(mc_arena_sub(&lab.arena, mc_model_read_bytes(m, precisions[p]),
					"test", &arena, &err),
			    &err);
			toy_require(
			    mc_model_read_weight(&model, m, precisions[p], &weight, &env, &err),
			    &err);
			assert_true(arena.used <= m->rows * m->cols * 4 + 64);
			mc_arena_rewind(&lab.arena, 0);
		}
		mc_model_close(&model);
	}
	lab_close(&lab);
}

/* --- refusals --------------------------------------------------------------------------------- */

#define DOWN "model.layers.2.mlp.experts.6.down_proj."

static void test_faulty_tensors(void **state)
{
	static const struct {
		const char *from;
		struct qf_edit edit;
		enum mc_code code;
		const char *where, *text;
	} cases[] = {
	    {"w4a16", {.name = DOWN "weight_scale", .omit = true}, MC_CORRUPT, DOWN "weight_scale",
		"lacks this tensor of a quantized module (compressed-tensors pack-quantized)"},
	    {"w4a16", {.name = DOWN "weight_packed", .omit = true}, MC_CORRUPT,
		DOWN "weight_packed", "needed as I32 [128, 16]"},
	    {"w4a16", {.name = DOWN "weight_shape", .omit = true}, MC_CORRUPT, DOWN "weight_shape",
		"needed as I64 [2]"},
	    {"w3-asymmetric", {.name = DOWN "weight_zero_point", .omit = true}, MC_CORRUPT,
		DOWN "weight_zero_point", "needed as I32 [12, 4]"},
	    {"w8a8", {.name = DOWN "weight", .omit = true}, MC_CORRUPT, DOWN "weight",
		"needed as I8 [128, 128]"},
	    {"w4a16",
		{.name = DOWN "weight_packed", .dtype = MC_I32, .rank = 2, .shape = {128, 15}},
		MC_CORRUPT, DOWN "weight_packed", "is I32 [128, 15]; needed I32 [128, 16]"},
	    {"w4a16",
		{.name = DOWN "weight_packed", .dtype = MC_I64, .rank = 2, .shape = {128, 16}},
		MC_CORRUPT, DOWN "weight_packed", "is I64 [128, 16]; needed I32 [128, 16]"},
	    {"w4a16", {.name = DOWN "weight_scale", .dtype = MC_BF16, .rank = 2, .shape = {128, 2}},
		MC_CORRUPT, DOWN "weight_scale", "is BF16 [128, 2]; needed BF16 [128, 1]"},
	    {"fp8-dynamic", {.name = DOWN "weight", .dtype = MC_I8, .rank = 2, .shape = {128, 128}},
		MC_CORRUPT, DOWN "weight", "is I8 [128, 128]; needed F8_E4M3 [128, 128]"},
	    {"w8a8", {.name = DOWN "weight", .dtype = MC_I8, .rank = 2, .shape = {128, 64}},
		MC_CORRUPT, DOWN "weight", "is I8 [128, 64]; needed I8 [128, 128]"},
	    {"w8a8", {.name = DOWN "weight_g_idx", .dtype = MC_I32, .rank = 1, .shape = {127}},
		MC_CORRUPT, DOWN "weight_g_idx", "needed I32 [128]"},
	    /* plain and packed at once */
	    {"w4a16", {.name = DOWN "weight", .dtype = MC_BF16, .rank = 2, .shape = {128, 128}},
		MC_CORRUPT, DOWN "weight", "not part of"},
	    /* the head is in ignore */
	    {"w4a16",
		{.name = "lm_head.weight_scale", .dtype = MC_BF16, .rank = 2, .shape = {2048, 1}},
		MC_CORRUPT, "lm_head.weight_scale", "not part of"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char from[QF_PATH];
		snprintf(from, sizeof from, "%s", folder_of(cases[i].from));
		qf_rewrite(from, place("faulty"), &cases[i].edit, 1, NULL);
		qf_require_refusal(place("faulty"), cases[i].code, cases[i].where, cases[i].text);
	}
}

static void test_other_quantizations(void **state)
{
	static const struct {
		const char *config;
		enum mc_code code;
		const char *where, *text;
	} cases[] = {
	    {"{\"quantization_config\": {\"quant_method\": \"gptq\", \"bits\": 4}}", MC_UNSUPPORTED,
		"config.json",
		"(quant_method gptq), which cannot be read; compressed-tensors and fp8 with"},
	    {"{\"quantization_config\": {\"quant_method\": \"awq\"}}", MC_UNSUPPORTED,
		"config.json", "quant_method awq"},
	    {"{\"quantization_config\": {\"quant_method\": \"bitsandbytes\"}}", MC_UNSUPPORTED,
		"config.json", "quant_method bitsandbytes"},
	    {"{\"quantization_config\": null, \"text_config\": {\"quantization_config\": "
	     "{\"quant_method\": \"mxfp4\"}}}",
		MC_UNSUPPORTED, "config.json", "quant_method mxfp4"},
	    {"{\"quantization_config\": {\"bits\": 4}}", MC_UNSUPPORTED, "config.json",
		"not named"},
	    {"{\"quantization_config\": [4]}", MC_CORRUPT, "config.json", "must be an object, not"},
	    {"{\"quantization_config\": null}", MC_UNSUPPORTED, "weight_packed",
		"config.json does not say how"},
	    {"{\"quantization_config\": {\"quant_method\": \"compressed-tensors\"}}", MC_CORRUPT,
		"quantization_config", "config_groups"},
	    {"{\"quantization_config\": {\"quant_method\": \"compressed-tensors\", \"format\": "
	     "\"marlin-24\", \"config_groups\": {}}}",
		MC_UNSUPPORTED, "config.json", "'marlin-24'"},
	    {"{\"quantization_config\": {\"sparsity_config\": {\"format\": \"sparse-24-bitmask\"}, "
	     "\"config_groups\": {}}}",
		MC_UNSUPPORTED, "config.json", "sparsity_config of format sparse-24-bitmask"},
	    {"{\"quantization_config\": {\"transform_config\": {\"config_groups\": {}}, "
	     "\"config_groups\": {}}}",
		MC_UNSUPPORTED, "config.json", "transform_config"},
	    {"{\"quantization_config\": {\"config_groups\": {\"group_0\": {\"targets\": "
	     "[\"Linear\"], \"format\": \"int-quantized\", \"weights\": {\"num_bits\": 16, "
	     "\"strategy\": \"channel\"}}}}}",
		MC_UNSUPPORTED, "model.layers.0.self_attn.q_proj",
		"16-bit integers in the format 'int-quantized', which cannot be read back"},
	    {"{\"quantization_config\": {\"config_groups\": {\"group_0\": {\"targets\": "
	     "[\"Linear\"], \"weights\": {\"num_bits\": 4, \"strategy\": \"group\", "
	     "\"group_size\": "
	     "96}}}}}",
		MC_INVALID, "model.layers.0.self_attn.q_proj", "group_size 96 does not divide"},
	};
	char from[QF_PATH];

	(void)state;
	snprintf(from, sizeof from, "%s", folder_of("w4a16"));
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		qf_rewrite(from, place("other"), NULL, 0, cases[i].config);
		qf_require_refusal(place("other"), cases[i].code, cases[i].where, cases[i].text);
	}
}

/* --- what older files have -------------------------------------------------------------------- */

static void read_down(const char *folder, enum mc_code code, const char *text)
{
	struct mc_weight weight;
	struct mc_model model;
	struct mc_error err;
	struct lab lab;

	lab_open(&lab, 1);
	mc_error_init(&err);
	toy_require(mc_dequantize_open(&model, NULL, folder, &err), &err);
	bool ok = mc_model_read_weight(
	    &model, mc_model_expert(&model, 2, 6, 3), MC_DTYPE_COUNT, &weight, &lab.env, &err);
	if (code == MC_OK)
		toy_require(ok, &err);
	assert_int_equal(err.code, code);
	if (text != NULL)
		assert_non_null(strstr(err.text, text));
	mc_model_close(&model);
	lab_close(&lab);
}

static void test_orders_of_columns(void **state)
{
	int32_t order[128];
	struct qf_edit edit = {
	    .name = DOWN "weight_g_idx", .dtype = MC_I32, .rank = 1, .shape = {128}, .data = order};
	char from[QF_PATH];

	(void)state;
	snprintf(from, sizeof from, "%s", folder_of("w3-asymmetric"));
	for (int i = 0; i < 128; i++)
		order[i] = i / 32;
	qf_rewrite(from, place("order"), &edit, 1, NULL);
	read_down(place("order"), MC_OK, NULL);
	for (int i = 0; i < 128; i++)
		order[i] = -1;
	qf_rewrite(from, place("order"), &edit, 1, NULL);
	read_down(place("order"), MC_OK, NULL);
	order[77] = 1;
	qf_rewrite(from, place("order"), &edit, 1, NULL);
	read_down(place("order"), MC_UNSUPPORTED, "not neighbours");
}

static void test_values_that_are_not_finite(void **state)
{
	uint16_t scale[128];
	struct qf_edit edit = {.name = DOWN "weight_scale",
	    .dtype = MC_BF16,
	    .rank = 2,
	    .shape = {128, 1},
	    .data = scale};
	char from[QF_PATH];

	(void)state;
	snprintf(from, sizeof from, "%s", folder_of("w8a8"));
	for (size_t i = 0; i < 128; i++)
		scale[i] = mc_f32_to_bf16(0.01f);
	scale[9] = 0x7fc0;
	qf_rewrite(from, place("nan"), &edit, 1, NULL);
	read_down(place("nan"), MC_CORRUPT, "the value at [9, 0] is NaN");
	scale[9] = mc_f32_to_bf16(0x1p127f);
	qf_rewrite(from, place("nan"), &edit, 1, NULL);
	read_down(place("nan"), MC_CORRUPT, "infinite");
}

/* compression_config was the first name, without a format a group or quant_method; a scale of one
 * number may have any rank. */
static void test_older_spellings(void **state)
{
	char from[QF_PATH], config[1024];
	uint16_t scale = mc_f32_to_bf16(0.5f);
	struct qf_edit edits[] = {
	    {.name = DOWN "weight_scale", .dtype = MC_BF16, .rank = 0, .data = &scale},
	    {.name = DOWN "weight_zero_point", .dtype = MC_I8, .rank = 1, .shape = {1}}};

	(void)state;
	snprintf(from, sizeof from, "%s", folder_of("w5-tensor"));
	snprintf(config, sizeof config,
	    "{\"quantization_config\": null, \"compression_config\": {\"format\": "
	    "\"pack-quantized\", \"ignore\": [\"lm_head\"], \"config_groups\": {\"group_0\": "
	    "{\"targets\": [\"Linear\"], \"weights\": {\"num_bits\": 5, \"strategy\": "
	    "\"tensor\"}}}}}");
	qf_rewrite(from, place("older"), edits, 2, config);
	read_down(place("older"), MC_OK, NULL);
}

/* --- out of memory ---------------------------------------------------------------------------- */

#ifdef MC_FAULTS
static void test_every_allocation_may_fail(void **state)
{
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);
	char folder[QF_PATH], model_folder[QF_PATH + 16];
	struct mc_model model;
	struct mc_error err;
	bool ok = false;
	long n = 1;

	(void)state;
	toy.layers = 1;
	toy.experts = 2;
	snprintf(folder, sizeof folder, "%s", place("toy"));
	mc_error_init(&err);
	toy_require(mc_file_make_folders(folder, &err), &err);
	toy_require(mc_toy_write(&toy, folder, &err), &err);
	qf_run(folder, "\"W8A8\"", "", place("toy-out"), 1);
	snprintf(model_folder, sizeof model_folder, "%s/model", place("toy-out"));
	for (; !ok; n++) {
		mc_error_init(&err);
		mc_fault_arm("alloc", n);
		ok = mc_dequantize_open(&model, NULL, model_folder, &err);
		mc_fault_disarm();
		if (!ok)
			assert_int_equal(err.code, MC_NO_MEMORY);
	}
	assert_true(n > 50);
	mc_model_close(&model);
}
#endif

static int make_scratch(void **state)
{
	(void)state;
	return mkdtemp(scratch) == NULL ? -1 : 0;
}

static int remove_scratch(void **state)
{
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	return mc_file_remove_tree(scratch, &err) ? 0 : -1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_weights_equal_the_reference),
	    cmocka_unit_test(test_memory_of_reading),
	    cmocka_unit_test(test_faulty_tensors),
	    cmocka_unit_test(test_other_quantizations),
	    cmocka_unit_test(test_orders_of_columns),
	    cmocka_unit_test(test_values_that_are_not_finite),
	    cmocka_unit_test(test_older_spellings),
#ifdef MC_FAULTS
	    cmocka_unit_test(test_every_allocation_may_fail),
#endif
	};
	return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
