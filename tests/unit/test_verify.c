/*
 * test_verify.c - every format that this program writes, with every kind of damage: verify must
 * find it and name the tensor; whole checkpoints must pass
 */
#include "quantized_folder.h"

#include <math.h>

#include "moecal/verdict.h"

static char scratch[] = "/tmp/moecal-test-verify-XXXXXX";
static char original[QF_PATH];
static struct lab lab;

static const struct format {
	const char *name, *recipe;
	const char *module; /* that is damaged, besides attention */
} formats[] = {
    {"w4a16", "\"W4A16\"", "mlp.experts.1.up_proj"},
    {"w3a16", "\"W3A16\"", "mlp.experts.1.down_proj"},
    {"w4a16-asym", "\"W4A16_ASYM\"", "mlp.experts.2.gate_proj"},
    {"w8a8", "\"W8A8\"", "mlp.experts.0.up_proj"},
    {"w4a8", "\"W4A8\"", "mlp.experts.3.up_proj"},
    {"w8a8-static-asym",
	"{\"config_groups\": {\"g\": {\"targets\": [\"Linear\"], \"weights\": {\"num_bits\": 8, "
	"\"strategy\": \"channel\", \"symmetric\": false}, \"input_activations\": {\"num_bits\": "
	"8, "
	"\"strategy\": \"tensor\", \"symmetric\": false}}}, \"ignore\": [\"lm_head\"]}",
	"mlp.experts.3.down_proj"},
    {"fp8", "\"FP8\"", "mlp.experts.1.up_proj"},
    {"fp8-dynamic", "\"FP8_DYNAMIC\"", "mlp.experts.1.gate_proj"},
    {"fp8-block", "\"FP8_BLOCK\"", "mlp.experts.1.down_proj"},
    {"naive",
	"{\"config_groups\": {\"g\": {\"targets\": [\"Linear\"], \"weights\": {\"num_bits\": 8, "
	"\"type\": \"float\", \"strategy\": \"channel\"}}}, \"ignore\": [\"lm_head\"]}",
	"mlp.experts.0.down_proj"},
    {"nvfp4", "\"NVFP4\"", "mlp.experts.2.up_proj"},
    {"nvfp4a16", "\"NVFP4A16\"", "mlp.experts.2.up_proj"},
    {"mxfp4", "\"MXFP4\"", "mlp.experts.2.down_proj"},
    {"mxfp8", "\"MXFP8A16\"", "mlp.experts.0.gate_proj"},
    {"mixed",
	"{\"config_groups\": {\"a\": {\"targets\": [\"re:.*experts.*\"], \"weights\": "
	"{\"num_bits\": "
	"4, \"strategy\": \"group\", \"group_size\": 32}}, \"b\": {\"targets\": "
	"[\"re:.*self_attn.*_proj\"], \"weights\": {\"num_bits\": 8, \"type\": \"float\", "
	"\"strategy\": \"channel\"}, \"input_activations\": {\"num_bits\": 8, \"type\": \"float\", "
	"\"dynamic\": true, \"strategy\": \"token\"}}}, \"ignore\": [\"lm_head\"]}",
	"mlp.experts.1.down_proj"},
    {"kv",
	"{\"targets\": [\"Linear\"], \"scheme\": \"W8A8\", \"ignore\": [\"lm_head\"], "
	"\"kv_cache_scheme\": {\"num_bits\": 8, \"type\": \"float\", \"strategy\": \"tensor\", "
	"\"dynamic\": false, \"symmetric\": true}}",
	"mlp.experts.1.up_proj"},
    {"dense",
	"{\"kv_cache_scheme\": {\"num_bits\": 8, \"type\": \"float\", \"strategy\": \"tensor\", "
	"\"dynamic\": false, \"symmetric\": true}}",
	NULL},
};
#define FORMATS (sizeof formats / sizeof *formats)

static const char *place(const char *name, const char *more)
{
	static char paths[8][QF_PATH];
	static unsigned next;
	char *p = paths[next++ % 8];

	snprintf(p, QF_PATH, "%s/%s%s", scratch, name, more);
	return p;
}

/* --- one verdict ------------------------------------------------------------------------------ */

/* Whether an example of a failed check holds the name. */
static bool names(const struct mc_verdict *verdict, const char *name)
{
	for (size_t c = 0; c < MC_CHECK_COUNT; c++)
		for (size_t i = 0; i < verdict->checks[c].examples_count; i++)
			if (strstr(verdict->checks[c].examples[i], name) != NULL)
				return true;
	return false;
}

/* name NULL: the folder is good. Otherwise verify finds something and names it. */
static void require(const char *folder, const char *from, const char *name, const char *damage)
{
	struct mc_verdict verdict;
	struct mc_error err;

	mc_error_init(&err);
	mc_verdict_init(&verdict);
	if (!mc_verify_checkpoint(&verdict, folder, from, &lab.env, &err))
		fail_msg("%s of %s: %s: %s", damage, folder, err.where, err.text);
	bool found = name == NULL ? mc_verdict_valid(&verdict)
				  : !mc_verdict_valid(&verdict) && names(&verdict, name);
	if (!found)
		for (size_t c = 0; c < MC_CHECK_COUNT; c++)
			for (size_t i = 0; i < verdict.checks[c].examples_count; i++)
				print_error("  %s: %s\n", verdict.checks[c].name,
				    verdict.checks[c].examples[i]);
	if (!found)
		fail_msg("%s of %s: %s is not named%s", damage, folder, name == NULL ? "-" : name,
		    from == NULL ? "" : " (with the original)");
	struct mc_json *json = mc_verdict_json(&verdict, &err);
	assert_non_null(json);
	mc_json_free(json);
	mc_verdict_release(&verdict);
	assert_int_equal(mc_arena_mark(lab.env.arena), 0);
}

/* Of a family that is known, alone and against the original; and of one that is not. */
static void require_found(const char *good, const struct qf_edit *edits, size_t count,
    const char *name, const char *damage, bool also_unknown)
{
	const char *folder = place("damaged", "");
	struct mc_error err;

	mc_error_init(&err);
	qf_rewrite(good, folder, edits, count, NULL);
	require(folder, NULL, name, damage);
	require(folder, original, name, damage);
	if (also_unknown) {
		qf_rewrite(good, folder, edits, count,
		    "{\"model_type\": \"other_moe\", \"architectures\": "
		    "[\"OtherMoeForCausalLM\"]}");
		require(folder, NULL, name, damage);
	}
	toy_require(mc_file_remove_tree(folder, &err), &err);
}

/* --- damage to one tensor --------------------------------------------------------------------- */

struct victim {
	const char *good;
	char name[QF_PATH];
	struct mc_st_entry entry;
	unsigned char *bytes; /* owned */
};

static struct qf_edit edit_of(const struct victim *v)
{
	struct qf_edit edit = {
	    .name = v->name, .dtype = v->entry.dtype, .rank = v->entry.rank, .data = v->bytes};

	memcpy(edit.shape, v->entry.shape, sizeof edit.shape);
	return edit;
}

static bool is_scale(const struct victim *v)
{
	return strstr(v->name, "_scale") != NULL;
}

static bool ends_as(const struct victim *v, const char *end)
{
	size_t n = strlen(v->name), k = strlen(end);

	return n >= k && strcmp(v->name + n - k, end) == 0;
}

static void test_absence_and_form(const struct victim *v)
{
	static const enum mc_dtype others[][2] = {{MC_BF16, MC_F16}, {MC_F32, MC_I32},
	    {MC_I32, MC_F32}, {MC_U8, MC_I8}, {MC_F8_E4M3, MC_I8}, {MC_I8, MC_U8},
	    {MC_I64, MC_F64}};
	struct qf_edit edit = {.name = v->name, .omit = true};

	require_found(v->good, &edit, 1, v->name, "absence", true);
	edit = edit_of(v);
	for (size_t i = 0; i < sizeof others / sizeof *others; i++)
		if (others[i][0] == v->entry.dtype)
			edit.dtype = others[i][1];
	assert_true(edit.dtype != v->entry.dtype);
	require_found(v->good, &edit, 1, v->name, "another dtype", true);
	edit = edit_of(v);
	edit.data = NULL;
	edit.shape[0] += 1;
	/* what no size can be compared with is found by the family's sizes alone */
	bool alone = ends_as(v, ".weight") || ends_as(v, "_packed");
	require_found(v->good, &edit, 1, v->name, "a row more", !alone);
	edit = edit_of(v);
	edit.rank = 3;
	edit.shape[2] = 1;
	if (edit.rank - v->entry.rank == 1)
		require_found(v->good, &edit, 1, v->name, "a dimension more", !alone);
}

/* One element of a scale; the bytes are put back. */
static void test_scale_value(const struct victim *v, float value, const char *damage)
{
	size_t size = mc_dtype_bits(v->entry.dtype) / 8, at = v->entry.bytes / 2 / size * size;
	unsigned char before[8], bits[4];
	struct qf_edit edit = edit_of(v);

	memcpy(before, v->bytes + at, size);
	mc_narrow(&value, v->entry.dtype, bits, 1);
	memcpy(v->bytes + at, bits, size);
	require_found(v->good, &edit, 1, v->name, damage, true);
	memcpy(v->bytes + at, before, size);
}

static void test_scale(const struct victim *v)
{
	struct qf_edit edit = edit_of(v);
	unsigned char before = v->bytes[0];

	if (v->entry.dtype == MC_U8) { /* exponents: only one of them is no number */
		v->bytes[0] = 255;
		require_found(v->good, &edit, 1, v->name, "a NaN exponent", true);
		v->bytes[0] = before;
		return;
	}
	test_scale_value(v, 0, "a zero scale");
	test_scale_value(v, -0.5f, "a negative scale");
	test_scale_value(v, NAN, "a NaN scale");
	if (v->entry.dtype != MC_F8_E4M3)
		test_scale_value(v, INFINITY, "an infinite scale");
	if (v->entry.bytes == 4) /* of one number */
		test_scale_value(v, 1e-41f, "memory never written");
}

static void test_codes(const struct victim *v, const char *format)
{
	struct qf_edit edit = edit_of(v);
	unsigned char before = v->bytes[77];

	if (v->entry.dtype == MC_F8_E4M3 || strcmp(format, "w4a8") == 0) {
		v->bytes[77] = v->entry.dtype == MC_F8_E4M3 ? 0xff : 9;
		require_found(v->good, &edit, 1, v->name, "a code that is none", true);
		v->bytes[77] = before;
	}
}

static void test_order_of_shape(const struct victim *v)
{
	struct qf_edit edit = edit_of(v);
	int64_t shape[2], wrong[2];

	memcpy(shape, v->bytes, sizeof shape);
	wrong[0] = shape[0];
	wrong[1] = shape[1] / 2;
	edit.data = wrong;
	require_found(v->good, &edit, 1, v->name, "half the columns", false);
	wrong[1] = INT64_MAX;
	require_found(v->good, &edit, 1, v->name, "columns without end", false);
}

/* --- damage to one module --------------------------------------------------------------------- */

static void test_additions(const char *good, const char *module)
{
	static const char *const suffixes[] = {"weight", "weight_packed", "weight_zero_point",
	    "weight_global_scale", "input_scale", "input_global_scale", "output_scale"};
	struct mc_checkpoint checkpoint;
	struct mc_error err;

	mc_error_init(&err);
	toy_require(mc_checkpoint_open(&checkpoint, NULL, good, &err), &err);
	for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
		char name[QF_PATH];
		snprintf(name, sizeof name, "%s.%s", module, suffixes[i]);
		struct qf_edit edit = {.name = name, .dtype = MC_F32, .rank = 1, .shape = {1}};
		if (mc_checkpoint_find(&checkpoint, name) == NULL)
			require_found(good, &edit, 1, name, "an addition", true);
	}
	mc_checkpoint_close(&checkpoint);
}

static void test_module(const struct format *format, const char *good, const char *module)
{
	struct mc_checkpoint checkpoint;
	struct mc_error err;
	size_t length = strlen(module), seen = 0;

	mc_error_init(&err);
	toy_require(mc_checkpoint_open(&checkpoint, NULL, good, &err), &err);
	for (size_t i = 0; i < checkpoint.count; i++) {
		const struct mc_ckpt_tensor *t = &checkpoint.tensors[i];
		if (strncmp(t->entry->name, module, length) != 0 || t->entry->name[length] != '.' ||
		    strchr(t->entry->name + length + 1, '.') != NULL)
			continue;
		struct victim v = {.good = good, .entry = *t->entry};
		snprintf(v.name, sizeof v.name, "%s", t->entry->name);
		v.bytes = malloc(t->entry->bytes + 1);
		assert_non_null(v.bytes);
		toy_require(
		    mc_checkpoint_read(&checkpoint, t, 0, t->entry->bytes, v.bytes, &err), &err);
		test_absence_and_form(&v);
		if (is_scale(&v))
			test_scale(&v);
		if (ends_as(&v, ".weight"))
			test_codes(&v, format->name);
		if (ends_as(&v, ".weight_shape"))
			test_order_of_shape(&v);
		free(v.bytes);
		seen++;
	}
	assert_true(seen >= 2);
	mc_checkpoint_close(&checkpoint);
	test_additions(good, module);
}

/* --- the formats ------------------------------------------------------------------------------ */

static const char *good_of(const struct format *format)
{
	static char model[QF_PATH];
	char more[QF_PATH + 64];

	snprintf(model, sizeof model, "%s/model", place(format->name, ""));
	snprintf(more, sizeof more, ", \"dataset\": \"%s\", \"max_seq_length\": 64",
	    place("ids.jsonl", ""));
	if (!mc_file_exists(model))
		qf_run(original, format->recipe, more, place(format->name, ""), 1);
	return model;
}

static void test_whole_ones_pass(void **state)
{
	(void)state;
	for (size_t i = 0; i < FORMATS; i++) {
		const char *good = good_of(&formats[i]);
		require(good, NULL, NULL, "nothing");
		require(good, original, NULL, "nothing");
		qf_rewrite(good, place("unknown", ""), NULL, 0,
		    "{\"model_type\": \"other_moe\", \"architectures\": "
		    "[\"OtherMoeForCausalLM\"]}");
		require(place("unknown", ""), NULL, NULL, "nothing");
	}
}

static void test_each_tensor_of_each_format(void **state)
{
	(void)state;
	for (size_t i = 0; i < FORMATS; i++) {
		char module[QF_PATH];
		if (formats[i].module == NULL)
			continue;
		snprintf(module, sizeof module, "model.layers.1.%s", formats[i].module);
		test_module(&formats[i], good_of(&formats[i]), module);
	}
	test_module(&formats[14], good_of(&formats[14]), "model.layers.0.self_attn.v_proj");
}

static void test_cache_scales(void **state)
{
	(void)state;
	for (size_t i = FORMATS - 2; i < FORMATS; i++) {
		const char *good = good_of(&formats[i]);
		struct mc_checkpoint checkpoint;
		struct mc_error err;
		mc_error_init(&err);
		toy_require(mc_checkpoint_open(&checkpoint, NULL, good, &err), &err);
		struct victim v = {.good = good, .name = "model.layers.1.self_attn.v_scale"};
		const struct mc_ckpt_tensor *t = mc_checkpoint_find(&checkpoint, v.name);
		assert_non_null(t);
		v.entry = *t->entry;
		v.bytes = qf_tensor(&checkpoint, "model.layers.1.self_attn", "v_scale", NULL);
		test_absence_and_form(&v);
		test_scale(&v);
		struct qf_edit more = {.name = "model.layers.0.self_attn.q_scale",
		    .dtype = MC_BF16,
		    .rank = 1,
		    .shape = {1}};
		require_found(good, &more, 1, more.name, "an addition", true);
		free(v.bytes);
		mc_checkpoint_close(&checkpoint);
	}
}

/* Tensors that are stored as they are, whatever the format. */
static void test_plain_tensors(void **state)
{
	static const char *const plain[] = {"model.norm.weight",
	    "model.layers.1.input_layernorm.weight", "model.layers.0.self_attn.q_norm.weight",
	    "model.embed_tokens.weight", "lm_head.weight", "model.layers.0.mlp.gate.weight"};
	(void)state;

	for (size_t f = 0; f < FORMATS; f += 5)
		for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
			const char *good = good_of(&formats[f]);
			struct mc_checkpoint checkpoint;
			struct mc_error err;
			mc_error_init(&err);
			toy_require(mc_checkpoint_open(&checkpoint, NULL, good, &err), &err);
			struct victim v = {.good = good};
			snprintf(v.name, sizeof v.name, "%s", plain[i]);
			const struct mc_ckpt_tensor *t = mc_checkpoint_find(&checkpoint, v.name);
			assert_non_null(t);
			struct qf_edit edit = {.name = v.name, .omit = true};
			require_found(good, &edit, 1, v.name, "absence", false);
			v.entry = *t->entry;
			v.bytes = calloc(t->entry->bytes, 1);
			edit = edit_of(&v);
			edit.shape[0]--;
			require_found(good, &edit, 1, v.name, "a row less", false);
			((uint16_t *)v.bytes)[t->entry->bytes / 4] = 0x7fc0;
			edit = edit_of(&v);
			require_found(good, &edit, 1, v.name, "NaN", true);
			free(v.bytes);
			mc_checkpoint_close(&checkpoint);
		}
}

/* --- whole modules ---------------------------------------------------------------------------- */

static void test_proportions(void **state)
{
	static const char *const which[] = {"w4a16", "fp8", "fp8-block", "naive", "w8a8"};
	(void)state;

	for (size_t i = 0; i < FORMATS; i++) {
		bool chosen = false;
		for (size_t k = 0; k < 5; k++)
			chosen |= strcmp(formats[i].name, which[k]) == 0;
		if (!chosen)
			continue;
		const char *good = good_of(&formats[i]);
		char name[QF_PATH + 32], module[QF_PATH];
		struct mc_checkpoint checkpoint;
		struct mc_error err;
		mc_error_init(&err);
		snprintf(module, sizeof module, "model.layers.0.%s", formats[i].module);
		snprintf(name, sizeof name, "%s.weight_scale", module);
		toy_require(mc_checkpoint_open(&checkpoint, NULL, good, &err), &err);
		struct mc_st_entry entry = *mc_checkpoint_find(&checkpoint, name)->entry;
		uint16_t *scales = qf_tensor(&checkpoint, module, "weight_scale", NULL);
		for (size_t k = 0; k < entry.bytes / 2; k++)
			scales[k] = (uint16_t)(scales[k] + (10 << 7)); /* BF16 times 1024 */
		struct qf_edit edit = {
		    .name = name, .dtype = MC_BF16, .rank = entry.rank, .data = scales};
		memcpy(edit.shape, entry.shape, sizeof edit.shape);
		require_found(good, &edit, 1, module, "1024 times", true);
		free(scales);
		/* what an algorithm without data leaves of an expert */
		snprintf(name, sizeof name, "%s.weight", module);
		const struct mc_ckpt_tensor *t = mc_checkpoint_find(&checkpoint, name);
		if (t != NULL) {
			edit = (struct qf_edit){
			    .name = name, .dtype = t->entry->dtype, .rank = t->entry->rank};
			memcpy(edit.shape, t->entry->shape, sizeof edit.shape);
			require_found(good, &edit, 1, module, "zero codes", true);
		}
		mc_checkpoint_close(&checkpoint);
	}
}

/* A whole expert is gone, or one too many is there. */
static void test_experts(void **state)
{
	(void)state;
	for (size_t i = 0; i + 1 < FORMATS; i++) {
		const char *good = good_of(&formats[i]);
		static const char gone[] = "model.layers.1.mlp.experts.2.";
		struct mc_checkpoint checkpoint;
		struct qf_edit edits[32], more;
		struct mc_error err;
		size_t count = 0;
		mc_error_init(&err);
		toy_require(mc_checkpoint_open(&checkpoint, NULL, good, &err), &err);
		for (size_t t = 0; t < checkpoint.count; t++)
			if (strncmp(checkpoint.tensors[t].entry->name, gone, strlen(gone)) == 0)
				edits[count++] = (struct qf_edit){
				    .name = checkpoint.tensors[t].entry->name, .omit = true};
		assert_true(count >= 6);
		require_found(good, edits, count, gone, "an expert less", true);
		more = (struct qf_edit){.name = "model.layers.1.mlp.experts.4.up_proj.weight_scale",
		    .dtype = MC_BF16,
		    .rank = 1,
		    .shape = {1}};
		require_found(good, &more, 1, more.name, "an expert more", true);
		more.name = "model.layers.7.input_layernorm.weight";
		require_found(good, &more, 1, more.name, "a layer more", true);
		mc_checkpoint_close(&checkpoint);
	}
}

/* --- config.json ------------------------------------------------------------------------------ */

static void edit_config(const char *folder, const char *from, const char *to)
{
	char path[QF_PATH + 16], *text, *whole;
	struct mc_checkpoint checkpoint;
	struct mc_error err;
	struct mc_buf buf;

	mc_error_init(&err);
	mc_buf_init(&buf, 1 << 24);
	toy_require(mc_checkpoint_open(&checkpoint, NULL, folder, &err), &err);
	toy_require(mc_checkpoint_read_file(&checkpoint, "config.json", &buf, &err), &err);
	text = strstr(mc_buf_text(&buf), from);
	if (text == NULL)
		fail_msg("no '%s' in %s", from, mc_buf_text(&buf));
	whole = mc_format(&err, "%.*s%s%s", (int)(text - mc_buf_text(&buf)), mc_buf_text(&buf), to,
	    text + strlen(from));
	assert_non_null(whole);
	snprintf(path, sizeof path, "%s/config.json", folder);
	toy_require(mc_file_write_durable(path, whole, strlen(whole), &err), &err);
	free(whole);
	mc_buf_release(&buf);
	mc_checkpoint_close(&checkpoint);
}

static void test_config(void **state)
{
	static const struct {
		size_t format;
		const char *from, *to, *name;
	} cases[] = {
	    {0, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", "model.layers.2."},
	    {0, "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1", "model.layers.1."},
	    {0, "\"num_experts\": 4", "\"num_experts\": 5", "experts.4."},
	    {0, "\"num_experts\": 4", "\"num_experts\": 3", "experts.3."},
	    {0, "\"hidden_size\": 128", "\"hidden_size\": 256", "model.layers.0."},
	    {0, "\"group_size\": 128", "\"group_size\": 64", "weight_scale"},
	    {0, "\"group_size\": 128", "\"group_size\": -3", "quantization_config"},
	    {0, "\"num_bits\": 4", "\"num_bits\": 8", "weight_packed"},
	    {0, "\"num_bits\": 4", "\"num_bits\": \"four\"", "num_bits"},
	    {0, "\"symmetric\": true", "\"symmetric\": false", "weight_zero_point"},
	    {2, "\"symmetric\": false", "\"symmetric\": true", "weight_zero_point"},
	    {0, "\"strategy\": \"group\"", "\"strategy\": \"heap\"", "strategy"},
	    {0, "\"format\": \"pack-quantized\"", "\"format\": \"int-quantized\"", "weight"},
	    {0, "\"format\": \"pack-quantized\"", "\"format\": \"float-quantized\"", "format"},
	    {0, "\"format\": \"pack-quantized\",\n    \"global",
		"\"format\": \"naive-quantized\",\n    \"global", "format"},
	    {0, "\"lm_head\"", "\"model.layers.9.mlp.gate\"", "model.layers.9.mlp.gate"},
	    {0, "\"lm_head\"", "\"model.layers.0.self_attn.q_proj\"", "lm_head"},
	    {0, "\"lm_head\"", "\"re:(\"", "re:("},
	    {0, "\"Linear\"", "\"model.layers.0.mlp.experts.8.up_proj\"", "experts.8.up_proj"},
	    {0, "\"quantization_config\"", "\"other_config\"", "quantization_config"},
	    {0, "\"config_groups\"", "\"other_groups\"", "config_groups"},
	    {6, "\"dynamic\": false", "\"dynamic\": true", "input_scale"},
	    {10, "\"strategy\": \"tensor_group\"", "\"strategy\": \"group\"", "input"},
	    {15, "\"kv_cache_scheme\"", "\"no_cache_scheme\"", "k_scale"},
	    {0, "\"kv_cache_scheme\": null",
		"\"kv_cache_scheme\": {\"num_bits\": 8, \"type\": \"float\", \"strategy\": "
		"\"tensor\", \"symmetric\": true, \"dynamic\": false}",
		"k_scale"},
	    {0, "{", "[", "config.json"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		const char *folder = place("config", "");
		qf_rewrite(good_of(&formats[cases[i].format]), folder, NULL, 0, NULL);
		edit_config(folder, cases[i].from, cases[i].to);
		require(folder, NULL, cases[i].name, cases[i].to);
		require(folder, original, cases[i].name, cases[i].to);
	}
}

/* Layouts of older versions, and what others write. */
static void test_configs_that_are_fine(void **state)
{
	static const struct {
		size_t format;
		const char *from, *to;
	} cases[] = {
	    {0, "\"actorder\": null", "\"actorder\": \"static\""},
	    {0, "\"observer\": \"memoryless_minmax\"", "\"observer\": \"mse_of_others\""},
	    {0, "\"observer\": \"memoryless_minmax\",", ""},
	    {0, "\"scale_dtype\": null,", ""},
	    {10, "\"scale_dtype\": \"torch.float8_e4m3fn\",", ""},
	    {0, "\"quant_method\": \"compressed-tensors\",", ""},
	    {0, "\"quantization_status\": \"compressed\"", "\"quantization_status\": \"frozen\""},
	    {0, "\"quantization_config\"", "\"compression_config\""},
	    {0, "\"lm_head\"", "\"lm_head\", \"re:.*nothing.*\""},
	    {0, "\"model.layers.0.mlp.gate\",", ""}, /* newer frameworks: no Linear */
	    {0, "\"num_hidden_layers\": 2",
		"\"num_nextn_predict_layers\": 1, \"num_hidden_layers\": 2"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		const char *folder = place("fine", "");
		qf_rewrite(good_of(&formats[cases[i].format]), folder, NULL, 0, NULL);
		edit_config(folder, cases[i].from, cases[i].to);
		require(folder, NULL, NULL, cases[i].to);
		require(folder, original, NULL, cases[i].to);
	}
}

/* No damage, but nothing that can be checked. */
static void test_what_is_no_checkpoint(void **state)
{
	static const struct {
		const char *from, *to;
		enum mc_code code;
	} cases[] = {
	    {"\"quant_method\": \"compressed-tensors\"", "\"quant_method\": \"gptq\"",
		MC_UNSUPPORTED},
	    {"\"num_bits\": 4", "\"num_bits\": 16", MC_UNSUPPORTED},
	};
	struct mc_verdict verdict;
	struct mc_error err;
	(void)state;

	for (size_t i = 0; i < 4; i++) {
		const char *folder = i == 2 ? original : i == 3 ? "/nowhere" : place("other", "");
		enum mc_code code = i == 2 ? MC_INVALID : i == 3 ? MC_NOT_FOUND : cases[i].code;
		if (i < 2) {
			qf_rewrite(good_of(&formats[0]), folder, NULL, 0, NULL);
			edit_config(folder, cases[i].from, cases[i].to);
		}
		mc_error_init(&err);
		mc_verdict_init(&verdict);
		if (mc_verify_checkpoint(&verdict, folder, NULL, &lab.env, &err))
			fail_msg("case %zu was checked", i);
		if (err.code != code)
			fail_msg("case %zu: %s: %s", i, mc_code_name(err.code), err.text);
		mc_verdict_release(&verdict);
	}
}

/* --- the group -------------------------------------------------------------------------------- */

static int set_up(void **state)
{
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);
	struct mc_error err;
	(void)state;

	mc_error_init(&err);
	assert_non_null(mkdtemp(scratch));
	lab_open(&lab, 1);
	snprintf(original, sizeof original, "%s/original", scratch);
	toy_require(mc_file_make_folders(original, &err), &err);
	toy.hidden = toy.expert_intermediate = 128;
	toy.heads = 4;
	toy.kv_heads = 2;
	toy.head_dim = 32;
	toy_require(mc_toy_write(&toy, original, &err), &err);
	qf_write_text(scratch, "ids.jsonl",
	    "{\"input_ids\": [1, 2, 3, 4, 5, 6, 7]}\n{\"input_ids\": [7, 6, 5]}\n");
	return 0;
}

static int tear_down(void **state)
{
	struct mc_error err;
	(void)state;

	mc_error_init(&err);
	lab_close(&lab);
	return mc_file_remove_tree(scratch, &err) ? 0 : 1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_whole_ones_pass),
	    cmocka_unit_test(test_each_tensor_of_each_format),
	    cmocka_unit_test(test_cache_scales),
	    cmocka_unit_test(test_plain_tensors),
	    cmocka_unit_test(test_proportions),
	    cmocka_unit_test(test_experts),
	    cmocka_unit_test(test_config),
	    cmocka_unit_test(test_configs_that_are_fine),
	    cmocka_unit_test(test_what_is_no_checkpoint),
	};
	return cmocka_run_group_tests_name("verify", tests, set_up, tear_down);
}
