/*
 * decoder.c - a decoder layer by its definition
 */
#include "decoder.h"

#include <math.h>
#include <stdlib.h>

#include "moecal/dtype.h"

static double *zeros(size_t count)
{
	double *p = calloc(count > 0 ? count : 1, sizeof *p);

	mc_assert(p != NULL);
	return p;
}

double ref_weight_at(const struct mc_weight *weight, size_t row, size_t col)
{
	size_t at = row * weight->cols + col;

	if (weight->dtype == MC_F32)
		return (double)((const float *)weight->data)[at];
	uint16_t code = ((const uint16_t *)weight->data)[at];
	return (double)(weight->dtype == MC_BF16 ? mc_bf16_to_f32(code) : mc_f16_to_f32(code));
}

/* y [rows] = W x + b */
static void linear(const struct mc_weight *w, const double *x, double *y)
{
	for (size_t r = 0; r < w->rows; r++) {
		y[r] = w->bias != NULL ? (double)w->bias[r] : 0.0;
		for (size_t c = 0; c < w->cols; c++)
			y[r] += ref_weight_at(w, r, c) * x[c];
	}
}

static void rms_norm(const double *x, const float *w, double eps, size_t n, double *y)
{
	double squares = 0;

	for (size_t i = 0; i < n; i++)
		squares += x[i] * x[i];
	for (size_t i = 0; i < n; i++)
		y[i] = (double)w[i] * x[i] / sqrt(squares / (double)n + eps);
}

/* Pairs (j, j + r/2) of the first r values turn by position * theta^(-2j/r). */
static void rotate(const struct mc_rotary *rotary, size_t position, double *x)
{
	size_t half = rotary->dims / 2;

	mc_assert(rotary->kind == MC_ROTARY_NONE);
	for (size_t j = 0; j < half; j++) {
		double angle =
		    (double)position * pow(rotary->theta, -2.0 * (double)j / (double)rotary->dims);
		double a = x[j], b = x[j + half];
		x[j] = a * cos(angle) - b * sin(angle);
		x[j + half] = b * cos(angle) + a * sin(angle);
	}
}

/* --- attention ---------------------------------------------------------------------------- */

struct heads {
	double *q, *k, *v; /* [T, q_width or kv_width] */
};

static void project(
    const struct mc_layer *layer, size_t token, size_t position, const double *x, struct heads *h)
{
	const struct mc_model_config *c = &layer->model->config;
	size_t hd = c->head_dim;
	double *q = h->q + token * c->heads * hd, *k = h->k + token * c->kv_heads * hd;

	linear(&layer->q, x, q);
	linear(&layer->k, x, k);
	linear(&layer->v, x, h->v + token * c->kv_heads * hd);
	for (size_t j = 0; j < c->heads; j++) {
		if (layer->q_norm != NULL)
			rms_norm(q + j * hd, layer->q_norm, (double)c->norm_eps, hd, q + j * hd);
		rotate(&c->rotary, position, q + j * hd);
	}
	for (size_t j = 0; j < c->kv_heads; j++) {
		if (layer->k_norm != NULL)
			rms_norm(k + j * hd, layer->k_norm, (double)c->norm_eps, hd, k + j * hd);
		rotate(&c->rotary, position, k + j * hd);
	}
}

/* Head j of the query at `token`; its sequence begins at `first`. */
static void attend(const struct mc_model_config *c, const struct heads *h, size_t first,
    size_t token, size_t j, double *out)
{
	size_t hd = c->head_dim, kv = j / (c->heads / c->kv_heads);
	const double *q = h->q + (token * c->heads + j) * hd;
	double sum = 0, *p = zeros(token - first + 1);

	for (size_t u = first; u <= token; u++) {
		double score = 0;
		if (c->sliding_window > 0 && u + c->sliding_window <= token)
			continue;
		for (size_t i = 0; i < hd; i++)
			score += q[i] * h->k[(u * c->kv_heads + kv) * hd + i];
		p[u - first] = exp(score / sqrt((double)hd));
		sum += p[u - first];
	}
	for (size_t i = 0; i < hd; i++) {
		out[i] = 0;
		for (size_t u = first; u <= token; u++)
			out[i] += p[u - first] / sum * h->v[(u * c->kv_heads + kv) * hd + i];
	}
	free(p);
}

static void attention(const struct mc_layer *layer, const struct mc_batch *batch, double *hidden,
    struct ref_layer_inputs *in)
{
	const struct mc_model_config *c = &layer->model->config;
	size_t D = in->width;
	struct heads h = {in->query, in->key, in->value};
	double *y = zeros(D);

	for (size_t s = 0; s < batch->sequences; s++) {
		size_t first = (size_t)batch->start[s], end = (size_t)batch->start[s + 1];
		for (size_t t = first; t < end; t++) {
			rms_norm(hidden + t * D, layer->attention_norm, (double)c->norm_eps, D,
			    in->qkv + t * D);
			project(layer, t, t - first, in->qkv + t * D, &h);
			for (size_t j = 0; j < c->heads; j++)
				attend(
				    c, &h, first, t, j, in->o + t * in->q_width + j * c->head_dim);
			linear(&layer->o, in->o + t * in->q_width, y);
			for (size_t i = 0; i < D; i++)
				hidden[t * D + i] += y[i];
		}
	}
	free(y);
}

/* --- experts ------------------------------------------------------------------------------ */

/* The largest, K times; then in ascending order of their index. */
static void choose(const struct mc_layer *layer, const double *x, uint32_t *index, double *weight)
{
	const struct mc_model_config *c = &layer->model->config;
	size_t count = 0;
	double *p = zeros(c->experts), sum = 0, chosen = 0;
	bool *taken = calloc(c->experts, sizeof *taken);

	mc_assert(taken != NULL);
	linear(&layer->router, x, p);
	for (size_t e = 0; e < c->experts; e++)
		sum += p[e] = exp(p[e]);
	for (size_t i = 0; i < c->experts_per_token; i++) {
		size_t best = c->experts;
		for (size_t e = 0; e < c->experts; e++)
			if (!taken[e] && (best == c->experts || p[e] > p[best]))
				best = e;
		taken[best] = true;
		chosen += p[best];
	}
	for (size_t e = 0; e < c->experts; e++)
		if (taken[e]) {
			index[count] = (uint32_t)e;
			weight[count++] = p[e] / (c->renormalise ? chosen : sum);
		}
	free(p);
	free(taken);
}

/* act [F] = silu(gate x) * (up x) */
static void activate(
    const struct mc_weight *gate, const struct mc_weight *up, const double *x, double *act)
{
	double *g = zeros(gate->rows);

	linear(gate, x, g);
	linear(up, x, act);
	for (size_t i = 0; i < gate->rows; i++)
		act[i] *= g[i] / (1.0 + exp(-g[i]));
	free(g);
}

bool ref_is_routed(const struct ref_layer_inputs *in, size_t token, size_t expert)
{
	for (size_t i = 0; in->index != NULL && i < in->k; i++)
		if (in->index[token * in->k + i] == expert)
			return true;
	return in->index == NULL;
}

static void experts(const struct mc_layer *layer, double *hidden, struct ref_layer_inputs *in)
{
	const struct mc_model_config *c = &layer->model->config;
	size_t D = in->width, F = in->expert_width;
	double *y = zeros(D);

	for (size_t t = 0; t < in->tokens; t++) {
		double *x = in->gate_up + t * D;
		rms_norm(hidden + t * D, layer->ffn_norm, (double)c->norm_eps, D, x);
		if (in->index != NULL)
			choose(layer, x, in->index + t * in->k, in->weight + t * in->k);
		for (size_t e = 0; e < in->experts; e++)
			activate(
			    &layer->gate[e], &layer->up[e], x, in->down + (e * in->tokens + t) * F);
		for (size_t i = 0; i < in->k; i++) {
			size_t e = in->index != NULL ? in->index[t * in->k + i] : 0;
			double share = in->index != NULL ? in->weight[t * in->k + i] : 1.0;
			linear(&layer->down[e], in->down + (e * in->tokens + t) * F, y);
			for (size_t d = 0; d < D; d++)
				hidden[t * D + d] += share * y[d];
		}
	}
	free(y);
}

/* --- a layer ------------------------------------------------------------------------------ */

void ref_layer_forward(const struct mc_layer *layer, const struct mc_batch *batch, double *hidden,
    struct ref_layer_inputs *in)
{
	const struct mc_model_config *c = &layer->model->config;
	bool is_moe = layer->model->layers[layer->index].moe != MC_NO_INDEX;

	*in = (struct ref_layer_inputs){.tokens = batch->tokens,
	    .width = c->hidden,
	    .q_width = c->heads * c->head_dim,
	    .kv_width = c->kv_heads * c->head_dim,
	    .expert_width = layer->gate[0].rows,
	    .experts = is_moe ? c->experts : 1,
	    .k = is_moe ? c->experts_per_token : 1};
	in->qkv = zeros(in->tokens * in->width);
	in->query = zeros(in->tokens * in->q_width);
	in->key = zeros(in->tokens * in->kv_width);
	in->value = zeros(in->tokens * in->kv_width);
	in->o = zeros(in->tokens * in->q_width);
	in->gate_up = zeros(in->tokens * in->width);
	in->down = zeros(in->experts * in->tokens * in->expert_width);
	if (is_moe) {
		in->index = calloc(in->tokens * in->k + 1, sizeof *in->index);
		mc_assert(in->index != NULL);
		in->weight = zeros(in->tokens * in->k);
	}
	attention(layer, batch, hidden, in);
	experts(layer, hidden, in);
}

void ref_layer_inputs_release(struct ref_layer_inputs *in)
{
	free(in->qkv);
	free(in->query);
	free(in->key);
	free(in->value);
	free(in->o);
	free(in->gate_up);
	free(in->down);
	free(in->index);
	free(in->weight);
	*in = (struct ref_layer_inputs){0};
}

void ref_head_logits(const struct mc_head *head, const double *hidden, double *logits)
{
	double *x = zeros(head->weight.cols);

	rms_norm(hidden, head->norm, (double)head->eps, head->weight.cols, x);
	linear(&head->weight, x, logits);
	free(x);
}
