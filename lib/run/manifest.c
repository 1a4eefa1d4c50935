/*
 * manifest.c - see manifest.h
 */
#include "manifest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "derive.h"

#include "moecal/alloc.h"
#include "moecal/file.h"
#include "moecal/linalg.h"
#include "moecal/sha256.h"

/* Spec keys that change how a job runs but not one bit of its result: a resume may change them. */
static const char *const without_effect[] = {"threads", "memory_bytes", "metadata"};

bool mc_spec_digest(const struct mc_spec *spec, char hex[65], struct mc_error *err)
{
	struct mc_json *json = mc_spec_json(spec, err);
	struct mc_buf text;
	mc_buf_init(&text, (size_t)64 << 20);
	for (size_t i = 0; json != NULL && i < sizeof without_effect / sizeof *without_effect; i++)
		mc_json_remove(json, without_effect[i]);
	bool ok = json != NULL && mc_json_write(json, MC_JSON_SORTED, &text, err) &&
		  mc_sha256_bytes(text.data, text.length, hex, err);
	mc_buf_release(&text);
	mc_json_free(json);
	return ok;
}

bool mc_inputs_read(struct mc_inputs *inputs, const struct mc_job *job, const struct mc_env *env,
    struct mc_error *err)
{
	const struct mc_spec *spec = job->spec;

	*inputs = (struct mc_inputs){.datasets_count = spec->sources_count};
	inputs->datasets = mc_alloc(
	    spec->sources_count + 1, sizeof *inputs->datasets, "inputs", err);
	bool ok = inputs->datasets != NULL && mc_spec_digest(spec, inputs->spec_sha256, err) &&
		  mc_checkpoint_digest(&job->model.checkpoint, inputs->model_sha256, err);
	if (ok && job->source != NULL)
		ok = mc_derive_require_model(job, inputs->model_sha256, err) &&
		     mc_derive_datasets(job, inputs, err);
	for (size_t i = 0; ok && job->source == NULL && i < spec->sources_count; i++)
		ok = mc_dataset_digest(spec->sources[i].path, env->roots,
		    inputs->datasets[i].sha256, &inputs->datasets[i].bytes, err);
	if (!ok)
		mc_inputs_release(inputs);
	return ok;
}

void mc_inputs_release(struct mc_inputs *inputs)
{
	free(inputs->datasets);
	inputs->datasets = NULL;
}

static bool write_json(const struct mc_folder *folder, const char *name, const struct mc_json *json,
    struct mc_error *err)
{
	struct mc_buf text;
	char *path = mc_folder_path(folder, name, err);
	mc_buf_init(&text, (size_t)256 << 20);
	bool ok = path != NULL && mc_json_write(json, MC_JSON_PRETTY, &text, err) &&
		  mc_file_write_durable(path, text.data, text.length, err);
	mc_buf_release(&text);
	free(path);
	return ok;
}

bool mc_manifest_write_spec(
    const struct mc_job *job, const struct mc_folder *folder, struct mc_error *err)
{
	struct mc_json *json = mc_spec_json(job->spec, err);
	bool ok = json != NULL && write_json(folder, "spec.json", json, err);
	mc_json_free(json);
	return ok;
}

/* --- the manifest ----------------------------------------------------------------------------- */

static struct mc_json *inputs_json(
    const struct mc_job *job, const struct mc_inputs *inputs, struct mc_error *err)
{
	struct mc_json *root = mc_json_new_object(), *model = mc_json_new_object(),
		       *list = mc_json_new_array();
	bool ok = mc_json_set(root, "model", model, err) &&
		  mc_json_set(root, "datasets", list, err) &&
		  mc_json_set(model, "path", mc_json_new_string(job->spec->model), err) &&
		  mc_json_set(model, "sha256", mc_json_new_string(inputs->model_sha256), err) &&
		  mc_json_set(model, "bytes",
		      mc_json_new_integer((int64_t)job->model.checkpoint.bytes), err) &&
		  mc_json_set(
		      model, "format", mc_json_new_string(mc_model_format(&job->model)), err) &&
		  mc_json_set(root, "spec_sha256", mc_json_new_string(inputs->spec_sha256), err);

	for (size_t i = 0; ok && i < inputs->datasets_count; i++) {
		struct mc_json *one = mc_json_new_object();
		ok = mc_json_append(list, one, err) &&
		     mc_json_set(
			 one, "path", mc_json_new_string(job->spec->sources[i].path), err) &&
		     mc_json_set(
			 one, "sha256", mc_json_new_string(inputs->datasets[i].sha256), err) &&
		     mc_json_set(one, "bytes",
			 mc_json_new_integer((int64_t)inputs->datasets[i].bytes), err);
	}
	if (ok)
		return root;
	mc_json_free(root);
	return NULL;
}

static struct mc_json *layers_json(struct mc_statistics *statistics, struct mc_error *err)
{
	struct mc_json *rows = mc_statistics_layers_json(statistics, err),
		       *list = mc_json_new_array();
	bool ok = rows != NULL && list != NULL;

	for (size_t i = 0; ok && i < mc_json_size(rows); i++) {
		const struct mc_json *row = mc_json_at(rows, i);
		double seconds = mc_json_number(mc_json_get(row, "seconds")),
		       flops = mc_json_number(mc_json_get(row, "flops"));
		struct mc_json *one = mc_json_new_object();
		ok = mc_json_append(list, one, err) &&
		     mc_json_set(one, "name", mc_json_copy(mc_json_get(row, "name"), err), err) &&
		     mc_json_set(one, "seconds", mc_json_new_real(seconds), err) &&
		     mc_json_set(one, "gflops",
			 mc_json_new_real(seconds > 0 ? flops / seconds / 1e9 : 0.0), err);
	}
	mc_json_free(rows);
	if (ok)
		return list;
	mc_json_free(list);
	return NULL;
}

static bool add_artifact(
    struct mc_json *list, const char *name, const char *path, struct mc_error *err)
{
	char hex[65];
	uint64_t bytes;
	struct mc_json *one = mc_json_new_object();
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	bool ok = mc_json_append(list, one, err) &&
		  (fd >= 0 || mc_fail_errno(err, errno, path, "cannot read a result")) &&
		  mc_sha256_fd(fd, path, hex, &bytes, err) &&
		  mc_json_set(one, "path", mc_json_new_string(name), err) &&
		  mc_json_set(one, "sha256", mc_json_new_string(hex), err) &&
		  mc_json_set(one, "bytes", mc_json_new_integer((int64_t)bytes), err);
	if (fd >= 0)
		close(fd);
	return ok;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_visible(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

static bool add_model_files(
    const struct mc_export *export, struct mc_json *list, struct mc_error *err)
{
	struct dirent **names = NULL;
	char *folder = mc_folder_path(export->folder, "resume/model", err);
	int count = folder == NULL ? -1 : scandir(folder, &names, is_visible, by_name);
	bool ok = count >= 0 || (folder != NULL && mc_fail_errno(err, errno, folder,
						       "cannot list the checkpoint"));

	for (int i = 0; i < count; i++) {
		char *name = ok ? mc_format(err, "model/%s", names[i]->d_name) : NULL;
		char *path = ok ? mc_format(err, "%s/%s", folder, names[i]->d_name) : NULL;
		ok = name != NULL && path != NULL && add_artifact(list, name, path, err);
		free(name);
		free(path);
		free(names[i]);
	}
	free(names);
	free(folder);
	return ok;
}

static struct mc_json *artifacts_json(const struct mc_export *export, struct mc_error *err)
{
	static const char *const files[] = {"quantization.safetensors", "verdict.json"};
	struct mc_json *list = mc_json_new_array();
	bool ok = list != NULL;

	for (size_t i = 0; ok && i < 2; i++) {
		char *path = mc_format(err, "%s/resume/%s", export->folder->path, files[i]);
		ok = path != NULL && add_artifact(list, files[i], path, err);
		free(path);
	}
	ok = ok && (!export->job->spec->save_model || add_model_files(export, list, err));
	if (ok)
		return list;
	mc_json_free(list);
	return NULL;
}

/* Which job the statistics are of, and what they were computed with. */
static bool set_source(struct mc_json *root, const struct mc_source *source, struct mc_error *err)
{
	static const char *const same[] = {"version", "kernel"};
	struct mc_json *from = mc_json_new_object();
	bool ok = mc_json_set(root, "derived_from", from, err) &&
		  mc_json_set(from, "sha256", mc_json_new_string(source->manifest_sha256), err);

	for (size_t i = 0; ok && i < 2; i++)
		if (mc_json_get(source->manifest, same[i]) != NULL)
			ok = mc_json_set(from, same[i],
			    mc_json_copy(mc_json_get(source->manifest, same[i]), err), err);
	return ok;
}

static bool set_all(struct mc_json *root, const struct mc_export *export,
    const struct mc_plan *plan, const struct mc_inputs *inputs, const struct mc_run_result *result,
    struct mc_error *err)
{
	const struct mc_job *job = export->job;
	struct mc_json *warnings = mc_json_new_array();
	bool ok = mc_json_set(root, "version", mc_json_new_string(MC_VERSION), err) &&
		  mc_json_set(root, "kernel", mc_json_new_string(mc_linalg_kernel()), err) &&
		  mc_json_set(root, "compute", mc_json_new_string("float32"), err) &&
		  mc_json_set(root, "threads", mc_json_new_integer(plan->threads), err) &&
		  mc_json_set(root, "architecture",
		      mc_json_new_string(job->model.config.model_type), err) &&
		  mc_json_set(root, "inputs", inputs_json(job, inputs, err), err) &&
		  mc_json_set(root, "sequences",
		      mc_json_new_integer((int64_t)job->dataset.sequences), err) &&
		  mc_json_set(
		      root, "tokens", mc_json_new_integer((int64_t)job->dataset.tokens), err) &&
		  mc_json_set(root, "valid", mc_json_new_bool(result->valid), err) &&
		  mc_json_set(root, "seconds", mc_json_new_real(result->seconds), err) &&
		  mc_json_set(root, "memory_peak_bytes",
		      mc_json_new_integer((int64_t) export->env->arena->peak), err) &&
		  mc_json_set(root, "layers", layers_json(export->statistics, err), err) &&
		  mc_json_set(root, "artifacts", artifacts_json(export, err), err) &&
		  mc_json_set(root, "warnings", warnings, err);

	for (size_t i = 0; ok && i < job->warnings_count; i++)
		ok = mc_json_append(warnings, mc_json_new_string(job->warnings[i]), err);
	return ok && (job->source == NULL || set_source(root, job->source, err)) &&
	       mc_json_set(root, "metadata", mc_json_copy(job->spec->metadata, err), err);
}

bool mc_manifest_write(const struct mc_export *export, const struct mc_plan *plan,
    const struct mc_inputs *inputs, const struct mc_run_result *result, struct mc_error *err)
{
	struct mc_json *root = mc_json_new_object();
	bool ok = root != NULL && set_all(root, export, plan, inputs, result, err) &&
		  write_json(export->folder, "resume/manifest.json", root, err);
	mc_json_free(root);
	return ok;
}
