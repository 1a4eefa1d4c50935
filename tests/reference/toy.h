/*
 * toy.h - tiny checkpoints with seeded random weights, whole or with one flaw
 *
 * The numbers of a weight depend on the seed and on what the weight is (layer, expert, role), not
 * on the spelling of its name, its layout or its shard: toys that differ only there hold equal
 * weights.
 */
#ifndef MC_REFERENCE_TOY_H
#define MC_REFERENCE_TOY_H

#include <stdint.h>

#include "moecal/dtype.h"

enum mc_toy_kind { MC_TOY_QWEN3_MOE, MC_TOY_MIXTRAL };

/* Names are those of tensors; NULL: this flaw is not there. */
struct mc_toy_flaw {
	const char *omit;    /* not written */
	const char *add;     /* one tensor [4] more */
	const char *shorten; /* its first dimension is one less */
	const char *retype;  /* stored as I32 zeros */
	const char *poison;  /* holds poison_value at element poison_at */
	size_t poison_at;
	float poison_value;
};

struct mc_toy {
	enum mc_toy_kind kind;
	uint64_t seed;
	enum mc_dtype dtype; /* BF16, F16 or F32 */
	size_t layers, hidden, heads, kv_heads, head_dim, vocab;
	size_t experts, experts_per_token, expert_intermediate;
	size_t intermediate;   /* of layers without experts */
	uint64_t dense_layers; /* bit l: layer l has none; qwen3_moe only */
	bool tied;             /* no lm_head is written, unless keep_head */
	bool keep_head;
	bool attention_bias; /* qwen3_moe only */
	bool version_5;      /* config in that spelling; mixtral: also its module names */
	bool fused;          /* the experts of a layer in two tensors */
	size_t shards;       /* 1: model.safetensors; more: with an index */
	const char *config;  /* a JSON object of members to set in config.json, or NULL */
	struct mc_toy_flaw flaw;
};

/* A toy of two layers, four experts, two a token, BF16, one shard. */
struct mc_toy mc_toy(enum mc_toy_kind kind);
/* Writes config.json and the shards into an existing folder. */
bool mc_toy_write(const struct mc_toy *toy, const char *folder, struct mc_error *err) MC_CHECKED;

#endif
