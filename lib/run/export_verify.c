/*
 * export_verify.c - the proof of a finished job: read back, compare, explain every expert
 */
#include <stdlib.h>
#include <string.h>

#include "check_module.h"
#include "export.h"
#include "quantize_attention.h"

#include "moecal/alloc.h"
#include "moecal/file.h"

#define BLOCK 64 /* modules checked side by side; their findings are merged in order */

struct work {
	const struct mc_export *export;
	const struct mc_tensor_source *source;
	const struct mc_parts *parts;
	const size_t *modules; /* of this block */
	struct mc_verdict verdicts[BLOCK];
	struct mc_arena *scratch; /* [workers] */
};

static bool check_item(void *ctx, size_t item, unsigned worker, struct mc_error *err)
{
	struct work *work = ctx;
	const struct mc_job *job = work->export->job;
	const struct mc_module *m = job->model.modules[work->modules[item]];
	struct mc_env env = *work->export->env; /* with the worker's memory */
	struct mc_weight weight;
	struct mc_module_check check = {.name = m->name,
	    .scheme = mc_job_scheme(job, work->modules[item]),
	    .dt = mc_job_weight_dtype(job, m),
	    .rows = m->rows,
	    .cols = m->cols,
	    .original = &weight,
	    .computed = work->source->parts == NULL ? work->parts : NULL};

	env.arena = &work->scratch[worker];
	size_t mark = mc_arena_mark(env.arena);
	mc_verdict_init(&work->verdicts[item]);
	bool ok = mc_env_go_on(&env, err) &&
		  mc_model_read_weight(&job->model, m, job->spec->precision, &weight, &env, err) &&
		  mc_check_module(&work->verdicts[item], &check, work->source, env.arena, err);
	mc_arena_rewind(env.arena, mark);
	return ok;
}

static bool check_block(
    struct work *work, struct mc_verdict *verdict, size_t count, struct mc_error *err)
{
	for (size_t i = 0; i < BLOCK; i++)
		mc_verdict_init(&work->verdicts[i]);
	bool ok = mc_pool_run(work->export->env->pool, count, check_item, work, err);
	for (size_t i = 0; i < BLOCK; i++)
		mc_verdict_merge(verdict, &work->verdicts[i]);
	return ok;
}

bool mc_export_verify_bytes(const struct mc_job *job, uint64_t *ret_bytes, struct mc_error *err)
{
	uint64_t most = 0;

	for (size_t i = 0; i < job->model.modules_count; i++) {
		const struct mc_module *m = job->model.modules[i];
		const struct mc_scheme *scheme = mc_job_scheme(job, i);
		uint64_t bytes;
		if (scheme == NULL)
			continue;
		if (!mc_check_module_bytes(
			scheme, mc_job_weight_dtype(job, m), m->rows, m->cols, &bytes, err))
			return false;
		bytes += mc_model_read_bytes(m, job->spec->precision);
		most = bytes > most ? bytes : most;
	}
	for (size_t l = 0; l < job->model.config.layers; l++) {
		struct mc_packed layout;
		mc_job_attention_layout(job, l, &layout);
		uint64_t bytes = mc_check_attention_bytes(&layout);
		most = bytes > most ? bytes : most;
	}
	*ret_bytes = most;
	return true;
}

static bool check_modules(struct work *work, struct mc_verdict *verdict, struct mc_error *err)
{
	const struct mc_job *job = work->export->job;
	const struct mc_env *env = work->export->env;
	size_t block[BLOCK], count = 0, mark = mc_arena_mark(env->arena);
	unsigned workers = mc_pool_workers(env->pool);
	uint64_t bytes;

	work->modules = block;
	work->scratch = mc_alloc(workers, sizeof *work->scratch, "verify", err);
	bool ok = work->scratch != NULL && mc_export_verify_bytes(job, &bytes, err);
	for (unsigned w = 0; ok && w < workers; w++)
		ok = mc_arena_sub(env->arena, bytes, "verify scratch", &work->scratch[w], err);
	for (size_t i = 0; ok && i < job->model.modules_count; i++) {
		if (mc_job_scheme(job, i) == NULL)
			continue;
		block[count++] = i;
		if (count == BLOCK) {
			ok = check_block(work, verdict, count, err);
			count = 0;
		}
	}
	ok = ok && (count == 0 || check_block(work, verdict, count, err));
	for (size_t i = 0; ok && i < job->model.modules_count; i++)
		if (mc_job_scheme(job, i) != NULL)
			ok = mc_check_fused(
			    verdict, job->model.modules[i]->name, work->source, err);
	mc_arena_rewind(env->arena, mark);
	free(work->scratch);
	return ok;
}

static bool check_attention(
    const struct work *work, struct mc_verdict *verdict, struct mc_error *err)
{
	const struct mc_job *job = work->export->job;

	for (size_t l = 0; l < job->model.config.layers; l++) {
		const struct mc_module *m = job->model.modules[job->model.layers[l].attention];
		struct mc_module_check check = {
		    .name = m->name, .computed = work->source->parts == NULL ? work->parts : NULL};
		struct mc_packed layout;
		bool query;
		mc_job_attention_layout(job, l, &layout);
		if (layout.count > 0 &&
		    !mc_check_attention(verdict, &check, &layout, mc_job_attention(job, l, &query),
			work->source, work->export->env->arena, err))
			return false;
	}
	return true;
}

/* Every expert of every MoE layer must say what its parameters come from. */
static bool check_sources(
    const struct mc_export *export, struct mc_verdict *verdict, struct mc_error *err)
{
	static const char *const known[] = {
	    "measured", "all-tokens", "weights-only", "fallback-rtn"};
	verdict->experts = mc_statistics_coverage_json(
	    export->statistics, export->floor_tokens, err);
	if (verdict->experts == NULL)
		return false;
	struct mc_json *modules = mc_statistics_modules_json(export->statistics,
	    &(struct mc_module_filter){.layer = MC_NO_INDEX, .expert = MC_NO_INDEX}, err);
	for (size_t i = 0; modules != NULL && i < mc_json_size(modules); i++) {
		const struct mc_json *row = mc_json_at(modules, i);
		const char *source = mc_json_string(mc_json_get(row, "source"), NULL);
		bool found = false;
		if (mc_json_is_null(mc_json_get(row, "expert")))
			continue;
		for (size_t k = 0; k < sizeof known / sizeof *known; k++)
			found = found || strcmp(source, known[k]) == 0;
		if (found)
			mc_verdict_pass(verdict, MC_CHECK_SOURCES, 1);
		else
			mc_verdict_fail(verdict, MC_CHECK_SOURCES, "%s has the source '%s'",
			    mc_json_string(mc_json_get(row, "name"), NULL), source);
	}
	mc_json_free(modules);
	return modules != NULL;
}

/* Is a tensor of this name what a module keeps: "<module>.weight"? */
static bool is_kept_weight(const struct mc_export *export, const char *name)
{
	const char *dot = strrchr(name, '.');
	char module[512];

	if (dot == NULL || strcmp(dot, ".weight") != 0 || (size_t)(dot - name) >= sizeof module)
		return false;
	memcpy(module, name, (size_t)(dot - name));
	module[dot - name] = '\0';
	return mc_model_find(&export->job->model, module) != NULL;
}

/* Is a tensor of this name in the original, and none of an earlier quantization? */
static bool is_copied(const struct mc_model *model, const char *name)
{
	const struct mc_ckpt_tensor *tensor = mc_checkpoint_find(&model->checkpoint, name);

	return tensor != NULL &&
	       mc_model_stored(model, (size_t)(tensor - model->checkpoint.tensors)) ==
		   MC_STORED_PLAIN;
}

/* The written folder must hold what the original held and the computed tensors, nothing else. */
static bool check_rest(const struct mc_export *export, const struct mc_checkpoint *written,
    const struct mc_parts *parts, struct mc_verdict *verdict, struct mc_error *err)
{
	const struct mc_model *model = &export->job->model;

	for (size_t i = 0; i < written->count; i++) {
		const char *name = written->tensors[i].entry->name;
		const struct mc_st_file *file;
		if (mc_parts_find(parts, name, &file) == NULL && !is_kept_weight(export, name) &&
		    !is_copied(model, name))
			mc_verdict_fail(verdict, MC_CHECK_EXPECTED,
			    "%s is in the checkpoint and belongs to nothing", name);
		else
			mc_verdict_pass(verdict, MC_CHECK_EXPECTED, 1);
	}
	for (size_t i = 0; i < model->modules_count; i++) {
		const struct mc_module *m = model->modules[i];
		if (m->weight == NULL || mc_job_scheme(export->job, i) != NULL)
			continue;
		char *name = mc_format(err, "%s.weight", m->name);
		if (name == NULL)
			return false;
		if (mc_checkpoint_find(written, name) == NULL)
			mc_verdict_fail(verdict, MC_CHECK_PRESENT, "%s is missing", name);
		else
			mc_verdict_pass(verdict, MC_CHECK_PRESENT, 1);
		free(name);
	}
	return true;
}

static bool write_verdict(
    const struct mc_export *export, const struct mc_verdict *verdict, struct mc_error *err)
{
	struct mc_json *json = mc_verdict_json(verdict, err);
	struct mc_buf text;
	char *path = mc_folder_path(export->folder, "resume/verdict.json", err);
	mc_buf_init(&text, (size_t)1 << 30);
	bool ok = json != NULL && path != NULL && mc_json_write(json, MC_JSON_PRETTY, &text, err) &&
		  mc_file_write_durable(path, text.data, text.length, err);
	mc_buf_release(&text);
	mc_json_free(json);
	free(path);
	return ok;
}

bool mc_export_verify(const struct mc_export *export, bool *ret_valid, struct mc_error *err)
{
	struct mc_parts parts;
	struct mc_checkpoint written = {.folder_fd = -1};
	struct mc_verdict verdict;
	struct mc_tensor_source source = {0};
	bool saved = export->job->spec->save_model;
	struct work *work = mc_alloc(1, sizeof *work, "verify", err);
	char *folder = mc_folder_path(export->folder, "resume/model", err);

	if (work == NULL || folder == NULL || !mc_parts_open(&parts, export, err)) {
		free(work);
		free(folder);
		return false;
	}
	mc_verdict_init(&verdict);
	bool ok = !saved || mc_checkpoint_open(&written, NULL, folder, err);
	source.checkpoint = &written;
	source.parts = saved ? NULL : &parts;
	*work = (struct work){.export = export, .source = &source, .parts = &parts};
	ok = ok && check_modules(work, &verdict, err) && check_attention(work, &verdict, err) &&
	     (!saved || check_rest(export, &written, &parts, &verdict, err)) &&
	     check_sources(export, &verdict, err) && write_verdict(export, &verdict, err);
	*ret_valid = ok && mc_verdict_valid(&verdict);
	mc_verdict_release(&verdict);
	if (saved && written.folder_fd >= 0)
		mc_checkpoint_close(&written);
	mc_parts_close(&parts);
	free(folder);
	free(work);
	return ok;
}
