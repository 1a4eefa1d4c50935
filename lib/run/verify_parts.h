/*
 * verify_parts.h - what the files that check a checkpoint folder share
 */
#ifndef MC_RUN_VERIFY_PARTS_H
#define MC_RUN_VERIFY_PARTS_H

#include "check_module.h"

#include "moecal/match.h"
#include "moecal/model.h"

/* A module as the names of tensors and config.json tell it. */
struct mc_found {
	char *name;                       /* owned */
	const struct mc_module *expected; /* of the outline, or NULL */
	bool linear;           /* has a two-dimensional weight, codes or a weight scale */
	bool quantized;        /* some parameter of a quantized module is there */
	size_t rows, cols;     /* 0: not known */
	const char *size_from; /* the suffix of the tensor that says so; static */
	enum mc_dtype dt;      /* of its scales; MC_DTYPE_COUNT: not known */
	size_t scheme;         /* MC_NO_SCHEME: stored as it is */
	struct mc_scale_facts facts;
};

enum mc_taken {
	MC_TAKEN_NOT,  /* nobody asked for it */
	MC_TAKEN_PART, /* of a quantized module */
	MC_TAKEN_PLAIN /* a tensor of the model as it is */
};

struct mc_verification {
	struct mc_verdict *verdict;
	const struct mc_env *env;
	struct mc_checkpoint checkpoint; /* owned */
	struct mc_json *json;            /* config.json; owned */
	struct mc_quant_config config;   /* owned */
	enum mc_dtype dtype;             /* of the model, as config.json says */
	const struct mc_model *outline;  /* what should be there; NULL: of a family not known */
	const struct mc_model *original; /* or NULL */
	size_t count, capacity;
	struct mc_found *found; /* sorted by name; owned */
	unsigned char *taken;   /* [checkpoint.count] of enum mc_taken; owned */
};

/* Counts an error that says what is wrong with the folder as a failed check, and empties it. false:
 * it is one of the machine, of the request, or of what this program can do. */
bool mc_verify_note(struct mc_verdict *verdict, enum mc_check_id check, struct mc_error *err);

/* Index, shards and their headers; *ret_usable: the checkpoint can be opened. */
bool mc_verify_files(struct mc_verdict *verdict, const char *folder, const struct mc_env *env,
    bool *ret_usable, struct mc_error *err) MC_CHECKED;
/* Tensors of the shards that the index does not list; the checkpoint is open. */
void mc_verify_unlisted(const struct mc_verification *v);

/* config.json into json, config and dtype; *ret_usable: there is something to check by. */
bool mc_verify_read_config(
    struct mc_verification *v, bool *ret_usable, struct mc_error *err) MC_CHECKED;
/* Names in targets and ignore that no module has. After mc_verify_take_inventory. */
void mc_verify_names(const struct mc_verification *v);

/* All modules, each with its scheme. Errors: INVALID for a pattern that does not compile. */
bool mc_verify_take_inventory(struct mc_verification *v, struct mc_error *err) MC_CHECKED;
struct mc_found *mc_verify_find(const struct mc_verification *v, const char *name);
void mc_verify_take(const struct mc_verification *v, const char *name, enum mc_taken as);

/* Tensors of modules that are not quantized: presence, shape, values; and what nobody asked for. */
bool mc_verify_rest(const struct mc_verification *v, struct mc_error *err) MC_CHECKED;
/* Whether a tensor of no module may be there: mc_model_carries, and of layers behind the last one
 * only as many as config.json tells of. Needs an outline. */
bool mc_verify_may_stay(const struct mc_verification *v, const char *name);
/* The number that follows `word` ("layers.") in a name; false: there is none. */
bool mc_verify_number(const char *name, const char *word, size_t *ret);
/* A size of config.json or of its text_config; 0: it does not say. */
size_t mc_verify_size(const struct mc_verification *v, const char *key);
/* Layers behind the last one, which predict further tokens. */
size_t mc_verify_extra_layers(const struct mc_verification *v);
/* Layers and experts by their numbers, for families that are not known. */
bool mc_verify_numbers(const struct mc_verification *v, struct mc_error *err) MC_CHECKED;
/* Modules of one kind against each other: scales that are out of all proportion. */
bool mc_verify_proportions(const struct mc_verification *v, struct mc_error *err) MC_CHECKED;
/* Gives modules the dtype that most of their kind have. */
bool mc_verify_settle_dtypes(struct mc_verification *v, struct mc_error *err) MC_CHECKED;

#endif
