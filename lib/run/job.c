/*
 * job.c - open what a spec names and settle which module gets which scheme
 */
#include "moecal/job.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fused.h"
#include "quantize_attention.h"

#include "moecal/alloc.h"
#include "moecal/dequantize.h"
#include "moecal/pack.h"

#define MAX_WARNINGS 32
#define TOKENIZER_MAX_BYTES ((size_t)256 << 20)

MC_PRINTF(2, 3)
static void warn(struct mc_job *job, const char *fmt, ...)
{
	char text[512];
	va_list args;
	struct mc_error err;

	mc_error_init(&err);
	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	if (job->warnings_count < MAX_WARNINGS) {
		char *copy = mc_strdup(text, &err);
		if (copy != NULL)
			job->warnings[job->warnings_count++] = copy;
	}
}

enum mc_dtype mc_job_weight_dtype(const struct mc_job *job, const struct mc_module *module)
{
	if (job->spec->precision != MC_DTYPE_COUNT)
		return job->spec->precision;
	return module->weight != NULL ? module->weight->entry->dtype : job->model.dtype;
}

const struct mc_scheme *mc_job_scheme(const struct mc_job *job, size_t index)
{
	return job->scheme[index] == MC_NO_SCHEME ? NULL : &job->schemes[job->scheme[index]];
}

bool mc_job_sees_all(const struct mc_job *job)
{
	return job->spec->expert_mode == MC_EXPERTS_ALL;
}

uint64_t mc_job_floor(const struct mc_job *job)
{
	const struct mc_model_config *config = &job->model.config;
	if (config->experts == 0)
		return 1;
	uint64_t floor = job->dataset.tokens * config->experts_per_token / config->experts / 100;
	return floor > 0 ? floor : 1;
}

/* --- data ------------------------------------------------------------------------------------- */

static struct mc_tokenizer *open_tokenizer(
    const struct mc_checkpoint *checkpoint, struct mc_error *err)
{
	struct mc_buf json, config;
	struct mc_error absent;
	struct mc_tokenizer *tokenizer = NULL;

	mc_error_init(&absent);
	mc_buf_init(&json, TOKENIZER_MAX_BYTES);
	mc_buf_init(&config, TOKENIZER_MAX_BYTES);
	if (mc_checkpoint_read_file(checkpoint, "tokenizer.json", &json, err)) {
		bool has_config = mc_checkpoint_read_file(
		    checkpoint, "tokenizer_config.json", &config, &absent);
		if (!has_config && absent.code != MC_NOT_FOUND)
			(void)mc_fail(err, absent.code, absent.where, "%s", absent.text);
		else
			tokenizer = mc_tokenizer_new(mc_buf_text(&json), json.length,
			    has_config ? mc_buf_text(&config) : NULL, config.length, err);
	}
	mc_buf_release(&json);
	mc_buf_release(&config);
	return tokenizer;
}

static bool sources_hold_ids(
    const struct mc_spec *spec, const struct mc_roots *roots, bool *ret, struct mc_error *err)
{
	*ret = true;
	for (size_t i = 0; i < spec->sources_count; i++) {
		bool holds;
		if (!mc_dataset_holds_ids(spec->sources[i].path, roots, &holds, err))
			return false;
		*ret = *ret && holds;
	}
	return true;
}

static bool load_data(struct mc_job *job, const struct mc_env *env, struct mc_error *err)
{
	const struct mc_spec *spec = job->spec;
	const struct mc_dataset_options options = {
	    .num_samples = spec->num_calibration_samples,
	    .max_seq_length = spec->max_seq_length,
	    .concatenate = spec->concatenate_data,
	    .shuffle = spec->shuffle_calibration_samples,
	    .seed = spec->seed,
	    .add_special = spec->add_special_tokens,
	    .vocab_size = job->model.config.vocab,
	};
	struct mc_tokenizer *tokenizer = NULL;
	bool hold_ids;

	if (!sources_hold_ids(spec, env->roots, &hold_ids, err))
		return false;
	if (!hold_ids) {
		tokenizer = open_tokenizer(&job->model.checkpoint, err);
		if (tokenizer == NULL)
			return false;
	}
	bool ok = mc_dataset_load(&job->dataset, spec->sources, spec->sources_count, &options,
	    env->roots, tokenizer, err);
	mc_tokenizer_free(tokenizer);
	if (!ok)
		return false;
	if (job->dataset.sequences < spec->num_calibration_samples)
		warn(job, "num_calibration_samples is %llu, the data have %zu: all are used",
		    (unsigned long long)spec->num_calibration_samples, job->dataset.sequences);
	if (job->dataset.empty_samples > 0)
		warn(job, "%llu samples without a token were left out",
		    (unsigned long long)job->dataset.empty_samples);
	size_t longest = job->model.config.max_positions;
	for (size_t s = 0; s < job->dataset.sequences; s++)
		if (longest > 0 && job->dataset.start[s + 1] - job->dataset.start[s] > longest)
			return mc_fail(err, MC_INVALID, "/max_seq_length",
			    "sequence %zu has %llu tokens, the model has %zu positions: set "
			    "max_seq_length to "
			    "%zu or less",
			    s,
			    (unsigned long long)(job->dataset.start[s + 1] - job->dataset.start[s]),
			    longest, longest);
	return true;
}

/* --- schemes ---------------------------------------------------------------------------------- */

static void target_matched_nothing(void *ctx, const char *target)
{
	warn(ctx, "the target '%s' matches no linear layer of this model", target);
}

bool mc_job_match(struct mc_job *job, struct mc_error *err)
{
	const struct mc_model *model = &job->model;
	const struct mc_quant_config *config = &job->spec->recipe.config;
	struct mc_match_module *modules = mc_alloc(
	    model->modules_count, sizeof *modules, "modules", err);

	job->schemes = config->schemes;
	job->schemes_count = config->count;
	job->scheme = mc_alloc(model->modules_count, sizeof *job->scheme, "schemes", err);
	if (modules == NULL || job->scheme == NULL) {
		free(modules);
		return false;
	}
	for (size_t i = 0; i < model->modules_count; i++) {
		const struct mc_module *m = model->modules[i];
		modules[i] = (struct mc_match_module){.name = m->name,
		    .class_name = m->class_name,
		    .quantizable = m->weight != NULL &&
				   (m->kind == MC_KIND_LINEAR || m->kind == MC_KIND_EMBEDDING),
		    .attention = m->role == MC_ROLE_ATTENTION};
	}
	bool ok = mc_match_schemes(
	    config, modules, model->modules_count, job->scheme, target_matched_nothing, job, err);
	free(modules);
	return ok;
}

/* A scheme without weights leaves its modules as they are; the others must fit the module's shape.
 */
static bool check_modules(struct mc_job *job, struct mc_error *err)
{
	const struct mc_model *model = &job->model;

	for (size_t i = 0; i < model->modules_count; i++) {
		const struct mc_module *m = model->modules[i];
		const struct mc_scheme *scheme = mc_job_scheme(job, i);
		struct mc_packed layout;
		if (scheme == NULL)
			continue;
		if (!scheme->has_weights) {
			job->scheme[i] = MC_NO_SCHEME;
			continue;
		}
		if (m->kind == MC_KIND_EMBEDDING)
			return mc_fail(err, MC_UNSUPPORTED, m->name,
			    "embeddings are not quantized yet: add it to ignore");
		if (!mc_pack_layout(scheme, mc_job_weight_dtype(job, m), m->rows, m->cols, m->name,
			&layout, err))
			return false;
		job->quantized++;
	}
	if (job->quantized == 0)
		return mc_fail(err, MC_INVALID, "/recipe",
		    "no module of the model gets a scheme: nothing to quantize");
	return true;
}

static bool settle_schemes(struct mc_job *job, struct mc_spec *spec, struct mc_error *err)
{
	struct mc_quant_config *config = &spec->recipe.config;

	if (!mc_job_match(job, err) || !mc_job_settle_attention(job, err))
		return false;
	for (size_t i = 0; i < config->count; i++)
		if (!mc_job_is_for_attention(job, i) &&
		    !mc_scheme_require_supported(&config->schemes[i], err))
			return false;
	return check_modules(job, err) && mc_fused_require_alike(job, err);
}

/* Of a model that was quantized before: what it lost then stays lost. */
static void warn_of_format(struct mc_job *job)
{
	size_t foreign = 0;

	if (job->model.source_state == NULL)
		return;
	warn(job,
	    "the model is already quantized (%s): its weights are dequantized first, with the "
	    "error that they have",
	    mc_model_format(&job->model));
	for (size_t i = 0; i < job->model.checkpoint.count; i++)
		foreign += mc_model_stored(&job->model, i) == MC_STORED_FOREIGN;
	if (foreign > 0)
		warn(job,
		    "%zu quantized tensors of parts that the decoder does not use are not copied "
		    "to the new checkpoint",
		    foreign);
}

bool mc_job_open(
    struct mc_job *job, struct mc_spec *spec, const struct mc_env *env, struct mc_error *err)
{
	*job = (struct mc_job){.spec = spec};
	job->warnings = mc_alloc(MAX_WARNINGS, sizeof *job->warnings, "warnings", err);
	for (size_t i = 0; job->warnings != NULL && i < spec->recipe.passed_count; i++)
		warn(job, "%s says nothing and is passed over", spec->recipe.passed[i]);
	bool ok = job->warnings != NULL &&
		  mc_dequantize_open(&job->model, env->roots, spec->model, err) &&
		  settle_schemes(job, spec, err);
	if (ok)
		warn_of_format(job);
	if (ok && spec->sources_count > 0)
		ok = load_data(job, env, err);
	if (ok && spec->sources_count == 0 && mc_quant_config_needs_data(&spec->recipe.config))
		ok = mc_fail(err, MC_INVALID, "/dataset",
		    "the recipe has static activations, so it needs calibration data");
	if (!ok)
		mc_job_close(job);
	return ok;
}

void mc_job_close(struct mc_job *job)
{
	mc_dataset_release(&job->dataset);
	mc_model_close(&job->model);
	for (size_t i = 0; i < job->warnings_count; i++)
		free(job->warnings[i]);
	free(job->warnings);
	free(job->scheme);
	free(job->attention);
	*job = (struct mc_job){0};
}
