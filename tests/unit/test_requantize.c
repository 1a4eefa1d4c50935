/*
 * test_requantize.c - jobs on quantized checkpoints: what they write, and how good it still is
 */
#include "quantized_folder.h"

#include <math.h>

#include "moecal/evaluate.h"
#include "moecal/verdict.h"

static char scratch[] = "/tmp/moecal-test-requantize-XXXXXX";

static const char *place(const char *name)
{
	static char paths[8][QF_PATH];
	static unsigned next;
	char *p = paths[next++ % 8];

	snprintf(p, QF_PATH, "%s/%s", scratch, name);
	return p;
}

static const char *data(const char *more)
{
	static char text[512];

	snprintf(text, sizeof text, ", \"dataset\": \"%s/data.jsonl\", \"max_seq_length\": 96%s",
	    scratch, more);
	return text;
}

/* --- the same scheme again -------------------------------------------------------------------- */

static void open_checkpoint(struct mc_model *model, const char *folder)
{
	struct mc_error err;

	mc_error_init(&err);
	toy_require(mc_dequantize_open(model, NULL, folder, &err), &err);
}

/*
 * A scale is the largest magnitude over half the range, 7.5 for four bits; the largest one that
 * comes back is 7 or 8 times the scale. So the second scale is a little off, and all codes must
 * come out the same but the outermost, which stand on the edge between two.
 */
static void compare_codes(
    const struct mc_model *a, const struct mc_model *b, int bits, size_t width)
{
	double edge = ldexp(1, bits - 1) - 1;
	size_t moved = 0, compared = 0;

	for (size_t i = 0; i < a->modules_count; i++) {
		const struct mc_module *m = a->modules[i];
		if (!mc_module_is_made(m))
			continue;
		struct ref_stored x = qf_stored(&a->checkpoint, m, bits, 1, width, "weight_scale"),
				  y = qf_stored(&b->checkpoint, m, bits, 1, width, "weight_scale");
		for (size_t r = 0; r < m->rows; r += 2)
			for (size_t c = 0; c < m->cols; c++) {
				double before = ref_code(&x, r, c), after = ref_code(&y, r, c);
				compared++;
				moved += before != after;
				if (fabs(before - after) > (fabs(before) >= edge ? 1 : 0))
					fail_msg("%s [%zu, %zu]: %g became %g", m->name, r, c,
					    before, after);
			}
		qf_stored_free(&x);
		qf_stored_free(&y);
	}
	assert_true(compared > 500000);
	assert_true(moved < compared / 100);
}

static void test_integers_keep_their_codes(void **state)
{
	static const struct {
		const char *name, *recipe, *more;
		int bits;
		size_t width;
	} cases[] = {{"again-w4", "\"W4A16\"", "", 4, 128},
	    {"again-w8", "\"W8A8\"", ", \"precision\": \"float32\"", 8, 0}};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		char once[QF_PATH], twice[QF_PATH + 16], model[QF_PATH + 16];
		char model_twice[QF_PATH + 32];
		struct mc_model a, b;
		snprintf(once, sizeof once, "%s", place(cases[i].name));
		snprintf(twice, sizeof twice, "%s-twice", once);
		snprintf(model, sizeof model, "%s/model", once);
		snprintf(model_twice, sizeof model_twice, "%s/model", twice);
		qf_run(QF_MODEL, cases[i].recipe, cases[i].more, once, 2);
		qf_run(model, cases[i].recipe, "", twice, 2);
		open_checkpoint(&a, model);
		open_checkpoint(&b, model_twice);
		assert_string_equal(mc_model_format(&a), mc_model_format(&b));
		assert_int_equal(a.dtype, i == 0 ? MC_BF16 : MC_F32);
		assert_int_equal(b.dtype, a.dtype);
		compare_codes(&a, &b, cases[i].bits, cases[i].width);
		mc_model_close(&a);
		mc_model_close(&b);
	}
}

/* --- whole jobs ------------------------------------------------------------------------------- */

static const char *quantized_model(void)
{
	static char model[QF_PATH + 16];

	snprintf(model, sizeof model, "%s/model", place("static"));
	if (!mc_file_exists(model)) /* with scales of inputs, that nobody needs again */
		qf_run(QF_MODEL, "\"FP8\"", data(""), place("static"), 2);
	return model;
}

static bool has_suffix(const char *name, const char *suffix)
{
	size_t n = strlen(name), k = strlen(suffix);

	return n >= k && strcmp(name + n - k, suffix) == 0;
}

static const struct mc_st_entry *require_entry(const struct mc_checkpoint *c, const char *name)
{
	const struct mc_ckpt_tensor *tensor = mc_checkpoint_find(c, name);

	if (tensor == NULL)
		fail_msg("%s is missing", name);
	return tensor->entry;
}

/* What was quantized and is no more, what never was, and what is again. */
static void compare_rest(const struct mc_model *from, const struct mc_checkpoint *written)
{
	struct mc_weight weight;
	struct mc_error err;
	struct lab lab;

	lab_open(&lab, 1);
	mc_error_init(&err);
	for (size_t i = 0; i < from->modules_count; i++) {
		const struct mc_module *m = from->modules[i];
		bool again = m->kind == MC_KIND_LINEAR && m->expert != MC_NO_INDEX;
		char name[256];
		if (m->weight == NULL || m->kind == MC_KIND_NORM)
			continue;
		snprintf(name, sizeof name, "%s.weight%s", m->name, again ? "_packed" : "");
		const struct mc_st_entry *entry = require_entry(written, name);
		if (again)
			continue;
		toy_require(
		    mc_model_read_weight(from, m, MC_DTYPE_COUNT, &weight, &lab.env, &err), &err);
		assert_int_equal(entry->dtype, MC_BF16);
		assert_int_equal(entry->bytes, m->rows * m->cols * 2);
		void *bytes = qf_tensor(written, m->name, "weight", NULL);
		assert_memory_equal(bytes, weight.data, entry->bytes);
		free(bytes);
		mc_arena_rewind(&lab.arena, 0);
	}
	lab_close(&lab);
}

static void require_manifest(const char *out, const char *format, size_t warnings)
{
	struct mc_error err;
	struct mc_buf text;
	char path[QF_PATH + 32];
	int fd;

	mc_error_init(&err);
	mc_buf_init(&text, 1 << 24);
	snprintf(path, sizeof path, "%s/manifest.json", out);
	toy_require(mc_root_open(NULL, path, &fd, &err), &err);
	toy_require(mc_file_read_all(fd, path, &text, &err), &err);
	mc_close(fd);
	struct mc_json *json = mc_json_parse(mc_buf_text(&text), text.length, path, &err);
	assert_non_null(json);
	const struct mc_json *model = mc_json_get(mc_json_get(json, "inputs"), "model");
	assert_string_equal(mc_json_string(mc_json_get(model, "format"), NULL), format);
	const struct mc_json *list = mc_json_get(json, "warnings");
	size_t of_quantization = 0;
	for (size_t i = 0; i < mc_json_size(list); i++)
		of_quantization += strstr(mc_json_string(mc_json_at(list, i), NULL), "quantized") !=
				   NULL;
	assert_int_equal(of_quantization, warnings);
	mc_json_free(json);
	mc_buf_release(&text);
}

#define EXPERTS_ONLY                                                                               \
	"{\"QuantizationModifier\": {\"scheme\": \"W4A16\", \"targets\": [\"Linear\"], "           \
	"\"ignore\": [\"lm_head\", \"re:.*self_attn.*\"]}}"

#define ALL(preset)                                                                                \
	"{\"QuantizationModifier\": {\"scheme\": \"" preset "\", \"targets\": [\"Linear\"]}}"

/* The old parameters lie about, also of a cache and of parts that the decoder does not use. */
static void test_only_the_new_quantization_is_left(void **state)
{
	static const struct qf_edit edits[] = {
	    {.name = "model.layers.1.self_attn.k_scale", .dtype = MC_BF16, .rank = 1, .shape = {1}},
	    {.name = "model.layers.1.self_attn.v_scale", .dtype = MC_BF16, .rank = 1, .shape = {1}},
	    {.name = "mtp.fc.weight", .dtype = MC_F8_E4M3, .rank = 2, .shape = {4, 4}},
	    {.name = "mtp.fc.weight_scale", .dtype = MC_BF16, .rank = 1, .shape = {1}},
	    {.name = "mtp.norm.weight", .dtype = MC_BF16, .rank = 1, .shape = {4}}};
	struct mc_checkpoint written;
	struct mc_model from;
	struct mc_error err;
	char input[QF_PATH], out[QF_PATH], model[QF_PATH + 16];

	(void)state;
	snprintf(input, sizeof input, "%s", place("rich"));
	snprintf(out, sizeof out, "%s", place("rich-out"));
	snprintf(model, sizeof model, "%s/model", out);
	/* the old config stands in two more places where loaders look */
	struct mc_json *config = qf_config(quantized_model());
	struct mc_buf text;
	mc_error_init(&err);
	mc_buf_init(&text, 1 << 20);
	toy_require(
	    mc_json_write(mc_json_get(config, "quantization_config"), MC_JSON_COMPACT, &text, &err),
	    &err);
	char changes[8192];
	assert_true(
	    (size_t)snprintf(changes, sizeof changes,
		"{\"compression_config\": %s, \"text_config\": {\"quantization_config\": %s, "
		"\"a\": 1}}",
		mc_buf_text(&text), mc_buf_text(&text)) < sizeof changes);
	mc_buf_release(&text);
	mc_json_free(config);
	qf_rewrite(quantized_model(), input, edits, 5, changes);

	qf_run(input, EXPERTS_ONLY, "", out, 3);
	open_checkpoint(&from, input);
	toy_require(mc_checkpoint_open(&written, NULL, model, &err), &err);
	for (size_t i = 0; i < written.count; i++) {
		const char *name = written.tensors[i].entry->name;
		bool expert = strstr(name, ".experts.") != NULL;
		if (has_suffix(name, "input_scale") || has_suffix(name, ".k_scale") ||
		    has_suffix(name, ".v_scale") || (has_suffix(name, "weight_scale") && !expert) ||
		    strncmp(name, "mtp.fc", 6) == 0)
			fail_msg("%s is left over from the old quantization", name);
		assert_true(written.tensors[i].entry->dtype != MC_F8_E4M3);
	}
	(void)require_entry(&written, "mtp.norm.weight");
	compare_rest(&from, &written);
	mc_checkpoint_close(&written);
	mc_model_close(&from);

	config = qf_config(model);
	const struct mc_json *q = mc_json_get(config, "quantization_config");
	assert_string_equal(mc_json_string(mc_json_get(q, "format"), NULL), "pack-quantized");
	assert_int_equal(mc_json_size(mc_json_get(q, "config_groups")), 1);
	assert_null(mc_json_get(config, "compression_config"));
	assert_int_equal(mc_json_size(mc_json_get(config, "text_config")), 1);
	mc_json_free(config);
	require_manifest(out, "compressed-tensors float-quantized", 2);
}

static void require_same(const char *a, const char *b)
{
	struct mc_checkpoint x, y;
	struct mc_error err;
	char hex_x[65], hex_y[65];

	mc_error_init(&err);
	toy_require(mc_checkpoint_open(&x, NULL, a, &err), &err);
	toy_require(mc_checkpoint_open(&y, NULL, b, &err), &err);
	toy_require(mc_checkpoint_digest(&x, hex_x, &err), &err);
	toy_require(mc_checkpoint_digest(&y, hex_y, &err), &err);
	assert_string_equal(hex_x, hex_y);
	mc_checkpoint_close(&x);
	mc_checkpoint_close(&y);
}

/* Calibrated with text; and the checkpoint proves itself against the quantized one it was made
 * from. */
static void test_whole_jobs(void **state)
{
	char one[QF_PATH], three[QF_PATH], a[QF_PATH + 16], b[QF_PATH + 16];
	struct mc_verdict verdict;
	struct mc_error err;
	struct lab lab;

	(void)state;
	snprintf(one, sizeof one, "%s", place("whole-1"));
	snprintf(three, sizeof three, "%s", place("whole-3"));
	snprintf(a, sizeof a, "%s/model", one);
	snprintf(b, sizeof b, "%s/model", three);
	qf_run(quantized_model(), "\"FP8\"", data(""), one, 1);
	qf_run(quantized_model(), "\"FP8\"", data(""), three, 3);
	require_same(a, b);
	require_manifest(one, "compressed-tensors float-quantized", 1);
	lab_open(&lab, 1);
	mc_error_init(&err);
	mc_verdict_init(&verdict);
	toy_require(mc_verify_checkpoint(&verdict, a, quantized_model(), &lab.env, &err), &err);
	assert_true(mc_verdict_valid(&verdict));
	assert_true(verdict.checks[MC_CHECK_BOUND].counted == 112);
	mc_verdict_release(&verdict);
	lab_close(&lab);
	/* a plain model says so, and warns of nothing */
	require_manifest(place("static"), "dense", 0);
}

/* A head that was quantized: kept as it is used, or quantized again. */
static void test_quantized_heads(void **state)
{
	char first[QF_PATH], model[QF_PATH + 16];
	struct mc_model from;
	struct mc_checkpoint written;
	struct mc_error err;

	(void)state;
	snprintf(first, sizeof first, "%s", place("head"));
	snprintf(model, sizeof model, "%s/model", first);
	qf_run(QF_MODEL, ALL("W8A16"), "", first, 2);
	qf_run(model, EXPERTS_ONLY, data(""), place("head-kept"), 2);
	qf_run(model, ALL("FP8"), data(""), place("head-again"), 2);
	open_checkpoint(&from, model);
	assert_true(mc_module_is_made(from.modules[from.head]));
	snprintf(model, sizeof model, "%s/model", place("head-kept"));
	mc_error_init(&err);
	toy_require(mc_checkpoint_open(&written, NULL, model, &err), &err);
	compare_rest(&from, &written);
	mc_checkpoint_close(&written);
	mc_model_close(&from);
}

/* --- evaluation ------------------------------------------------------------------------------- */

static bool evaluate_fn(void *ctx, struct mc_job *job, struct lab *lab, struct mc_error *err)
{
	struct mc_evaluation evaluation;

	if (!mc_evaluate(&job->model, &job->dataset, MC_DTYPE_COUNT, NULL, NULL, NULL, &lab->env,
		&evaluation, err))
		return false;
	*(double *)ctx = evaluation.perplexity;
	return true;
}

static double perplexity(const char *model)
{
	char spec[1024];
	double value = 0;
	struct mc_error err;

	snprintf(
	    spec, sizeof spec, "{\"model\": \"%s\", \"recipe\": \"W8A16\"%s}", model, data(""));
	toy_require(qf_with_job(spec, 2, evaluate_fn, &value, &err), &err);
	return value;
}

static void test_perplexity_is_close(void **state)
{
	static const struct {
		const char *recipe;
		double allowed; /* of the original's, relative */
	} cases[] = {{"\"W8A8\"", 0.01}, {"\"FP8_BLOCK\"", 0.03}, {"\"W4A16\"", 0.2}};
	double original = perplexity(QF_MODEL);

	(void)state;
	assert_true(original > 1 && original < 1000);
	for (size_t i = 0; i < 3; i++) {
		char out[QF_PATH + 32], model[QF_PATH + 48];
		snprintf(out, sizeof out, "%s-%zu", place("perplexity"), i);
		snprintf(model, sizeof model, "%s/model", out);
		qf_run(QF_MODEL, cases[i].recipe, "", out, 2);
		double now = perplexity(model);
		if (fabs(now / original - 1) > cases[i].allowed)
			fail_msg("%s: %g, from %g", cases[i].recipe, now, original);
		assert_true(now != original);
	}
}

/* ---------------------------------------------------------------------------------------------- */

static int make_scratch(void **state)
{
	static const char *const lines[] = {
	    "The house stood on a hill above the river, and nobody had lived in it for years.",
	    "def add(a, b):\\n    return a + b\\n",
	    "Install the package, then run the command again. It prints the path of the file.",
	    "She opened the letter slowly. It had been folded twice and smelled of smoke."};
	struct mc_buf text;
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	if (mkdtemp(scratch) == NULL)
		return -1;
	mc_buf_init(&text, 1 << 20);
	for (unsigned i = 0; i < 12; i++)
		assert_true(mc_buf_addf(&text, &err, "{\"text\": \"%s %s %u\"}\n", lines[i % 4],
		    lines[(i * 3 + 1) % 4], i));
	qf_write_text(scratch, "data.jsonl", mc_buf_text(&text));
	mc_buf_release(&text);
	return 0;
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
	    cmocka_unit_test(test_integers_keep_their_codes),
	    cmocka_unit_test(test_only_the_new_quantization_is_left),
	    cmocka_unit_test(test_whole_jobs),
	    cmocka_unit_test(test_quantized_heads),
	    cmocka_unit_test(test_perplexity_is_close),
	};
	return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
