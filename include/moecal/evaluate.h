/*
 * evaluate.h - perplexity and logits of a checkpoint on token ids
 */
#ifndef MC_EVALUATE_H
#define MC_EVALUATE_H

#include "moecal/dataset.h"
#include "moecal/model.h"

struct mc_evaluation {
	double perplexity;  /* exp of the mean over all predicted tokens of -log p */
	double loss;        /* that mean */
	uint64_t predicted; /* tokens: all but the first of each sequence */
};

/* Called with the logits [rows, V] of tokens first.. of all sequences in order; may be NULL. */
typedef bool mc_logits_fn(
    void *ctx, size_t first, size_t rows, const float *logits, struct mc_error *err);

/* Layer by layer, so memory is one layer + hidden states. progress (may be NULL): layers done. */
bool mc_evaluate(const struct mc_model *model, const struct mc_dataset *dataset,
    enum mc_dtype precision, mc_logits_fn *logits,
    void (*progress)(void *ctx, size_t done, size_t total), void *ctx, const struct mc_env *env,
    struct mc_evaluation *ret, struct mc_error *err) MC_CHECKED;

#endif
