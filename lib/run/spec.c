/*
 * spec.c - the table of the job spec: one row a key
 */
#include "moecal/spec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"

#define MAX_SOURCES 64

/* Everything that reading one key needs. */
struct context {
	struct mc_spec *spec;
	struct mc_problems *problems;
	struct mc_error *err;
	bool all_experts_given, policy_given;
	bool out_of_memory;
};

typedef void read_fn(struct context *c, const struct mc_json *value, const char *pointer);

static void wrong_type(
    struct context *c, const char *pointer, const char *needed, const struct mc_json *value)
{
	mc_problems_add(c->problems, pointer, "must be %s, not %s %s", needed,
	    mc_json_type(value) == MC_JSON_INTEGER || mc_json_type(value) == MC_JSON_ARRAY ||
		    mc_json_type(value) == MC_JSON_OBJECT
		? "an"
		: "a",
	    mc_json_type_name(mc_json_type(value)));
}

static bool read_bool(
    struct context *c, const struct mc_json *value, const char *pointer, bool *ret)
{
	if (mc_json_type(value) != MC_JSON_BOOL) {
		wrong_type(c, pointer, "true or false", value);
		return false;
	}
	*ret = mc_json_bool(value);
	return true;
}

static bool read_count(struct context *c, const struct mc_json *value, const char *pointer,
    int64_t min, int64_t max, uint64_t *ret)
{
	if (mc_json_type(value) != MC_JSON_INTEGER) {
		wrong_type(c, pointer, "an integer", value);
		return false;
	}
	int64_t n = mc_json_integer(value);
	if (n < min || n > max) {
		mc_problems_add(c->problems, pointer, "is %lld, must be between %lld and %lld",
		    (long long)n, (long long)min, (long long)max);
		return false;
	}
	*ret = (uint64_t)n;
	return true;
}

/* The position of the string in `choices`, which ends with NULL; the message lists them. */
static bool read_choice(struct context *c, const struct mc_json *value, const char *pointer,
    const char *const *choices, size_t *ret)
{
	char list[256] = "";

	if (mc_json_type(value) == MC_JSON_STRING)
		for (size_t i = 0; choices[i] != NULL; i++)
			if (strcmp(mc_json_string(value, NULL), choices[i]) == 0) {
				*ret = i;
				return true;
			}
	for (size_t i = 0; choices[i] != NULL; i++)
		snprintf(list + strlen(list), sizeof list - strlen(list), "%s'%s'",
		    i > 0 ? ", " : "", choices[i]);
	mc_problems_add(c->problems, pointer, "must be one of %s%s%.64s%s", list,
	    mc_json_type(value) == MC_JSON_STRING ? ", not '" : "",
	    mc_json_type(value) == MC_JSON_STRING ? mc_json_string(value, NULL) : "",
	    mc_json_type(value) == MC_JSON_STRING ? "'" : "");
	return false;
}

static char *copy_text(
    struct context *c, const struct mc_json *value, const char *pointer, const char *what)
{
	size_t length;

	if (mc_json_type(value) != MC_JSON_STRING) {
		wrong_type(c, pointer, what, value);
		return NULL;
	}
	const char *text = mc_json_string(value, &length);
	if (length == 0 || strlen(text) != length || length > 4096) {
		mc_problems_add(
		    c->problems, pointer, "must be %s of 1 to 4096 bytes without NUL", what);
		return NULL;
	}
	char *copy = mc_strdup(text, c->err);
	c->out_of_memory |= copy == NULL;
	return copy;
}

/* --- one reader a key ------------------------------------------------------------------------- */

static void read_model(struct context *c, const struct mc_json *value, const char *pointer)
{
	c->spec->model = copy_text(c, value, pointer, "a path or an id");
}

static void read_source_object(struct context *c, const struct mc_json *value, const char *pointer,
    struct mc_dataset_source *source)
{
	static const char *const known[] = {"path", "text_column", "num_samples"};
	char child[160];

	for (size_t i = 0; i < mc_json_size(value); i++) {
		const char *key;
		const struct mc_json *member = mc_json_member(value, i, &key);
		mc_pointer_join(child, pointer, key);
		if (strcmp(key, "path") == 0)
			source->path = copy_text(c, member, child, "a path or an id");
		else if (strcmp(key, "text_column") == 0 && !mc_json_is_null(member))
			source->text_column = copy_text(c, member, child, "a column name");
		else if (strcmp(key, "num_samples") == 0 && !mc_json_is_null(member))
			read_count(c, member, child, 1, INT64_MAX, &source->num_samples);
		else if (strcmp(key, "text_column") != 0 && strcmp(key, "num_samples") != 0)
			mc_problems_add_unknown_key(c->problems, pointer, key, known, 3);
	}
	if (mc_json_get(value, "path") == NULL)
		mc_problems_add(
		    c->problems, mc_pointer_join(child, pointer, "path"), "is required");
}

static void read_source(struct context *c, const struct mc_json *value, const char *pointer)
{
	struct mc_dataset_source *source = &c->spec->sources[c->spec->sources_count++];

	if (mc_json_type(value) == MC_JSON_OBJECT)
		read_source_object(c, value, pointer, source);
	else
		source->path = copy_text(
		    c, value, pointer, "a path, an id or {path, text_column, num_samples}");
}

static void read_dataset(struct context *c, const struct mc_json *value, const char *pointer)
{
	bool list = mc_json_type(value) == MC_JSON_ARRAY;
	size_t count = list ? mc_json_size(value) : 1;

	if (list && (count == 0 || count > MAX_SOURCES)) {
		mc_problems_add(c->problems, pointer,
		    "the list has %zu entries, it must have 1 to %d", count, MAX_SOURCES);
		return;
	}
	c->spec->sources = mc_alloc(count, sizeof *c->spec->sources, "datasets", c->err);
	if (c->spec->sources == NULL) {
		c->out_of_memory = true;
		return;
	}
	for (size_t i = 0; i < count; i++) {
		char child[160];
		read_source(c, list ? mc_json_at(value, i) : value,
		    list ? mc_pointer_index(child, pointer, i) : pointer);
	}
}

static void read_recipe(struct context *c, const struct mc_json *value, const char *pointer)
{
	c->out_of_memory |= !mc_recipe_parse(&c->spec->recipe, value, pointer, c->problems, c->err);
}

static void read_all_experts(struct context *c, const struct mc_json *value, const char *pointer)
{
	bool all;

	if (!read_bool(c, value, pointer, &all))
		return;
	enum mc_expert_mode mode = all ? MC_EXPERTS_ALL : MC_EXPERTS_ROUTED;
	if (c->all_experts_given && mode != c->spec->expert_mode)
		mc_problems_add(c->problems, pointer, "contradicts the other spelling of this key");
	c->all_experts_given = true;
	if (c->policy_given && mode != c->spec->expert_mode)
		mc_problems_add(c->problems, pointer, "contradicts expert_policy");
	c->spec->expert_mode = mode;
}

static void read_policy(struct context *c, const struct mc_json *value, const char *pointer)
{
	static const char *const known[] = {"mode", "floor_tokens", "routed_share"};
	static const char *const modes[] = {"all", "routed", "floor", "blend", NULL};
	char child[160];
	size_t mode;

	if (mc_json_type(value) != MC_JSON_OBJECT) {
		wrong_type(c, pointer, "an object", value);
		return;
	}
	for (size_t i = 0; i < mc_json_size(value); i++) {
		const char *key;
		mc_json_member(value, i, &key);
		if (strcmp(key, "mode") != 0)
			mc_problems_add_unknown_key(c->problems, pointer, key, known, 1);
	}
	mc_pointer_join(child, pointer, "mode");
	if (mc_json_get(value, "mode") == NULL)
		mc_problems_add(c->problems, child, "is required");
	else if (read_choice(c, mc_json_get(value, "mode"), child, modes, &mode)) {
		if (mode >= 2)
			mc_problems_add(c->problems, child,
			    "'%s' is not there yet; this version has 'all' and 'routed'",
			    modes[mode]);
		enum mc_expert_mode chosen = mode == 1 ? MC_EXPERTS_ROUTED : MC_EXPERTS_ALL;
		if (c->all_experts_given && chosen != c->spec->expert_mode)
			mc_problems_add(c->problems, child, "contradicts calibrate_all_experts");
		c->spec->expert_mode = chosen;
		c->policy_given = true;
	}
}

static void read_samples(struct context *c, const struct mc_json *value, const char *pointer)
{
	read_count(c, value, pointer, 1, 1 << 24, &c->spec->num_calibration_samples);
}

static void read_special(struct context *c, const struct mc_json *value, const char *pointer)
{
	bool given;

	if (mc_json_type(value) == MC_JSON_STRING &&
	    strcmp(mc_json_string(value, NULL), "auto") == 0)
		c->spec->add_special_tokens = MC_ADD_SPECIAL_AUTO;
	else if (mc_json_type(value) == MC_JSON_STRING)
		mc_problems_add(c->problems, pointer, "must be true, false or 'auto'");
	else if (read_bool(c, value, pointer, &given))
		c->spec->add_special_tokens = given ? MC_ADD_SPECIAL_YES : MC_ADD_SPECIAL_NO;
}

static void read_length(struct context *c, const struct mc_json *value, const char *pointer)
{
	read_count(c, value, pointer, 1, 1 << 24, &c->spec->max_seq_length);
}

static void read_concatenate(struct context *c, const struct mc_json *value, const char *pointer)
{
	read_bool(c, value, pointer, &c->spec->concatenate_data);
}

static void read_shuffle(struct context *c, const struct mc_json *value, const char *pointer)
{
	read_bool(c, value, pointer, &c->spec->shuffle_calibration_samples);
}

static void read_seed(struct context *c, const struct mc_json *value, const char *pointer)
{
	read_count(c, value, pointer, 0, INT64_MAX, &c->spec->seed);
}

static void read_pipeline(struct context *c, const struct mc_json *value, const char *pointer)
{
	static const char *const choices[] = {"sequential", "datafree", NULL};
	size_t choice;
	if (read_choice(c, value, pointer, choices, &choice))
		c->spec->pipeline = choice == 1 ? MC_PIPELINE_DATAFREE : MC_PIPELINE_SEQUENTIAL;
}

static void read_propagate(struct context *c, const struct mc_json *value, const char *pointer)
{
	read_bool(c, value, pointer, &c->spec->propagate_error);
}

static void read_granularity(struct context *c, const struct mc_json *value, const char *pointer)
{
	static const char *const choices[] = {"stage", "layer", NULL};
	size_t choice;
	if (read_choice(c, value, pointer, choices, &choice))
		c->spec->granularity_layer = choice == 1;
}

static void read_save(struct context *c, const struct mc_json *value, const char *pointer)
{
	read_bool(c, value, pointer, &c->spec->save_model);
}

static void read_keep(struct context *c, const struct mc_json *value, const char *pointer)
{
	static const char *const choices[] = {"summary", "channels", "hessians", NULL};
	size_t choice;
	if (!read_choice(c, value, pointer, choices, &choice))
		return;
	if (choice == 2)
		mc_problems_add(c->problems, pointer,
		    "'hessians' is not there yet; this version keeps 'summary' or 'channels'");
	c->spec->keep_statistics = choice == 1 ? MC_KEEP_CHANNELS : MC_KEEP_SUMMARY;
}

static void read_precision(struct context *c, const struct mc_json *value, const char *pointer)
{
	static const char *const choices[] = {"auto", "float32", "bfloat16", "float16", NULL};
	static const enum mc_dtype dtypes[] = {MC_DTYPE_COUNT, MC_F32, MC_BF16, MC_F16};
	size_t choice;
	if (read_choice(c, value, pointer, choices, &choice))
		c->spec->precision = dtypes[choice];
}

static void read_compute(struct context *c, const struct mc_json *value, const char *pointer)
{
	static const char *const choices[] = {"auto", "float32", "bfloat16", NULL};
	size_t choice;
	if (read_choice(c, value, pointer, choices, &choice) && choice == 2)
		mc_problems_add(c->problems, pointer,
		    "'bfloat16' is not there yet; this version computes in 'float32'");
}

static void read_threads(struct context *c, const struct mc_json *value, const char *pointer)
{
	read_count(c, value, pointer, 1, 1024, &c->spec->threads);
}

static void read_memory(struct context *c, const struct mc_json *value, const char *pointer)
{
	read_count(c, value, pointer, 1 << 20, INT64_MAX, &c->spec->memory_bytes);
}

static void read_metadata(struct context *c, const struct mc_json *value, const char *pointer)
{
	if (mc_json_type(value) != MC_JSON_OBJECT) {
		wrong_type(c, pointer, "an object", value);
		return;
	}
	mc_json_free(c->spec->metadata);
	c->spec->metadata = mc_json_copy(value, c->err);
	c->out_of_memory |= c->spec->metadata == NULL;
}

/* --- the table -------------------------------------------------------------------------------- */

static const struct row {
	const char *key;
	read_fn *read;
	bool null_is_default; /* null means the same as absent */
} rows[] = {
    {"model", read_model, false},
    {"dataset", read_dataset, true},
    {"recipe", read_recipe, false},
    {"calibrate_all_experts", read_all_experts, false},
    {"moe_calibrate_all_experts", read_all_experts, false},
    {"expert_policy", read_policy, false},
    {"num_calibration_samples", read_samples, false},
    {"add_special_tokens", read_special, false},
    {"max_seq_length", read_length, false},
    {"concatenate_data", read_concatenate, false},
    {"shuffle_calibration_samples", read_shuffle, false},
    {"seed", read_seed, false},
    {"pipeline", read_pipeline, false},
    {"propagate_error", read_propagate, false},
    {"sequential_granularity", read_granularity, false},
    {"save_model", read_save, false},
    {"keep_statistics", read_keep, false},
    {"precision", read_precision, false},
    {"compute", read_compute, false},
    {"threads", read_threads, true},
    {"memory_bytes", read_memory, true},
    {"metadata", read_metadata, false},
};
#define ROWS (sizeof rows / sizeof *rows)

const char *mc_spec_key(size_t index)
{
	return index < ROWS ? rows[index].key : NULL;
}

static void unknown_key(struct context *c, const char *key)
{
	const char *known[ROWS];
	for (size_t i = 0; i < ROWS; i++)
		known[i] = rows[i].key;
	mc_problems_add_unknown_key(c->problems, "", key, known, ROWS);
}

static void read_members(struct context *c, const struct mc_json *json)
{
	for (size_t i = 0; i < mc_json_size(json); i++) {
		const char *key;
		char pointer[160];
		const struct mc_json *value = mc_json_member(json, i, &key);
		size_t r = 0;
		mc_pointer_join(pointer, "", key);
		while (r < ROWS && strcmp(rows[r].key, key) != 0)
			r++;
		if (r == ROWS)
			unknown_key(c, key);
		else if (!rows[r].null_is_default || !mc_json_is_null(value))
			rows[r].read(c, value, pointer);
	}
}

static void check_whole(struct context *c, const struct mc_json *json)
{
	struct mc_spec *spec = c->spec;

	if (mc_json_get(json, "model") == NULL)
		mc_problems_add(c->problems, "/model", "is required");
	if (mc_json_get(json, "recipe") == NULL)
		mc_problems_add(c->problems, "/recipe", "is required");
	bool needs = spec->recipe.json != NULL && mc_quant_config_needs_data(&spec->recipe.config);
	if (needs && spec->sources_count == 0)
		mc_problems_add(
		    c->problems, "/dataset", "is required: the recipe has static activations");
	if (needs && spec->pipeline == MC_PIPELINE_DATAFREE)
		mc_problems_add(c->problems, "/pipeline",
		    "'datafree' is not possible: the recipe has static activations");
	if (spec->sources_count == 0)
		spec->pipeline = MC_PIPELINE_DATAFREE;
}

bool mc_spec_parse(struct mc_spec *spec, const struct mc_json *json, struct mc_problems *problems,
    struct mc_error *err)
{
	struct context c = {.spec = spec, .problems = problems, .err = err};

	*spec = (struct mc_spec){.num_calibration_samples = 512,
	    .max_seq_length = 2048,
	    .propagate_error = true,
	    .save_model = true,
	    .precision = MC_DTYPE_COUNT};
	if (mc_json_type(json) != MC_JSON_OBJECT) {
		mc_problems_add(problems, "", "a job spec must be an object, not %s",
		    mc_json_type_name(mc_json_type(json)));
		return true;
	}
	spec->metadata = mc_json_new_object();
	if (spec->metadata == NULL)
		return mc_fail(err, MC_NO_MEMORY, "spec", "no memory for the spec");
	read_members(&c, json);
	if (c.out_of_memory)
		return false;
	check_whole(&c, json);
	return true;
}

void mc_spec_release(struct mc_spec *spec)
{
	for (size_t i = 0; i < spec->sources_count; i++) {
		free((char *)spec->sources[i].path);
		free((char *)spec->sources[i].text_column);
	}
	free(spec->sources);
	free(spec->model);
	mc_recipe_release(&spec->recipe);
	mc_json_free(spec->metadata);
	*spec = (struct mc_spec){0};
}

/* --- writing ---------------------------------------------------------------------------------- */

static struct mc_json *sources_json(const struct mc_spec *spec, struct mc_error *err)
{
	if (spec->sources_count == 0)
		return mc_json_new_null();
	struct mc_json *list = mc_json_new_array();
	bool ok = list != NULL;
	for (size_t i = 0; ok && i < spec->sources_count; i++) {
		const struct mc_dataset_source *source = &spec->sources[i];
		struct mc_json *one = mc_json_new_object();
		ok = mc_json_append(list, one, err) &&
		     mc_json_set(one, "path", mc_json_new_string(source->path), err) &&
		     mc_json_set(one, "text_column",
			 mc_json_new_string(
			     source->text_column != NULL ? source->text_column : "text"),
			 err) &&
		     mc_json_set(one, "num_samples",
			 source->num_samples > 0 ? mc_json_new_integer((int64_t)source->num_samples)
						 : mc_json_new_null(),
			 err);
	}
	if (ok)
		return list;
	mc_json_free(list);
	return NULL;
}

static struct mc_json *policy_json(const struct mc_spec *spec, struct mc_error *err)
{
	struct mc_json *policy = mc_json_new_object();
	if (mc_json_set(policy, "mode",
		mc_json_new_string(spec->expert_mode == MC_EXPERTS_ALL ? "all" : "routed"), err))
		return policy;
	mc_json_free(policy);
	return NULL;
}

static struct mc_json *count_or_null(uint64_t value)
{
	return value > 0 ? mc_json_new_integer((int64_t)value) : mc_json_new_null();
}

static const char *precision_text(enum mc_dtype dtype)
{
	return dtype == MC_F32    ? "float32"
	       : dtype == MC_BF16 ? "bfloat16"
	       : dtype == MC_F16  ? "float16"
				  : "auto";
}

struct mc_json *mc_spec_json(const struct mc_spec *spec, struct mc_error *err)
{
	struct mc_json *root = mc_json_new_object();
	struct mc_json *special = spec->add_special_tokens == MC_ADD_SPECIAL_AUTO
				      ? mc_json_new_string("auto")
				      : mc_json_new_bool(
					    spec->add_special_tokens == MC_ADD_SPECIAL_YES);
	bool ok = mc_json_set(root, "add_special_tokens", special, err) &&
		  mc_json_set(root, "model", mc_json_new_string(spec->model), err) &&
		  mc_json_set(root, "dataset", sources_json(spec, err), err) &&
		  mc_json_set(root, "recipe", mc_json_copy(spec->recipe.json, err), err) &&
		  mc_json_set(root, "calibrate_all_experts",
		      mc_json_new_bool(spec->expert_mode == MC_EXPERTS_ALL), err) &&
		  mc_json_set(root, "expert_policy", policy_json(spec, err), err) &&
		  mc_json_set(root, "num_calibration_samples",
		      mc_json_new_integer((int64_t)spec->num_calibration_samples), err) &&
		  mc_json_set(root, "max_seq_length",
		      mc_json_new_integer((int64_t)spec->max_seq_length), err) &&
		  mc_json_set(
		      root, "concatenate_data", mc_json_new_bool(spec->concatenate_data), err) &&
		  mc_json_set(root, "shuffle_calibration_samples",
		      mc_json_new_bool(spec->shuffle_calibration_samples), err) &&
		  mc_json_set(root, "seed", mc_json_new_integer((int64_t)spec->seed), err) &&
		  mc_json_set(root, "pipeline",
		      mc_json_new_string(
			  spec->pipeline == MC_PIPELINE_DATAFREE ? "datafree" : "sequential"),
		      err) &&
		  mc_json_set(
		      root, "propagate_error", mc_json_new_bool(spec->propagate_error), err) &&
		  mc_json_set(root, "sequential_granularity",
		      mc_json_new_string(spec->granularity_layer ? "layer" : "stage"), err) &&
		  mc_json_set(root, "save_model", mc_json_new_bool(spec->save_model), err) &&
		  mc_json_set(root, "keep_statistics",
		      mc_json_new_string(
			  spec->keep_statistics == MC_KEEP_CHANNELS ? "channels" : "summary"),
		      err) &&
		  mc_json_set(root, "precision",
		      mc_json_new_string(precision_text(spec->precision)), err) &&
		  mc_json_set(root, "compute", mc_json_new_string("float32"), err) &&
		  mc_json_set(root, "threads", count_or_null(spec->threads), err) &&
		  mc_json_set(root, "memory_bytes", count_or_null(spec->memory_bytes), err) &&
		  mc_json_set(root, "metadata", mc_json_copy(spec->metadata, err), err);
	if (ok)
		return root;
	mc_json_free(root);
	return NULL;
}
