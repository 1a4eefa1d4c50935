/*
 * test_verify.c - every format that this program writes, with every kind of damage: verify must
 * find it and name the tensor; whole checkpoints must pass
 */
#include "verify_world.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_whole_ones_pass),
	    cmocka_unit_test(test_each_tensor_of_each_format),
	    cmocka_unit_test(test_cache_scales),
	    cmocka_unit_test(test_plain_tensors),
	    cmocka_unit_test(test_proportions),
	    cmocka_unit_test(test_experts),
	};
	return cmocka_run_group_tests_name("verify", tests, world_set_up, world_tear_down);
}
