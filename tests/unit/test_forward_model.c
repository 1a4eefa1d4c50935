/*
 * test_forward_model.c - from a checkpoint: embedding, loading a layer, the whole decoder, the head
 */
#include "forward_setting.h"

#include <ftw.h>
#include <stdio.h>
#include <unistd.h>

#include "reference/toy.h"

/* --- a toy checkpoint, opened ------------------------------------------------------------- */

struct opened {
	char folder[64];
	struct mc_model model;
	struct mc_arena arena;
	struct mc_env env;
};

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *walk)
{
	(void)info;
	(void)type;
	(void)walk;
	return remove(path);
}

static struct opened *open_toy(const struct mc_toy *toy)
{
	struct opened *o = calloc(1, sizeof *o);

	assert_non_null(o);
	mc_error_init(&err);
	snprintf(o->folder, sizeof o->folder, "/tmp/moecal-forward-XXXXXX");
	assert_non_null(mkdtemp(o->folder));
	if (!mc_toy_write(toy, o->folder, &err) || !mc_model_open(&o->model, NULL, o->folder, &err))
		fail_msg("%s: %s", err.where, err.text);
	assert_true(mc_arena_init(&o->arena, BUDGET, &err));
	o->env = (struct mc_env){.arena = &o->arena, .pool = mc_pool_new(2, &err)};
	assert_non_null(o->env.pool);
	assert_true(mc_linalg_init(o->env.pool, &err));
	return o;
}

static void close_toy(struct opened *o)
{
	mc_pool_free(o->env.pool);
	mc_arena_release(&o->arena);
	mc_model_close(&o->model);
	nftw(o->folder, remove_one, 4, FTW_DEPTH | FTW_PHYS);
	free(o);
}

static const struct mc_ckpt_tensor *tensor(const struct opened *o, const char *name)
{
	const struct mc_ckpt_tensor *t = mc_checkpoint_find(&o->model.checkpoint, name);

	if (t == NULL)
		fail_msg("no tensor %s", name);
	return t;
}

/* A whole tensor as float32; owned by the caller. */
static float *values(const struct opened *o, const char *name)
{
	const struct mc_ckpt_tensor *t = tensor(o, name);
	size_t n = t->entry->bytes * 8 / mc_dtype_bits(t->entry->dtype);
	void *stored = malloc(t->entry->bytes);
	float *numbers = malloc(n * sizeof *numbers);

	assert_true(stored != NULL && numbers != NULL);
	assert_true(mc_checkpoint_read(&o->model.checkpoint, t, 0, t->entry->bytes, stored, &err));
	mc_widen(t->entry->dtype, stored, numbers, n);
	free(stored);
	return numbers;
}

static const uint32_t ids[] = {3, 0, 7, 3, 11, 5, 9, 1, 1, 2, 60, 33, 8};
static const uint64_t starts[] = {0, 6, 7, 13};
static const struct mc_batch batch = {.ids = ids, .start = starts, .sequences = 3, .tokens = 13};

/* --- embedding ---------------------------------------------------------------------------- */

static void test_embedding(void **state)
{
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);

	(void)state;
	toy.dtype = MC_F32;
	struct opened *o = open_toy(&toy);
	float *table = values(o, "model.embed_tokens.weight");
	float *hidden = malloc(batch.tokens * toy.hidden * sizeof *hidden);

	assert_non_null(hidden);
	assert_true(mc_forward_embed(&o->model, &batch, MC_DTYPE_COUNT, hidden, &o->env, &err));
	for (size_t t = 0; t < batch.tokens; t++)
		assert_memory_equal(hidden + t * toy.hidden, table + ids[t] * toy.hidden,
		    toy.hidden * sizeof *hidden);
	assert_true(mc_forward_embed(&o->model, &batch, MC_BF16, hidden, &o->env, &err));
	for (size_t i = 0; i < batch.tokens * toy.hidden; i++)
		assert_true(
		    hidden[i] ==
		    mc_round_to(MC_BF16, table[ids[i / toy.hidden] * toy.hidden + i % toy.hidden]));
	assert_int_equal(o->arena.used, 0);
	free(hidden);
	free(table);
	close_toy(o);
}

static void test_embedding_refuses(void **state)
{
	struct mc_toy toy = mc_toy(MC_TOY_MIXTRAL);
	uint32_t own[13];
	struct mc_batch other = batch;

	(void)state;
	toy.flaw.poison = "model.embed_tokens.weight";
	toy.flaw.poison_at = 20 * toy.hidden + 4;
	toy.flaw.poison_value = NAN;
	struct opened *o = open_toy(&toy);
	float *hidden = malloc(batch.tokens * toy.hidden * sizeof *hidden);

	assert_non_null(hidden);
	/* Nobody asks for row 20 yet. */
	assert_true(mc_forward_embed(&o->model, &batch, MC_DTYPE_COUNT, hidden, &o->env, &err));
	memcpy(own, ids, sizeof own);
	other.ids = own;
	own[9] = 20;
	assert_false(mc_forward_embed(&o->model, &other, MC_DTYPE_COUNT, hidden, &o->env, &err));
	assert_int_equal(err.code, MC_CORRUPT);
	assert_string_equal(err.where, "model.embed_tokens");
	mc_error_init(&err);
	own[9] = (uint32_t)toy.vocab;
	assert_false(mc_forward_embed(&o->model, &other, MC_DTYPE_COUNT, hidden, &o->env, &err));
	assert_int_equal(err.code, MC_INVALID);
	assert_string_equal(err.where, "token 9");
	free(hidden);
	close_toy(o);
}

/* --- loading ------------------------------------------------------------------------------ */

static void check_weight(const struct opened *o, const struct mc_weight *weight, const char *name)
{
	float *expected = values(o, name);

	assert_int_equal(weight->dtype, tensor(o, name)->entry->dtype);
	for (size_t r = 0; r < weight->rows; r++)
		for (size_t c = 0; c < weight->cols; c++)
			assert_true(
			    ref_weight_at(weight, r, c) == (double)expected[r * weight->cols + c]);
	free(expected);
}

static void test_layer_has_its_weights(void **state)
{
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);
	struct mc_layer layer;

	(void)state;
	toy.dense_layers = 1u << 1;
	struct opened *o = open_toy(&toy);
	assert_true(mc_layer_load(&layer, &o->model, 0, MC_DTYPE_COUNT, &o->env, &err));
	assert_int_equal(layer.index, 0);
	check_weight(o, &layer.q, "model.layers.0.self_attn.q_proj.weight");
	check_weight(o, &layer.o, "model.layers.0.self_attn.o_proj.weight");
	check_weight(o, &layer.router, "model.layers.0.mlp.gate.weight");
	check_weight(o, &layer.gate[0], "model.layers.0.mlp.experts.0.gate_proj.weight");
	check_weight(o, &layer.up[2], "model.layers.0.mlp.experts.2.up_proj.weight");
	check_weight(o, &layer.down[3], "model.layers.0.mlp.experts.3.down_proj.weight");
	assert_true(layer.q_norm != NULL && layer.k_norm != NULL);
	mc_arena_rewind(&o->arena, 0);
	assert_true(mc_layer_load(&layer, &o->model, 1, MC_DTYPE_COUNT, &o->env, &err));
	check_weight(o, &layer.gate[0], "model.layers.1.mlp.gate_proj.weight");
	check_weight(o, &layer.up[0], "model.layers.1.mlp.up_proj.weight");
	check_weight(o, &layer.down[0], "model.layers.1.mlp.down_proj.weight");
	mc_arena_rewind(&o->arena, 0);
	assert_true(mc_layer_load(&layer, &o->model, 1, MC_F16, &o->env, &err));
	assert_int_equal(layer.down[0].dtype, MC_F16);
	close_toy(o);
}

static void test_layer_bytes_are_as_planned(void **state)
{
	(void)state;
	for (int variant = 0; variant < 5; variant++) {
		struct mc_toy toy = mc_toy(variant == 0 ? MC_TOY_MIXTRAL : MC_TOY_QWEN3_MOE);
		toy.dense_layers = variant == 2 ? 1 : 0;
		toy.attention_bias = variant == 3;
		toy.fused = variant == 4;
		struct opened *o = open_toy(&toy);
		for (size_t l = 0; l < toy.layers; l++) {
			struct mc_layer layer;
			/* A new arena has seen nothing but this layer. */
			mc_arena_release(&o->arena);
			assert_true(mc_arena_init(&o->arena, BUDGET, &err));
			assert_true(
			    mc_layer_load(&layer, &o->model, l, MC_DTYPE_COUNT, &o->env, &err));
			uint64_t planned = mc_layer_bytes(&o->model, l);
			assert_true(o->arena.peak <= planned);
			/* Not by much more than reading room and alignment. */
			assert_true(planned <= o->arena.used + (1 << 20) + 64 * 64);
		}
		close_toy(o);
	}
}

static void test_biased_experts_are_refused(void **state)
{
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);
	struct opened *o = open_toy(&toy);
	struct mc_module *up = mc_model_expert(&o->model, 0, 1, 2);
	struct mc_layer layer;

	(void)state;
	up->bias = tensor(o, "model.norm.weight");
	assert_false(mc_layer_load(&layer, &o->model, 0, MC_DTYPE_COUNT, &o->env, &err));
	assert_int_equal(err.code, MC_UNSUPPORTED);
	assert_string_equal(err.where, "model.layers.0.mlp.experts.1.up_proj");
	up->bias = NULL;
	close_toy(o);
}

/* --- the whole decoder -------------------------------------------------------------------- */

static void check_head(struct opened *o, const float *hidden, const double *expected)
{
	size_t vocab = o->model.config.vocab, width = o->model.config.hidden;
	float *logits = malloc(batch.tokens * vocab * sizeof *logits);
	double *row = malloc(vocab * sizeof *row);
	struct mc_head head;

	assert_true(logits != NULL && row != NULL);
	assert_true(mc_head_load(&head, &o->model, MC_DTYPE_COUNT, &o->env, &err));
	check_weight(o, &head.weight,
	    o->model.head == MC_NO_INDEX ? "model.embed_tokens.weight" : "lm_head.weight");
	assert_true(mc_head_logits(&head, hidden, batch.tokens, logits, &o->env, &err));
	for (size_t t = 0; t < batch.tokens; t++) {
		ref_head_logits(&head, expected + t * width, row);
		assert_true(distance(row, logits + t * vocab, vocab) < 1e-5);
	}
	free(logits);
	free(row);
}

static void check_decoder(const struct mc_toy *toy)
{
	struct opened *o = open_toy(toy);
	size_t n = batch.tokens * toy->hidden;
	float *hidden = malloc(n * sizeof *hidden);
	double *expected = malloc(n * sizeof *expected);

	assert_true(hidden != NULL && expected != NULL);
	assert_true(mc_forward_embed(&o->model, &batch, MC_DTYPE_COUNT, hidden, &o->env, &err));
	for (size_t i = 0; i < n; i++)
		expected[i] = (double)hidden[i];
	for (size_t l = 0; l < toy->layers; l++) {
		struct ref_layer_inputs inputs;
		struct mc_layer layer;
		size_t mark = mc_arena_mark(&o->arena);
		assert_true(mc_layer_load(&layer, &o->model, l, MC_DTYPE_COUNT, &o->env, &err));
		if (!mc_forward_layer(&layer, &batch, hidden, NULL, &o->env, &err))
			fail_msg("%s: %s", err.where, err.text);
		ref_layer_forward(&layer, &batch, expected, &inputs);
		assert_true(distance(expected, hidden, n) < 1e-5);
		ref_layer_inputs_release(&inputs);
		mc_arena_rewind(&o->arena, mark);
	}
	check_head(o, hidden, expected);
	free(hidden);
	free(expected);
	close_toy(o);
}

static void test_decoder_is_its_definition(void **state)
{
	struct mc_toy toy = mc_toy(MC_TOY_MIXTRAL);

	(void)state;
	toy.config = "{\"sliding_window\": 3}";
	check_decoder(&toy);
	toy = mc_toy(MC_TOY_QWEN3_MOE);
	toy.dense_layers = 1;
	toy.tied = true;
	check_decoder(&toy);
	toy = mc_toy(MC_TOY_QWEN3_MOE);
	toy.attention_bias = true;
	toy.fused = true;
	toy.dtype = MC_F16;
	check_decoder(&toy);
}

/* --- the block's module decides ----------------------------------------------------------- */

struct calls {
	size_t count, next;
};

static bool halve(const struct mc_module *self, const struct mc_moe_call *call,
    const struct mc_env *env, struct mc_error *e)
{
	struct calls *calls = self->data;
	size_t n = call->tokens * call->layer->model->config.hidden;

	assert_int_equal(call->first_token, calls->next);
	calls->next += call->tokens;
	calls->count++;
	(void)env;
	(void)e;
	for (size_t i = 0; i < n; i++)
		call->out[i] = call->x[i] / 2;
	return true;
}

/* 5000 tokens: the behaviour is given them in two runs, and what it says is what is added. */
static void test_behaviour_of_the_module(void **state)
{
	enum { TOKENS = 5000 };
	static const struct mc_moe_behaviour behaviour = {.forward = halve};
	static const size_t lengths[] = {TOKENS / 2, TOKENS / 2};
	struct setting *s = setting_new(&plain, lengths, 2, 2);
	size_t D = plain.width;
	struct calls calls = {0};
	float *out = malloc(TOKENS * D * sizeof *out);

	(void)state;
	assert_non_null(out);
	memcpy(out, s->hidden, TOKENS * D * sizeof *out);
	/* Attention adds nothing, so that the norm of the input is known. */
	memset((void *)s->hand.layer.o.data, 0, D * s->hand.layer.o.cols * 2);
	s->hand.block.behaviour = &behaviour;
	s->hand.block.data = &calls;
	assert_true(mc_forward_layer(&s->hand.layer, &s->batch, out, NULL, &s->env, &err));
	assert_int_equal(calls.count, 2);
	assert_int_equal(calls.next, TOKENS);
	for (size_t t = 0; t < TOKENS; t += 499) {
		const float *x = s->hidden + t * D;
		double squares = 0;
		for (size_t i = 0; i < D; i++)
			squares += (double)x[i] * (double)x[i];
		for (size_t i = 0; i < D; i++)
			assert_float_equal(out[t * D + i],
			    (double)x[i] + (double)s->hand.layer.ffn_norm[i] * (double)x[i] /
					       sqrt(squares / (double)D + 1e-5) / 2,
			    1e-5);
	}
	free(out);
	setting_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_embedding),
	    cmocka_unit_test(test_embedding_refuses),
	    cmocka_unit_test(test_layer_has_its_weights),
	    cmocka_unit_test(test_layer_bytes_are_as_planned),
	    cmocka_unit_test(test_biased_experts_are_refused),
	    cmocka_unit_test(test_decoder_is_its_definition),
	    cmocka_unit_test(test_behaviour_of_the_module),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
