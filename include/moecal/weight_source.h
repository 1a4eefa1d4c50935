/*
 * weight_source.h - weights that a checkpoint does not store as they are used
 *
 * The model floor knows names, shapes and the dtypes F32, F16 and BF16; how a quantization stores a
 * weight is known further up (dequantize.h). Who opens a model may hand in a source. It says which
 * weights it makes and from which tensors, and makes them when they are read, one module at a time.
 */
#ifndef MC_WEIGHT_SOURCE_H
#define MC_WEIGHT_SOURCE_H

#include "moecal/checkpoint.h"
#include "moecal/env.h"

struct mc_model;

/* mc_ckpt_tensor.shard of a weight that no shard holds: only its source can read it. */
#define MC_NO_SHARD UINT32_MAX

enum mc_stored {
	MC_STORED_PLAIN,  /* nothing to do with the source */
	MC_STORED_PART,   /* belongs to a module whose weight the source makes */
	MC_STORED_FOREIGN /* quantized likewise, but of a module that the model does not have */
};

/* Row after row of a weight, `row` [cols], not rounded to a dtype yet. The callee may overwrite it. */
typedef bool mc_weight_row_fn(void *ctx, float *row, struct mc_error *err);

struct mc_weight_source {
	/*
	 * Called once all modules are listed, before a tensor is claimed for any. *ret_state NULL: all
	 * weights are stored as they are used. Reads headers and config.json only. The model outlives
	 * the state, and its checkpoint stays where it is. Errors: UNSUPPORTED (what was found, what can
	 * be read), CORRUPT (a tensor that is missing or has another dtype or shape, by name), ...
	 */
	bool (*open)(const struct mc_model *model, void **ret_state, struct mc_error *err);
	void (*close)(void *state); /* NULL is fine */
	/* What the checkpoint's format is, for people: "compressed-tensors pack-quantized". Borrowed. */
	const char *(*format)(const void *state);
	/* Of module number `module`: the weight as it will be read, with that dtype and shape and
	 * MC_NO_SHARD, borrowed from the state; NULL: it is stored as it is used. */
	const struct mc_ckpt_tensor *(*find)(const void *state, size_t module);
	/* What tensor number `tensor` of the checkpoint is. */
	enum mc_stored (*stored)(const void *state, size_t tensor);
	/* Arena bytes that `read` takes at most; all are given back. */
	uint64_t (*scratch)(const void *state, const struct mc_ckpt_tensor *weight);
	/* All rows in order. Any thread, each with its own env->arena. Errors: NO_MEMORY, IO, CORRUPT,
	 * UNSUPPORTED, those of `take`. */
	bool (*read)(const void *state, const struct mc_ckpt_tensor *weight, mc_weight_row_fn *take,
	    void *ctx, const struct mc_env *env, struct mc_error *err);
};

#endif
