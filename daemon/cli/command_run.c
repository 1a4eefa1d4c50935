/*
 * command_run.c - moecal run and moecal plan
 */
#include <string.h>
#include <unistd.h>

#include "cli.h"

#include "moecal/calibrate.h"
#include "moecal/derive.h"
#include "moecal/file.h"
#include "moecal/statistics.h"

#include <stdlib.h>

/* --- the plan for people ---------------------------------------------------------------------- */

static void print_plan(FILE *out, const struct mc_job *job, const struct mc_plan *plan)
{
	char a[32], b[32], c[32];

	fprintf(out, "plan: %s, %s parameters, %zu layers", job->model.config.model_type,
	    count_text((double)plan->parameters, a), plan->layers);
	if (plan->moe_layers > 0)
		fprintf(out, " (%zu with %zu experts, %zu a token)", plan->moe_layers,
		    plan->experts, plan->experts_per_token);
	fprintf(out, "\n  recipe      %s: %zu linears get a scheme\n", job->spec->recipe.name,
	    plan->modules_quantized);
	if (plan->tokens > 0 && job->source != NULL)
		fprintf(out,
		    "  data        as the source job learned it: %zu sequences, %llu tokens\n",
		    plan->sequences, (unsigned long long)plan->tokens);
	else if (plan->tokens > 0)
		fprintf(out, "  data        %zu sequences, %llu tokens; experts see %s\n",
		    plan->sequences, (unsigned long long)plan->tokens,
		    mc_job_sees_all(job) ? "all tokens" : "their routed tokens");
	else
		fprintf(out, "  data        none: parameters come from the weights alone\n");
	fprintf(out, "  memory      %s (hidden states %s, one layer %s)\n",
	    bytes_text(plan->memory_bytes, a), bytes_text(plan->memory_hidden, b),
	    bytes_text(plan->memory_layer, c));
	fprintf(out, "  disk        %s at most, checkpoint %s\n", bytes_text(plan->disk_bytes, a),
	    bytes_text(plan->checkpoint_bytes, b));
	if (plan->gflops > 0)
		fprintf(out, "  time        about %s: %sFLOP at %.0f GFLOP/s on %u thread%s\n",
		    seconds_text(plan->seconds, a), count_text(plan->flops, b), plan->gflops,
		    plan->threads, plan->threads == 1 ? "" : "s");
	for (size_t i = 0; i < job->warnings_count; i++)
		fprintf(out, "  warning     %s\n", job->warnings[i]);
	fflush(out);
}

/* --- progress --------------------------------------------------------------------------------- */

struct display {
	bool json;
	double said_at; /* seconds into the job of the last progress line */
	const char *phase;
	struct progress_display progress;
};

static void describe_coverage(struct display *d, const struct mc_progress *p)
{
	struct mc_coverage_summary s;
	struct mc_error err;

	mc_error_init(&err);
	if (p->coverage != NULL && mc_coverage_summarise(p->coverage, 1, &s, &err))
		snprintf(d->progress.coverage, sizeof d->progress.coverage,
		    "experts %llu..%llu tokens, %llu starved", (unsigned long long)s.min,
		    (unsigned long long)s.max, (unsigned long long)p->starved_total);
}

/* {"event": "progress", ...} on standard output, at most one a second and one a phase. It tells
 * where the job is now; unlike the other events it is not kept in events.jsonl and has no number.
 */
static void say_json(struct display *d, const struct mc_progress *p)
{
	struct mc_error err;

	if (d->phase != NULL && strcmp(d->phase, p->phase) == 0 && p->seconds < d->said_at + 1)
		return;
	d->phase = p->phase;
	d->said_at = p->seconds;
	mc_error_init(&err);
	struct mc_json *event = mc_json_new_object();
	bool ok = mc_json_set(event, "event", mc_json_new_string("progress"), &err) &&
		  mc_json_set(event, "phase", mc_json_new_string(p->phase), &err) &&
		  mc_json_set(
		      event, "layers_done", mc_json_new_integer((int64_t)p->layers_done), &err) &&
		  mc_json_set(
		      event, "layers_total", mc_json_new_integer((int64_t)p->layers_total), &err) &&
		  mc_json_set(event, "layer_fraction", mc_json_new_real(p->layer_fraction), &err) &&
		  mc_json_set(event, "tokens", mc_json_new_integer((int64_t)p->tokens), &err) &&
		  mc_json_set(event, "seconds", mc_json_new_real(p->seconds), &err) &&
		  mc_json_set(event, "seconds_left",
		      p->seconds_left >= 0 ? mc_json_new_real(p->seconds_left) : mc_json_new_null(),
		      &err) &&
		  mc_json_set(
		      event, "starved", mc_json_new_integer((int64_t)p->starved_total), &err);
	if (ok)
		print_json_line(event);
	mc_json_free(event);
}

static void on_progress(void *ctx, const struct mc_progress *p)
{
	struct display *d = ctx;

	describe_coverage(d, p);
	if (d->json)
		say_json(d, p);
	else
		progress_show(&d->progress, p);
}

static void on_event(void *ctx, const struct mc_json *event)
{
	const struct display *d = ctx;

	if (d->json)
		print_json_line(event);
}

/* --- the run ---------------------------------------------------------------------------------- */

static void print_result(
    const char *out, const struct mc_spec *spec, const struct mc_run_result *result)
{
	struct mc_error err;
	char text[32];

	mc_error_init(&err);
	struct mc_json *verdict = read_json_file(out, "verdict.json", &err);
	if (verdict == NULL)
		return;
	print_verdict(verdict);
	if (mc_json_get(verdict, "experts") != NULL)
		print_coverage(mc_json_get(verdict, "experts"), false);
	printf("done in %s\n", seconds_text(result->seconds, text));
	if (spec->save_model)
		printf("checkpoint: %s/model\n", out);
	printf("parameters: %s/quantization.safetensors\n", out);
	mc_json_free(verdict);
}

static int calibrate(struct mc_job *job, const struct mc_plan *plan, const struct spec_arguments *a,
    const struct mc_env *env)
{
	struct display display = {.json = a->json, .progress.terminal = isatty(STDERR_FILENO) == 1};
	struct mc_run_hooks hooks = {.progress = on_progress, .event = on_event, .ctx = &display};
	struct mc_run_result result;
	struct mc_error err;

	mc_error_init(&err);
	bool ok = mc_calibrate(job, plan, a->output, &hooks, env, &result, &err);
	if (!a->json)
		progress_clear(&display.progress);
	if (!ok) {
		int code = report_error(&err, a->json, err.code != MC_CONFLICT);
		if (err.code == MC_CANCELED)
			fprintf(stderr, "moecal: the finished layers are saved; the same command "
					"goes on from there\n");
		return code;
	}
	if (!a->json)
		print_result(a->output, job->spec, &result);
	return result.valid ? EXIT_DONE : EXIT_VERDICT;
}

static int plan_job(struct mc_job *job, struct mc_plan *plan, const struct spec_arguments *a,
    struct mc_spec *spec, struct mc_source *source, const struct session *session,
    struct mc_error *err)
{
	/* a derived job multiplies nothing: no rate to measure */
	double gflops = source != NULL              ? 0
			: a->confinement.gflops > 0 ? a->confinement.gflops
						    : MC_PLAN_MEASURE;

	if (source == NULL ? !mc_job_open(job, spec, &session->env, err)
			   : !mc_job_open_derived(job, spec, source, &session->env, err))
		return report_error(err, a->json, false);
	if (!mc_plan_make(plan, job, gflops, &session->env, err)) {
		mc_job_close(job);
		return report_error(err, a->json, false);
	}
	return EXIT_DONE;
}

int spec_run(struct mc_spec *spec, const struct spec_arguments *a, struct mc_source *source)
{
	struct session session = {.quiet = a->json};
	struct mc_error err;
	struct mc_job job;
	struct mc_plan plan;
	uint64_t disk;

	mc_error_init(&err);
	if (!mc_require_output_folder(a->output, &err) ||
	    !mc_file_free_bytes(a->output, &disk, &err) ||
	    !session_open(&session, spec->threads, spec->memory_bytes, &err))
		return report_error(&err, a->json, false);
	session.env.roots = a->confinement.roots;
	int code = plan_job(&job, &plan, a, spec, source, &session, &err);
	if (code == EXIT_DONE) {
		if (!a->json)
			print_plan(stderr, &job, &plan);
		if (!mc_plan_require_fits(&plan, session.arena.budget, disk, &err))
			code = report_error(&err, a->json, false);
		else
			code = calibrate(&job, &plan, a, &session.env);
		mc_job_close(&job);
	}
	session_close(&session);
	return code;
}

int spec_show_plan(struct mc_spec *spec, const struct spec_arguments *a, struct mc_source *source)
{
	struct session session = {.quiet = true};
	struct mc_error err;
	struct mc_job job = {0};
	struct mc_plan plan;

	mc_error_init(&err);
	if (!session_open(&session, spec->threads, spec->memory_bytes, &err))
		return report_error(&err, a->json, false);
	session.env.roots = a->confinement.roots;
	int code = plan_job(&job, &plan, a, spec, source, &session, &err);
	if (code == EXIT_DONE && a->json) {
		struct mc_json *json = mc_plan_json(&plan, &err);
		if (json == NULL || !print_json(json, &err))
			code = report_error(&err, false, false);
		mc_json_free(json);
	} else if (code == EXIT_DONE) {
		print_plan(stdout, &job, &plan);
	}
	if (code == EXIT_DONE &&
	    !mc_plan_require_fits(&plan, session.arena.budget, UINT64_MAX, &err))
		code = report_error(&err, false, false);
	mc_job_close(&job); /* a closed or zeroed one is fine */
	session_close(&session);
	return code;
}

static int with_spec(int argc, char **argv, bool run)
{
	struct spec_arguments a;
	struct mc_spec spec;
	struct mc_problems problems;
	struct mc_error err;
	int code = spec_arguments_read(&a, argc, argv);

	if (code == EXIT_DONE && run && a.output == NULL)
		code = usage_error(argv[0], "-o DIR is needed: where the results go");
	if (code != EXIT_DONE) {
		spec_arguments_release(&a);
		return code;
	}
	mc_error_init(&err);
	mc_problems_init(&problems);
	if (!mc_spec_parse(&spec, a.spec, &problems, &err))
		code = report_error(&err, a.json, false);
	else if (problems.total > 0)
		code = report_problems(&problems, a.json);
	else
		code = run ? spec_run(&spec, &a, NULL) : spec_show_plan(&spec, &a, NULL);
	mc_spec_release(&spec);
	mc_problems_release(&problems);
	spec_arguments_release(&a);
	return code;
}

int command_run(int argc, char **argv)
{
	return with_spec(argc, argv, true);
}

int command_plan(int argc, char **argv)
{
	return with_spec(argc, argv, false);
}
