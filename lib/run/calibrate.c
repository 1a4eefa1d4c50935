/*
 * calibrate.c - the pipeline, top to bottom
 *
 * Per layer: load, forward with the tap (learn), quantize, write the part file and the hidden
 * states, commit the layer's row. The row is the proof: a layer with a row is done, and the files
 * it needs were durable before it. A kill at any instant loses at most the layer in work. After the
 * last layer the parts are assembled (export.c), checked (verify) and published (folder.c).
 */
#include "moecal/calibrate.h"

#include <fcntl.h>
#include <stdio.h>
#include <errno.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "event.h"
#include "export.h"
#include "folder.h"
#include "head_inputs.h"
#include "manifest.h"
#include "quantize_attention.h"
#include "quantize_layer.h"

#include "moecal/alloc.h"
#include "moecal/file.h"
#include "moecal/linalg.h"
#include "moecal/moe_context.h"

struct run {
	struct mc_job *job;
	const struct mc_plan *plan;
	const struct mc_env *env;
	const struct mc_run_hooks *hooks;
	struct mc_folder folder;
	struct mc_statistics *statistics;
	struct mc_events events;
	struct mc_coverage coverage;
	struct mc_batch batch;
	float *hidden;        /* [T, D]; NULL in a data-free run */
	size_t layers, steps; /* decoder layers; with the head when it is quantized */
	size_t done, resumed;
	uint64_t starved_total;
	double started, layer_started, seconds_computed;
	/* progress within the layer */
	struct mc_tap inner;
	atomic_ullong work_seen;
	double work_total, last_report;
};

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* --- progress --------------------------------------------------------------------------------- */

static void report(
    struct run *run, const char *phase, double fraction, const struct mc_coverage_layer *coverage)
{
	double spent = now() - run->started;
	double computed = (double)(run->done - run->resumed) + fraction;
	struct mc_progress progress = {.phase = phase,
	    .layers_done = run->done,
	    .layers_total = run->steps,
	    .layer_fraction = fraction,
	    .tokens = run->batch.tokens,
	    .seconds = spent,
	    .seconds_left = -1,
	    .coverage = coverage,
	    .starved_total = run->starved_total};

	if (run->hooks == NULL || run->hooks->progress == NULL)
		return;
	if (computed > 0.05)
		progress.seconds_left = spent / computed *
					((double)(run->steps - run->done) - fraction);
	else if (run->plan->seconds > 0)
		progress.seconds_left = run->plan->seconds;
	run->hooks->progress(run->hooks->ctx, &progress);
}

/* Hands slices on and counts them: rows * channels of the inputs of down are nearly all of the
 * work. */
static bool count_inputs(void *ctx, const struct mc_tap_slice *slice, struct mc_error *err)
{
	struct run *run = ctx;

	if (slice->site == MC_SITE_DOWN) {
		unsigned long long seen = atomic_fetch_add(
					      &run->work_seen, slice->count * slice->channels) +
					  slice->count * slice->channels;
		/* worker 0 is the calling thread: hooks run on it alone */
		if (slice->worker == 0 && now() - run->last_report > 0.2) {
			run->last_report = now();
			report(run, "calibrate", fmin((double)seen / run->work_total, 0.99), NULL);
		}
	}
	return run->inner.inputs(run->inner.ctx, slice, err);
}

static bool count_routing(void *ctx, const struct mc_tap_routing *routing, struct mc_error *err)
{
	struct run *run = ctx;
	return run->inner.routing == NULL || run->inner.routing(run->inner.ctx, routing, err);
}

static struct mc_tap counting_tap(struct run *run, struct mc_layer_observer *observer, size_t layer)
{
	const struct mc_model_config *config = &run->job->model.config;
	double rows = (double)run->batch.tokens;

	run->inner = mc_layer_observer_tap(observer);
	atomic_store(&run->work_seen, 0);
	if (run->job->model.layers[layer].moe == MC_NO_INDEX)
		run->work_total = rows * (double)config->intermediate;
	else
		run->work_total = rows * (double)config->expert_intermediate *
				  (double)(mc_job_sees_all(run->job) ? config->experts
								     : config->experts_per_token);
	return (struct mc_tap){.inputs = count_inputs, .routing = count_routing, .ctx = run};
}

/* --- hidden states between layers ------------------------------------------------------------- */

static bool save_hidden(struct run *run, size_t next, struct mc_error *err)
{
	char *path = mc_folder_numbered(&run->folder, "hidden", next, ".f32", err);
	size_t bytes = run->batch.tokens * run->job->model.config.hidden * sizeof(float);
	bool ok = path != NULL && mc_file_write_durable(path, run->hidden, bytes, err);
	free(path);
	return ok;
}

static bool load_hidden(struct run *run, size_t next, struct mc_error *err)
{
	char *path = mc_folder_numbered(&run->folder, "hidden", next, ".f32", err);
	size_t bytes = run->batch.tokens * run->job->model.config.hidden * sizeof(float);
	int fd = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
	bool ok = fd >= 0 || (path != NULL && mc_fail_errno(err, errno, path,
						  "the saved hidden states cannot be read"));
	ok = ok && mc_file_read_at(fd, run->hidden, bytes, 0, path, err);
	if (fd >= 0)
		close(fd);
	free(path);
	return ok;
}

/* The hidden states before layer `old` are not needed once the layer's row is committed. */
static void drop_hidden(struct run *run, size_t old)
{
	struct mc_error ignored;
	mc_error_init(&ignored);
	char *path = mc_folder_numbered(&run->folder, "hidden", old, ".f32", &ignored);
	if (path != NULL)
		unlink(path);
	free(path);
}

/* --- one layer -------------------------------------------------------------------------------- */

static bool say_layer(struct run *run, const struct mc_layer_row *row,
    const struct mc_coverage_layer *coverage, struct mc_error *err)
{
	struct mc_json *event = mc_event_new("layer");
	bool ok = mc_json_set(event, "layer", mc_json_new_integer((int64_t)row->index), err) &&
		  mc_json_set(event, "name", mc_json_new_string(row->name), err) &&
		  mc_json_set(event, "layers_done", mc_json_new_integer((int64_t)run->done), err) &&
		  mc_json_set(
		      event, "layers_total", mc_json_new_integer((int64_t)run->steps), err) &&
		  mc_json_set(event, "tokens", mc_json_new_integer((int64_t)row->tokens), err) &&
		  mc_json_set(event, "seconds", mc_json_new_real(row->seconds), err) &&
		  mc_json_set(event, "gflops",
		      mc_json_new_real(row->seconds > 0 ? row->flops / row->seconds / 1e9 : 0),
		      err);
	if (ok && coverage != NULL) {
		struct mc_coverage_summary summary;
		uint64_t floor = mc_job_floor(run->job);
		struct mc_json *starved = mc_json_new_array();
		ok = mc_coverage_summarise(coverage, floor, &summary, err) &&
		     mc_json_set(
			 event, "experts_min", mc_json_new_integer((int64_t)summary.min), err) &&
		     mc_json_set(event, "experts_median",
			 mc_json_new_integer((int64_t)summary.median), err) &&
		     mc_json_set(
			 event, "experts_max", mc_json_new_integer((int64_t)summary.max), err) &&
		     mc_json_set(event, "gini", mc_json_new_real(summary.gini), err) &&
		     mc_json_set(event, "starved", starved, err);
		for (size_t e = 0; ok && e < coverage->experts; e++)
			if (mc_coverage_is_starved(coverage, e, floor))
				ok = mc_json_append(starved, mc_json_new_integer((int64_t)e), err);
	}
	if (!ok) {
		mc_json_free(event);
		return false;
	}
	return mc_events_say(&run->events, event, err);
}

/* Part file, hidden states, row, event: in this order. */
static bool finish_step(struct run *run, size_t step, const char *name,
    const struct mc_layer_result *result, const struct mc_coverage_layer *coverage, double flops,
    struct mc_error *err)
{
	struct mc_layer_row row = {
	    .index = step, .name = name, .tokens = run->batch.tokens, .flops = flops};
	struct mc_module_row *rows = mc_alloc(
	    result->count > 0 ? result->count : 1, sizeof *rows, "module rows", err);
	char *part = mc_folder_numbered(&run->folder, "layer", step, ".safetensors", err);
	bool ok = rows != NULL && part != NULL &&
		  mc_layer_result_write(result, run->job, part, err) &&
		  (run->hidden == NULL || step >= run->layers || save_hidden(run, step + 1, err));

	for (size_t i = 0; ok && i < result->count; i++)
		rows[i] = result->tasks[i].row;
	row.seconds = now() - run->layer_started;
	ok = ok && mc_statistics_add_layer(run->statistics, &row, coverage, result->expert_source,
		       rows, result->count, err);
	free(rows);
	free(part);
	if (!ok)
		return false;
	run->done = step + 1;
	if (coverage != NULL)
		for (size_t e = 0; e < coverage->experts; e++)
			run->starved_total += mc_coverage_is_starved(
			    coverage, e, mc_job_floor(run->job));
	if (run->hidden != NULL && step < run->layers)
		drop_hidden(run, step);
	report(run, "calibrate", 0, coverage);
	return say_layer(run, &row, coverage, err);
}

/* The hidden states before a layer, again. */
static bool restore_hidden(struct run *run, size_t index, struct mc_error *err)
{
	if (index > 0)
		return load_hidden(run, index, err);
	return mc_forward_embed(
	    &run->job->model, &run->batch, run->job->spec->precision, run->hidden, run->env, err);
}

/* More passes over the layer's inputs, where an observer needs them. The hidden states come out of
 * each as out of the first. */
static bool search_inputs(struct run *run, const struct mc_layer *layer,
    const struct mc_layer_observer *observer, struct mc_input_searches *searches,
    struct mc_error *err)
{
	if (!mc_input_searches_init(
		searches, run->job, layer->index, observer, NULL, run->batch.start, run->env, err))
		return false;
	while (mc_input_searches_next(searches)) {
		struct mc_tap tap = mc_input_searches_tap(searches);
		if (!restore_hidden(run, layer->index, err) ||
		    !mc_forward_layer(layer, &run->batch, run->hidden, &tap, run->env, err))
			return false;
	}
	return true;
}

static bool calibrate_layer(struct run *run, size_t index, struct mc_error *err)
{
	const struct mc_model *model = &run->job->model;
	bool is_moe = model->layers[index].moe != MC_NO_INDEX, all = mc_job_sees_all(run->job);
	struct mc_layer layer;
	struct mc_layer_observer observer;
	struct mc_input_searches searches = {0};
	struct mc_layer_result result;
	struct mc_coverage_layer *coverage = NULL;
	size_t mark = mc_arena_mark(run->env->arena);

	run->layer_started = now();
	if (!mc_env_go_on(run->env, err) ||
	    !mc_layer_load(&layer, model, index, run->job->spec->precision, run->env, err))
		return false;
	if (run->hidden != NULL) {
		if (is_moe && !mc_coverage_layer_new(&run->coverage, index, model->config.experts,
				  model->config.experts_per_token, &coverage, err))
			return false;
		if (!mc_layer_observer_init(
			&observer, model, index, &run->batch, all, coverage, run->env, err) ||
		    !mc_observe_attention(run->job, index, &observer, run->env, err))
			return false;
		struct mc_tap tap = counting_tap(run, &observer, index);
		if (!mc_forward_layer(&layer, &run->batch, run->hidden, &tap, run->env, err) ||
		    !search_inputs(run, &layer, &observer, &searches, err))
			return false;
	}
	bool ok = mc_quantize_layer(run->job, &layer, run->hidden == NULL ? NULL : &observer,
		      &searches, run->env, &result, err) &&
		  finish_step(run, index, model->modules[model->layers[index].layer]->name, &result,
		      coverage,
		      run->hidden == NULL ? 0
					  : mc_forward_flops(model, index, run->batch.tokens, all),
		      err);
	mc_arena_rewind(run->env->arena, mark);
	return ok;
}

/* --- the head, when it is quantized ----------------------------------------------------------- */

static bool calibrate_head(struct run *run, struct mc_error *err)
{
	struct mc_job *job = run->job;
	size_t mark = mc_arena_mark(run->env->arena);
	struct mc_head head;
	struct mc_input_stats stats;
	struct mc_input_searches searches = {0};
	struct mc_layer_result result;

	run->layer_started = now();
	bool ok = mc_env_go_on(run->env, err) &&
		  mc_head_load(&head, &job->model, job->spec->precision, run->env, err) &&
		  (run->hidden == NULL || mc_head_observe(job, &head, &run->batch, run->hidden,
					      run->env, &stats, &searches, err)) &&
		  mc_quantize_head(job, &head.weight, run->hidden == NULL ? NULL : &stats,
		      &searches, run->env, &result, err) &&
		  finish_step(run, run->layers, job->model.modules[job->model.head]->name, &result,
		      NULL, 0, err);
	mc_arena_rewind(run->env->arena, mark);
	return ok;
}

/* --- begin: resume or start ------------------------------------------------------------------- */

static bool read_starved(struct run *run, struct mc_error *err)
{
	struct mc_json *coverage = mc_statistics_coverage_json(
	    run->statistics, mc_job_floor(run->job), err);
	if (coverage == NULL)
		return false;
	run->starved_total = (uint64_t)mc_json_integer(mc_json_get(coverage, "starved_total"));
	mc_json_free(coverage);
	return true;
}

/* What must be the same for a resume: every input, the program and its kernel. */
static bool require_same(
    struct run *run, const char *key, const char *value, bool fresh, struct mc_error *err)
{
	char *old = NULL;

	if (fresh)
		return mc_statistics_set(run->statistics, key, value, err);
	if (!mc_statistics_get(run->statistics, key, &old, err))
		return false;
	bool same = old != NULL && strcmp(old, value) == 0;
	if (!same)
		(void)mc_fail(err, MC_CONFLICT, run->folder.path,
		    "cannot go on: %s was '%.80s' when this job began and is '%.80s' now; use "
		    "another output folder",
		    key, old == NULL ? "" : old, value);
	free(old);
	return same;
}

static bool settle_identity(
    struct run *run, const struct mc_inputs *inputs, bool fresh, struct mc_error *err)
{
	bool ok = require_same(run, "version", MC_VERSION, fresh, err) &&
		  require_same(run, "kernel", mc_linalg_kernel(), fresh, err) &&
		  require_same(run, "spec", inputs->spec_sha256, fresh, err) &&
		  require_same(run, "model", inputs->model_sha256, fresh, err);
	for (size_t i = 0; ok && i < inputs->datasets_count; i++) {
		char key[40];
		snprintf(key, sizeof key, "dataset %zu", i);
		ok = require_same(run, key, inputs->datasets[i].sha256, fresh, err);
	}
	char floor[24];
	snprintf(floor, sizeof floor, "%llu", (unsigned long long)mc_job_floor(run->job));
	return ok && (!fresh || (mc_statistics_set(run->statistics, "floor_tokens", floor, err) &&
				    mc_statistics_set(run->statistics, "begun", "yes", err)));
}

static bool begin(struct run *run, const struct mc_inputs *inputs, struct mc_error *err)
{
	char *begun = NULL, *path = mc_folder_path(&run->folder, "calibration.db", err);

	run->statistics = path == NULL ? NULL : mc_statistics_open(path, false, err);
	free(path);
	if (run->statistics == NULL || !mc_statistics_get(run->statistics, "begun", &begun, err))
		return false;
	bool fresh = begun == NULL;
	free(begun);
	if (!settle_identity(run, inputs, fresh, err) ||
	    !mc_statistics_layers_done(run->statistics, &run->done, err) ||
	    !mc_statistics_forget(run->statistics, run->done, err))
		return false;
	run->resumed = run->done;
	return read_starved(run, err);
}

static bool open_events(struct run *run, struct mc_error *err)
{
	char *path = mc_folder_path(&run->folder, "events.jsonl", err);
	bool ok = path != NULL && mc_events_open(&run->events, path, run->hooks, err);
	free(path);
	return ok;
}

static bool say_started(struct run *run, struct mc_error *err)
{
	struct mc_json *event = mc_event_new(run->resumed > 0 ? "resumed" : "started");
	struct mc_json *plan = mc_plan_json(run->plan, err);
	bool ok = plan != NULL && mc_json_set(event, "plan", plan, err) &&
		  mc_json_set(event, "layers_done", mc_json_new_integer((int64_t)run->done), err) &&
		  mc_json_set(
		      event, "layers_total", mc_json_new_integer((int64_t)run->steps), err) &&
		  mc_json_set(event, "kernel", mc_json_new_string(mc_linalg_kernel()), err) &&
		  mc_json_set(event, "version", mc_json_new_string(MC_VERSION), err);
	if (!ok) {
		mc_json_free(event);
		return false;
	}
	if (!mc_events_say(&run->events, event, err))
		return false;
	for (size_t i = 0; i < run->job->warnings_count; i++) {
		event = mc_event_new("warning");
		if (!mc_json_set(event, "text", mc_json_new_string(run->job->warnings[i]), err)) {
			mc_json_free(event);
			return false;
		}
		if (!mc_events_say(&run->events, event, err))
			return false;
	}
	return true;
}

static bool prepare_hidden(struct run *run, struct mc_error *err)
{
	struct mc_job *job = run->job;

	if (job->dataset.sequences == 0 || job->spec->pipeline == MC_PIPELINE_DATAFREE)
		return true;
	run->batch = (struct mc_batch){.ids = job->dataset.ids,
	    .start = job->dataset.start,
	    .sequences = job->dataset.sequences,
	    .tokens = job->dataset.tokens};
	run->hidden = mc_arena_alloc(run->env->arena,
	    job->dataset.tokens * job->model.config.hidden, sizeof *run->hidden, "hidden states",
	    err);
	if (run->hidden == NULL)
		return false;
	if (run->done == 0)
		return mc_forward_embed(
		    &job->model, &run->batch, job->spec->precision, run->hidden, run->env, err);
	/* the head reads the states after the last layer, which stay until the job is finished */
	return run->done > run->layers || load_hidden(run, run->done, err);
}

/* --- the whole -------------------------------------------------------------------------------- */

static bool compute(struct run *run, struct mc_error *err)
{
	struct mc_moe_registry registry;
	struct mc_calibration_context context = {0};
	struct mc_error on_exit;

	mc_error_init(&on_exit);
	if (!mc_moe_registry_init(&registry, err))
		return false;
	bool ok = mc_calibration_context_enter(&context, &run->job->model, &registry,
	    mc_job_sees_all(run->job), NULL, NULL, run->env, err);
	for (size_t l = run->done; ok && l < run->layers; l++)
		ok = calibrate_layer(run, l, err);
	if (ok && run->steps > run->layers && run->done < run->steps)
		ok = calibrate_head(run, err);
	if (!mc_calibration_context_exit(&context, run->env, &on_exit) && ok)
		ok = mc_fail(err, on_exit.code, on_exit.where, "%s", on_exit.text);
	mc_moe_registry_release(&registry);
	return ok;
}

static bool say_end(struct run *run, bool valid, double seconds, struct mc_error *err)
{
	struct mc_json *event = mc_event_new("finished");
	bool ok = mc_json_set(event, "valid", mc_json_new_bool(valid), err) &&
		  mc_json_set(event, "seconds", mc_json_new_real(seconds), err);
	if (!ok) {
		mc_json_free(event);
		return false;
	}
	return mc_events_say(&run->events, event, err);
}

static bool publish(struct run *run, const struct mc_inputs *inputs, struct mc_run_result *ret,
    struct mc_error *err)
{
	struct mc_export export = {.job = run->job,
	    .folder = &run->folder,
	    .statistics = run->statistics,
	    .steps = run->steps,
	    .env = run->env,
	    .floor_tokens = mc_job_floor(run->job)};

	report(run, "export", 0, NULL);
	if (!mc_export_write(&export, err))
		return false;
	report(run, "verify", 0, NULL);
	if (!mc_export_verify(&export, &ret->valid, err))
		return false;
	ret->seconds = now() - run->started;
	return mc_manifest_write(&export, run->plan, inputs, ret, err) &&
	       mc_export_publish(&export, err) && say_end(run, ret->valid, ret->seconds, err) &&
	       mc_folder_finish(&run->folder, err);
}

bool mc_calibrate(struct mc_job *job, const struct mc_plan *plan, const char *out,
    const struct mc_run_hooks *hooks, const struct mc_env *env, struct mc_run_result *ret,
    struct mc_error *err)
{
	struct run run = {.job = job,
	    .plan = plan,
	    .env = env,
	    .hooks = hooks,
	    .events = {.fd = -1},
	    .folder = {.lock = -1}};
	struct mc_inputs inputs;
	bool resuming;

	*ret = (struct mc_run_result){0};
	run.started = now();
	run.layers = job->model.config.layers;
	run.steps = run.layers +
		    (job->model.head != MC_NO_INDEX && mc_job_scheme(job, job->model.head) != NULL);
	mc_coverage_init(&run.coverage);
	size_t mark = mc_arena_mark(env->arena);
	bool ok = mc_require_output_folder(out, err) && mc_inputs_read(&inputs, job, env, err);
	if (!ok)
		return false;
	ok = mc_folder_open(&run.folder, out, &resuming, err) &&
	     mc_manifest_write_spec(job, &run.folder, err) && begin(&run, &inputs, err) &&
	     open_events(&run, err) && say_started(&run, err) && prepare_hidden(&run, err) &&
	     compute(&run, err) && publish(&run, &inputs, ret, err);
	ret->resumed = run.resumed > 0;
	ret->layers_resumed = run.resumed;
	mc_statistics_close(run.statistics);
	mc_events_close(&run.events);
	mc_coverage_release(&run.coverage);
	mc_folder_release(&run.folder);
	mc_inputs_release(&inputs);
	mc_arena_rewind(env->arena, mark);
	return ok;
}
