/*
 * test_architecture.c - the table of model families, and what each makes of its config.json
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "moecal/architecture.h"

static struct mc_json *parse(const char *text)
{
	struct mc_error err;

	mc_error_init(&err);
	struct mc_json *json = mc_json_parse(text, strlen(text), "test", &err);
	assert_non_null(json);
	return json;
}

static const struct mc_architecture *find(const char *text, struct mc_error *err)
{
	struct mc_json *json = parse(text);

	mc_error_init(err);
	const struct mc_architecture *arch = mc_architecture_find(json, err);
	mc_json_free(json);
	return arch;
}

static void assert_error(const struct mc_error *err, enum mc_code code, const char *part)
{
	if (err->code != code || strstr(err->text, part) == NULL)
		fail_msg("%s: %s: %s, not %s with '%s'", mc_code_name(err->code), err->where,
		    err->text, mc_code_name(code), part);
}

/* --- the table -----------------------------------------------------------------------------------
 */

static void test_find(void **state)
{
	struct mc_error err;

	(void)state;
	assert_string_equal(find("{\"model_type\": \"qwen3_moe\"}", &err)->model_type, "qwen3_moe");
	assert_string_equal(find("{\"model_type\": \"mixtral\"}", &err)->model_type, "mixtral");
	/* the class when the type says nothing, or nothing that is known */
	assert_string_equal(
	    find("{\"architectures\": [\"MixtralForCausalLM\"]}", &err)->model_type, "mixtral");
	assert_string_equal(find("{\"model_type\": null, \"architectures\": "
				 "[\"Qwen3MoeForCausalLM\", \"Other\"]}",
				&err)
				->model_type,
	    "qwen3_moe");
	assert_string_equal(find("{\"model_type\": \"house_moe\", \"architectures\": "
				 "[\"Qwen3MoeForCausalLM\"]}",
				&err)
				->model_type,
	    "qwen3_moe");
	/* the type goes first */
	assert_string_equal(find("{\"model_type\": \"mixtral\", \"architectures\": "
				 "[\"Qwen3MoeForCausalLM\"]}",
				&err)
				->model_type,
	    "mixtral");
}

static void test_unknown_is_named_with_what_is_known(void **state)
{
	static const char *const texts[] = {"{\"model_type\": \"llama\"}",
	    "{\"model_type\": \"Mixtral\"}", "{\"architectures\": [\"GptOssForCausalLM\"]}", "{}",
	    "{\"model_type\": 3, \"architectures\": \"MixtralForCausalLM\"}",
	    "{\"architectures\": []}"};
	struct mc_error err;

	(void)state;
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		assert_null(find(texts[i], &err));
		assert_error(&err, MC_UNSUPPORTED, "mixtral, qwen3_moe");
		assert_string_equal(err.where, "config.json");
	}
	assert_null(find("{\"model_type\": \"llama\"}", &err));
	assert_error(&err, MC_UNSUPPORTED, "'llama'");
	assert_null(find("{\"architectures\": [\"GptOssForCausalLM\"]}", &err));
	assert_error(&err, MC_UNSUPPORTED, "GptOssForCausalLM");
}

/* A pattern: there, with {l} and {e} where asked and nowhere else. */
static void assert_pattern(const char *pattern, bool layer, bool expert)
{
	assert_non_null(pattern);
	assert_int_equal(strstr(pattern, "{l}") != NULL, layer);
	assert_int_equal(strstr(pattern, "{e}") != NULL, expert);
	assert_null(strstr(pattern, ".weight"));
}

static void assert_names(const struct mc_arch_names *n)
{
	const char *const outer[] = {n->model, n->embed, n->final_norm, n->lm_head};
	const char *const layer[] = {n->layer, n->attention, n->attention_norm, n->ffn_norm, n->q,
	    n->k, n->v, n->o, n->moe, n->experts, n->router};
	const char *const expert[] = {n->expert, n->gate, n->up, n->down};
	const char *const dense[] = {n->dense, n->dense_gate, n->dense_up, n->dense_down};

	for (size_t i = 0; i < 4; i++)
		assert_pattern(outer[i], false, false);
	for (size_t i = 0; i < sizeof layer / sizeof *layer; i++)
		assert_pattern(layer[i], true, false);
	for (size_t i = 0; i < 4; i++)
		assert_pattern(expert[i], true, true);
	for (size_t i = 0; i < 4 && n->dense != NULL; i++)
		assert_pattern(dense[i], true, false);
	/* parts are named beneath what holds them */
	assert_memory_equal(n->q, n->attention, strlen(n->attention));
	assert_memory_equal(n->attention, n->layer, strlen(n->layer));
	assert_memory_equal(n->experts, n->moe, strlen(n->moe));
	assert_memory_equal(n->expert, n->experts, strlen(n->experts));
	assert_memory_equal(n->down, n->expert, strlen(n->expert));
}

static void test_every_row_is_complete(void **state)
{
	const struct mc_architecture *arch;
	struct mc_error err;
	size_t count = 0;

	(void)state;
	for (; (arch = mc_architecture_at(count)) != NULL; count++) {
		const struct mc_arch_classes *c = &arch->classes;
		const char *const classes[] = {c->causal_lm, c->model, c->layer, c->attention,
		    c->moe, c->experts, c->expert, c->router, c->norm, c->dense};
		char text[128];

		for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
			assert_true(classes[i] != NULL && classes[i][0] != '\0');
		assert_names(&arch->names);
		if (arch->alternative != NULL)
			assert_names(arch->alternative);
		assert_non_null(arch->ignored_prefixes);
		assert_non_null(arch->parse_config);
		/* no row hides another one */
		snprintf(text, sizeof text, "{\"model_type\": \"%s\"}", arch->model_type);
		assert_ptr_equal(find(text, &err), arch);
		snprintf(text, sizeof text, "{\"architectures\": [\"%s\"]}", c->causal_lm);
		assert_ptr_equal(find(text, &err), arch);
	}
	assert_true(count >= 2);
	assert_null(mc_architecture_at(count + 100));
}

/* --- configurations
 * ------------------------------------------------------------------------------- */

#define SIZES                                                                                      \
	"\"num_hidden_layers\": 3, \"hidden_size\": 64, \"vocab_size\": 100, "                     \
	"\"num_attention_heads\": 4"

static bool read(
    const char *type, const char *more, struct mc_model_config *ret, struct mc_error *err)
{
	char text[1024];

	snprintf(text, sizeof text, "{\"model_type\": \"%s\", " SIZES "%s%s}", type,
	    more[0] != '\0' ? ", " : "", more);
	struct mc_json *json = parse(text);
	*ret = (struct mc_model_config){0};
	mc_error_init(err);
	const struct mc_architecture *arch = mc_architecture_find(json, err);
	assert_non_null(arch);
	bool ok = arch->parse_config(json, ret, err);
	mc_json_free(json);
	return ok;
}

static void test_qwen3_moe(void **state)
{
	struct mc_model_config c;
	struct mc_error err;

	(void)state;
	assert_true(read("qwen3_moe", "", &c, &err)); /* the defaults of the class */
	assert_int_equal(c.experts, 128);
	assert_int_equal(c.experts_per_token, 8);
	assert_int_equal(c.expert_intermediate, 768);
	assert_int_equal(c.intermediate, 6144);
	assert_false(c.renormalise);
	assert_true(c.qk_norm);
	assert_false(c.qkv_bias || c.o_bias || c.tied_embeddings);
	assert_int_equal(c.sliding_window, 0);
	assert_true(c.norm_eps == 1e-6f);
	assert_true(c.rotary.theta == 10000 && c.rotary.dims == 16);
	assert_true(c.is_moe[0] && c.is_moe[1] && c.is_moe[2] && !c.is_moe[3]);
	assert_true(read("qwen3_moe",
	    "\"num_experts\": 8, \"num_experts_per_tok\": 3, \"moe_intermediate_size\": 48, "
	    "\"norm_topk_prob\": true, \"attention_bias\": true, \"mlp_only_layers\": [1], "
	    "\"head_dim\": 24, \"rope_parameters\": {\"rope_theta\": 50000.0, "
	    "\"rope_type\": \"default\"}, \"dtype\": \"bfloat16\"",
	    &c, &err));
	assert_int_equal(c.experts, 8);
	assert_int_equal(c.experts_per_token, 3);
	assert_int_equal(c.expert_intermediate, 48);
	assert_true(c.renormalise && c.qkv_bias && c.o_bias);
	assert_true(c.is_moe[0] && !c.is_moe[1] && c.is_moe[2]);
	assert_true(c.rotary.theta == 50000 && c.rotary.dims == 24);
	/* a window that is switched off is none */
	assert_true(
	    read("qwen3_moe", "\"use_sliding_window\": false, \"sliding_window\": 8", &c, &err));
	assert_int_equal(c.sliding_window, 0);
}

static void test_qwen3_moe_refuses(void **state)
{
	static const struct {
		const char *more;
		enum mc_code code;
		const char *part;
	} cases[] = {
	    {"\"use_sliding_window\": true, \"sliding_window\": 8", MC_UNSUPPORTED,
		"use_sliding_window"},
	    {"\"hidden_act\": \"gelu\"", MC_UNSUPPORTED, "gelu"},
	    {"\"num_experts\": 4097", MC_INVALID, "num_experts is 4097"},
	    {"\"num_experts_per_tok\": 0", MC_INVALID, "num_experts_per_tok is 0"},
	    {"\"moe_intermediate_size\": 0", MC_INVALID, "moe_intermediate_size is 0"},
	    {"\"norm_topk_prob\": 1", MC_INVALID, "norm_topk_prob"},
	    {"\"head_dim\": 15", MC_INVALID, "15 rotated dimensions"},
	};
	struct mc_model_config c;
	struct mc_error err;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		assert_false(read("qwen3_moe", cases[i].more, &c, &err));
		assert_error(&err, cases[i].code, cases[i].part);
	}
}

static void test_mixtral(void **state)
{
	struct mc_model_config c;
	struct mc_error err;

	(void)state;
	assert_true(read("mixtral", "", &c, &err));
	assert_int_equal(c.experts, 8);
	assert_int_equal(c.experts_per_token, 2);
	assert_int_equal(c.expert_intermediate, 14336);
	assert_true(c.renormalise); /* always */
	assert_false(c.qk_norm || c.qkv_bias || c.o_bias);
	assert_true(c.norm_eps == 1e-5f);
	assert_true(c.rotary.theta == 1e6);
	assert_int_equal(c.sliding_window, 0);
	assert_true(c.is_moe[0] && c.is_moe[1] && c.is_moe[2] && !c.is_moe[3]);
	assert_true(read("mixtral",
	    "\"num_local_experts\": 6, \"intermediate_size\": 72, \"sliding_window\": 9, "
	    "\"num_key_value_heads\": 2, \"head_dim\": null",
	    &c, &err));
	assert_int_equal(c.experts, 6);
	assert_int_equal(c.expert_intermediate, 72);
	assert_int_equal(c.sliding_window, 9);
	assert_int_equal(c.kv_heads, 2);
	assert_int_equal(c.head_dim, 16);
	assert_true(read("mixtral", "\"sliding_window\": null", &c, &err));
	assert_int_equal(c.sliding_window, 0);
	assert_false(read("mixtral", "\"num_local_experts\": 0", &c, &err));
	assert_error(&err, MC_INVALID, "num_local_experts is 0");
	assert_false(read("mixtral", "\"hidden_act\": \"relu\"", &c, &err));
	assert_error(&err, MC_UNSUPPORTED, "relu");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_find),
	    cmocka_unit_test(test_unknown_is_named_with_what_is_known),
	    cmocka_unit_test(test_every_row_is_complete),
	    cmocka_unit_test(test_qwen3_moe),
	    cmocka_unit_test(test_qwen3_moe_refuses),
	    cmocka_unit_test(test_mixtral),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
