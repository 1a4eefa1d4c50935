/*
 * spec.h - the job spec: one struct, all defaults explicit, all errors at once
 */
#ifndef MC_SPEC_H
#define MC_SPEC_H

#include "moecal/dataset.h"
#include "moecal/dtype.h"
#include "moecal/recipe.h"

enum mc_expert_mode { MC_EXPERTS_ALL, MC_EXPERTS_ROUTED };
enum mc_pipeline { MC_PIPELINE_SEQUENTIAL, MC_PIPELINE_DATAFREE };
enum mc_keep { MC_KEEP_SUMMARY, MC_KEEP_CHANNELS };

struct mc_spec {
	char *model;                       /* path or id, as given; owned */
	struct mc_dataset_source *sources; /* owned, strings too */
	size_t sources_count;              /* 0: none */
	struct mc_recipe recipe;
	enum mc_expert_mode expert_mode;  /* calibrate_all_experts and expert_policy agree */
	uint64_t num_calibration_samples; /* 512 */
	enum mc_add_special add_special_tokens;
	uint64_t max_seq_length; /* 2048 */
	bool concatenate_data;
	bool shuffle_calibration_samples;
	uint64_t seed;
	enum mc_pipeline pipeline;
	bool propagate_error;
	bool granularity_layer; /* "stage" is false */
	bool save_model;
	enum mc_keep keep_statistics;
	enum mc_dtype precision;  /* MC_DTYPE_COUNT: auto = as stored */
	uint64_t threads;         /* 0: all of the machine */
	uint64_t memory_bytes;    /* 0: from the machine */
	struct mc_json *metadata; /* object; owned */
};

/*
 * Every problem is added with its pointer; usable only when none was. Unknown keys name the nearest
 * known one. compute "bfloat16" and expert modes floor and blend are UNSUPPORTED by name for now.
 * Returns false only when out of memory.
 */
bool mc_spec_parse(struct mc_spec *spec, const struct mc_json *json, struct mc_problems *problems,
    struct mc_error *err) MC_CHECKED;
void mc_spec_release(struct mc_spec *spec);
/* The spec with every default filled in, keys in the order of the reference; parsing it again gives
 * the same spec. New, owned. */
struct mc_json *mc_spec_json(const struct mc_spec *spec, struct mc_error *err) MC_CHECKED;

/* Key number `index` of the spec, in the order of the reference; NULL past the end. Static storage.
 */
const char *mc_spec_key(size_t index);

#endif
