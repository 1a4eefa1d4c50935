/*
 * test_quantize_attention.c - scales and zero points of q, k and v: against their definition, the
 * reference's numbers, and what config.json, plan and verdict say of them
 *
 * tests/golden/attention holds results of llm-compressor 0.14 on tests/data/qwen3moe-2m in float32:
 * recipes as below, 24 sequences of 128 tokens. Its q_scale is not among them (it is never
 * computed).
 */
#include "attention_world.h"

#include "reference/attention_parameters.h"
#include "reference/decoder.h"
#include "reference/toy.h"

#define MODEL "tests/data/qwen3moe-2m"
#define GOLDEN "tests/golden/attention"

/* --- against the definition ------------------------------------------------------------------- */

struct scheme_case {
	const char *name, *args;
	struct ref_attention_scheme how;
};
static const struct scheme_case cases[] = {
    {"fp8-head",
	"\"type\": \"float\", \"strategy\": \"attn_head\", \"observer\": \"static_minmax\"",
	{0, true, true, 's', 0}},
    {"fp8-tensor", "\"type\": \"float\"", {0, true, false, 'm', 0.01}},
    {"fp8-asymmetric",
	"\"type\": \"float\", \"symmetric\": false, \"strategy\": \"attn_head\", "
	"\"observer\": \"static_minmax\"",
	{0, false, true, 's', 0}},
    {"int8-head", "\"strategy\": \"attn_head\", \"observer\": \"memoryless_minmax\"",
	{8, true, true, 'l', 0}},
    {"int8-asymmetric",
	"\"symmetric\": false, \"observer\": \"minmax\", "
	"\"observer_kwargs\": {\"averaging_constant\": 0.3}",
	{8, false, false, 'm', 0.3}},
    {"int8-asymmetric-head", "\"symmetric\": false, \"strategy\": \"attn_head\"",
	{8, false, true, 'm', 0.01}},
    {"int4", "\"num_bits\": 4, \"observer\": \"static_minmax\"", {4, true, false, 's', 0}},
};

/* What one layer's attention is given, in float64, from the embedding on. */
static void check_layers(const char *folder, const struct mc_st_file *file,
    const struct scheme_case *c, bool query, const uint32_t *ids, const uint64_t *start)
{
	struct mc_arena arena;
	struct mc_env env = {.arena = &arena};
	struct mc_model model;
	struct mc_batch batch = {.ids = ids, .start = start, .sequences = 4, .tokens = start[4]};
	float narrow[32 * 32];
	double hidden[32 * 32];

	assert_true(mc_arena_init(&arena, (uint64_t)1 << 28, &err));
	env.pool = mc_pool_new(1, &err);
	assert_true(mc_model_open(&model, NULL, folder, &err));
	size_t width = model.config.hidden, hd = model.config.head_dim;
	assert_true(batch.tokens * width <= 32 * 32);
	assert_true(mc_forward_embed(&model, &batch, MC_F32, narrow, &env, &err));
	for (size_t i = 0; i < batch.tokens * width; i++)
		hidden[i] = (double)narrow[i];
	for (size_t l = 0; l < model.config.layers; l++) {
		struct mc_layer layer;
		struct ref_layer_inputs in;
		assert_true(mc_layer_load(&layer, &model, l, MC_F32, &env, &err));
		ref_layer_forward(&layer, &batch, hidden, &in);
		const double *const x[] = {in.query, in.key, in.value};
		for (size_t k = 0; k < 3; k++) {
			size_t heads = k == 0 ? model.config.heads : model.config.kv_heads;
			size_t parts = c->how.per_head ? heads : 0;
			enum mc_dtype zero_dtype = c->how.bits == 0 ? MC_F8_E4M3 : MC_I8;
			double scale[64], zero[64];
			const char *name = text_of("model.layers.%zu.self_attn.%c", l, "qkv"[k]);
			const float *s = values_of(file, text_of("%s_scale", name), MC_F32, parts);
			const float *z = values_of(
			    file, text_of("%s_zero_point", name), zero_dtype, parts);
			assert_int_equal(s != NULL, k > 0 || query);
			assert_int_equal(
			    z != NULL, (k > 0 || query) && (query || !c->how.symmetric));
			ref_attention_parameters(&c->how, x[k], heads, hd, start, 4, scale, zero);
			for (size_t i = 0; s != NULL && i < (parts > 0 ? parts : 1); i++)
				assert_true(fabs((double)s[i] / scale[i] - 1) < 1e-5);
			for (size_t i = 0; z != NULL && i < (parts > 0 ? parts : 1); i++)
				assert_true((double)z[i] == zero[i]);
		}
		ref_layer_inputs_release(&in);
	}
	mc_model_close(&model);
	mc_pool_free(env.pool);
	mc_arena_release(&arena);
}

static const char *toy_recipe(const struct scheme_case *c, bool query)
{
	return query ? text_of("{\"config_groups\": {\"a\": {\"targets\": [\"re:.*self_attn$\"], "
			       "\"input_activations\": {%s}}}}",
			   c->args)
		     : text_of("{\"kv_cache_scheme\": {%s}}", c->args);
}

/* Heads that slices of the tap cut (6 of 200 and 3 of 200), biases, no norm of q and k. */
static void test_against_the_definition(void **state)
{
	static const uint32_t ids[] = {
	    1, 2, 3, 4, 5, 6, 7, 60, 33, 12, 7, 9, 9, 8, 40, 41, 42, 63, 0, 21, 5};
	static const uint64_t start[] = {0, 10, 11, 17, 21};
	struct mc_toy toys[] = {mc_toy(MC_TOY_QWEN3_MOE), mc_toy(MC_TOY_MIXTRAL)};
	(void)state;

	toys[0].heads = 6;
	toys[0].kv_heads = 3;
	toys[0].head_dim = 200;
	toys[0].attention_bias = true;
	for (size_t t = 0; t < 2; t++) {
		const char *folder = text_of("%s/toy-%zu", scratch, t);
		char kept[128];
		snprintf(kept, sizeof kept, "%s", folder);
		assert_true(mc_file_make_folders(kept, &err));
		assert_true(mc_toy_write(&toys[t], kept, &err));
		for (size_t c = 0; c < sizeof cases / sizeof *cases; c++)
			for (int query = 0; query < 2; query++) {
				char out[160], spec[2048];
				snprintf(out, sizeof out, "%s/toy-%zu-%s-%d", scratch, t,
				    cases[c].name, query);
				snprintf(spec, sizeof spec,
				    "{\"model\": \"%s\", \"dataset\": \"%s/ids.jsonl\", "
				    "\"precision\": \"float32\", \"recipe\": %s}",
				    kept, scratch, toy_recipe(&cases[c], query == 1));
				run(spec, out, 2, 0);
				struct mc_st_file file = tensors_of(
				    text_of("%s/quantization.safetensors", out));
				check_layers(kept, &file, &cases[c], query == 1, ids, start);
				mc_st_close(&file);
			}
	}
}

/* --- the reference's numbers ------------------------------------------------------------------ */

#define FP8_HEAD                                                                                   \
	"{\"num_bits\": 8, \"type\": \"float\", \"symmetric\": true, \"dynamic\": false, "         \
	"\"strategy\": \"attn_head\", \"observer\": \"static_minmax\"}"
#define FP8_TENSOR                                                                                 \
	"{\"num_bits\": 8, \"type\": \"float\", \"symmetric\": true, \"dynamic\": false, "         \
	"\"strategy\": \"tensor\"}"
static const struct {
	const char *name, *recipe;
} goldens[] = {
    {"kv-fp8-tensor", "{\"kv_cache_scheme\": " FP8_TENSOR "}"},
    {"kv-fp8-tensor-static",
	"{\"kv_cache_scheme\": {\"num_bits\": 8, \"type\": \"float\", \"symmetric\": true, "
	"\"dynamic\": false, \"strategy\": \"tensor\", \"observer\": \"static_minmax\"}}"},
    {"kv-fp8-attn-head", "{\"kv_cache_scheme\": " FP8_HEAD "}"},
    {"attention-fp8-attn-head",
	"{\"ignore\": [\"lm_head\", \"re:.*mlp.gate$\"], \"config_groups\": {\"group_0\": "
	"{\"targets\": [\"re:.*self_attn$\"], \"input_activations\": " FP8_HEAD "}}}"},
};

static const char *golden_spec(size_t i)
{
	return text_of("{\"model\": \"" MODEL "\", \"dataset\": \"" GOLDEN
		       "/calibration_ids.safetensors\", \"precision\": \"float32\", "
		       "\"recipe\": %s}",
	    goldens[i].recipe);
}

static void compare_golden(const struct mc_st_file *want, const struct mc_checkpoint *have)
{
	for (size_t i = 0; i < want->count; i++) {
		const struct mc_st_entry *entry = &want->entries[i];
		const struct mc_ckpt_tensor *t = mc_checkpoint_find(have, entry->name);
		unsigned char a[64], b[64];
		assert_non_null(t);
		assert_int_equal(t->entry->dtype, entry->dtype);
		assert_int_equal(t->entry->rank, entry->rank);
		assert_memory_equal(
		    t->entry->shape, entry->shape, entry->rank * sizeof *entry->shape);
		assert_true(entry->bytes <= sizeof a);
		assert_true(mc_st_read(want, entry, 0, entry->bytes, a, &err));
		assert_true(mc_checkpoint_read(have, t, 0, entry->bytes, b, &err));
		if (entry->dtype != MC_F32) {
			assert_memory_equal(a, b, entry->bytes); /* zero points */
			continue;
		}
		for (size_t j = 0; j < entry->bytes / 4; j++) {
			float x, y;
			memcpy(&x, a + 4 * j, 4);
			memcpy(&y, b + 4 * j, 4);
			assert_true(fabs((double)y / (double)x - 1) < 1e-5);
		}
	}
}

static void test_golden(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof goldens / sizeof *goldens; i++) {
		struct mc_checkpoint written;
		char out[128];
		snprintf(out, sizeof out, "%s/golden-%zu", scratch, i);
		run(golden_spec(i), out, 2, 0);
		struct mc_st_file want = tensors_of(
		    text_of(GOLDEN "/%s.safetensors", goldens[i].name));
		assert_true(mc_checkpoint_open(&written, NULL, text_of("%s/model", out), &err));
		compare_golden(&want, &written);
		mc_checkpoint_close(&written);
		mc_st_close(&want);
		struct mc_json *config = json_of(text_of("%s/model/config.json", out)),
			       *expected = json_of(text_of(GOLDEN "/%s.json", goldens[i].name));
		assert_true(mc_json_equal(mc_json_get(config, "quantization_config"), expected));
		mc_json_free(config);
		mc_json_free(expected);
	}
}

/* --- bits ------------------------------------------------------------------------------------- */

static void test_bits_do_not_depend_on_workers_or_restarts(void **state)
{
	static const unsigned workers[] = {1, 2, 3, 5};
	static const char *const names[] = {
	    "quantization.safetensors", "model/model.safetensors", "model/config.json"};
	static const char spec[] =
	    "{\"model\": \"" MODEL "\", \"dataset\": \"" GOLDEN
	    "/calibration_ids.safetensors\", \"recipe\": {\"config_groups\": "
	    "{\"a\": {\"targets\": [\"Qwen3MoeAttention\"], "
	    "\"input_activations\": " FP8_HEAD "}, \"w\": {\"targets\": "
	    "[\"Linear\"], \"weights\": {\"num_bits\": 8}}}, "
	    "\"kv_cache_scheme\": " FP8_TENSOR "}}";
	char first[128], other[128];
	(void)state;

	snprintf(first, sizeof first, "%s/bits-1", scratch);
	run(spec, first, 1, 0);
	for (size_t i = 1; i < 4; i++) {
		snprintf(other, sizeof other, "%s/bits-%u", scratch, workers[i]);
		run(spec, other, workers[i], 0);
		for (size_t n = 0; n < 3; n++)
			assert_same_file(first, other, names[n]);
	}
	for (size_t stop = 1; stop < 4; stop++) {
		snprintf(other, sizeof other, "%s/stopped-%zu", scratch, stop);
		run(spec, other, 2, stop);
		run(spec, other, 3, 0);
		for (size_t n = 0; n < 3; n++)
			assert_same_file(first, other, names[n]);
	}
}

/* --- who gets what ---------------------------------------------------------------------------- */

static void assert_config(const char *out, const char *key, const char *expected)
{
	struct mc_json *config = json_of(text_of("%s/model/config.json", out));
	struct mc_json *want = mc_json_parse(expected, strlen(expected), "expected", &err);

	if (!mc_json_equal(mc_json_get(mc_json_get(config, "quantization_config"), key), want))
		fail_msg("%s of %s is not %s", key, out, expected);
	mc_json_free(want);
	mc_json_free(config);
}

static const char *toy_spec(const char *recipe)
{
	return text_of("{\"model\": \"%s/toy-0\", \"dataset\": \"%s/ids.jsonl\", \"recipe\": %s}",
	    scratch, scratch, recipe);
}

/* An attention scheme for one layer, kv_cache_scheme for the other; stored as the model is. */
static void test_one_layer_alone(void **state)
{
	struct mc_checkpoint written;
	char out[128];
	(void)state;

	snprintf(out, sizeof out, "%s/one-layer", scratch);
	run(toy_spec(
		"{\"config_groups\": {\"a\": {\"targets\": [\"model.layers.0.self_attn\"], "
		"\"input_activations\": {\"num_bits\": 8}}}, \"kv_cache_scheme\": " FP8_HEAD "}"),
	    out, 2, 0);
	assert_true(mc_checkpoint_open(&written, NULL, text_of("%s/model", out), &err));
	static const struct {
		const char *name;
		enum mc_dtype dtype;
		uint64_t first;
	} expected[] = {{"0.self_attn.q_scale", MC_BF16, 1}, {"0.self_attn.k_zero_point", MC_I8, 1},
	    {"0.self_attn.v_scale", MC_BF16, 1}, {"1.self_attn.k_scale", MC_BF16, 3},
	    {"1.self_attn.v_scale", MC_BF16, 3}, {"1.self_attn.q_scale", MC_DTYPE_COUNT, 0},
	    {"1.self_attn.k_zero_point", MC_DTYPE_COUNT, 0}};
	for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
		const struct mc_ckpt_tensor *t = mc_checkpoint_find(
		    &written, text_of("model.layers.%s", expected[i].name));
		assert_int_equal(t != NULL, expected[i].dtype != MC_DTYPE_COUNT);
		assert_true(t == NULL || (t->entry->dtype == expected[i].dtype &&
					     t->entry->shape[0] == expected[i].first));
	}
	mc_checkpoint_close(&written);
	assert_config(out, "ignore", "[\"model.layers.1.self_attn\"]");
	assert_config(out, "format", "\"dense\"");
}

/* A format is what groups with weights say; nothing is stored of what is dynamic. */
static void test_dynamic_stores_nothing(void **state)
{
	static const char *const recipes[] = {
	    "{\"kv_cache_scheme\": {\"dynamic\": true, \"strategy\": \"tensor\"}}",
	    "{\"config_groups\": {\"a\": {\"targets\": [\"re:.*self_attn$\"], "
	    "\"input_activations\": {\"dynamic\": true, \"strategy\": \"tensor\"}}, \"w\": "
	    "{\"targets\": [\"Linear\"], \"weights\": {\"num_bits\": 8}}}, \"ignore\": "
	    "[\"lm_head\"]}"};
	static const char *const formats[] = {"\"dense\"", "\"pack-quantized\""};
	(void)state;

	for (size_t i = 0; i < 2; i++) {
		char out[128];
		snprintf(out, sizeof out, "%s/dynamic-%zu", scratch, i);
		run(toy_spec(recipes[i]), out, 1, 0);
		struct mc_st_file file = tensors_of(text_of("%s/quantization.safetensors", out));
		for (size_t t = 0; t < file.count; t++)
			assert_null(strstr(file.entries[t].name, "self_attn.k_scale"));
		assert_int_equal(file.count > 0, i == 1);
		mc_st_close(&file);
		assert_config(out, "format", formats[i]);
	}
}

/* --- refusals --------------------------------------------------------------------------------- */

#define KV(args) "{\"kv_cache_scheme\": {" args "}}"
#define GROUP(targets, args)                                                                       \
	"{\"config_groups\": {\"mine\": {\"targets\": [" targets "], " args "}}}"

static void test_refused_by_name(void **state)
{
	static const struct {
		const char *recipe;
		enum mc_code code;
		const char *where, *text;
	} rows[] = {
	    {KV("\"num_bits\": 4, \"type\": \"float\""), MC_UNSUPPORTED, "kv_cache_scheme",
		"4-bit floats"},
	    {KV("\"num_bits\": 12"), MC_UNSUPPORTED, "kv_cache_scheme", "12-bit integers"},
	    {KV("\"observer\": \"mse\""), MC_UNSUPPORTED, "kv_cache_scheme", "observer 'mse'"},
	    {KV("\"scale_dtype\": \"torch.float32\""), MC_UNSUPPORTED, "kv_cache_scheme",
		"scale_dtype"},
	    {KV("\"symmetric\": false, \"zp_dtype\": \"torch.int32\""), MC_UNSUPPORTED,
		"kv_cache_scheme", "zp_dtype torch.int32"},
	    {GROUP("\"re:.*self_attn$\"", "\"weights\": {\"num_bits\": 8}"), MC_INVALID, "mine",
		"model.layers.0.self_attn itself"},
	    {GROUP("\"Qwen3MoeAttention\"", "\"input_activations\": {\"num_bits\": 8}, "
					    "\"output_activations\": {\"num_bits\": 8}"),
		MC_INVALID, "mine", "output_activations"},
	    {GROUP("\"re:.*self_attn$\"", "\"input_activations\": {\"observer\": \"mse\"}"),
		MC_UNSUPPORTED, "mine", "observer 'mse'"},
	    /* not attention alone: its linears too, whose inputs cannot stand without weights */
	    {GROUP("\"re:.*self_attn\"", "\"input_activations\": {\"num_bits\": 8}"),
		MC_UNSUPPORTED, "mine", "without weights"},
	};
	(void)state;

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct world w;
		bool opened = open_job(&w, toy_spec(rows[i].recipe), 1);
		if (opened || err.code != rows[i].code || strcmp(err.where, rows[i].where) != 0 ||
		    strstr(err.text, rows[i].text) == NULL)
			fail_msg("%s: %s: %s: %s", rows[i].recipe,
			    opened ? "opened" : mc_code_name(err.code), err.where, err.text);
		close_job(&w, opened);
	}
}

/* Without a target of its own attention stays as it is, whatever else matches it. */
static void test_only_narrow_targets_mean_attention(void **state)
{
	static const char *const recipes[] = {
	    GROUP("\"re:.*self_attn\"", "\"weights\": {\"num_bits\": 8}"),
	    GROUP("\"re:model\"", "\"weights\": {\"num_bits\": 8}"),
	    "{\"targets\": [\"Module\"], \"scheme\": \"W8A8\"}"};
	(void)state;

	for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) {
		struct world w;
		bool query, opened = open_job(&w, toy_spec(recipes[i]), 1);
		/* the last two mean the embedding too, which is another refusal */
		assert_true(opened || strstr(err.text, "embeddings") != NULL);
		for (size_t l = 0; opened && l < 2; l++)
			assert_null(mc_job_attention(&w.job, l, &query));
		close_job(&w, opened);
	}
}

/* --- verify ----------------------------------------------------------------------------------- */

static void change(const char *model, const char *tensor, uint16_t value)
{
	struct mc_checkpoint checkpoint;

	assert_true(mc_checkpoint_open(&checkpoint, NULL, model, &err));
	const struct mc_ckpt_tensor *t = mc_checkpoint_find(&checkpoint, tensor);
	FILE *file = fopen(text_of("%s/model.safetensors", model), "r+b");
	assert_true(t != NULL && file != NULL);
	assert_int_equal(fseek(file, (long)t->entry->offset, SEEK_SET), 0);
	assert_int_equal(fwrite(&value, 1, sizeof value, file), sizeof value);
	fclose(file);
	mc_checkpoint_close(&checkpoint);
}

static void verify(const char *model, enum mc_check_id check, const char *example)
{
	struct mc_arena arena;
	struct mc_env env = {.arena = &arena, .pool = mc_pool_new(1, &err)};
	struct mc_verdict verdict;

	mc_verdict_init(&verdict);
	assert_true(mc_arena_init(&arena, (uint64_t)1 << 28, &err));
	if (!mc_verify_checkpoint(&verdict, model, NULL, &env, &err))
		fail_msg("%s: %s", err.where, err.text);
	assert_int_equal(mc_verdict_valid(&verdict), example == NULL);
	if (example != NULL) {
		assert_true(verdict.checks[check].failed > 0);
		assert_non_null(strstr(verdict.checks[check].examples[0], example));
	}
	mc_verdict_release(&verdict);
	mc_pool_free(env.pool);
	mc_arena_release(&arena);
}

/* Swaps a text in config.json for one of the same length. */
static void edit_config(const char *model, const char *from, const char *to)
{
	struct mc_buf text = file_of(text_of("%s/config.json", model));
	char *at = strstr(mc_buf_text(&text), from);

	assert_true(at != NULL && strlen(from) == strlen(to));
	memcpy(at, to, strlen(to));
	assert_true(mc_file_write_durable(
	    text_of("%s/config.json", model), mc_buf_text(&text), text.length, &err));
	mc_buf_release(&text);
}

static void test_verify(void **state)
{
	char out[128], model[160];
	(void)state;

	for (size_t i = 0; i < 2; i++) /* dynamic ones, made above: nothing to find */
		verify(text_of("%s/dynamic-%zu/model", scratch, i), MC_CHECK_PRESENT, NULL);
	verify(text_of("%s/one-layer/model", scratch), MC_CHECK_PRESENT, NULL);
	snprintf(out, sizeof out, "%s/verify", scratch);
	snprintf(model, sizeof model, "%s/model", out);
	run(toy_spec("{\"kv_cache_scheme\": {\"num_bits\": 4, \"symmetric\": false, \"strategy\": "
		     "\"attn_head\"}, \"targets\": [\"Linear\"], \"scheme\": \"W8A8\"}"),
	    out, 2, 0);
	verify(model, MC_CHECK_PRESENT, NULL);
	change(model, "model.layers.1.self_attn.v_scale", 0);
	verify(model, MC_CHECK_POSITIVE, "layers.1.self_attn.v_scale");
	change(model, "model.layers.1.self_attn.v_scale", 0x7fc0);
	verify(model, MC_CHECK_FINITE, "layers.1.self_attn.v_scale");
	change(model, "model.layers.1.self_attn.v_scale", 0x3c00);
	change(model, "model.layers.0.self_attn.k_zero_point", 0x0009);
	verify(model, MC_CHECK_CODES, "layers.0.self_attn.k_zero_point");
	change(model, "model.layers.0.self_attn.k_zero_point", 0);
	verify(model, MC_CHECK_PRESENT, NULL);
	edit_config(model, "\"num_key_value_heads\": 3", "\"num_key_value_heads\": 2");
	verify(
	    model, MC_CHECK_SHAPES, "self_attn.k_scale is BF16 [3, 1, 1], needed BF16 [2, 1, 1]");
	edit_config(model, "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3");
	edit_config(model, "\"kv_cache_scheme\"", "\"xx_cache_scheme\"");
	verify(model, MC_CHECK_EXPECTED, "self_attn.k_scale is there");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_against_the_definition),
	    cmocka_unit_test(test_golden),
	    cmocka_unit_test(test_bits_do_not_depend_on_workers_or_restarts),
	    cmocka_unit_test(test_one_layer_alone),
	    cmocka_unit_test(test_dynamic_stores_nothing),
	    cmocka_unit_test(test_refused_by_name),
	    cmocka_unit_test(test_only_narrow_targets_mean_attention),
	    cmocka_unit_test(test_verify),
	};
	return cmocka_run_group_tests_name("attention", tests, make_scratch, remove_scratch);
}
