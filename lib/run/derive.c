/*
 * derive.c - a finished job as the source of another: what it kept, and what can be made of that
 */
#include "moecal/derive.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "derive.h"
#include "input_search.h"
#include "manifest.h"

#include "moecal/alloc.h"
#include "moecal/file.h"
#include "moecal/sha256.h"

#define MAX_DOCUMENT ((size_t)256 << 20)

/* --- reading the folder ----------------------------------------------------------------------- */

static struct mc_json *read_document(
    const char *folder, const char *name, char ret_sha256[65], struct mc_error *err)
{
	struct mc_json *json = NULL;
	struct mc_buf text;
	int fd = -1;
	char *path = mc_format(err, "%s/%s", folder, name);

	mc_buf_init(&text, MAX_DOCUMENT);
	if (path != NULL && mc_root_open(NULL, path, &fd, err) &&
	    mc_file_read_all(fd, path, &text, err) &&
	    mc_sha256_bytes(text.data, text.length, ret_sha256, err))
		json = mc_json_parse(mc_buf_text(&text), text.length, path, err);
	mc_close(fd);
	mc_buf_release(&text);
	free(path);
	return json;
}

/* The manifest is written last: without it there is no finished job. */
static bool read_manifest(struct mc_source *source, struct mc_error *err)
{
	struct mc_error why;

	mc_error_init(&why);
	source->manifest = read_document(
	    source->folder, "manifest.json", source->manifest_sha256, &why);
	if (source->manifest != NULL)
		return true;
	return why.code == MC_NOT_FOUND
		   ? mc_fail(err, mc_file_exists(source->folder) ? MC_CONFLICT : MC_NOT_FOUND,
			 source->folder,
			 "is no finished job: it has no manifest.json, which is written last")
		   : mc_fail(err, why.code, why.where, "%s", why.text);
}

static const char *text_of(const struct mc_json *object, const char *key)
{
	const struct mc_json *value = mc_json_get(object, key);
	return mc_json_type(value) == MC_JSON_STRING ? mc_json_string(value, NULL) : "";
}

static uint64_t count_of(const struct mc_json *object, const char *key)
{
	const struct mc_json *value = mc_json_get(object, key);
	return mc_json_type(value) == MC_JSON_INTEGER && mc_json_integer(value) >= 0
		   ? (uint64_t)mc_json_integer(value)
		   : 0;
}

/* The statistics say which spec and model they are of; so does the manifest. */
static bool require_together(struct mc_source *source, struct mc_error *err)
{
	const struct mc_json *inputs = mc_json_get(source->manifest, "inputs");
	const char *const expected[][2] = {{"spec", text_of(inputs, "spec_sha256")},
	    {"model", text_of(mc_json_get(inputs, "model"), "sha256")}};

	for (size_t i = 0; i < 2; i++) {
		char *value;
		if (!mc_statistics_get(source->statistics, expected[i][0], &value, err))
			return false;
		bool same = value != NULL && strcmp(value, expected[i][1]) == 0;
		free(value);
		if (!same)
			return mc_fail(err, MC_CORRUPT, source->folder,
			    "calibration.db and manifest.json are of different jobs: they name "
			    "another %s",
			    expected[i][0]);
	}
	return true;
}

/* spec.json is the accepted spec still: whoever edits it changes what the statistics are of. */
static bool require_own_spec(struct mc_source *source, const struct mc_spec *spec,
    const struct mc_problems *problems, struct mc_error *err)
{
	const struct mc_json *inputs = mc_json_get(source->manifest, "inputs");
	char digest[65];

	if (problems->total > 0)
		return mc_fail(err, MC_CORRUPT, source->folder, "spec.json: %s %s",
		    problems->items[0].pointer, problems->items[0].text);
	if (strcmp(text_of(source->manifest, "version"), MC_VERSION) != 0)
		return true; /* another version may spell it otherwise */
	if (!mc_spec_digest(spec, digest, err))
		return false;
	return strcmp(digest, text_of(inputs, "spec_sha256")) == 0 ||
	       mc_fail(err, MC_CORRUPT, source->folder,
		   "spec.json is not the one that the job was run with: its sha256 is %.16s..., "
		   "manifest.json says %.16s...",
		   digest, text_of(inputs, "spec_sha256"));
}

static bool read_spec(struct mc_source *source, struct mc_error *err)
{
	struct mc_problems problems;
	struct mc_spec spec = {0};
	char ignored[65];

	source->spec = read_document(source->folder, "spec.json", ignored, err);
	if (source->spec == NULL)
		return false;
	mc_problems_init(&problems);
	bool ok = mc_spec_parse(&spec, source->spec, &problems, err) &&
		  require_own_spec(source, &spec, &problems, err);
	source->observed = ok && spec.pipeline == MC_PIPELINE_SEQUENTIAL;
	source->channels = ok && spec.keep_statistics == MC_KEEP_CHANNELS;
	mc_spec_release(&spec);
	mc_problems_release(&problems);
	return ok;
}

static bool read_statistics(struct mc_source *source, struct mc_error *err)
{
	char *path = mc_format(err, "%s/calibration.db", source->folder);

	source->statistics = path == NULL ? NULL : mc_statistics_open(path, true, err);
	free(path);
	if (source->statistics == NULL || !require_together(source, err))
		return false;
	if (source->observed && !mc_statistics_has_sites(source->statistics))
		return mc_fail(err, MC_CONFLICT, source->folder,
		    "calibration.db is of an earlier program, which kept no ranges of sequences: "
		    "run the source job again with this one");
	source->sequences = (size_t)count_of(source->manifest, "sequences");
	source->tokens = count_of(source->manifest, "tokens");
	source->model_bytes = count_of(
	    mc_json_get(mc_json_get(source->manifest, "inputs"), "model"), "bytes");
	return !source->observed || (source->sequences > 0 && source->tokens > 0) ||
	       mc_fail(err, MC_CORRUPT, source->folder,
		   "manifest.json does not say how many sequences and tokens there were");
}

bool mc_source_open(struct mc_source *source, const char *folder, struct mc_error *err)
{
	*source = (struct mc_source){.folder = mc_strdup(folder, err)};
	if (source->folder != NULL && read_manifest(source, err) && read_spec(source, err) &&
	    read_statistics(source, err))
		return true;
	mc_source_close(source);
	return false;
}

void mc_source_close(struct mc_source *source)
{
	mc_statistics_close(source->statistics);
	mc_json_free(source->spec);
	mc_json_free(source->manifest);
	free(source->folder);
	*source = (struct mc_source){0};
}

/* --- the spec --------------------------------------------------------------------------------- */

struct mc_json *mc_source_spec(const struct mc_source *source, const struct mc_json *changes,
    struct mc_problems *problems, struct mc_error *err)
{
	static const char *const free_keys[] = {"recipe", "threads", "memory_bytes", "metadata"};
	struct mc_json *spec = mc_json_copy(source->spec, err);
	struct mc_json_iter member = mc_json_iter(changes);
	bool ok = spec != NULL;
	char pointer[160];

	while (ok && mc_json_next(&member)) {
		bool may = false;
		for (size_t i = 0; i < sizeof free_keys / sizeof *free_keys; i++)
			may = may || strcmp(free_keys[i], member.key) == 0;
		if (may)
			ok = mc_json_set(spec, member.key, mc_json_copy(member.value, err), err);
		else if (!mc_json_equal(mc_json_get(spec, member.key), member.value))
			mc_problems_add(problems, mc_pointer_join(pointer, "", member.key),
			    "is the source job's, and cannot be changed by deriving: needed a "
			    "run of its own");
	}
	if (ok && mc_json_get(changes, "recipe") == NULL)
		mc_problems_add(problems, "/recipe", "is required: which scheme to derive");
	if (ok)
		return spec;
	mc_json_free(spec);
	return NULL;
}

/* --- what can be derived ---------------------------------------------------------------------- */

static bool require_folds(const struct mc_job *job, size_t module, struct mc_error *err)
{
	const struct mc_scheme *scheme = mc_job_scheme(job, module);
	const char *name = job->model.modules[module]->name;
	bool grouped;

	if (!mc_input_search_is_needed(job, module, &grouped))
		return true;
	if (grouped)
		return mc_fail(err, MC_UNSUPPORTED, name,
		    "input observer '%s' of %s averages a range of each group of channels, and a "
		    "finished job keeps ranges of whole inputs: needed static_minmax or "
		    "memoryless_minmax, or a run of its own",
		    scheme->input.observer, scheme->name);
	return mc_fail(err, MC_UNSUPPORTED, name,
	    "input observer '%s' of %s searches over the inputs themselves, which a finished job "
	    "does not keep: needed minmax, static_minmax or memoryless_minmax, or a run of its own",
	    scheme->input.observer, scheme->name);
}

static bool require_mean_squares(const struct mc_job *job, size_t module, struct mc_error *err)
{
	const struct mc_scheme *scheme = mc_job_scheme(job, module);
	const char *name = job->model.modules[module]->name;
	struct mc_weight_observer observer;

	if (!mc_weight_observer_make(&observer, &scheme->weights, name, err))
		return false;
	return observer.search != MC_SEARCH_IMATRIX || job->source->channels ||
	       mc_fail(err, MC_CONFLICT, name,
		   "weight observer '%s' of %s weighs with mean squares of input channels, which "
		   "the source job did not keep: it must be run with keep_statistics 'channels'",
		   scheme->weights.observer, scheme->name);
}

/* The head's inputs are observed only where it is quantized. */
static bool require_head(const struct mc_job *job, struct mc_error *err)
{
	const struct mc_scheme *scheme = mc_job_scheme(job, job->model.head);
	bool needs = scheme->has_input && scheme->input.dynamic != MC_DYNAMIC_YES;
	struct mc_weight_observer observer;
	size_t done;

	if (!mc_weight_observer_make(&observer, &scheme->weights, "", err) ||
	    !mc_statistics_layers_done(job->source->statistics, &done, err))
		return false;
	return done > job->model.config.layers ||
	       (!needs && observer.search != MC_SEARCH_IMATRIX) ||
	       mc_fail(err, MC_CONFLICT, job->model.modules[job->model.head]->name,
		   "the source job did not quantize it, so it did not observe its inputs: it must "
		   "be run with a recipe that does not ignore it");
}

static bool require_model(const struct mc_job *job, struct mc_error *err)
{
	size_t done;

	if (job->model.checkpoint.bytes != job->source->model_bytes)
		return mc_fail(err, MC_CONFLICT, job->spec->model,
		    "is not the model of the source job: its tensors have %llu bytes, that one's "
		    "had %llu",
		    (unsigned long long)job->model.checkpoint.bytes,
		    (unsigned long long)job->source->model_bytes);
	if (!mc_statistics_layers_done(job->source->statistics, &done, err))
		return false;
	return done >= job->model.config.layers ||
	       mc_fail(err, MC_CORRUPT, job->source->folder,
		   "calibration.db has %zu layers, the model has %zu", done,
		   job->model.config.layers);
}

bool mc_derive_require(const struct mc_job *job, struct mc_error *err)
{
	if (!require_model(job, err))
		return false;
	for (size_t i = 0; job->source->observed && i < job->model.modules_count; i++) {
		if (mc_job_scheme(job, i) == NULL)
			continue;
		if (!require_folds(job, i, err) || !require_mean_squares(job, i, err) ||
		    (i == job->model.head && !require_head(job, err)))
			return false;
	}
	return true;
}

bool mc_derive_require_model(
    const struct mc_job *job, const char *model_sha256, struct mc_error *err)
{
	const struct mc_json *model = mc_json_get(
	    mc_json_get(job->source->manifest, "inputs"), "model");
	const char *needed = text_of(model, "sha256");

	return strcmp(needed, model_sha256) == 0 ||
	       mc_fail(err, MC_CONFLICT, job->spec->model,
		   "is not the model of the source job: its sha256 is %s, needed %s", model_sha256,
		   needed);
}

bool mc_derive_datasets(const struct mc_job *job, struct mc_inputs *inputs, struct mc_error *err)
{
	const struct mc_json *list = mc_json_get(
	    mc_json_get(job->source->manifest, "inputs"), "datasets");

	if (mc_json_size(list) != inputs->datasets_count)
		return mc_fail(err, MC_CORRUPT, job->source->folder,
		    "manifest.json names %zu datasets, spec.json %zu", mc_json_size(list),
		    inputs->datasets_count);
	for (size_t i = 0; i < inputs->datasets_count; i++) {
		const struct mc_json *one = mc_json_at(list, i);
		snprintf(inputs->datasets[i].sha256, sizeof inputs->datasets[i].sha256, "%s",
		    text_of(one, "sha256"));
		inputs->datasets[i].bytes = count_of(one, "bytes");
	}
	return true;
}
