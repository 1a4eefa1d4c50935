/*
 * forward.h - the decoder, layer by layer, over all calibration tokens at once
 *
 * Residual stream, norms, softmax and router in float32. Attention is causal, each sequence alone,
 * positions from 0. Letters: T tokens of all sequences, D model width, F expert width, E experts,
 * K active experts a token.
 */
#ifndef MC_FORWARD_H
#define MC_FORWARD_H

#include "moecal/model.h"
#include "moecal/tap.h"

/* Sequences one after another: s is tokens start[s] .. start[s + 1] - 1. All borrowed. */
struct mc_batch {
	const uint32_t *ids;   /* [T] */
	const uint64_t *start; /* [sequences + 1] */
	size_t sequences;
	size_t tokens; /* T */
};

/* One layer's weights as stored, in the arena. */
struct mc_layer {
	const struct mc_model *model;
	size_t index;
	float *attention_norm, *ffn_norm; /* float32 */
	float *q_norm, *k_norm;           /* float32; NULL when there is none */
	struct mc_weight q, k, v, o;
	struct mc_weight router;            /* MoE layers */
	struct mc_weight *gate, *up, *down; /* [E] in MoE layers, [1] in dense ones */
};

/* Reads a layer into env->arena (take a mark before, rewind after). */
bool mc_layer_load(struct mc_layer *layer, const struct mc_model *model, size_t index,
    enum mc_dtype precision, const struct mc_env *env, struct mc_error *err) MC_CHECKED;
/* Bytes that mc_layer_load takes from the arena when nothing is cast: from headers alone, with
 * what reading needs on the way. */
uint64_t mc_layer_bytes(const struct mc_model *model, size_t index);

/* What one MoE block computes, handed to its behaviour a run of tokens at a time, in token order:
 * x [tokens, D] normed input, out [tokens, D] overwritten. */
struct mc_moe_call {
	const struct mc_layer *layer;
	const struct mc_batch *batch;
	size_t first_token, tokens; /* of the batch's */
	const float *x;
	float *out;
	const struct mc_tap *tap; /* or NULL */
};

/* How an MoE block computes: the original class, or a calibration module put in its place. */
struct mc_moe_behaviour {
	bool (*forward)(const struct mc_module *self, const struct mc_moe_call *call,
	    const struct mc_env *env, struct mc_error *err);
};

/*
 * The block: router, top-k, experts, weighted sum of the routed ones in ascending expert order.
 * see_all_tokens: every expert's gate, up and down inputs are computed (and shown to the tap) for
 * all tokens; down is multiplied for routed tokens only; `out` is the same in both modes (up to
 * float32 rounding of tiles). Without a tap nobody sees them, so only routed ones are computed.
 * Errors: NO_MEMORY, CANCELED, CORRUPT (a router logit is not finite: layer, token), the tap's.
 */
bool mc_moe_forward(const struct mc_moe_call *call, bool see_all_tokens, const struct mc_env *env,
    struct mc_error *err) MC_CHECKED;

/* hidden [T, D] = embedding of ids, rows read one by one. Errors: INVALID for an id outside the
 * vocabulary; CORRUPT when a row is not finite; IO, NO_MEMORY, CANCELED. */
bool mc_forward_embed(const struct mc_model *model, const struct mc_batch *batch,
    enum mc_dtype precision, float *hidden, const struct mc_env *env,
    struct mc_error *err) MC_CHECKED;

/* hidden [T, D] is replaced by the residual stream after the layer. tap may be NULL. The MoE block
 * runs by the behaviour of its module (NULL: routed only). The bits do not depend on the number of
 * workers. Errors: NO_MEMORY, CANCELED, CORRUPT ("layer 3": a value is not finite after attention),
 * the tap's. */
bool mc_forward_layer(const struct mc_layer *layer, const struct mc_batch *batch, float *hidden,
    const struct mc_tap *tap, const struct mc_env *env, struct mc_error *err) MC_CHECKED;

/* Final norm and head for rows of the residual stream: logits [rows, V]. Weights are read by load. */
struct mc_head {
	float *norm;
	struct mc_weight weight;
	float eps;
};
bool mc_head_load(struct mc_head *head, const struct mc_model *model, enum mc_dtype precision,
    const struct mc_env *env, struct mc_error *err) MC_CHECKED;
bool mc_head_logits(const struct mc_head *head, const float *hidden, size_t rows, float *logits,
    const struct mc_env *env, struct mc_error *err) MC_CHECKED;

/* Bytes of scratch that a layer's forward takes from the arena beyond its weights, at most: for the
 * plan. Bounded for any number of tokens. */
uint64_t mc_forward_scratch_bytes(const struct mc_model *model, size_t layer, size_t tokens,
    size_t longest_sequence, unsigned workers);
/* Multiply-adds * 2 of a layer's products with weights for T tokens; all: experts see all tokens.
 * The products of attention itself depend on the sequences and are left out. */
double mc_forward_flops(const struct mc_model *model, size_t layer, size_t tokens, bool all);

#endif
