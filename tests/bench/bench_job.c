/*
 * bench_job.c - a calibration taken apart: what each phase of a layer costs, as a share of the peak
 *
 *   bench_job CHECKPOINT [--threads N] [--recipe NAME] [--out FOLDER] [--rounds N]
 *
 * CHECKPOINT is what make_checkpoint writes. First the layers one by one through the library: load,
 * attention, experts, quantize, write; then, with --out, the same as one job by mc_calibrate into
 * FOLDER, which is removed afterwards. The peak is that of plain sgemm on the same workers: the
 * best shape, measured before and between, so that a machine which slows down meanwhile is seen.
 * The peak of memory is that of the whole process: one number of threads a process. "busy" is the
 * processor time of the phase as a share of its seconds on all threads; a low one in the passes
 * says that something else ran on the machine, and "by cpu", GFLOP a second of processor time
 * against the peak, is then what a free machine would give.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "moecal/alloc.h"
#include "moecal/calibrate.h"
#include "moecal/file.h"
#include "moecal/linalg.h"
#include "moecal/moe_context.h"
#include "moecal/observer.h"

#include "../../lib/run/quantize_layer.h"

#define PEAK_SECONDS 0.4
#define MEMORY ((uint64_t)12 << 30) /* of address space; pages that nobody touches cost nothing */

struct options {
	const char *checkpoint, *recipe, *out;
	size_t threads, rounds;
};

/* What the layers of a round spend in a phase: on the clock, and on all processors together. */
struct spent {
	double seconds, processor;
};
enum phase { LOAD, ATTENTION, EXPERTS, QUANTIZE, WRITE, PHASES };

struct bench {
	struct options o;
	struct mc_arena arena;
	struct mc_env env;
	struct mc_spec spec;
	struct mc_job job;
	struct mc_batch batch;
	struct mc_coverage coverage;
	float *hidden;
	double peak, peak_low; /* best shape; the lowest of its measurements */
	struct spent round[PHASES], best[PHASES];
	struct spent begun;  /* when the phase in work began */
	struct mc_tap inner; /* the observer's */
	/* when the job went from one thing to the next */
	double job_began, digests_ended, export_began, verify_began, job_ended;
};

static double clock_seconds(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void begin_phase(struct bench *b)
{
	b->begun = (struct spent){
	    clock_seconds(CLOCK_MONOTONIC), clock_seconds(CLOCK_PROCESS_CPUTIME_ID)};
}

static void end_phase(struct bench *b, enum phase phase)
{
	struct spent from = b->begun;

	begin_phase(b);
	b->round[phase].seconds += b->begun.seconds - from.seconds;
	b->round[phase].processor += b->begun.processor - from.processor;
}

/* --- the peak --------------------------------------------------------------------------- */

static bool measure_peak(
    struct bench *b, size_t m, size_t n, size_t k, double *ret, struct mc_error *err)
{
	return mc_linalg_measure(m, n, k, PEAK_SECONDS, &b->env, ret, err);
}

/* Square and long products; those of the experts are printed besides. */
static bool find_peak(struct bench *b, struct mc_error *err)
{
	const struct mc_model_config *c = &b->job.model.config;
	const size_t shapes[][3] = {{1024, 1024, c->hidden}, {2048, 2048, 2048}, {768, 768, 768},
	    {4096, c->expert_intermediate, c->hidden},
	    {1024, 2 * c->expert_intermediate, c->hidden},
	    {256, c->hidden, c->expert_intermediate}};
	double rate;

	printf("  sgemm");
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
		if (!measure_peak(b, shapes[i][0], shapes[i][1], shapes[i][2], &rate, err))
			return false;
		printf("%s %zux%zux%zu %.0f", i > 0 ? "," : "", shapes[i][0], shapes[i][1],
		    shapes[i][2], rate);
		b->peak = rate > b->peak ? rate : b->peak;
	}
	b->peak_low = b->peak;
	printf(" GFLOP/s\n");
	return true;
}

/* The long product again: what the machine gives now. */
static bool measure_again(struct bench *b, struct mc_error *err)
{
	double rate;

	if (!measure_peak(b, 1024, 1024, b->job.model.config.hidden, &rate, err))
		return false;
	b->peak = rate > b->peak ? rate : b->peak;
	b->peak_low = rate < b->peak_low ? rate : b->peak_low;
	return true;
}

/* --- the layers, phase by phase --------------------------------------------------------- */

static bool hand_inputs(void *ctx, const struct mc_tap_slice *slice, struct mc_error *err)
{
	struct bench *b = ctx;

	return b->inner.inputs(b->inner.ctx, slice, err);
}

/* Attention of all tokens comes before the first choice; norm and router of its tokens count with
 * it. */
static bool hand_routing(void *ctx, const struct mc_tap_routing *routing, struct mc_error *err)
{
	struct bench *b = ctx;

	if (routing->first_token == 0)
		end_phase(b, ATTENTION);
	return b->inner.routing(b->inner.ctx, routing, err);
}

static bool write_part(
    const struct bench *b, const struct mc_layer_result *result, struct mc_error *err)
{
	char *path = mc_format(err, "%s/bench.part", b->o.checkpoint);
	bool ok = path != NULL && mc_layer_result_write(result, &b->job, path, err);

	if (ok)
		remove(path);
	free(path);
	return ok;
}

static bool time_layer(struct bench *b, size_t index, struct mc_error *err)
{
	const struct mc_model *model = &b->job.model;
	size_t mark = mc_arena_mark(b->env.arena);
	struct mc_tap tap = {.inputs = hand_inputs, .routing = hand_routing, .ctx = b};
	struct mc_layer layer;
	struct mc_layer_observer observer;
	struct mc_layer_result result;
	struct mc_coverage_layer *coverage;

	begin_phase(b);
	if (!mc_layer_load(&layer, model, index, b->spec.precision, &b->env, err))
		return false;
	end_phase(b, LOAD);
	if (!mc_coverage_layer_new(&b->coverage, index, model->config.experts,
		model->config.experts_per_token, &coverage, err) ||
	    !mc_layer_observer_init(
		&observer, model, index, &b->batch, true, coverage, &b->env, err))
		return false;
	b->inner = mc_layer_observer_tap(&observer);
	if (!mc_forward_layer(&layer, &b->batch, b->hidden, &tap, &b->env, err))
		return false;
	end_phase(b, EXPERTS);
	if (!mc_quantize_layer(&b->job, &layer, &observer, NULL, &b->env, &result, err))
		return false;
	end_phase(b, QUANTIZE);
	if (!write_part(b, &result, err))
		return false;
	end_phase(b, WRITE);
	mc_arena_rewind(b->env.arena, mark);
	return true;
}

/* All layers once. The coverage says that every expert saw every token, or nothing was measured. */
static bool time_round(struct bench *b, struct mc_error *err)
{
	bool ok = mc_forward_embed(
	    &b->job.model, &b->batch, b->spec.precision, b->hidden, &b->env, err);

	memset(b->round, 0, sizeof b->round);
	mc_coverage_init(&b->coverage);
	for (size_t l = 0; ok && l < b->job.model.config.layers; l++)
		ok = measure_again(b, err) && time_layer(b, l, err);
	for (size_t l = 0; ok && l < b->coverage.count; l++)
		for (size_t e = 0; ok && e < b->coverage.layers[l].experts; e++)
			if (b->coverage.layers[l].expert[e].seen != b->batch.tokens)
				ok = mc_fail(err, MC_INTERNAL, "coverage",
				    "layer %zu, expert %zu saw %llu of %zu tokens", l, e,
				    (unsigned long long)b->coverage.layers[l].expert[e].seen,
				    b->batch.tokens);
	mc_coverage_release(&b->coverage);
	for (size_t p = 0; ok && p < PHASES; p++)
		if (!(b->best[p].seconds > 0) || b->round[p].seconds < b->best[p].seconds)
			b->best[p] = b->round[p];
	return ok;
}

/* Under the context, as a job runs: the blocks are those that send all tokens to all experts. */
static bool time_layers(struct bench *b, struct mc_error *err)
{
	struct mc_moe_registry registry;
	struct mc_calibration_context context = {0};
	size_t mark = mc_arena_mark(b->env.arena);

	b->hidden = mc_arena_alloc(b->env.arena, b->batch.tokens * b->job.model.config.hidden,
	    sizeof *b->hidden, "hidden states", err);
	if (b->hidden == NULL || !mc_moe_registry_init(&registry, err))
		return false;
	bool ok = mc_calibration_context_enter(
	    &context, &b->job.model, &registry, true, NULL, NULL, &b->env, err);
	for (size_t round = 0; ok && round < b->o.rounds; round++)
		ok = time_round(b, err);
	ok = mc_calibration_context_exit(&context, &b->env, err) && ok;
	mc_moe_registry_release(&registry);
	mc_arena_rewind(b->env.arena, mark);
	return ok;
}

/* --- what is printed -------------------------------------------------------------------- */

/* Multiply-adds * 2 of attention's own products: each query with the keys up to its own. */
static double attention_flops(const struct bench *b)
{
	const struct mc_model_config *c = &b->job.model.config;
	double pairs = 0;

	for (size_t s = 0; s < b->batch.sequences; s++) {
		double n = (double)(b->batch.start[s + 1] - b->batch.start[s]);
		pairs += n * (n + 1) / 2;
	}
	return 4 * pairs * (double)(c->heads * c->head_dim);
}

static void print_row(const struct bench *b, const char *name, struct spent spent, double flops)
{
	double rate = flops / spent.seconds / 1e9,
	       busy = spent.processor / spent.seconds / (double)b->o.threads;

	printf("  %-28s %8.3f %6.0f %%", name, spent.seconds, 100 * busy);
	if (flops > 0)
		printf(" %9.1f %7.1f %% %7.1f %%", rate, 100 * rate / b->peak,
		    100 * rate / busy / b->peak);
	printf("\n");
}

static struct spent sum(const struct bench *b, enum phase first, enum phase last)
{
	struct spent s = {0};

	for (size_t p = (size_t)first; p <= (size_t)last; p++) {
		s.seconds += b->best[p].seconds;
		s.processor += b->best[p].processor;
	}
	return s;
}

static void print_phases(const struct bench *b)
{
	const struct mc_model_config *c = &b->job.model.config;
	double layers = (double)c->layers, tokens = (double)b->batch.tokens, linears = 0;

	for (size_t l = 0; l < c->layers; l++)
		linears += mc_forward_flops(&b->job.model, l, b->batch.tokens, true);
	double experts = 2 * layers * tokens * (double)(c->hidden * c->expert_intermediate) *
			 (double)(2 * c->experts + c->experts_per_token);
	double all = linears + layers * attention_flops(b);
	struct spent pass = sum(b, ATTENTION, EXPERTS), phases = sum(b, LOAD, WRITE);

	printf("  peak of sgemm %.1f GFLOP/s (lowest measurement between layers %.1f)\n", b->peak,
	    b->peak_low);
	printf("  %-28s %8s %8s %9s %9s %9s\n", "phase, all layers", "seconds", "busy", "GFLOP/s",
	    "of peak", "by cpu");
	print_row(b, "load", b->best[LOAD], 0);
	print_row(b, "attention, router", b->best[ATTENTION], all - experts);
	print_row(b, "experts, all tokens", b->best[EXPERTS], experts);
	print_row(b, "  both: the all-experts pass", pass, all);
	print_row(b, "quantize", b->best[QUANTIZE], 0);
	print_row(b, "write", b->best[WRITE], 0);
	print_row(b, "all phases", phases, all);
	printf("  %.0f tokens/s through a layer's pass, %.0f through all its phases\n",
	    tokens * layers / pass.seconds, tokens * layers / phases.seconds);
}

/* --- the whole job ---------------------------------------------------------------------- */

static void on_progress(void *ctx, const struct mc_progress *progress)
{
	struct bench *b = ctx;

	if (strcmp(progress->phase, "export") == 0)
		b->export_began = clock_seconds(CLOCK_MONOTONIC);
	else if (strcmp(progress->phase, "verify") == 0)
		b->verify_began = clock_seconds(CLOCK_MONOTONIC);
}

/* The first event comes when the inputs are digested. */
static void on_event(void *ctx, const struct mc_json *event)
{
	struct bench *b = ctx;

	(void)event;
	if (!(b->digests_ended > 0))
		b->digests_ended = clock_seconds(CLOCK_MONOTONIC);
}

static struct mc_json *read_manifest(const char *folder, struct mc_error *err)
{
	char *path = mc_format(err, "%s/manifest.json", folder);
	FILE *file = path == NULL ? NULL : fopen(path, "re");
	struct mc_json *manifest = NULL;
	struct mc_buf text;

	mc_buf_init(&text, (size_t)64 << 20);
	if (file == NULL)
		(void)mc_fail(err, MC_NOT_FOUND, folder, "the job left no manifest");
	else if (mc_file_read_all(fileno(file), path, &text, err))
		manifest = mc_json_parse(mc_buf_text(&text), text.length, path, err);
	if (file != NULL)
		fclose(file);
	mc_buf_release(&text);
	free(path);
	return manifest;
}

static bool print_job(const struct bench *b, struct mc_error *err)
{
	struct mc_json *manifest = read_manifest(b->o.out, err);

	if (manifest == NULL)
		return false;
	const struct mc_json *layers = mc_json_get(manifest, "layers");
	printf("  as one job: %.2f s: digests %.2f, layers %.2f, export %.2f, checks and "
	       "publishing %.2f\n",
	    b->job_ended - b->job_began, b->digests_ended - b->job_began,
	    b->export_began - b->digests_ended, b->verify_began - b->export_began,
	    b->job_ended - b->verify_began);
	for (size_t i = 0; i < mc_json_size(layers); i++) {
		const struct mc_json *one = mc_json_at(layers, i);
		double rate = mc_json_number(mc_json_get(one, "gflops"));
		printf("    layer %zu: %.2f s, %.1f GFLOP/s, %.1f %% of peak\n", i,
		    mc_json_number(mc_json_get(one, "seconds")), rate, 100 * rate / b->peak);
	}
	mc_json_free(manifest);
	return true;
}

static bool run_job(struct bench *b, struct mc_error *err)
{
	struct mc_run_hooks hooks = {.progress = on_progress, .event = on_event, .ctx = b};
	struct mc_plan plan;
	struct mc_run_result result;

	if (!mc_file_remove_tree(b->o.out, err) ||
	    !mc_plan_make(&plan, &b->job, 0, &b->env, err))
		return false;
	b->job_began = clock_seconds(CLOCK_MONOTONIC);
	if (!mc_calibrate(&b->job, &plan, b->o.out, &hooks, &b->env, &result, err))
		return false;
	b->job_ended = clock_seconds(CLOCK_MONOTONIC);
	if (!result.valid)
		return mc_fail(err, MC_INTERNAL, b->o.out, "the verdict of the job is not valid");
	return print_job(b, err) && mc_file_remove_tree(b->o.out, err);
}

/* --- opening ---------------------------------------------------------------------------- */

static bool make_spec(struct bench *b, struct mc_error *err)
{
	struct mc_json *json = mc_json_new_object();
	struct mc_problems problems;
	char *ids = mc_format(err, "%s/ids.npy", b->o.checkpoint);
	bool ok = ids != NULL &&
		  mc_json_set(json, "model", mc_json_new_string(b->o.checkpoint), err) &&
		  mc_json_set(json, "dataset", mc_json_new_string(ids), err) &&
		  mc_json_set(json, "recipe", mc_json_new_string(b->o.recipe), err) &&
		  mc_json_set(json, "max_seq_length", mc_json_new_integer(32768), err);

	mc_problems_init(&problems);
	ok = ok && mc_spec_parse(&b->spec, json, &problems, err);
	if (ok && problems.total > 0)
		ok = mc_fail(
		    err, MC_INVALID, problems.items[0].pointer, "%s", problems.items[0].text);
	mc_problems_release(&problems);
	mc_json_free(json);
	free(ids);
	return ok;
}

static bool open_bench(struct bench *b, struct mc_error *err)
{
	b->env = (struct mc_env){
	    .arena = &b->arena, .pool = mc_pool_new((unsigned)b->o.threads, err)};
	if (b->env.pool == NULL || !mc_arena_init(&b->arena, MEMORY, err) ||
	    !mc_linalg_init(b->env.pool, err) || !make_spec(b, err) ||
	    !mc_job_open(&b->job, &b->spec, &b->env, err))
		return false;
	if (b->job.model.config.experts == 0)
		return mc_fail(err, MC_UNSUPPORTED, b->o.checkpoint, "the model has no experts");
	for (size_t l = 0; l < b->job.model.config.layers; l++)
		if (b->job.model.layers[l].moe == MC_NO_INDEX)
			return mc_fail(
			    err, MC_UNSUPPORTED, b->o.checkpoint, "layer %zu has no experts", l);
	b->batch = (struct mc_batch){.ids = b->job.dataset.ids,
	    .start = b->job.dataset.start,
	    .sequences = b->job.dataset.sequences,
	    .tokens = b->job.dataset.tokens};
	return true;
}

static bool read_options(int argc, char **argv, struct options *o)
{
	*o = (struct options){.threads = 1, .rounds = 2, .recipe = "W4A16"};
	for (int i = 1; i < argc; i++) {
		bool more = i + 1 < argc;
		if (strcmp(argv[i], "--threads") == 0 && more)
			o->threads = strtoul(argv[++i], NULL, 10);
		else if (strcmp(argv[i], "--rounds") == 0 && more)
			o->rounds = strtoul(argv[++i], NULL, 10);
		else if (strcmp(argv[i], "--recipe") == 0 && more)
			o->recipe = argv[++i];
		else if (strcmp(argv[i], "--out") == 0 && more)
			o->out = argv[++i];
		else if (argv[i][0] != '-' && o->checkpoint == NULL)
			o->checkpoint = argv[i];
		else
			return false;
	}
	return o->checkpoint != NULL && o->threads >= 1 && o->threads <= 1024 && o->rounds >= 1;
}

int main(int argc, char **argv)
{
	static struct bench b; /* the model's configuration is too big for a stack */
	struct mc_error err;
	struct rusage usage;

	mc_error_init(&err);
	if (!read_options(argc, argv, &b.o)) {
		fprintf(stderr, "usage: bench_job CHECKPOINT [--threads N] [--recipe NAME] [--out "
				"FOLDER] [--rounds N]\n");
		return 2;
	}
	bool ok = open_bench(&b, &err);
	if (ok) {
		const struct mc_model_config *c = &b.job.model.config;
		printf("%zu thread%s, %s, %zu tokens, %zu layers, D %zu, F %zu, E %zu, K %zu, %s, "
		       "best of %zu\n",
		    b.o.threads, b.o.threads == 1 ? "" : "s", mc_linalg_kernel(), b.batch.tokens,
		    c->layers, c->hidden, c->expert_intermediate, c->experts, c->experts_per_token,
		    b.o.recipe, b.o.rounds);
		ok = find_peak(&b, &err) && time_layers(&b, &err);
	}
	if (ok)
		print_phases(&b);
	if (ok && b.o.out != NULL)
		ok = run_job(&b, &err);
	if (ok && getrusage(RUSAGE_SELF, &usage) == 0)
		printf("  peak of memory %.0f MiB (arena %.0f MiB)\n",
		    (double)usage.ru_maxrss / 1024, (double)b.arena.peak / 1048576);
	if (!ok)
		fprintf(
		    stderr, "bench_job: %s: %s: %s\n", mc_code_name(err.code), err.where, err.text);
	mc_job_close(&b.job);
	mc_spec_release(&b.spec);
	mc_pool_free(b.env.pool);
	mc_arena_release(&b.arena);
	return ok ? 0 : 1;
}
