/*
 * test_model.c - a checkpoint as named modules: order, names, layouts, and what is refused
 */
#include "toy_folder.h"

#include "moecal/fault.h"

/* --- the list of modules -------------------------------------------------------------------------
 */

struct expected {
	const char *name, *class_name;
	enum mc_module_kind kind;
	enum mc_role role;
	size_t layer, expert, rows, cols;
};

#define NONE MC_NO_INDEX
#define LINEAR(name, role, layer, expert, rows, cols)                                              \
	{                                                                                          \
		name, "Linear", MC_KIND_LINEAR, role, layer, expert, rows, cols                    \
	}

static void assert_modules(
    const struct mc_model *model, size_t first, const struct expected *list, size_t count)
{
	assert_true(first + count <= model->modules_count);
	for (size_t i = 0; i < count; i++) {
		const struct mc_module *m = model->modules[first + i];
		assert_string_equal(m->name, list[i].name);
		assert_string_equal(m->class_name, list[i].class_name);
		assert_int_equal(m->kind, list[i].kind);
		assert_int_equal(m->role, list[i].role);
		assert_int_equal(m->layer, list[i].layer);
		assert_int_equal(m->expert, list[i].expert);
		assert_int_equal(m->rows, list[i].rows);
		assert_int_equal(m->cols, list[i].cols);
		assert_int_equal(m->weight == NULL, list[i].kind == MC_KIND_CONTAINER);
		assert_null(m->behaviour);
	}
}

static void test_qwen3_moe_modules(void **state)
{
	/* two layers, the first dense; D 32, 4 heads and 2 of keys of 12, F 24, dense 40, V 64 */
	static const struct expected list[] = {
	    {"", "Qwen3MoeForCausalLM", MC_KIND_CONTAINER, MC_ROLE_NONE, NONE, NONE, 0, 0},
	    {"model", "Qwen3MoeModel", MC_KIND_CONTAINER, MC_ROLE_NONE, NONE, NONE, 0, 0},
	    {"model.embed_tokens", "Embedding", MC_KIND_EMBEDDING, MC_ROLE_EMBED, NONE, NONE, 64,
		32},
	    {"model.layers.0", "Qwen3MoeDecoderLayer", MC_KIND_CONTAINER, MC_ROLE_LAYER, 0, NONE, 0,
		0},
	    {"model.layers.0.self_attn", "Qwen3MoeAttention", MC_KIND_CONTAINER, MC_ROLE_ATTENTION,
		0, NONE, 0, 0},
	    LINEAR("model.layers.0.self_attn.q_proj", MC_ROLE_Q, 0, NONE, 48, 32),
	    LINEAR("model.layers.0.self_attn.k_proj", MC_ROLE_K, 0, NONE, 24, 32),
	    LINEAR("model.layers.0.self_attn.v_proj", MC_ROLE_V, 0, NONE, 24, 32),
	    LINEAR("model.layers.0.self_attn.o_proj", MC_ROLE_O, 0, NONE, 32, 48),
	    {"model.layers.0.self_attn.q_norm", "Qwen3MoeRMSNorm", MC_KIND_NORM, MC_ROLE_Q_NORM, 0,
		NONE, 12, 1},
	    {"model.layers.0.self_attn.k_norm", "Qwen3MoeRMSNorm", MC_KIND_NORM, MC_ROLE_K_NORM, 0,
		NONE, 12, 1},
	    {"model.layers.0.mlp", "Qwen3MoeMLP", MC_KIND_CONTAINER, MC_ROLE_NONE, 0, NONE, 0, 0},
	    LINEAR("model.layers.0.mlp.gate_proj", MC_ROLE_GATE, 0, NONE, 40, 32),
	    LINEAR("model.layers.0.mlp.up_proj", MC_ROLE_UP, 0, NONE, 40, 32),
	    LINEAR("model.layers.0.mlp.down_proj", MC_ROLE_DOWN, 0, NONE, 32, 40),
	    {"model.layers.0.input_layernorm", "Qwen3MoeRMSNorm", MC_KIND_NORM,
		MC_ROLE_ATTENTION_NORM, 0, NONE, 32, 1},
	    {"model.layers.0.post_attention_layernorm", "Qwen3MoeRMSNorm", MC_KIND_NORM,
		MC_ROLE_FFN_NORM, 0, NONE, 32, 1},
	    {"model.layers.1", "Qwen3MoeDecoderLayer", MC_KIND_CONTAINER, MC_ROLE_LAYER, 1, NONE, 0,
		0},
	};
	static const struct expected moe[] = {
	    {"model.layers.1.mlp", "Qwen3MoeSparseMoeBlock", MC_KIND_CONTAINER, MC_ROLE_MOE, 1,
		NONE, 0, 0},
	    {"model.layers.1.mlp.experts", "Qwen3MoeExperts", MC_KIND_CONTAINER, MC_ROLE_NONE, 1,
		NONE, 0, 0},
	    {"model.layers.1.mlp.experts.0", "Qwen3MoeMLP", MC_KIND_CONTAINER, MC_ROLE_EXPERT, 1, 0,
		0, 0},
	    LINEAR("model.layers.1.mlp.experts.0.gate_proj", MC_ROLE_GATE, 1, 0, 24, 32),
	    LINEAR("model.layers.1.mlp.experts.0.up_proj", MC_ROLE_UP, 1, 0, 24, 32),
	    LINEAR("model.layers.1.mlp.experts.0.down_proj", MC_ROLE_DOWN, 1, 0, 32, 24),
	    {"model.layers.1.mlp.experts.1", "Qwen3MoeMLP", MC_KIND_CONTAINER, MC_ROLE_EXPERT, 1, 1,
		0, 0},
	    LINEAR("model.layers.1.mlp.experts.1.gate_proj", MC_ROLE_GATE, 1, 1, 24, 32),
	};
	static const struct expected end[] = {
	    {"model.layers.1.mlp.gate", "Qwen3MoeTopKRouter", MC_KIND_ROUTER, MC_ROLE_ROUTER, 1,
		NONE, 4, 32},
	    {"model.layers.1.input_layernorm", "Qwen3MoeRMSNorm", MC_KIND_NORM,
		MC_ROLE_ATTENTION_NORM, 1, NONE, 32, 1},
	    {"model.layers.1.post_attention_layernorm", "Qwen3MoeRMSNorm", MC_KIND_NORM,
		MC_ROLE_FFN_NORM, 1, NONE, 32, 1},
	    {"model.norm", "Qwen3MoeRMSNorm", MC_KIND_NORM, MC_ROLE_FINAL_NORM, NONE, NONE, 32, 1},
	    LINEAR("lm_head", MC_ROLE_HEAD, NONE, NONE, 64, 32),
	};
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);
	struct mc_model model;

	(void)state;
	toy.dense_layers = 1;
	toy_require_open(&toy, &model);
	assert_int_equal(model.modules_count, 18 + 7 + 2 + 4 * 4 + 5);
	assert_modules(&model, 0, list, sizeof list / sizeof *list);
	assert_modules(&model, 25, moe, sizeof moe / sizeof *moe);
	assert_modules(&model, model.modules_count - 5, end, 5);
	assert_string_equal(model.config.model_type, "qwen3_moe");
	assert_int_equal(model.dtype, MC_BF16);
	mc_model_close(&model);
}

static void test_mixtral_modules(void **state)
{
	static const struct expected moe[] = {
	    {"model.layers.0.block_sparse_moe", "MixtralSparseMoeBlock", MC_KIND_CONTAINER,
		MC_ROLE_MOE, 0, NONE, 0, 0},
	    {"model.layers.0.block_sparse_moe.experts", "MixtralExperts", MC_KIND_CONTAINER,
		MC_ROLE_NONE, 0, NONE, 0, 0},
	    {"model.layers.0.block_sparse_moe.experts.0", "MixtralMLP", MC_KIND_CONTAINER,
		MC_ROLE_EXPERT, 0, 0, 0, 0},
	    LINEAR("model.layers.0.block_sparse_moe.experts.0.w1", MC_ROLE_GATE, 0, 0, 24, 32),
	    LINEAR("model.layers.0.block_sparse_moe.experts.0.w3", MC_ROLE_UP, 0, 0, 24, 32),
	    LINEAR("model.layers.0.block_sparse_moe.experts.0.w2", MC_ROLE_DOWN, 0, 0, 32, 24),
	    {"model.layers.0.block_sparse_moe.experts.1", "MixtralMLP", MC_KIND_CONTAINER,
		MC_ROLE_EXPERT, 0, 1, 0, 0},
	};
	struct mc_toy toy = mc_toy(MC_TOY_MIXTRAL);
	struct mc_model model;

	(void)state;
	toy.dtype = MC_F16;
	toy_require_open(&toy, &model);
	const struct mc_layer_index *index = &model.layers[0];
	assert_modules(&model, index->moe, moe, sizeof moe / sizeof *moe);
	assert_int_equal(index->q_norm, NONE);
	assert_int_equal(index->k_norm, NONE);
	assert_string_equal(
	    model.modules[index->router]->name, "model.layers.0.block_sparse_moe.gate");
	assert_string_equal(model.modules[index->router]->class_name, "MixtralTopKRouter");
	assert_string_equal(model.modules[0]->class_name, "MixtralForCausalLM");
	assert_int_equal(model.dtype, MC_F16);
	mc_model_close(&model);
}

static void test_version_5_names(void **state)
{
	struct mc_toy toy = mc_toy(MC_TOY_MIXTRAL);
	struct mc_model model;

	(void)state;
	toy.version_5 = true;
	toy_require_open(&toy, &model);
	assert_string_equal(mc_model_expert(&model, 1, 3, 0)->name, "model.layers.1.mlp.experts.3");
	assert_string_equal(
	    mc_model_expert(&model, 1, 3, 1)->name, "model.layers.1.mlp.experts.3.gate_proj");
	assert_non_null(mc_model_find(&model, "model.layers.0.mlp.gate"));
	assert_true(model.config.rotary.theta == 20000);
	mc_model_close(&model);
}

static void assert_role(
    const struct mc_model *model, size_t position, enum mc_role role, size_t layer)
{
	assert_true(position < model->modules_count);
	assert_int_equal(model->modules[position]->role, role);
	assert_int_equal(model->modules[position]->layer, layer);
}

static void test_layer_index(void **state)
{
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);
	struct mc_model model;

	(void)state;
	toy.layers = 3;
	toy.dense_layers = 2;
	toy_require_open(&toy, &model);
	for (size_t l = 0; l < 3; l++) {
		const struct mc_layer_index *i = &model.layers[l];
		const struct {
			size_t position;
			enum mc_role role;
		} parts[] = {{i->layer, MC_ROLE_LAYER}, {i->attention, MC_ROLE_ATTENTION},
		    {i->attention_norm, MC_ROLE_ATTENTION_NORM}, {i->ffn_norm, MC_ROLE_FFN_NORM},
		    {i->q, MC_ROLE_Q}, {i->k, MC_ROLE_K}, {i->v, MC_ROLE_V}, {i->o, MC_ROLE_O},
		    {i->q_norm, MC_ROLE_Q_NORM}, {i->k_norm, MC_ROLE_K_NORM},
		    {i->gate, MC_ROLE_GATE}, {i->up, MC_ROLE_UP}, {i->down, MC_ROLE_DOWN}};
		for (size_t k = 0; k < sizeof parts / sizeof *parts; k++)
			assert_role(&model, parts[k].position, parts[k].role, l);
		assert_int_equal(i->moe == NONE, l == 1);
		assert_int_equal(i->router == NONE, l == 1);
		if (l == 1)
			continue;
		assert_role(&model, i->moe, MC_ROLE_MOE, l);
		assert_role(&model, i->router, MC_ROLE_ROUTER, l);
		for (size_t e = 0; e < toy.experts; e++) {
			static const enum mc_role roles[] = {
			    MC_ROLE_EXPERT, MC_ROLE_GATE, MC_ROLE_UP, MC_ROLE_DOWN};
			for (size_t k = 0; k < 4; k++) {
				const struct mc_module *m = mc_model_expert(&model, l, e, k);
				assert_ptr_equal(m, model.modules[i->gate + 4 * e + k - 1]);
				assert_int_equal(m->role, roles[k]);
				assert_int_equal(m->expert, e);
				assert_int_equal(m->layer, l);
			}
		}
	}
	assert_role(&model, model.embed, MC_ROLE_EMBED, NONE);
	assert_role(&model, model.final_norm, MC_ROLE_FINAL_NORM, NONE);
	assert_role(&model, model.head, MC_ROLE_HEAD, NONE);
	mc_model_close(&model);
}

static void test_role_names(void **state)
{
	(void)state;
	assert_string_equal(mc_role_name(MC_ROLE_Q), "q");
	assert_string_equal(mc_role_name(MC_ROLE_GATE), "gate");
	assert_string_equal(mc_role_name(MC_ROLE_DOWN), "down");
	for (int a = MC_ROLE_NONE; a <= MC_ROLE_EXPERT; a++)
		for (int b = MC_ROLE_NONE; b < a; b++)
			assert_string_not_equal(mc_role_name(a), mc_role_name(b));
}

/* --- finding and replacing
 * ------------------------------------------------------------------------ */

static void test_every_module_is_found_by_name(void **state)
{
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);
	struct mc_model model;

	(void)state;
	toy.layers = 12; /* names of two digits sort between others */
	toy.experts = 11;
	toy_require_open(&toy, &model);
	for (size_t i = 0; i < model.modules_count; i++)
		assert_ptr_equal(mc_model_find(&model, model.modules[i]->name), model.modules[i]);
	assert_null(mc_model_find(&model, "model.layers.12"));
	assert_null(mc_model_find(&model, "model.layers.1.mlp.experts.11"));
	assert_null(mc_model_find(&model, "model.layers"));
	assert_null(mc_model_find(&model, "zzz"));
	assert_null(mc_model_find(&model, " "));
	/* without the index, as models made by hand are, the answers are the same */
	size_t *index = model.by_name;
	model.by_name = NULL;
	for (size_t i = 0; i < model.modules_count; i += 7)
		assert_ptr_equal(mc_model_find(&model, model.modules[i]->name), model.modules[i]);
	assert_null(mc_model_find(&model, "model.layers.12"));
	model.by_name = index;
	mc_model_close(&model);
}

static void test_set_module(void **state)
{
	static char name[] = "model.layers.1.mlp";
	struct mc_module other = {.name = name, .class_name = "Other"};
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);
	struct mc_model model;

	(void)state;
	toy_require_open(&toy, &model);
	size_t at = model.layers[1].moe;
	struct mc_module *before = model.modules[at];
	assert_ptr_equal(mc_model_set_module(&model, name, &other), before);
	assert_ptr_equal(model.modules[at], &other);
	assert_ptr_equal(mc_model_find(&model, name), &other);
	assert_ptr_equal(mc_model_set_module(&model, name, before), &other);
	assert_ptr_equal(mc_model_find(&model, name), before);
	assert_null(mc_model_set_module(&model, "model.layers.7.mlp", &other));
	mc_model_close(&model);
}

/* --- tied embeddings, extra parts
 * ----------------------------------------------------------------- */

static void test_tied_embeddings(void **state)
{
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);
	struct mc_model model;

	(void)state;
	toy.tied = true;
	for (int present = 0; present < 2; present++) {
		toy.keep_head = present == 1;
		toy_require_open(&toy, &model);
		assert_int_equal(model.head, NONE);
		assert_null(mc_model_find(&model, "lm_head"));
		mc_model_close(&model);
	}
	toy.keep_head = false;
	toy.config = "{\"tie_word_embeddings\": false}";
	toy_require_refusal(&toy, MC_CORRUPT, "lm_head.weight", "lacks this tensor");
}

static void test_extra_parts_are_ignored(void **state)
{
	static const char *const names[] = {"mtp.fc.weight",
	    "model.layers.2.self_attn.q_proj.weight", "model.layers.3.eh_proj.weight",
	    "model.layers.10.x", "model.layers.20000000000000000000.x",
	    "model.layers.0.self_attn.rotary_emb.inv_freq"};
	static const char *const refused[] = {"model.layers.1.extra.weight", "model.layers.02.x",
	    "model.layers.x", "model.layers.2", "model.layers.-3.x", "extra", "mtp", "lm_head.bias",
	    "model.layers.0.self_attn.q_proj.bias", "model.layers.0.mlp.experts.4.gate_proj.weight",
	    "model.layers.0.mlp.gate_proj.weight"};
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);
	struct mc_model model;

	(void)state;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		toy.flaw.add = names[i];
		toy_require_open(&toy, &model);
		mc_model_close(&model);
	}
	for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
		toy.flaw.add = refused[i];
		toy_require_refusal(
		    &toy, MC_CORRUPT, refused[i], "is not part of a qwen3_moe model");
	}
}

/* --- tensors that do not fit
 * ---------------------------------------------------------------------- */

static void test_every_missing_tensor_is_named(void **state)
{
	static const char *const names[] = {"model.embed_tokens.weight", "model.norm.weight",
	    "lm_head.weight", "model.layers.0.self_attn.q_proj.weight",
	    "model.layers.1.self_attn.k_norm.weight", "model.layers.1.mlp.gate.weight",
	    "model.layers.1.mlp.experts.3.down_proj.weight",
	    "model.layers.0.post_attention_layernorm.weight"};
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);

	(void)state;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		toy.flaw.omit = names[i];
		toy_require_refusal(&toy, MC_CORRUPT, names[i], "lacks this tensor of a qwen3_moe");
	}
	toy.flaw.omit = "model.layers.1.mlp.experts.3.down_proj.weight";
	toy_require_refusal(&toy, MC_CORRUPT, "experts.3.down_proj", "[32, 24]");
}

static void test_shapes(void **state)
{
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);

	(void)state;
	toy.flaw.shorten = "model.layers.1.self_attn.o_proj.weight";
	toy_require_refusal(&toy, MC_CORRUPT, toy.flaw.shorten, "has shape [31, 48]");
	toy_require_refusal(&toy, MC_CORRUPT, toy.flaw.shorten, "needs [32, 48]");
	toy.flaw.shorten = "model.norm.weight";
	toy_require_refusal(&toy, MC_CORRUPT, toy.flaw.shorten, "has shape [31]");
	toy.flaw.shorten = NULL;
	toy.config = "{\"num_key_value_heads\": 4}";
	toy_require_refusal(&toy, MC_CORRUPT, "model.layers.0.self_attn.k_proj.weight",
	    "has shape [24, 32], config.json needs [48, 32]");
	toy.config = "{\"num_experts\": 5}"; /* of experts 0..3 and a router [4, 32] */
	toy_require_refusal(
	    &toy, MC_CORRUPT, "model.layers.0.mlp.experts.4.gate_proj.weight", "lacks this tensor");
	toy.config = "{\"num_experts\": 3}";
	toy_require_refusal(
	    &toy, MC_CORRUPT, "model.layers.0.mlp.gate.weight", "has shape [4, 32]");
	toy.config = "{\"num_hidden_layers\": 3}";
	toy_require_refusal(
	    &toy, MC_CORRUPT, "model.layers.2.self_attn.q_proj.weight", "lacks this tensor");
	toy.config = "{\"mlp_only_layers\": [1]}";
	toy_require_refusal(
	    &toy, MC_CORRUPT, "model.layers.1.mlp.gate_proj.weight", "lacks this tensor");
	toy.config = "{\"attention_bias\": true}";
	toy_require_refusal(
	    &toy, MC_CORRUPT, "model.layers.0.self_attn.q_proj.bias", "lacks this tensor");
}

static void test_dtypes(void **state)
{
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);

	(void)state;
	toy.flaw.retype = "model.layers.1.mlp.experts.2.up_proj.weight";
	toy_require_refusal(&toy, MC_UNSUPPORTED, toy.flaw.retype, "has dtype I32");
	toy.flaw.retype = "model.norm.weight";
	toy_require_refusal(&toy, MC_UNSUPPORTED, toy.flaw.retype, "F32, F16 or BF16");
}

/* --- configurations that do not fit
 * --------------------------------------------------------------- */

static void test_already_quantized(void **state)
{
	static const char *const configs[] = {
	    "{\"quantization_config\": {\"quant_method\": \"gptq\", \"bits\": 4}}",
	    "{\"text_config\": {\"quantization_config\": {\"quant_method\": \"gptq\"}}}",
	    "{\"compression_config\": {\"quant_method\": \"gptq\"}}"};
	static const char *const parts[] = {"model.layers.0.mlp.experts.0.up_proj.weight_packed",
	    "model.layers.0.self_attn.q_proj.qweight",
	    "model.layers.0.self_attn.q_proj.weight_scale_inv"};
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);
	struct mc_model model;

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		toy.config = configs[i];
		toy_require_refusal(&toy, MC_UNSUPPORTED, "config.json",
		    "the checkpoint is already quantized (quant_method gptq)");
	}
	toy.config = "{\"quantization_config\": {\"bits\": 4}}";
	toy_require_refusal(&toy, MC_UNSUPPORTED, "config.json", "already quantized");
	toy.config = "{\"quantization_config\": null}";
	toy_require_open(&toy, &model);
	mc_model_close(&model);
	/* config.json says nothing, the tensors do: even when the plain weight is gone */
	toy.config = NULL;
	toy.flaw.omit = "model.layers.0.self_attn.q_proj.weight";
	for (size_t i = 0; i < 3; i++) {
		toy.flaw.add = parts[i];
		toy_require_refusal(&toy, MC_UNSUPPORTED, parts[i], "already quantized");
	}
}

static void test_config_that_does_not_fit(void **state)
{
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);

	(void)state;
	toy.config = "{\"num_experts_per_tok\": 5}";
	toy_require_refusal(&toy, MC_INVALID, "config.json", "5 experts a token");
	toy.config = "{\"model_type\": \"llama\", \"architectures\": null}";
	toy_require_refusal(&toy, MC_UNSUPPORTED, "config.json", "'llama'");
	toy.config = "{\"num_hidden_layers\": 1024, \"num_experts\": 4096}";
	toy_require_refusal(&toy, MC_UNSUPPORTED, "config.json", "1024 layers of 4096 experts");
}

static void write_text(const char *folder, const char *text)
{
	char path[TOY_FOLDER_SIZE + 32];

	snprintf(path, sizeof path, "%s/config.json", folder);
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static void test_broken_config_file(void **state)
{
	static const struct {
		const char *text;
		enum mc_code code;
	} cases[] = {{"", MC_INVALID}, {"{\"model_type\": ", MC_INVALID}, {"[]", MC_INVALID},
	    {"null", MC_INVALID}, {"{}", MC_UNSUPPORTED}};
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);
	char folder[TOY_FOLDER_SIZE], path[TOY_FOLDER_SIZE + 32];
	struct mc_model model;
	struct mc_error err;

	(void)state;
	toy_folder_make(folder);
	mc_error_init(&err);
	toy_require(mc_toy_write(&toy, folder, &err), &err);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		write_text(folder, cases[i].text);
		mc_error_init(&err);
		assert_false(mc_model_open(&model, NULL, folder, &err));
		assert_int_equal(err.code, cases[i].code);
		assert_non_null(strstr(err.where, "config.json"));
	}
	snprintf(path, sizeof path, "%s/config.json", folder);
	assert_int_equal(remove(path), 0);
	mc_error_init(&err);
	assert_false(mc_model_open(&model, NULL, folder, &err));
	assert_int_equal(err.code, MC_NOT_FOUND);
	toy_folder_drop(folder);
}

/* --- out of memory
 * --------------------------------------------------------------------------------- */

#ifdef MC_FAULTS
/* Every allocation fails once: an error, no crash, and (with the sanitizer) no leak. */
static void test_every_allocation_may_fail(void **state)
{
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);
	char folder[TOY_FOLDER_SIZE];
	struct mc_model model;
	struct mc_error err;
	long n = 1;
	bool ok = false;

	(void)state;
	toy.layers = 1;
	toy.experts = 2;
	toy_folder_make(folder);
	mc_error_init(&err);
	toy_require(mc_toy_write(&toy, folder, &err), &err);
	for (; !ok; n++) {
		mc_error_init(&err);
		mc_fault_arm("alloc", n);
		ok = mc_model_open(&model, NULL, folder, &err);
		mc_fault_disarm();
		if (!ok)
			assert_int_equal(err.code, MC_NO_MEMORY);
	}
	assert_true(n > 50);
	mc_model_close(&model);
	toy_folder_drop(folder);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_qwen3_moe_modules),
	    cmocka_unit_test(test_mixtral_modules),
	    cmocka_unit_test(test_version_5_names),
	    cmocka_unit_test(test_layer_index),
	    cmocka_unit_test(test_role_names),
	    cmocka_unit_test(test_every_module_is_found_by_name),
	    cmocka_unit_test(test_set_module),
	    cmocka_unit_test(test_tied_embeddings),
	    cmocka_unit_test(test_extra_parts_are_ignored),
	    cmocka_unit_test(test_every_missing_tensor_is_named),
	    cmocka_unit_test(test_shapes),
	    cmocka_unit_test(test_dtypes),
	    cmocka_unit_test(test_already_quantized),
	    cmocka_unit_test(test_config_that_does_not_fit),
	    cmocka_unit_test(test_broken_config_file),
#ifdef MC_FAULTS
	    cmocka_unit_test(test_every_allocation_may_fail),
#endif
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
