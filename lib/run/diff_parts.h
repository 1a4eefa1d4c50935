/*
 * diff_parts.h - what the files that compare two job folders share
 */
#ifndef MC_RUN_DIFF_PARTS_H
#define MC_RUN_DIFF_PARTS_H

#include "moecal/diff.h"
#include "moecal/safetensors.h"

/* One thing that was compared, with its entry of the document. */
struct mc_diff_item {
	double value;
	size_t layer, expert; /* MC_NO_INDEX: of none */
	struct mc_json *json; /* owned until it is in a list */
};

struct mc_diff_list {
	size_t count, capacity;
	struct mc_diff_item *items; /* owned */
};

struct mc_diff_side {
	const char *folder;
	struct mc_json *spec, *manifest; /* manifest NULL: not finished. Owned */
	struct mc_json *modules;         /* rows of calibration.db; owned */
	struct mc_json *coverage;        /* owned */
	size_t layers_done;
	struct mc_st_file parameters; /* owned */
	bool has_parameters;
};

struct mc_diff_work {
	const struct mc_env *env;
	struct mc_diff_side side[2];
	struct mc_diff_list list[MC_DRIFT_COUNT];
	struct mc_diff_list layers; /* coverage of whole layers, without json */
	struct mc_json *unlike;     /* arrays; owned */
	struct mc_json *only[2];    /* objects of arrays; owned */
};

/* Takes json over, also on failure. */
bool mc_diff_add(struct mc_diff_list *list, double value, size_t layer, size_t expert,
    struct mc_json *json, struct mc_error *err) MC_CHECKED;
/* |a - b| / max(|a|, |b|); infinite when one is not finite and they differ. */
double mc_diff_relative(double a, double b);
/* A member of an object: a number, NAN when there is none; an index, MC_NO_INDEX likewise; a text.
 */
double mc_diff_number(const struct mc_json *object, const char *key);
size_t mc_diff_index(const struct mc_json *object, const char *key);
const char *mc_diff_text(const struct mc_json *object, const char *key);
/* Notes that only side `which` has something: list is "modules", "parameters" or "layers". */
bool mc_diff_only(struct mc_diff_work *work, size_t which, const char *list, const char *name,
    struct mc_error *err) MC_CHECKED;

/* Each fills its list, unlike and only. */
bool mc_diff_coverage(struct mc_diff_work *work, struct mc_error *err) MC_CHECKED;
bool mc_diff_modules(struct mc_diff_work *work, struct mc_error *err) MC_CHECKED;
bool mc_diff_parameters(struct mc_diff_work *work, struct mc_error *err) MC_CHECKED;

#endif
