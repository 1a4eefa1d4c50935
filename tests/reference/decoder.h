/*
 * decoder.h - a decoder layer by its definition: one value at a time, in float64
 *
 * Rotary without scaling, softmax router, gated linear units. Letters as in forward.h.
 */
#ifndef MC_REFERENCE_DECODER_H
#define MC_REFERENCE_DECODER_H

#include "moecal/forward.h"

/* What every linear of a layer is given; owned. In a dense layer experts is 1 and index, weight
 * NULL. */
struct ref_layer_inputs {
	size_t tokens, width, q_width, kv_width, expert_width, experts, k;
	double *qkv;     /* [T, D] */
	double *query;   /* [T, heads * head_dim] after norm and rotation */
	double *key, *value; /* [T, kv_heads * head_dim] as they enter the cache */
	double *o;       /* [T, heads * head_dim] */
	double *gate_up; /* [T, D] */
	double *down;    /* [E, T, F]: of every expert for every token */
	uint32_t *index; /* [T, K] ascending */
	double *weight;  /* [T, K] */
};

/* hidden [T, D] is replaced by the residual stream after the layer. */
void ref_layer_forward(const struct mc_layer *layer, const struct mc_batch *batch, double *hidden,
    struct ref_layer_inputs *ret_inputs);
void ref_layer_inputs_release(struct ref_layer_inputs *inputs);

/* Did the router send the token to the expert? */
bool ref_is_routed(const struct ref_layer_inputs *inputs, size_t token, size_t expert);

/* logits [V] of one row of the residual stream. */
void ref_head_logits(const struct mc_head *head, const double *hidden, double *logits);

/* One element of a weight as stored. */
double ref_weight_at(const struct mc_weight *weight, size_t row, size_t col);

#endif
