/*
 * config.h - what config.json says about a decoder, in one struct
 *
 * Filled by an architecture's parse function (architecture.h) from either spelling (transformers 4 or
 * 5). Every knob that forward/ looks at is here; a knob an architecture lacks keeps its zero value.
 */
#ifndef MC_CONFIG_H
#define MC_CONFIG_H

#include <stddef.h>

#include "moecal/json.h"

enum mc_rotary_kind { MC_ROTARY_NONE, MC_ROTARY_LINEAR, MC_ROTARY_LLAMA3, MC_ROTARY_YARN };

struct mc_rotary {
	enum mc_rotary_kind kind; /* NONE = plain frequencies */
	double theta;
	size_t dims; /* rotated dims per head, even; 0 = no rotary at all */
	double factor, low_freq_factor, high_freq_factor, beta_fast, beta_slow;
	double original_length;
	double attention_factor; /* multiplies cos and sin */
	bool truncate;           /* yarn */
};

enum mc_router_kind {
	MC_ROUTER_SOFTMAX_TOP_K /* softmax over all, K largest, optionally renormalised (R1, R1n) */
};

#define MC_MAX_LAYERS 1024

struct mc_model_config {
	char model_type[64];
	size_t layers;             /* L */
	size_t hidden;             /* D */
	size_t vocab;              /* V: rows of the embedding */
	size_t heads, kv_heads, head_dim;
	size_t intermediate;        /* width of dense layers */
	size_t expert_intermediate; /* F */
	size_t experts;             /* E */
	size_t experts_per_token;   /* K */
	float norm_eps;
	bool tied_embeddings;
	bool qk_norm;               /* RMSNorm per head before rotary */
	bool qkv_bias, o_bias;
	size_t sliding_window;      /* 0: none; else every layer */
	enum mc_router_kind router;
	bool renormalise;           /* routing weights divided by their sum */
	struct mc_rotary rotary;
	size_t max_positions;       /* max_position_embeddings */
	bool is_moe[MC_MAX_LAYERS]; /* per layer */
};

/* --- helpers for architecture files; missing or null means the default ------------------------- */

/* Errors INVALID with where = "config.json" and the key in the text. min/max inclusive. */
bool mc_config_size(const struct mc_json *config, const char *key, size_t fallback, size_t min,
    size_t max, size_t *ret, struct mc_error *err) MC_CHECKED;
/* As above, but the key is required. */
bool mc_config_require_size(const struct mc_json *config, const char *key, size_t min, size_t max,
    size_t *ret, struct mc_error *err) MC_CHECKED;
bool mc_config_number(const struct mc_json *config, const char *key, double fallback, double *ret,
    struct mc_error *err) MC_CHECKED;
bool mc_config_bool(const struct mc_json *config, const char *key, bool fallback, bool *ret,
    struct mc_error *err) MC_CHECKED;
/* hidden_act must be silu (absent is fine): UNSUPPORTED names what was found. */
bool mc_config_require_silu(const struct mc_json *config, struct mc_error *err) MC_CHECKED;
/* Rotary in both spellings (reference architectures 1.5, 1.6); head_dim * partial factor dims.
 * UNSUPPORTED names a kind that we do not have. */
bool mc_config_rotary(const struct mc_json *config, double default_theta, size_t head_dim,
    size_t max_positions, struct mc_rotary *ret, struct mc_error *err) MC_CHECKED;
/* Sizes that all of these decoders have: layers, hidden, vocab, heads, kv_heads, head_dim, norm_eps,
 * tie_word_embeddings, max_position_embeddings; checks heads % kv_heads. */
bool mc_config_common(const struct mc_json *config, double default_eps, struct mc_model_config *ret,
    struct mc_error *err) MC_CHECKED;
/* i in is_moe unless in mlp_only_layers or (i+1) % decoder_sparse_step != 0 (Qwen's rule). */
bool mc_config_sparse_layers(const struct mc_json *config, struct mc_model_config *ret,
    struct mc_error *err) MC_CHECKED;

/* Inverse frequencies [dims / 2], computed in float64, rounded once; includes the scaling. */
void mc_rotary_frequencies(const struct mc_rotary *rotary, float *ret_inv_freq);

#endif
