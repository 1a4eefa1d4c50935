/*
 * decoder.c - embedding, layer, head
 */
#include "block.h"

#include <math.h>
#include <stdio.h>

#include "moecal/linalg.h"
#include "moecal/ops.h"

/* --- embedding ---------------------------------------------------------------------------- */

/* Rows of an item: each is read from the file, so that the whole table is never in memory. */
#define EMBED_ROWS 64u

struct embed {
	const struct mc_model *model;
	const struct mc_module *module;
	const struct mc_batch *batch;
	enum mc_dtype precision;
	float *hidden;
	unsigned char *stored; /* [workers, row_bytes] */
	size_t row_bytes;
	const struct mc_env *env;
};

static bool embed_token(
    const struct embed *job, size_t token, unsigned char *stored, struct mc_error *err)
{
	const struct mc_module *m = job->module;
	uint32_t id = job->batch->ids[token];
	float *row = job->hidden + token * m->cols;

	if (id >= m->rows) {
		char where[32];
		snprintf(where, sizeof where, "token %zu", token);
		return mc_fail(err, MC_INVALID, where,
		    "token id %u is outside the model's vocabulary of %zu", id, m->rows);
	}
	if (!mc_checkpoint_read(&job->model->checkpoint, m->weight,
		m->weight_offset + id * job->row_bytes, job->row_bytes, stored, err))
		return false;
	mc_widen(m->weight->entry->dtype, stored, row, m->cols);
	if (mc_dtype_is_weight(job->precision)) {
		mc_narrow(row, job->precision, stored, m->cols);
		mc_widen(job->precision, stored, row, m->cols);
	}
	if (!mc_all_finite(row, m->cols))
		return mc_fail(err, MC_CORRUPT, m->name,
		    "the embedding of token id %u holds a value that is not finite", id);
	return true;
}

static bool embed_item(void *ctx, size_t item, unsigned worker, struct mc_error *err)
{
	const struct embed *job = ctx;
	size_t first = item * EMBED_ROWS, end = mc_least(first + EMBED_ROWS, job->batch->tokens);
	/* Room for a row in the widest type, whichever it is rounded to. */
	unsigned char *stored = job->stored + worker * job->module->cols * sizeof(float);

	if (!mc_env_go_on(job->env, err))
		return false;
	for (size_t t = first; t < end; t++)
		if (!embed_token(job, t, stored, err))
			return false;
	return true;
}

bool mc_forward_embed(const struct mc_model *model, const struct mc_batch *batch,
    enum mc_dtype precision, float *hidden, const struct mc_env *env, struct mc_error *err)
{
	const struct mc_module *module = model->modules[model->embed];
	size_t mark = mc_arena_mark(env->arena), workers = mc_pool_workers(env->pool);
	struct embed job = {.model = model,
	    .module = module,
	    .batch = batch,
	    .precision = precision,
	    .hidden = hidden,
	    .row_bytes = module->cols * mc_dtype_bits(module->weight->entry->dtype) / 8,
	    .env = env};

	job.stored = mc_arena_alloc(
	    env->arena, workers * module->cols, sizeof(float), "embedding rows", err);
	bool ok = job.stored != NULL && mc_pool_run(env->pool, mc_blocks(batch->tokens, EMBED_ROWS),
					    embed_item, &job, err);
	mc_arena_rewind(env->arena, mark);
	return ok;
}

/* --- layer -------------------------------------------------------------------------------- */

struct ffn {
	const struct mc_layer *layer;
	const struct mc_batch *batch;
	const struct mc_tap *tap;
	const struct mc_env *env;
	float *x, *out; /* [chunk, D] */
};

static bool moe_forward(const struct ffn *f, size_t first, size_t tokens, struct mc_error *err)
{
	const struct mc_model *model = f->layer->model;
	const struct mc_module *module = model->modules[model->layers[f->layer->index].moe];
	struct mc_moe_call call = {.layer = f->layer,
	    .batch = f->batch,
	    .first_token = first,
	    .tokens = tokens,
	    .x = f->x,
	    .out = f->out,
	    .tap = f->tap};

	if (module->behaviour != NULL)
		return module->behaviour->forward(module, &call, f->env, err);
	return mc_moe_forward(&call, false, f->env, err);
}

static bool ffn_chunk(
    const struct ffn *f, size_t first, size_t tokens, float *hidden, struct mc_error *err)
{
	const struct mc_layer *layer = f->layer;
	const struct mc_model_config *config = &layer->model->config;
	bool is_moe = layer->model->layers[layer->index].moe != MC_NO_INDEX;
	size_t width = config->hidden;

	hidden += first * width;
	return mc_norm_rows(
		   hidden, tokens, width, layer->ffn_norm, config->norm_eps, f->x, f->env, err) &&
	       (is_moe ? moe_forward(f, first, tokens, err)
		       : mc_dense_forward(
			     layer, f->x, f->out, tokens, first, f->tap, f->env, err)) &&
	       mc_add_residual(f->out, tokens, width, hidden, layer->index,
		   is_moe ? "the experts" : "the dense block", first, f->env, err);
}

bool mc_forward_layer(const struct mc_layer *layer, const struct mc_batch *batch, float *hidden,
    const struct mc_tap *tap, const struct mc_env *env, struct mc_error *err)
{
	size_t mark = mc_arena_mark(env->arena), width = layer->model->config.hidden;
	size_t chunk = mc_least(batch->tokens, MC_FORWARD_CHUNK);
	struct ffn f = {.layer = layer, .batch = batch, .tap = tap, .env = env};

	mc_assert(batch->start[0] == 0 && batch->start[batch->sequences] == batch->tokens);
	if (!mc_attention_forward(layer, batch, hidden, tap, env, err))
		return false;
	f.x = mc_arena_alloc(env->arena, chunk * width, sizeof *f.x, "input of a block", err);
	f.out = mc_arena_alloc(env->arena, chunk * width, sizeof *f.out, "output of a block", err);
	bool ok = f.x != NULL && f.out != NULL;
	for (size_t t = 0; ok && t < batch->tokens; t += MC_FORWARD_CHUNK)
		ok = ffn_chunk(&f, t, mc_least(batch->tokens - t, MC_FORWARD_CHUNK), hidden, err);
	mc_arena_rewind(env->arena, mark);
	return ok;
}

/* --- head --------------------------------------------------------------------------------- */

bool mc_head_load(struct mc_head *head, const struct mc_model *model, enum mc_dtype precision,
    const struct mc_env *env, struct mc_error *err)
{
	size_t weight = model->head != MC_NO_INDEX ? model->head : model->embed;

	*head = (struct mc_head){.eps = model->config.norm_eps};
	return mc_model_read_vector(
		   model, model->modules[model->final_norm], precision, &head->norm, env, err) &&
	       mc_model_read_weight(
		   model, model->modules[weight], precision, &head->weight, env, err);
}

bool mc_head_logits(const struct mc_head *head, const float *hidden, size_t rows, float *logits,
    const struct mc_env *env, struct mc_error *err)
{
	size_t mark = mc_arena_mark(env->arena), width = head->weight.cols,
	       vocab = head->weight.rows;
	float *x = mc_arena_alloc(env->arena, mc_least(rows, MC_FORWARD_CHUNK) * width, sizeof *x,
	    "input of the head", err);
	bool ok = x != NULL;

	for (size_t r = 0; ok && r < rows; r += MC_FORWARD_CHUNK) {
		size_t n = mc_least(rows - r, MC_FORWARD_CHUNK);
		ok = mc_norm_rows(
			 hidden + r * width, n, width, head->norm, head->eps, x, env, err) &&
		     mc_linear(x, width, n, &head->weight, logits + r * vocab, vocab, env, err);
	}
	mc_arena_rewind(env->arena, mark);
	return ok;
}
