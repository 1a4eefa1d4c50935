/*
 * test_verify_config.c - config.json that says something else than the tensors, older layouts, and
 * layouts of checkpoints
 */
#include "verify_world.h"

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

/* Families, fused experts of which some keep their weights, tied embeddings, layers without
 * experts, biases, shards, other dtypes: all pass, and a tensor less is found in each. */
static void test_every_layout_passes(void **state)
{
	struct mc_toy toys[] = {mc_toy(MC_TOY_QWEN3_MOE), mc_toy(MC_TOY_MIXTRAL),
	    mc_toy(MC_TOY_QWEN3_MOE), mc_toy(MC_TOY_QWEN3_MOE), mc_toy(MC_TOY_MIXTRAL)};
	static const char *const precisions[] = {"auto", "float32", "bfloat16"};
	(void)state;

	toys[0].fused = true;
	toys[1].version_5 = toys[1].fused = true;
	toys[2].tied = toys[2].attention_bias = true;
	toys[2].dense_layers = 1;
	toys[3].shards = 3;
	toys[3].dtype = MC_F32;
	toys[4].dtype = MC_F16;
	for (size_t i = 0; i < 3 * sizeof toys / sizeof *toys; i++) {
		char folder[QF_PATH], out[QF_PATH], model[QF_PATH + 8], more[QF_PATH + 64];
		struct qf_edit edit = {
		    .name = "model.layers.1.self_attn.k_proj.input_scale", .omit = true};
		struct mc_error err;
		mc_error_init(&err);
		snprintf(folder, sizeof folder, "%s/toy-%zu", scratch, i);
		snprintf(out, sizeof out, "%s/toy-out-%zu", scratch, i);
		snprintf(model, sizeof model, "%s/model", out);
		snprintf(more, sizeof more, ", \"dataset\": \"%s\", \"precision\": \"%s\"",
		    place("ids.jsonl", ""), precisions[i % 3]);
		toy_require(mc_file_make_folders(folder, &err), &err);
		toy_require(mc_toy_write(&toys[i / 3], folder, &err), &err);
		qf_run(folder,
		    "{\"targets\": [\"Linear\"], \"ignore\": [\"lm_head\", "
		    "\"re:.*experts.1.*\"], \"scheme\": \"FP8\"}",
		    more, out, 1);
		require(model, NULL, NULL, "nothing");
		require(model, folder, NULL, "nothing");
		qf_rewrite(model, place("less", ""), &edit, 1, NULL);
		require(place("less", ""), NULL, edit.name, "absence");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_config),
	    cmocka_unit_test(test_configs_that_are_fine),
	    cmocka_unit_test(test_what_is_no_checkpoint),
	    cmocka_unit_test(test_every_layout_passes),
	};
	return cmocka_run_group_tests_name("verify config", tests, world_set_up, world_tear_down);
}
