/*
 * test_dequantize_fp8.c - reading checkpoints in block FP8, made here as releases have them
 */
#include "quantized_folder.h"

#include <math.h>

static char scratch[] = "/tmp/moecal-test-fp8-XXXXXX";

static const char *place(const char *name)
{
	static char paths[4][QF_PATH];
	static unsigned next;
	char *p = paths[next++ % 4];

	snprintf(p, QF_PATH, "%s/%s", scratch, name);
	return p;
}

/* --- making and reading
 * -------------------------------------------------------------------------------- */

#define BLOCK_ROWS 48
#define BLOCK_COLS 40

struct fp8 {
	size_t count;
	struct qf_edit edits[512];
	char names[512][128];
};

static void add_edit(struct fp8 *fp8, const char *module, const char *suffix, enum mc_dtype dtype,
    size_t rows, size_t cols, void *data)
{
	struct qf_edit *edit = &fp8->edits[fp8->count];

	assert_true(fp8->count < 512);
	snprintf(fp8->names[fp8->count], sizeof fp8->names[0], "%s.%s", module, suffix);
	*edit = (struct qf_edit){.name = fp8->names[fp8->count],
	    .dtype = dtype,
	    .rank = 2,
	    .shape = {rows, cols},
	    .data = data};
	fp8->count++;
}

/* One linear in blocks; its scales as float32 or BF16. */
static void quantize_blocks(
    struct fp8 *fp8, const struct mc_module *m, const float *w, enum mc_dtype scales)
{
	size_t across = (m->cols + BLOCK_COLS - 1) / BLOCK_COLS,
	       down = (m->rows + BLOCK_ROWS - 1) / BLOCK_ROWS;
	uint8_t *codes = calloc(m->rows, m->cols);
	float *inverse = calloc(down * across, sizeof *inverse);

	assert_true(codes != NULL && inverse != NULL);
	for (size_t r = 0; r < m->rows; r++)
		for (size_t c = 0; c < m->cols; c++) {
			float *s = &inverse[r / BLOCK_ROWS * across + c / BLOCK_COLS];
			*s = fmaxf(*s, fabsf(w[r * m->cols + c]) / 400);
		}
	for (size_t i = 0; i < down * across; i++)
		inverse[i] = mc_round_to(scales, inverse[i]);
	for (size_t r = 0; r < m->rows; r++)
		for (size_t c = 0; c < m->cols; c++)
			codes[r * m->cols + c] = mc_f32_to_e4m3(
			    w[r * m->cols + c] / inverse[r / BLOCK_ROWS * across + c / BLOCK_COLS]);
	mc_narrow(inverse, scales, inverse, down * across);
	add_edit(fp8, m->name, "weight", MC_F8_E4M3, m->rows, m->cols, codes);
	add_edit(fp8, m->name, "weight_scale_inv", scales, down, across, inverse);
}

#define FP8_CONFIG(more)                                                                           \
	"\"quantization_config\": {\"quant_method\": \"fp8\", \"activation_scheme\": "             \
	"\"dynamic\", "                                                                            \
	"\"weight_block_size\": [48, 40]" more "}"

/* The linears of all layers but layer 3's attention, as a release in FP8 stores them. */
static const char *make_block_fp8(
    const char *name, enum mc_dtype scales, const char *config, const struct qf_edit *last)
{
	struct fp8 *fp8 = calloc(1, sizeof *fp8);
	const char *folder = place(name);
	struct mc_weight weight;
	struct mc_model model;
	struct mc_error err;
	struct lab lab;

	assert_non_null(fp8);
	lab_open(&lab, 1);
	mc_error_init(&err);
	toy_require(mc_model_open(&model, NULL, QF_MODEL, &err), &err);
	for (size_t i = 0; i < model.modules_count; i++) {
		const struct mc_module *m = model.modules[i];
		if (m->kind != MC_KIND_LINEAR || m->role == MC_ROLE_HEAD ||
		    (m->layer == 3 && m->expert == MC_NO_INDEX))
			continue;
		toy_require(mc_model_read_weight(&model, m, MC_F32, &weight, &lab.env, &err), &err);
		quantize_blocks(fp8, m, weight.data, scales);
		mc_arena_rewind(&lab.arena, 0);
	}
	for (size_t i = 0; last != NULL && i < fp8->count; i++)
		if (strcmp(fp8->edits[i].name, last->name) == 0) {
			free((void *)fp8->edits[i].data);
			fp8->edits[i] = *last;
			last = NULL;
		}
	if (last != NULL)
		fp8->edits[fp8->count++] = *last;
	qf_rewrite(QF_MODEL, folder, fp8->edits, fp8->count, config);
	for (size_t i = 0; i < fp8->count; i++)
		free((void *)fp8->edits[i].data);
	mc_model_close(&model);
	lab_close(&lab);
	free(fp8);
	return folder;
}

/* All weights as `dtype`, when read in `precision`: the float32 product, rounded once. */
static void compare_block_fp8(const char *folder, enum mc_dtype dtype, enum mc_dtype precision)
{
	enum mc_dtype used = precision == MC_DTYPE_COUNT ? dtype : precision;
	struct mc_weight weight;
	struct mc_model model;
	struct mc_error err;
	struct lab lab;
	size_t made = 0;

	lab_open(&lab, 1);
	mc_error_init(&err);
	toy_require(mc_dequantize_open(&model, NULL, folder, &err), &err);
	assert_string_equal(mc_model_format(&model), "fp8 in blocks of 48x40");
	assert_int_equal(mc_model_parameters(&model), 2299264);
	for (size_t i = 0; i < model.modules_count; i++) {
		const struct mc_module *m = model.modules[i];
		if (!mc_module_is_made(m))
			continue;
		assert_int_equal(m->weight->entry->dtype, dtype);
		toy_require(
		    mc_model_read_weight(&model, m, precision, &weight, &lab.env, &err), &err);
		assert_int_equal(weight.dtype, used);
		struct ref_stored s = qf_stored(
		    &model.checkpoint, m, 0, BLOCK_ROWS, BLOCK_COLS, "weight_scale_inv");
		s.dt = NULL;
		for (size_t r = made++ % 5; r < m->rows; r += 5)
			for (size_t c = 0; c < m->cols; c++) {
				size_t bytes = mc_dtype_bits(used) / 8;
				float have;
				mc_widen(used,
				    (const char *)weight.data + (r * m->cols + c) * bytes, &have,
				    1);
				if (have != mc_round_to(used, (float)ref_dequantized(&s, r, c)))
					fail_msg(
					    "%s [%zu, %zu] is %g", m->name, r, c, (double)have);
			}
		qf_stored_free(&s);
		mc_arena_rewind(&lab.arena, 0);
	}
	assert_int_equal(made, 112 - 4);
	mc_model_close(&model);
	lab_close(&lab);
}

static void test_block_fp8(void **state)
{
	(void)state;
	const char *plain = make_block_fp8("block", MC_F32,
	    "{" FP8_CONFIG(", \"modules_to_not_convert\": [\"lm_head\", \"mlp.gate\", "
			   "\"model.layers.3.self_attn\"], \"fmt\": \"e4m3\"") "}",
	    NULL);
	compare_block_fp8(plain, MC_BF16, MC_DTYPE_COUNT);
	compare_block_fp8(plain, MC_BF16, MC_F32); /* no way round by BF16 */
	const char *narrow = make_block_fp8("block-bf16", MC_BF16,
	    "{\"torch_dtype\": null, \"dtype\": \"float32\", " FP8_CONFIG("") "}", NULL);
	compare_block_fp8(narrow, MC_F32, MC_DTYPE_COUNT);
	compare_block_fp8(narrow, MC_F32, MC_BF16);
	const char *half = make_block_fp8(
	    "block-f16", MC_F32, "{\"torch_dtype\": \"float16\", " FP8_CONFIG("") "}", NULL);
	compare_block_fp8(half, MC_F16, MC_DTYPE_COUNT);
}

/* --- refusals --------------------------------------------------------------------------------- */

#define DOWN "model.layers.2.mlp.experts.6.down_proj."

static void test_faulty_blocks(void **state)
{
	static const struct {
		struct qf_edit edit;
		const char *config; /* NULL: as it must be */
		enum mc_code code;
		const char *where, *text;
	} cases[] = {
	    {{.name = DOWN "weight_scale_inv", .omit = true}, NULL, MC_CORRUPT,
		DOWN "weight_scale_inv",
		"lacks this tensor of a quantized module (fp8 in blocks of 48x40)"},
	    {{.name = DOWN "weight_scale_inv", .dtype = MC_F32, .rank = 2, .shape = {3, 3}}, NULL,
		MC_CORRUPT, DOWN "weight_scale_inv", "is F32 [3, 3]; needed F32 [3, 4]"},
	    {{.name = DOWN "weight_scale_inv", .dtype = MC_F8_E8M0, .rank = 2, .shape = {3, 4}},
		NULL, MC_CORRUPT, DOWN "weight_scale_inv", "is F8_E8M0; needed F32, F16 or BF16"},
	    {{.name = DOWN "weight", .dtype = MC_F8_E4M3, .rank = 2, .shape = {128, 120}}, NULL,
		MC_CORRUPT, DOWN "weight", "is F8_E4M3 [128, 120]; needed F8_E4M3 [128, 128]"},
	    {{.name = DOWN "weight", .dtype = MC_I8, .rank = 2, .shape = {128, 128}}, NULL,
		MC_UNSUPPORTED, DOWN "weight", "has dtype I8"},
	    /* plain, with a scale that then belongs to nothing */
	    {{.name = DOWN "weight", .dtype = MC_BF16, .rank = 2, .shape = {128, 128}}, NULL,
		MC_CORRUPT, DOWN "weight_scale_inv", "not part of"},
	    {{.name = DOWN "weight", .omit = true}, NULL, MC_CORRUPT, DOWN "weight",
		"lacks this tensor"},
	    {{.name = "-"},
		"{" FP8_CONFIG(", \"modules_to_not_convert\": [\"lm_head\", "
			       "\"model.layers.1.mlp\"]") "}",
		MC_CORRUPT, "model.layers.1.mlp.experts.0.gate_proj.weight",
		"modules_to_not_convert"},
	    {{.name = "-"}, "{" FP8_CONFIG(", \"modules_to_not_convert\": [3]") "}", MC_CORRUPT,
		"config.json", "modules_to_not_convert must be a list"},
	    {{.name = "-"}, "{" FP8_CONFIG(", \"modules_to_not_convert\": \"lm_head\"") "}",
		MC_CORRUPT, "config.json", "modules_to_not_convert must be a list"},
	    {{.name = "-"}, "{" FP8_CONFIG(", \"fmt\": \"e5m2\"") "}", MC_UNSUPPORTED,
		"config.json", "fmt e5m2"},
	    /* left out: 128 x 128 */
	    {{.name = "-"}, "{\"quantization_config\": {\"quant_method\": \"fp8\"}}", MC_CORRUPT,
		"model.layers.0.self_attn.q_proj.weight_scale_inv", "needed F32 [1, 1]"},
	    {{.name = "-"},
		"{\"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": "
		"null}}",
		MC_UNSUPPORTED, "config.json", "fp8 without weight_block_size"},
	    {{.name = "-"},
		"{\"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": "
		"[128]}}",
		MC_CORRUPT, "config.json", "two positive integers"},
	    {{.name = "-"},
		"{\"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": [0, "
		"128]}}",
		MC_CORRUPT, "config.json", "two positive integers"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		bool flaw = cases[i].edit.name[0] != '-';
		const char *folder = make_block_fp8("faulty-block", MC_F32,
		    cases[i].config != NULL ? cases[i].config : "{" FP8_CONFIG("") "}",
		    flaw ? &cases[i].edit : NULL);
		qf_require_refusal(folder, cases[i].code, cases[i].where, cases[i].text);
	}
}

/* --- jobs ------------------------------------------------------------------------------------- */

/* The only form that some releases have, calibrated and stored in another one. */
static void test_jobs(void **state)
{
	char input[QF_PATH], model[QF_PATH + 16];
	struct mc_model result;
	struct mc_error err;

	(void)state;
	snprintf(input, sizeof input, "%s",
	    make_block_fp8("job-in", MC_F32, "{" FP8_CONFIG("") "}", NULL));
	qf_run(input, "\"W4A16\"", "", place("job-auto"), 2);
	qf_run(input, "\"FP8_DYNAMIC\"", ", \"precision\": \"float32\"", place("job-f32"), 1);
	mc_error_init(&err);
	for (size_t i = 0; i < 2; i++) {
		snprintf(model, sizeof model, "%s/model", place(i == 0 ? "job-auto" : "job-f32"));
		toy_require(mc_dequantize_open(&result, NULL, model, &err), &err);
		assert_string_equal(
		    mc_model_format(&result), i == 0 ? "compressed-tensors pack-quantized"
						     : "compressed-tensors float-quantized");
		assert_int_equal(result.dtype, i == 0 ? MC_BF16 : MC_F32);
		for (size_t k = 0; k < result.checkpoint.count; k++)
			assert_null(
			    strstr(result.checkpoint.tensors[k].entry->name, "weight_scale_inv"));
		mc_model_close(&result);
	}
}

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
	    cmocka_unit_test(test_block_fp8),
	    cmocka_unit_test(test_faulty_blocks),
	    cmocka_unit_test(test_jobs),
	};
	return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
