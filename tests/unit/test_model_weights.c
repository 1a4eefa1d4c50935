/*
 * test_model_weights.c - weights as they come out of a model: values, slices, rounding, refusals
 */
#include "toy_folder.h"

#include <math.h>

struct fixture {
	struct mc_arena arena;
	struct mc_env env;
	struct mc_model model;
};

static void open_fixture(struct fixture *f, const struct mc_toy *toy)
{
	struct mc_error err;

	*f = (struct fixture){0};
	mc_error_init(&err);
	toy_require(mc_arena_init(&f->arena, (uint64_t)256 << 20, &err), &err);
	f->env.arena = &f->arena;
	toy_require_open(toy, &f->model);
}

static void close_fixture(struct fixture *f)
{
	mc_model_close(&f->model);
	mc_arena_release(&f->arena);
}

static const struct mc_module *need(const struct fixture *f, const char *name)
{
	const struct mc_module *module = mc_model_find(&f->model, name);

	assert_non_null(module);
	return module;
}

/* In an arena of no more bytes than are promised to be enough. */
static struct mc_weight read_weight(
    struct fixture *f, const struct mc_module *module, enum mc_dtype precision)
{
	struct mc_arena arena;
	struct mc_env env = {.arena = &arena};
	struct mc_weight weight;
	struct mc_error err;

	mc_error_init(&err);
	toy_require(
	    mc_arena_sub(&f->arena, mc_model_read_bytes(module, precision), "test", &arena, &err),
	    &err);
	toy_require(mc_model_read_weight(&f->model, module, precision, &weight, &env, &err), &err);
	assert_int_equal(weight.rows, module->rows);
	assert_int_equal(weight.cols, module->cols);
	return weight;
}

/* The tensor's stored bytes. */
static const void *stored_bytes(struct fixture *f, const struct mc_ckpt_tensor *tensor)
{
	struct mc_error err;

	mc_error_init(&err);
	void *bytes = mc_arena_alloc(&f->arena, tensor->entry->bytes, 1, "test", &err);
	assert_non_null(bytes);
	toy_require(
	    mc_checkpoint_read(&f->model.checkpoint, tensor, 0, tensor->entry->bytes, bytes, &err),
	    &err);
	return bytes;
}

static const enum mc_dtype dtypes[] = {MC_F32, MC_F16, MC_BF16};

/* --- values --------------------------------------------------------------------------------------
 */

static void test_as_stored(void **state)
{
	(void)state;
	for (size_t d = 0; d < 3; d++) {
		struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);
		struct fixture f;
		toy.dtype = dtypes[d];
		open_fixture(&f, &toy);
		for (size_t i = 0; i < f.model.modules_count; i++) {
			const struct mc_module *m = f.model.modules[i];
			if (m->weight == NULL || m->kind == MC_KIND_NORM)
				continue;
			struct mc_weight w = read_weight(&f, m, MC_DTYPE_COUNT);
			assert_int_equal(w.dtype, dtypes[d]);
			assert_null(w.bias);
			assert_memory_equal(w.data, stored_bytes(&f, m->weight),
			    m->rows * m->cols * mc_dtype_bits(w.dtype) / 8);
			/* to the same dtype is as stored */
			assert_memory_equal(read_weight(&f, m, dtypes[d]).data, w.data,
			    m->rows * m->cols * mc_dtype_bits(w.dtype) / 8);
		}
		close_fixture(&f);
	}
}

static float value_at(const struct mc_weight *w, size_t i)
{
	float value;

	mc_widen(w->dtype, (const char *)w->data + i * mc_dtype_bits(w->dtype) / 8, &value, 1);
	return value;
}

static void test_rounded(void **state)
{
	(void)state;
	for (size_t from = 0; from < 3; from++) {
		struct mc_toy toy = mc_toy(MC_TOY_MIXTRAL);
		struct fixture f;
		toy.dtype = dtypes[from];
		toy.vocab = 2500; /* 80000 values: more than are looked at together */
		open_fixture(&f, &toy);
		const struct mc_module *m = f.model.modules[f.model.embed];
		struct mc_weight stored = read_weight(&f, m, MC_DTYPE_COUNT);
		for (size_t to = 0; to < 3; to++) {
			struct mc_weight w = read_weight(&f, m, dtypes[to]);
			assert_int_equal(w.dtype, dtypes[to]);
			for (size_t i = 0; i < m->rows * m->cols; i++)
				assert_true(value_at(&w, i) ==
					    mc_round_to(dtypes[to], value_at(&stored, i)));
		}
		close_fixture(&f);
	}
}

static void test_vectors(void **state)
{
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);
	struct fixture f;
	struct mc_error err;
	float *exact, *rounded;

	(void)state;
	toy.dtype = MC_F32;
	open_fixture(&f, &toy);
	mc_error_init(&err);
	const struct mc_module *m = need(&f, "model.layers.1.self_attn.k_norm");
	const float *stored = stored_bytes(&f, m->weight);
	toy_require(mc_model_read_vector(&f.model, m, MC_DTYPE_COUNT, &exact, &f.env, &err), &err);
	toy_require(mc_model_read_vector(&f.model, m, MC_BF16, &rounded, &f.env, &err), &err);
	bool differs = false;
	for (size_t i = 0; i < m->rows; i++) {
		assert_true(exact[i] == stored[i]);
		assert_true(rounded[i] == mc_round_to(MC_BF16, stored[i]));
		differs |= rounded[i] != exact[i];
	}
	assert_true(differs);
	close_fixture(&f);
}

static void test_biases(void **state)
{
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);
	struct fixture f;

	(void)state;
	toy.attention_bias = true;
	open_fixture(&f, &toy);
	const struct mc_module *m = need(&f, "model.layers.0.self_attn.v_proj");
	const uint16_t *stored = stored_bytes(&f, m->bias);
	struct mc_weight w = read_weight(&f, m, MC_DTYPE_COUNT);
	for (size_t i = 0; i < m->rows; i++)
		assert_true(w.bias[i] == mc_bf16_to_f32(stored[i]));
	assert_non_null(need(&f, "model.layers.1.self_attn.o_proj")->bias);
	assert_null(need(&f, "model.layers.1.mlp.experts.0.up_proj")->bias);
	close_fixture(&f);
}

/* --- layouts -------------------------------------------------------------------------------------
 */

/* Every module of a holds the weights of the module at the same place of b. */
static void assert_equal_weights(const struct mc_toy *a, const struct mc_toy *b)
{
	struct fixture f, g;

	open_fixture(&f, a);
	open_fixture(&g, b);
	assert_int_equal(f.model.modules_count, g.model.modules_count);
	for (size_t i = 0; i < f.model.modules_count; i++) {
		const struct mc_module *m = f.model.modules[i], *n = g.model.modules[i];
		assert_int_equal(m->kind, n->kind);
		assert_int_equal(m->role, n->role);
		if (m->kind == MC_KIND_CONTAINER || m->kind == MC_KIND_NORM)
			continue;
		struct mc_weight v = read_weight(&f, m, MC_DTYPE_COUNT);
		struct mc_weight w = read_weight(&g, n, MC_DTYPE_COUNT);
		assert_int_equal(v.rows, w.rows);
		assert_int_equal(v.cols, w.cols);
		assert_memory_equal(v.data, w.data, v.rows * v.cols * mc_dtype_bits(v.dtype) / 8);
	}
	close_fixture(&f);
	close_fixture(&g);
}

static void test_fused_experts_are_the_same_weights(void **state)
{
	(void)state;
	for (int kind = MC_TOY_QWEN3_MOE; kind <= MC_TOY_MIXTRAL; kind++)
		for (size_t d = 0; d < 3; d++) {
			struct mc_toy plain = mc_toy((enum mc_toy_kind)kind), fused = plain;
			plain.dtype = fused.dtype = dtypes[d];
			fused.fused = fused.version_5 = true;
			assert_equal_weights(&plain, &fused);
		}
}

static void test_fused_square_experts(void **state)
{
	/* gate_up of [E, D, D]: the shape alone does not say which way it lies */
	struct mc_toy plain = mc_toy(MC_TOY_QWEN3_MOE);

	(void)state;
	plain.expert_intermediate = plain.hidden / 2;
	struct mc_toy fused = plain;
	fused.fused = true;
	assert_equal_weights(&plain, &fused);
}

static void test_fused_refusals(void **state)
{
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);

	(void)state;
	toy.fused = true;
	toy.flaw.shorten = "model.layers.1.mlp.experts.gate_up_proj";
	toy_require_refusal(&toy, MC_CORRUPT, toy.flaw.shorten, "has shape [3, 48, 32]");
	toy.flaw.shorten = NULL;
	toy.flaw.omit = "model.layers.0.mlp.experts.down_proj";
	toy_require_refusal(&toy, MC_CORRUPT, toy.flaw.omit, "[4, 32, 24]");
	toy.flaw.omit = NULL;
	toy.flaw.add = "model.layers.0.mlp.experts.0.gate_proj.weight"; /* both layouts at once */
	toy_require_refusal(&toy, MC_CORRUPT, toy.flaw.add, "is not part of a qwen3_moe model");
}

static void test_shards_are_the_same_weights(void **state)
{
	struct mc_toy one = mc_toy(MC_TOY_QWEN3_MOE), three = one;

	(void)state;
	three.shards = 3;
	assert_equal_weights(&one, &three);
}

static void test_version_5_config_is_the_same_model(void **state)
{
	struct mc_toy old = mc_toy(MC_TOY_QWEN3_MOE), new = old;
	struct mc_model a, b;

	(void)state;
	new.version_5 = true;
	assert_equal_weights(&old, &new);
	toy_require_open(&old, &a);
	toy_require_open(&new, &b);
	assert_true(a.config.rotary.theta == b.config.rotary.theta);
	assert_int_equal(a.config.rotary.dims, b.config.rotary.dims);
	mc_model_close(&a);
	mc_model_close(&b);
}

/* --- values that cannot be used
 * ------------------------------------------------------------------- */

static void assert_refused(const struct mc_toy *toy, const char *module, enum mc_dtype precision,
    enum mc_code code, const char *text)
{
	struct mc_weight weight;
	struct mc_error err;
	struct fixture f;
	float *vector;

	open_fixture(&f, toy);
	mc_error_init(&err);
	const struct mc_module *m = need(&f, module);
	bool ok = m->kind == MC_KIND_NORM
		      ? mc_model_read_vector(&f.model, m, precision, &vector, &f.env, &err)
		      : mc_model_read_weight(&f.model, m, precision, &weight, &f.env, &err);
	if (ok || err.code != code || strstr(err.text, text) == NULL ||
	    strcmp(err.where, toy->flaw.poison) != 0)
		fail_msg("%s: %s: %s, not %s '%s'", mc_code_name(err.code), err.where, err.text,
		    mc_code_name(code), text);
	close_fixture(&f);
}

static void test_not_finite_values(void **state)
{
	static const struct {
		float value;
		const char *text;
	} values[] = {{NAN, "[5, 6] is NaN"}, {INFINITY, "[5, 6] is infinite"},
	    {-INFINITY, "[5, 6] is negative infinite"}};
	static const enum mc_dtype wanted[] = {MC_DTYPE_COUNT, MC_F32, MC_F16, MC_BF16};

	(void)state;
	for (size_t d = 0; d < 3; d++)
		for (size_t v = 0; v < 3; v++)
			for (size_t p = 0; p < 4; p++) {
				struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);
				toy.dtype = dtypes[d];
				toy.flaw.poison = "model.layers.1.mlp.experts.2.up_proj.weight";
				toy.flaw.poison_at = 5 * 32 + 6;
				toy.flaw.poison_value = values[v].value;
				assert_refused(&toy, "model.layers.1.mlp.experts.2.up_proj",
				    wanted[p], MC_CORRUPT, values[v].text);
			}
}

static void test_positions(void **state)
{
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);

	(void)state;
	toy.flaw.poison_value = NAN;
	toy.flaw.poison = "model.norm.weight";
	toy.flaw.poison_at = 31; /* the last one */
	assert_refused(&toy, "model.norm", MC_DTYPE_COUNT, MC_CORRUPT, "at [31] is NaN");
	toy.vocab = 2500; /* beyond what is looked at together */
	toy.flaw.poison = "lm_head.weight";
	toy.flaw.poison_at = 2200 * 32 + 1;
	assert_refused(&toy, "lm_head", MC_DTYPE_COUNT, MC_CORRUPT, "at [2200, 1] is NaN");
	assert_refused(&toy, "lm_head", MC_F32, MC_CORRUPT, "at [2200, 1] is NaN");
	toy.flaw.poison_at = 0;
	assert_refused(&toy, "lm_head", MC_F32, MC_CORRUPT, "at [0, 0] is NaN");
	toy.attention_bias = true;
	toy.flaw.poison = "model.layers.0.self_attn.q_proj.bias";
	toy.flaw.poison_at = 7;
	assert_refused(
	    &toy, "model.layers.0.self_attn.q_proj", MC_BF16, MC_CORRUPT, "at [7] is NaN");
}

static void test_position_in_a_slice(void **state)
{
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);
	struct fixture f;

	(void)state;
	toy.fused = true;
	toy.flaw.poison = "model.layers.0.mlp.experts.gate_up_proj";
	toy.flaw.poison_value = NAN;
	toy.flaw.poison_at = (2 * 48 + 24 + 3) * 32 + 9; /* expert 2, row 3 of up */
	assert_refused(
	    &toy, "model.layers.0.mlp.experts.2.up_proj", MC_BF16, MC_CORRUPT, "at [2, 27, 9]");
	/* the neighbours in the same tensor are sound */
	open_fixture(&f, &toy);
	read_weight(&f, need(&f, "model.layers.0.mlp.experts.2.gate_proj"), MC_DTYPE_COUNT);
	read_weight(&f, need(&f, "model.layers.0.mlp.experts.3.gate_proj"), MC_DTYPE_COUNT);
	close_fixture(&f);
}

static void test_too_large_for_the_precision(void **state)
{
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);
	struct fixture f;

	(void)state;
	toy.flaw.poison = "model.layers.0.self_attn.o_proj.weight";
	toy.flaw.poison_at = 40;
	toy.flaw.poison_value = 70000;
	assert_refused(
	    &toy, "model.layers.0.self_attn.o_proj", MC_F16, MC_INVALID, "too large for F16");
	open_fixture(&f, &toy);
	read_weight(&f, need(&f, "model.layers.0.self_attn.o_proj"), MC_F32);
	close_fixture(&f);
	toy.flaw.poison = "model.norm.weight";
	toy.flaw.poison_at = 3;
	assert_refused(&toy, "model.norm", MC_F16, MC_INVALID, "too large for F16");
	toy.dtype = MC_F32; /* the largest float32 rounds up, out of bfloat16 */
	toy.flaw.poison_value = 3.4028234e38f;
	assert_refused(&toy, "model.norm", MC_BF16, MC_INVALID, "too large for BF16");
}

static void test_no_memory(void **state)
{
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);
	struct mc_weight weight;
	struct mc_error err;
	struct fixture f;

	(void)state;
	toy.vocab = 4000;
	open_fixture(&f, &toy);
	mc_arena_release(&f.arena);
	mc_error_init(&err);
	toy_require(mc_arena_init(&f.arena, 4096, &err), &err);
	assert_false(mc_model_read_weight(
	    &f.model, need(&f, "lm_head"), MC_DTYPE_COUNT, &weight, &f.env, &err));
	assert_int_equal(err.code, MC_NO_MEMORY);
	close_fixture(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_as_stored),
	    cmocka_unit_test(test_rounded),
	    cmocka_unit_test(test_vectors),
	    cmocka_unit_test(test_biases),
	    cmocka_unit_test(test_fused_experts_are_the_same_weights),
	    cmocka_unit_test(test_fused_square_experts),
	    cmocka_unit_test(test_fused_refusals),
	    cmocka_unit_test(test_shards_are_the_same_weights),
	    cmocka_unit_test(test_version_5_config_is_the_same_model),
	    cmocka_unit_test(test_not_finite_values),
	    cmocka_unit_test(test_positions),
	    cmocka_unit_test(test_position_in_a_slice),
	    cmocka_unit_test(test_too_large_for_the_precision),
	    cmocka_unit_test(test_no_memory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
