/*
 * model.h - a checkpoint understood: its configuration and its named modules
 *
 * Modules stand in definition order, as the framework that wrote the checkpoint would walk them:
 * containers before their children, the first of them the whole model, whose name is "". Opening claims every tensor of the checkpoint for a module and
 * refuses what is left over, what is missing and what has another shape than config.json says.
 */
#ifndef MC_MODEL_H
#define MC_MODEL_H

#include "moecal/architecture.h"
#include "moecal/checkpoint.h"
#include "moecal/weight_source.h"

enum mc_module_kind {
	MC_KIND_CONTAINER, /* no weight of its own: model, layer, attention, expert, MoE block */
	MC_KIND_LINEAR,
	MC_KIND_ROUTER,    /* holds a weight [E, D], never quantized */
	MC_KIND_EMBEDDING,
	MC_KIND_NORM
};

enum mc_role {
	MC_ROLE_NONE,
	MC_ROLE_EMBED, MC_ROLE_HEAD, MC_ROLE_FINAL_NORM,
	MC_ROLE_ATTENTION_NORM, MC_ROLE_FFN_NORM, MC_ROLE_Q_NORM, MC_ROLE_K_NORM,
	MC_ROLE_Q, MC_ROLE_K, MC_ROLE_V, MC_ROLE_O,
	MC_ROLE_ROUTER, MC_ROLE_GATE, MC_ROLE_UP, MC_ROLE_DOWN,
	MC_ROLE_ATTENTION, MC_ROLE_MOE, MC_ROLE_LAYER, MC_ROLE_EXPERT
};
const char *mc_role_name(enum mc_role role); /* "q", "gate", "down", ... */

#define MC_NO_INDEX ((size_t)-1)

struct mc_moe_behaviour; /* forward.h: how an MoE block computes; NULL = as the original class */

struct mc_module {
	char *name;             /* full dotted name; owned */
	const char *class_name; /* "Linear", "Qwen3MoeSparseMoeBlock"; static or owned by whoever set it */
	enum mc_module_kind kind;
	enum mc_role role;
	size_t layer;           /* MC_NO_INDEX outside layers */
	size_t expert;          /* MC_NO_INDEX outside experts */
	size_t rows, cols;      /* of the weight; norms: rows = n, cols = 1 */
	/* Borrowed from the checkpoint, or from the model's source, which makes it (mc_module_is_made);
	 * NULL for containers, tied head. */
	const struct mc_ckpt_tensor *weight;
	const struct mc_ckpt_tensor *bias;   /* or NULL */
	bool has_bias;                       /* config.json gives it one */
	uint64_t weight_offset;              /* bytes into the tensor (a slice of a fused one) */
	uint64_t scratch_bytes;              /* arena bytes that making the weight takes; 0: it is stored */
	const struct mc_moe_behaviour *behaviour;
	void *data;             /* of a replacement; owner: the MoE calibration context */
};

/* Positions in mc_model.modules of what forward needs of one layer; MC_NO_INDEX = absent. */
struct mc_layer_index {
	size_t layer, attention, attention_norm, ffn_norm, q, k, v, o, q_norm, k_norm;
	size_t moe, router;
	size_t gate, up, down; /* dense layers: the MLP. MoE layers: of expert 0; expert e is at + 4 * e,
				* each expert being container, gate, up, down */
};

struct mc_model {
	struct mc_model_config config;
	const struct mc_architecture *arch;
	struct mc_checkpoint checkpoint; /* owned */
	struct mc_json *config_json;     /* as read; owned */
	enum mc_dtype dtype;             /* of the linears; mixed ones: of the first q_proj */
	size_t modules_count;
	struct mc_module **modules;      /* owned, each replaceable by mc_model_set_module */
	size_t *by_name;                 /* positions sorted by name, for mc_model_find; owned; may be NULL */
	struct mc_layer_index *layers;   /* [config.layers]; owned */
	size_t embed, final_norm, head;  /* head MC_NO_INDEX when tied */
	const struct mc_weight_source *source; /* borrowed; NULL: none */
	void *source_state;              /* NULL: every weight is stored as it is used */
};

/*
 * Reads headers and config.json only. Errors: UNSUPPORTED (architecture, tensor layout, already
 * quantized: names quant_method), CORRUPT (missing, left-over or misshapen tensor, by name), ...
 */
bool mc_model_open(struct mc_model *model, const struct mc_roots *roots, const char *folder,
    struct mc_error *err) MC_CHECKED;
/* The same for a checkpoint that may be quantized: `source` (NULL: none) decides what of it can be
 * read and makes those weights. Until it is closed the struct must stay where it is. */
bool mc_model_open_with(struct mc_model *model, const struct mc_roots *roots, const char *folder,
    const struct mc_weight_source *source, struct mc_error *err) MC_CHECKED;
/*
 * Only what config.json says: all modules with their sizes, whatever the checkpoint stores of them and
 * however. weight and bias stay NULL, but for slices of tensors that hold all experts of a layer.
 * Errors: those of config.json; CORRUPT for such a tensor with another shape.
 */
bool mc_model_outline(struct mc_model *model, const struct mc_roots *roots, const char *folder,
    struct mc_error *err) MC_CHECKED;
/* Whether a tensor of no module may be there all the same: of towers and heads that releases carry, of
 * layers behind the last one, of a tied head. */
bool mc_model_carries(const struct mc_model *model, const char *name);
void mc_model_close(struct mc_model *model);

/* What config.json says about an earlier quantization, at any of the places where loaders look; NULL:
 * nothing. Borrowed. */
const struct mc_json *mc_model_quantization(const struct mc_json *config_json);
/* How the weights are stored: "dense", or what the source says. Borrowed. */
const char *mc_model_format(const struct mc_model *model);
/* What tensor number `tensor` of the checkpoint is to the model's source. */
enum mc_stored mc_model_stored(const struct mc_model *model, size_t tensor);
/* Numbers in all tensors, a weight that the source makes counted as what it makes of it. */
uint64_t mc_model_parameters(const struct mc_model *model);

/* Whether the module's weight is a part of a tensor that others share (fused experts). */
bool mc_module_is_slice(const struct mc_module *module);
/* Whether the module's weight is made by the model's source; then only mc_model_read_weight reads it. */
bool mc_module_is_made(const struct mc_module *module);

struct mc_module *mc_model_find(const struct mc_model *model, const char *name); /* or NULL */
/* Puts `module` in the place of the module of the same name and returns the old one, whose owner is
 * then the caller. NULL when there is no such name. */
struct mc_module *mc_model_set_module(struct mc_model *model, const char *name, struct mc_module *module);
/* Module `offset` (0 container, 1 gate, 2 up, 3 down) of expert e of a MoE layer. */
struct mc_module *mc_model_expert(const struct mc_model *model, size_t layer, size_t expert, size_t offset);

/*
 * A weight read from the checkpoint into env->arena, as stored, or rounded to `precision` (a weight
 * dtype; MC_DTYPE_COUNT: as stored). NaN and Inf are refused: CORRUPT naming the tensor, its first
 * bad position and the value. Bias, when there is one, as float32.
 */
bool mc_model_read_weight(const struct mc_model *model, const struct mc_module *module,
    enum mc_dtype precision, struct mc_weight *ret, const struct mc_env *env, struct mc_error *err)
    MC_CHECKED;
/* Arena bytes that mc_model_read_weight takes at most. */
uint64_t mc_model_read_bytes(const struct mc_module *module, enum mc_dtype precision);
/* A norm's weight as float32 [rows], rounded to precision first. Same errors. */
bool mc_model_read_vector(const struct mc_model *model, const struct mc_module *module,
    enum mc_dtype precision, float **ret, const struct mc_env *env, struct mc_error *err) MC_CHECKED;

#endif
