/*
 * architecture.h - the registry of model families
 *
 * To add one: lib/model/arch_x.c with a struct mc_architecture (a table of names and a parse
 * function), one row in architecture.c, one fixture. In names, "{l}" is the layer and "{e}" the expert.
 */
#ifndef MC_ARCHITECTURE_H
#define MC_ARCHITECTURE_H

#include "moecal/config.h"

/* Module names as in the checkpoint, relative to nothing: full dotted names without ".weight". */
struct mc_arch_names {
	const char *model; /* the decoder without its head: "model" */
	const char *embed, *final_norm, *lm_head;
	const char *layer;      /* "model.layers.{l}" */
	const char *attention;  /* "model.layers.{l}.self_attn" */
	const char *attention_norm, *ffn_norm;
	const char *q, *k, *v, *o, *q_norm, *k_norm;
	const char *moe;        /* the MoE block: "model.layers.{l}.mlp" */
	const char *experts;    /* the list: "model.layers.{l}.mlp.experts" */
	const char *router;
	const char *expert;     /* "model.layers.{l}.mlp.experts.{e}" */
	const char *gate, *up, *down;                    /* of one expert */
	const char *dense, *dense_gate, *dense_up, *dense_down; /* of layers without experts */
};

/* Class names of transformers: targets and the MoE registry are written in them. */
struct mc_arch_classes {
	const char *causal_lm, *model, *layer, *attention, *moe, *experts, *expert, *router, *norm, *dense;
};

struct mc_architecture {
	const char *model_type;
	struct mc_arch_classes classes;
	struct mc_arch_names names;
	/* NULL or a second set of names that some files use; the one whose router exists is taken. */
	const struct mc_arch_names *alternative;
	/* Prefixes of tensors that releases carry and the decoder does not use; NULL-terminated. */
	const char *const *ignored_prefixes;
	bool (*parse_config)(const struct mc_json *config, struct mc_model_config *ret,
	    struct mc_error *err);
};

/* By model_type, else architectures[0]. UNSUPPORTED lists what is there. Borrowed, static. */
const struct mc_architecture *mc_architecture_find(const struct mc_json *config, struct mc_error *err);
/* Row number `index`; NULL past the end. */
const struct mc_architecture *mc_architecture_at(size_t index);

#endif
