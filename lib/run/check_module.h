/*
 * check_module.h - everything that a verdict says about one quantized linear or attention module
 */
#ifndef MC_RUN_CHECK_MODULE_H
#define MC_RUN_CHECK_MODULE_H

#include "export.h"

#include "moecal/pack.h"
#include "moecal/verdict.h"

/* Where the tensors to check are: a checkpoint, or part files when none was written. */
struct mc_tensor_source {
	const struct mc_checkpoint *checkpoint;
	const struct mc_parts *parts;
};
/* NULL when absent. */
const struct mc_st_entry *mc_source_find(const struct mc_tensor_source *source, const char *name);
bool mc_source_read(const struct mc_tensor_source *source, const char *name, void *into,
    struct mc_error *err) MC_CHECKED;

/* What is compared between modules of one kind. */
struct mc_scale_facts {
	bool known;
	bool is_zero;             /* every code stands for zero */
	double weight_level;      /* mean log2 of what the last code stands for; not finite: none */
	double input_level;       /* log2 of the scale of its inputs; NAN: none is stored */
	const char *input_suffix; /* of that one; static */
};

struct mc_module_check {
	const char *name;
	const struct mc_scheme *scheme;
	enum mc_dtype dt;
	size_t rows, cols;
	const struct mc_weight *original; /* or NULL: no bound is checked */
	const struct mc_parts *computed;  /* or NULL: nothing to compare with */
	struct mc_scale_facts *facts;     /* or NULL: not asked for */
};

/* Arena bytes that one check takes at most, without the original's weight. */
bool mc_check_module_bytes(const struct mc_scheme *scheme, enum mc_dtype dt, size_t rows,
    size_t cols, uint64_t *ret_bytes, struct mc_error *err) MC_CHECKED;
/* Adds to verdict; false only when something cannot be read. One thread; arena is the worker's. */
bool mc_check_module(struct mc_verdict *verdict, const struct mc_module_check *check,
    const struct mc_tensor_source *source, struct mc_arena *arena, struct mc_error *err) MC_CHECKED;

/* The same of an attention module's parameters: layout as mc_attention_layout makes it, args those
 * of q, k and v; of `check` only name and computed matter. */
bool mc_check_attention(struct mc_verdict *verdict, const struct mc_module_check *check,
    const struct mc_packed *layout, const struct mc_quant_args *args,
    const struct mc_tensor_source *source, struct mc_arena *arena, struct mc_error *err) MC_CHECKED;
/* Arena bytes that it takes at most. */
uint64_t mc_check_attention_bytes(const struct mc_packed *layout);

/* The global scales of the linears that engines merge with the module `name`, when it is the first
 * of such a group (gate_proj, q_proj, q_a_proj, w1): equal to the bit, and none of them without. */
bool mc_check_fused(struct mc_verdict *verdict, const char *name,
    const struct mc_tensor_source *source, struct mc_error *err) MC_CHECKED;

/* Moves what `from` counted into `into`; `from` is empty afterwards. */
void mc_verdict_merge(struct mc_verdict *into, struct mc_verdict *from);

#endif
