/*
 * evaluate.c - perplexity: the whole decoder over a dataset, layer by layer
 */
#include "moecal/evaluate.h"

#include <math.h>

#include "moecal/forward.h"
#include "moecal/ops.h"

#define HEAD_ROWS 512

struct losses {
	const float *logits;
	size_t vocab, first;
	const uint32_t *ids;
	const bool *predicts; /* [HEAD_ROWS]: has this token a successor in its sequence? */
	double *loss;
};

static bool one_loss(void *ctx, size_t row, unsigned worker, struct mc_error *err)
{
	struct losses *l = ctx;
	(void)worker;
	(void)err;
	l->loss[row] = l->predicts[row] ? mc_cross_entropy(l->logits + row * l->vocab, l->vocab,
					      l->ids[l->first + row + 1])
					: 0.0;
	return true;
}

static bool score(const struct mc_model *model, const struct mc_batch *batch, const float *hidden,
    enum mc_dtype precision, mc_logits_fn *show, void *ctx, const struct mc_env *env,
    struct mc_evaluation *ret, struct mc_error *err)
{
	size_t vocab = model->config.vocab, sequence = 0;
	struct mc_head head;
	double loss[HEAD_ROWS], sum = 0;
	bool predicts[HEAD_ROWS];
	float *logits = mc_arena_alloc(
	    env->arena, HEAD_ROWS * vocab, sizeof *logits, "logits", err);

	if (logits == NULL || !mc_head_load(&head, model, precision, env, err))
		return false;
	for (size_t t = 0; t < batch->tokens; t += HEAD_ROWS) {
		size_t n = batch->tokens - t < HEAD_ROWS ? batch->tokens - t : HEAD_ROWS;
		if (!mc_env_go_on(env, err) ||
		    !mc_head_logits(
			&head, hidden + t * model->config.hidden, n, logits, env, err) ||
		    (show != NULL && !show(ctx, t, n, logits, err)))
			return false;
		for (size_t r = 0; r < n; r++) {
			while (t + r >= batch->start[sequence + 1])
				sequence++;
			predicts[r] = t + r + 1 < batch->start[sequence + 1];
			ret->predicted += predicts[r];
		}
		struct losses losses = {logits, vocab, t, batch->ids, predicts, loss};
		if (!mc_pool_run(env->pool, n, one_loss, &losses, err))
			return false;
		for (size_t r = 0; r < n; r++)
			sum += loss[r];
	}
	if (ret->predicted == 0)
		return mc_fail(
		    err, MC_INVALID, "dataset", "no sequence has two tokens: nothing to predict");
	ret->loss = sum / (double)ret->predicted;
	ret->perplexity = exp(ret->loss);
	return true;
}

bool mc_evaluate(const struct mc_model *model, const struct mc_dataset *dataset,
    enum mc_dtype precision, mc_logits_fn *logits,
    void (*progress)(void *ctx, size_t done, size_t total), void *ctx, const struct mc_env *env,
    struct mc_evaluation *ret, struct mc_error *err)
{
	struct mc_batch batch = {.ids = dataset->ids,
	    .start = dataset->start,
	    .sequences = dataset->sequences,
	    .tokens = dataset->tokens};
	size_t mark = mc_arena_mark(env->arena);
	float *hidden = mc_arena_alloc(
	    env->arena, batch.tokens * model->config.hidden, sizeof *hidden, "hidden states", err);

	*ret = (struct mc_evaluation){0};
	bool ok = hidden != NULL && mc_forward_embed(model, &batch, precision, hidden, env, err);
	for (size_t l = 0; ok && l < model->config.layers; l++) {
		size_t layer_mark = mc_arena_mark(env->arena);
		struct mc_layer layer;
		ok = mc_env_go_on(env, err) &&
		     mc_layer_load(&layer, model, l, precision, env, err) &&
		     mc_forward_layer(&layer, &batch, hidden, NULL, env, err);
		mc_arena_rewind(env->arena, layer_mark);
		if (ok && progress != NULL)
			progress(ctx, l + 1, model->config.layers);
	}
	ok = ok && score(model, &batch, hidden, precision, logits, ctx, env, ret, err);
	mc_arena_rewind(env->arena, mark);
	return ok;
}
