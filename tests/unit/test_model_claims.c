/*
 * test_model_claims.c - which tensor becomes the weight of which module when a checkpoint holds
 * more than one answer: other ranks, mixed dtypes, two sets of names, signs of quantization
 */
#include "toy_folder.h"

#include "moecal/alloc.h"
#include "moecal/safetensors.h"

/* --- a toy one tensor of which stands in a file of its own ------------------------------------ */

struct replacement {
	const char *name;
	enum mc_dtype dtype;
	unsigned rank;
	uint64_t shape[3];
};

/* Zeros, in a second file next to model.safetensors; no index, so that both are read. */
static void write_replacement(const char *folder, const struct replacement *r)
{
	struct mc_error err;
	size_t bytes = mc_dtype_bits(r->dtype) / 8;

	mc_error_init(&err);
	for (unsigned i = 0; i < r->rank; i++)
		bytes *= r->shape[i];
	char *path = mc_format(&err, "%s/replacement.safetensors", folder);
	void *zeros = mc_alloc(bytes, 1, "test", &err);
	assert_true(path != NULL && zeros != NULL);
	struct mc_st_writer *writer = mc_st_writer_new(path, &err);
	toy_require(writer != NULL &&
			mc_st_writer_declare(writer, r->name, r->dtype, r->rank, r->shape, &err) &&
			mc_st_writer_begin(writer, &err) &&
			mc_st_writer_data(writer, zeros, bytes, &err) &&
			mc_st_writer_finish(writer, &err),
	    &err);
	mc_st_writer_free(writer);
	free(zeros);
	free(path);
}

static void rename_shard(const char *folder)
{
	struct mc_error err;

	mc_error_init(&err);
	char *from = mc_format(&err, "%s/model.safetensors", folder);
	char *to = mc_format(&err, "%s/others.safetensors", folder);
	assert_true(from != NULL && to != NULL && rename(from, to) == 0);
	free(from);
	free(to);
}

static bool open_replaced(
    struct mc_toy toy, const struct replacement *r, struct mc_model *model, struct mc_error *err)
{
	char folder[TOY_FOLDER_SIZE];

	toy.flaw.omit = r->name;
	toy_folder_make(folder);
	mc_error_init(err);
	toy_require(mc_toy_write(&toy, folder, err), err);
	rename_shard(folder);
	write_replacement(folder, r);
	bool ok = mc_model_open(model, NULL, folder, err);
	toy_folder_drop(folder);
	return ok;
}

/* --- tests ------------------------------------------------------------------------------------ */

static void test_rank(void **state)
{
	/* each begins with the dimensions that are needed, or has as many elements */
	static const struct {
		struct replacement r;
		const char *text;
	} cases[] = {
	    {{"model.norm.weight", MC_BF16, 2, {32, 1}},
		"has shape [32, 1], config.json needs [32]"},
	    {{"model.norm.weight", MC_BF16, 0, {0}}, "has shape [], config.json needs [32]"},
	    {{"lm_head.weight", MC_BF16, 3, {64, 32, 1}},
		"has shape [64, 32, 1], config.json needs [64, 32]"},
	    {{"model.layers.0.self_attn.q_proj.weight", MC_BF16, 1, {48 * 32}},
		"has shape [1536], config.json needs [48, 32]"},
	    {{"model.layers.1.mlp.experts.0.up_proj.weight", MC_BF16, 2, {32, 24}},
		"has shape [32, 24], config.json needs [24, 32]"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct mc_model model;
		struct mc_error err;
		assert_false(open_replaced(mc_toy(MC_TOY_QWEN3_MOE), &cases[i].r, &model, &err));
		assert_int_equal(err.code, MC_CORRUPT);
		assert_string_equal(err.where, cases[i].r.name);
		assert_string_equal(err.text, cases[i].text);
	}
}

static void test_mixed_dtypes(void **state)
{
	static const struct replacement wide[] = {
	    {"model.embed_tokens.weight", MC_F32, 2, {64, 32}},
	    {"model.norm.weight", MC_F32, 1, {32}},
	    {"model.layers.0.self_attn.k_proj.weight", MC_F32, 2, {24, 32}},
	    {"model.layers.1.self_attn.q_proj.weight", MC_F32, 2, {48, 32}}};
	static const struct replacement first = {
	    "model.layers.0.self_attn.q_proj.weight", MC_F16, 2, {48, 32}};
	struct mc_model model;
	struct mc_error err;

	(void)state;
	/* the model's dtype is that of the first q_proj, and a tensor keeps its own */
	for (size_t i = 0; i < sizeof wide / sizeof *wide; i++) {
		char name[96];
		toy_require(open_replaced(mc_toy(MC_TOY_QWEN3_MOE), &wide[i], &model, &err), &err);
		assert_int_equal(model.dtype, MC_BF16);
		snprintf(name, sizeof name, "%.*s", (int)(strlen(wide[i].name) - strlen(".weight")),
		    wide[i].name);
		assert_int_equal(mc_model_find(&model, name)->weight->entry->dtype, MC_F32);
		mc_model_close(&model);
	}
	toy_require(open_replaced(mc_toy(MC_TOY_QWEN3_MOE), &first, &model, &err), &err);
	assert_int_equal(model.dtype, MC_F16);
	mc_model_close(&model);
}

static void test_narrow_dtypes_are_refused(void **state)
{
	static const enum mc_dtype dtypes[] = {MC_F8_E4M3, MC_F8_E5M2, MC_I8, MC_U8, MC_F64};
	struct replacement r = {
	    "model.layers.1.mlp.experts.1.down_proj.weight", MC_I8, 2, {32, 24}};
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);
	struct mc_model model;
	struct mc_error err;

	(void)state;
	for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
		r.dtype = dtypes[i];
		assert_false(open_replaced(mc_toy(MC_TOY_QWEN3_MOE), &r, &model, &err));
		assert_int_equal(err.code, MC_UNSUPPORTED);
		assert_string_equal(err.where, r.name);
		assert_non_null(strstr(err.text, mc_dtype_name(dtypes[i])));
	}
	toy.dtype = MC_F8_E4M3; /* all of them, with no scale beside them */
	toy_require_refusal(&toy, MC_UNSUPPORTED, "model.embed_tokens.weight", "F8_E4M3");
}

static void test_signs_of_quantization(void **state)
{
	static const char *const names[] = {"model.layers.0.self_attn.q_proj.weight_scale",
	    "model.layers.1.mlp.experts.3.down_proj.weight_scale",
	    "model.layers.1.mlp.experts.3.down_proj.weight_scale_inv",
	    "model.layers.0.self_attn.v_proj.weight_packed", "lm_head.qweight",
	    "model.layers.0.mlp.experts.gate_up_proj_blocks"};
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);

	(void)state;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		toy.flaw.add = names[i];
		toy_require_refusal(&toy, MC_UNSUPPORTED, names[i], "already quantized");
	}
	/* said before that a weight has no dtype for calibration */
	toy.dtype = MC_F8_E4M3;
	toy.flaw.add = names[0];
	toy_require_refusal(&toy, MC_UNSUPPORTED, names[0], "already quantized");
	/* only the last part of a name counts */
	toy = mc_toy(MC_TOY_QWEN3_MOE);
	toy.flaw.add = "model.layers.0.weight_scale.weight";
	toy_require_refusal(&toy, MC_CORRUPT, toy.flaw.add, "is not part of a qwen3_moe model");
}

static void test_first_names_win(void **state)
{
	struct mc_toy toy = mc_toy(MC_TOY_MIXTRAL);

	(void)state;
	/* routers under both names: the checkpoint is read by the first ones */
	toy.flaw.add = "model.layers.0.mlp.gate.weight";
	toy_require_refusal(&toy, MC_CORRUPT, toy.flaw.add, "is not part of a mixtral model");
	/* under neither: the first ones are missing */
	toy.flaw.add = NULL;
	toy.flaw.omit = "model.layers.0.block_sparse_moe.gate.weight";
	toy_require_refusal(&toy, MC_CORRUPT, toy.flaw.omit, "lacks this tensor of a mixtral");
	/* names are of one kind throughout: a later layer in the other spelling is not taken */
	toy.version_5 = true;
	toy.flaw.omit = "model.layers.1.mlp.gate.weight";
	toy_require_refusal(&toy, MC_CORRUPT, toy.flaw.omit, "lacks this tensor of a mixtral");
}

static void test_only_the_head_of_a_tied_model_may_stay(void **state)
{
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);
	struct mc_model model;

	(void)state;
	toy.tied = true;
	toy.flaw.add = "lm_headless.weight";
	toy_require_refusal(&toy, MC_CORRUPT, toy.flaw.add, "is not part of a qwen3_moe model");
	toy.flaw.add = "lm_head.bias";
	toy_require_open(&toy, &model);
	assert_int_equal(model.head, MC_NO_INDEX);
	mc_model_close(&model);
}

static void test_number_of_experts(void **state)
{
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);

	(void)state;
	toy.config = "{\"num_hidden_layers\": 33, \"num_experts\": 3972}";
	toy_require_refusal(&toy, MC_UNSUPPORTED, "config.json", "the 131072 experts");
	/* as many as may be: then it is the tensors that are not there */
	toy.config = "{\"num_hidden_layers\": 32, \"num_experts\": 4096}";
	toy_require_refusal(&toy, MC_CORRUPT, "experts.4.gate_proj.weight", "lacks this tensor");
}

/* What a read leaves in the arena is what it returns, and nothing of what it needed on the way. */
static void test_reading_leaves_only_the_weight(void **state)
{
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);
	struct mc_arena arena;
	struct mc_env env = {.arena = &arena};
	struct mc_weight weight;
	struct mc_model model;
	struct mc_error err;
	float *vector;

	(void)state;
	toy.attention_bias = true;
	toy_require_open(&toy, &model);
	mc_error_init(&err);
	toy_require(mc_arena_init(&arena, 1 << 20, &err), &err);
	const struct mc_module *q = model.modules[model.layers[0].q];
	toy_require(mc_model_read_weight(&model, q, MC_DTYPE_COUNT, &weight, &env, &err), &err);
	assert_int_equal(arena.used, 48 * 32 * 2 + 192); /* 48 biases, as float32 */
	mc_arena_rewind(&arena, 0);
	toy_require(mc_model_read_weight(&model, q, MC_F32, &weight, &env, &err), &err);
	assert_int_equal(arena.used, 48 * 32 * 4 + 192);
	mc_arena_rewind(&arena, 0);
	const struct mc_module *norm = model.modules[model.final_norm];
	toy_require(mc_model_read_vector(&model, norm, MC_F16, &vector, &env, &err), &err);
	assert_int_equal(arena.used, 32 * 4);
	mc_arena_release(&arena);
	mc_model_close(&model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_rank),
	    cmocka_unit_test(test_mixed_dtypes),
	    cmocka_unit_test(test_narrow_dtypes_are_refused),
	    cmocka_unit_test(test_signs_of_quantization),
	    cmocka_unit_test(test_first_names_win),
	    cmocka_unit_test(test_only_the_head_of_a_tied_model_may_stay),
	    cmocka_unit_test(test_number_of_experts),
	    cmocka_unit_test(test_reading_leaves_only_the_weight),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
