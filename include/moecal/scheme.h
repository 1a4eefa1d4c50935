/*
 * scheme.h - quantization schemes in compressed-tensors' words: parse, check, preset, write
 *
 * Source of every rule: compressed-tensors 0.19 (QuantizationArgs, QuantizationScheme, presets).
 */
#ifndef MC_SCHEME_H
#define MC_SCHEME_H

#include "moecal/dtype.h"
#include "moecal/json.h"

enum mc_quant_type { MC_QUANT_INT, MC_QUANT_FLOAT };
enum mc_strategy {
	MC_STRATEGY_TENSOR, MC_STRATEGY_CHANNEL, MC_STRATEGY_GROUP, MC_STRATEGY_BLOCK, MC_STRATEGY_TOKEN,
	MC_STRATEGY_TENSOR_GROUP, MC_STRATEGY_ATTN_HEAD
};
enum mc_dynamic { MC_DYNAMIC_NO, MC_DYNAMIC_YES, MC_DYNAMIC_LOCAL };

struct mc_quant_args {
	enum mc_quant_type type;
	unsigned num_bits;
	bool symmetric;
	enum mc_strategy strategy;
	int64_t group_size;          /* as written: > 0, -1 or 0 = null */
	bool group_size_zero;        /* not null but 0, for which no strategy has a use */
	uint64_t block_rows, block_cols; /* 0 = null */
	enum mc_dynamic dynamic;
	char actorder[16];           /* "", "weight" or "static" */
	char scale_dtype[32];        /* "" = null, else "torch.uint8", ... */
	char zp_dtype[32];           /* "" = null (always when symmetric) */
	char observer[48];           /* "" = null */
	struct mc_json *observer_kwargs; /* owned object */
};

enum mc_format {
	MC_FORMAT_DENSE, MC_FORMAT_PACK, MC_FORMAT_INT, MC_FORMAT_FLOAT, MC_FORMAT_NAIVE,
	MC_FORMAT_NVFP4, MC_FORMAT_MXFP4, MC_FORMAT_MXFP8, MC_FORMAT_MIXED
};
const char *mc_format_name(enum mc_format format); /* "pack-quantized" */

struct mc_scheme {
	char *name;            /* of its config group: "group_0"; owned */
	size_t targets_count;
	char **targets;        /* owned */
	bool has_weights, has_input, has_output;
	struct mc_quant_args weights, input, output;
	enum mc_format format;
};

/* What one of several modifiers contributed: so many of the groups and ignore entries, in order. */
struct mc_quant_part {
	size_t schemes, ignore;
};

struct mc_quant_config {
	size_t count;
	struct mc_scheme *schemes; /* config groups in order; owned */
	size_t ignore_count;
	char **ignore;             /* owned */
	bool has_kv_cache;
	struct mc_quant_args kv_cache;
	size_t parts_count;          /* 0: all is of one modifier */
	struct mc_quant_part *parts; /* in the order of the modifiers; owned */
};

void mc_quant_config_init(struct mc_quant_config *config);
void mc_quant_config_release(struct mc_quant_config *config);

/* Collects more than one complaint: called for every error found, with a JSON pointer. */
struct mc_problems;

/*
 * `modifier` is the field object of a QuantizationModifier: targets, ignore, scheme (a preset name, or
 * {preset: targets}), config_groups, kv_cache_scheme, weight_observer, input_observer,
 * output_observer ... `pointer` is its JSON pointer, for messages. Missing observers are filled in as
 * the reference does (memoryless_minmax for weights, minmax for activations, none for what is
 * dynamic). A format that was asked for is kept, also where it is not the inferred one.
 * All errors are added to problems; the result is usable only when none were added.
 * Returns false only when out of memory.
 */
bool mc_quant_config_parse(struct mc_quant_config *config, const struct mc_json *modifier,
    const char *pointer, struct mc_problems *problems, struct mc_error *err) MC_CHECKED;
/* The preset `name` (any case) with targets ["Linear"] and ignore as given. UNSUPPORTED lists presets. */
bool mc_quant_config_preset(struct mc_quant_config *config, const char *name, const char *const *ignore,
    size_t ignore_count, struct mc_error *err) MC_CHECKED;
bool mc_scheme_is_preset(const char *name);
/*
 * Appends the config of a modifier that comes after: where both have a scheme for a module the later
 * one wins, and a later group without any arguments leaves its modules as they are. Groups get names
 * that are not taken. `from` is empty afterwards.
 */
bool mc_quant_config_append(
    struct mc_quant_config *config, struct mc_quant_config *from, struct mc_error *err) MC_CHECKED;

/* The object in a config.json: quantization_config, text_config.quantization_config or
 * compression_config; NULL when there is none. Borrowed. */
const struct mc_json *mc_quant_config_find(const struct mc_json *config);
/*
 * Reads a written quantization_config. Passed over: unknown keys and observers, missing formats,
 * scale_dtype and zp_dtype; actorder of older versions is kept. Errors: UNSUPPORTED for another
 * quant_method, sparse weights and formats of older versions, by name; CORRUPT.
 */
bool mc_quant_config_read(struct mc_quant_config *config, const struct mc_json *quantization_config,
    struct mc_error *err) MC_CHECKED;

/* First match of the reference's list (1.4). UNSUPPORTED for what has no compressor. */
bool mc_scheme_infer_format(const struct mc_scheme *scheme, enum mc_format *ret, struct mc_error *err)
    MC_CHECKED;
/* What this program cannot compute yet, by name; true when all can be done. */
bool mc_scheme_require_supported(const struct mc_scheme *scheme, struct mc_error *err) MC_CHECKED;
/* Whether calibration data are needed. */
bool mc_quant_config_needs_data(const struct mc_quant_config *config);

/* QuantizationArgs as written to config.json, every key; NULL args = JSON null. New, owned. */
struct mc_json *mc_quant_args_json(const struct mc_quant_args *args, struct mc_error *err) MC_CHECKED;
/* One config group: format, input_activations, output_activations, targets, weights. New, owned. */
struct mc_json *mc_scheme_json(const struct mc_scheme *scheme, struct mc_error *err) MC_CHECKED;

#endif
