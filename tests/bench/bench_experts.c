/*
 * bench_experts.c - speed of the expert pass, where a calibration spends its time
 *
 *   bench_experts [--width D] [--expert-width F] [--experts E] [--active K]
 *                 [--tokens T] [--workers N] [--rounds N]
 *
 * Random bf16 weights in memory, no checkpoint. A line for each way of listening: all experts see
 * all tokens with a tap that does nothing, with statistics of every input, and the routed tokens
 * alone. The peak is that of plain products on the same workers, measured between the passes; of
 * each the best round counts.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "moecal/forward.h"
#include "moecal/linalg.h"
#include "moecal/ops.h"

struct shape {
	size_t width, expert_width, experts, active, tokens, workers, rounds;
};

/* Statistics as calibration keeps them, [experts + 1, channels] of each; the last row is the
 * layer's. */
struct statistics {
	size_t channels;
	double *sum, *squares;
	float *absmax, *min, *max;
};

struct bench {
	struct shape shape;
	struct mc_model model;
	struct mc_module block;
	struct mc_module *modules[1];
	struct mc_layer_index index;
	struct mc_layer layer;
	float *x, *out;
	struct statistics statistics;
	struct mc_env env;
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void stop(const struct mc_error *err)
{
	fprintf(
	    stderr, "bench_experts: %s: %s: %s\n", mc_code_name(err->code), err->where, err->text);
	exit(1);
}

static void *memory(size_t count, size_t size)
{
	void *p = calloc(count, size);

	if (p == NULL) {
		fprintf(stderr, "bench_experts: out of memory\n");
		exit(1);
	}
	return p;
}

/* Uniform in -1..1, from a 64-bit congruential generator. */
static float draw(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (float)((double)(*state >> 40) / 8388608.0 - 1.0);
}

static struct mc_weight random_weight(size_t rows, size_t cols, uint64_t *state)
{
	uint16_t *data = memory(rows * cols, sizeof *data);

	for (size_t i = 0; i < rows * cols; i++)
		data[i] = mc_f32_to_bf16(draw(state) * 0.05f);
	return (struct mc_weight){.dtype = MC_BF16, .rows = rows, .cols = cols, .data = data};
}

static void make_layer(struct bench *b)
{
	struct shape s = b->shape;
	uint64_t state = 1;

	b->model.config.hidden = s.width;
	b->model.config.expert_intermediate = s.expert_width;
	b->model.config.experts = s.experts;
	b->model.config.experts_per_token = s.active;
	b->model.config.renormalise = true;
	b->modules[0] = &b->block;
	b->model.modules = b->modules;
	b->model.modules_count = 1;
	b->model.layers = &b->index;
	b->layer.model = &b->model;
	b->layer.router = random_weight(s.experts, s.width, &state);
	b->layer.gate = memory(s.experts, sizeof *b->layer.gate);
	b->layer.up = memory(s.experts, sizeof *b->layer.up);
	b->layer.down = memory(s.experts, sizeof *b->layer.down);
	for (size_t e = 0; e < s.experts; e++) {
		b->layer.gate[e] = random_weight(s.expert_width, s.width, &state);
		b->layer.up[e] = random_weight(s.expert_width, s.width, &state);
		b->layer.down[e] = random_weight(s.width, s.expert_width, &state);
	}
	b->x = memory(s.tokens * s.width, sizeof *b->x);
	b->out = memory(s.tokens * s.width, sizeof *b->out);
	for (size_t i = 0; i < s.tokens * s.width; i++)
		b->x[i] = draw(&state);
}

static void make_statistics(struct bench *b)
{
	struct shape s = b->shape;
	struct statistics *st = &b->statistics;
	size_t rows = s.experts + 1;

	st->channels = s.width > s.expert_width ? s.width : s.expert_width;
	st->sum = memory(rows * st->channels, sizeof *st->sum);
	st->squares = memory(rows * st->channels, sizeof *st->squares);
	st->absmax = memory(rows * st->channels, sizeof *st->absmax);
	st->min = memory(rows * st->channels, sizeof *st->min);
	st->max = memory(rows * st->channels, sizeof *st->max);
}

/* --- listeners ---------------------------------------------------------------------------- */

static bool listen_nothing(void *ctx, const struct mc_tap_slice *slice, struct mc_error *err)
{
	(void)ctx;
	(void)slice;
	(void)err;
	return true;
}

static size_t place(const struct bench *b, const struct mc_tap_slice *slice)
{
	size_t row = slice->expert == MC_NO_INDEX ? b->shape.experts : slice->expert;

	return row * b->statistics.channels + slice->first_channel;
}

/* Two passes: sums of every channel, then the range of every row. */
static bool listen_twice(void *ctx, const struct mc_tap_slice *slice, struct mc_error *err)
{
	struct bench *b = ctx;
	struct statistics *st = &b->statistics;
	size_t at = place(b, slice);

	(void)err;
	for (size_t i = 0; i < slice->count; i++) {
		const float *row = slice->x + (slice->rows ? slice->rows[i] : i) * slice->ldx;
		float low, high;
		mc_channel_stats_add(row, slice->ldx, 1, slice->channels, st->sum + at,
		    st->squares + at, st->absmax + at);
		mc_range(row, slice->channels, &low, &high);
		st->min[at] = low < st->min[at] ? low : st->min[at];
		st->max[at] = high > st->max[at] ? high : st->max[at];
	}
	return true;
}

static bool listen_once(void *ctx, const struct mc_tap_slice *slice, struct mc_error *err)
{
	struct bench *b = ctx;
	struct statistics *st = &b->statistics;
	size_t at = place(b, slice);

	(void)err;
	mc_block_stats_add(slice->x, slice->ldx, slice->rows, slice->count, slice->channels,
	    st->sum + at, st->squares + at, st->absmax + at, st->min + at, st->max + at);
	return true;
}

/* --- measuring ---------------------------------------------------------------------------- */

struct way {
	const char *name;
	bool all;
	bool (*inputs)(void *ctx, const struct mc_tap_slice *slice, struct mc_error *err);
	double gflops; /* the best round */
};

static void measure_pass(struct bench *b, struct way *way)
{
	struct mc_tap tap = {.inputs = way->inputs, .ctx = b};
	struct mc_moe_call call = {.layer = &b->layer,
	    .tokens = b->shape.tokens,
	    .x = b->x,
	    .out = b->out,
	    .tap = way->inputs != NULL ? &tap : NULL};
	double flops = mc_forward_flops(&b->model, 0, b->shape.tokens, way->all), begin = now();
	struct mc_error err;

	mc_error_init(&err);
	if (!mc_moe_forward(&call, way->all, &b->env, &err))
		stop(&err);
	double rate = flops / (now() - begin) / 1e9;
	way->gflops = rate > way->gflops ? rate : way->gflops;
}

/* Peak and passes take turns, so that whatever else runs on the machine slows all of them alike. */
static void measure_workers(struct bench *b, unsigned workers)
{
	struct way ways[] = {{"all tokens, tap does nothing", true, listen_nothing, 0},
	    {"all tokens, statistics in one pass", true, listen_once, 0},
	    {"all tokens, statistics in two passes", true, listen_twice, 0},
	    {"routed tokens, no tap", false, NULL, 0},
	    {"routed tokens, statistics in one pass", false, listen_once, 0}};
	struct mc_arena arena;
	struct mc_error err;
	double peak = 0, rate;

	mc_error_init(&err);
	if (!mc_arena_init(&arena, (uint64_t)8 << 30, &err))
		stop(&err);
	b->env = (struct mc_env){.arena = &arena, .pool = mc_pool_new(workers, &err)};
	if (b->env.pool == NULL || !mc_linalg_init(b->env.pool, &err))
		stop(&err);
	for (size_t round = 0; round < b->shape.rounds; round++)
		for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++) {
			if (!mc_linalg_measure(
				1024, 1024, b->shape.width, 0.5, &b->env, &rate, &err))
				stop(&err);
			peak = rate > peak ? rate : peak;
			measure_pass(b, &ways[w]);
		}
	printf("%7u  %-38s %9.1f\n", workers, "plain products: the peak", peak);
	for (size_t w = 0; w < sizeof ways / sizeof ways[0]; w++)
		printf("%7u  %-38s %9.1f  %6.1f %%\n", workers, ways[w].name, ways[w].gflops,
		    100 * ways[w].gflops / peak);
	mc_pool_free(b->env.pool);
	mc_arena_release(&arena);
}

static void read_options(int argc, char **argv, struct shape *s)
{
	const struct {
		const char *name;
		size_t *value;
	} options[] = {{"--width", &s->width}, {"--expert-width", &s->expert_width},
	    {"--experts", &s->experts}, {"--active", &s->active}, {"--tokens", &s->tokens},
	    {"--workers", &s->workers}, {"--rounds", &s->rounds}};

	for (int i = 1; i < argc; i += 2) {
		bool known = false;
		for (size_t o = 0; o < sizeof options / sizeof options[0]; o++)
			if (i + 1 < argc && strcmp(argv[i], options[o].name) == 0) {
				*options[o].value = strtoul(argv[i + 1], NULL, 10);
				known = *options[o].value > 0;
			}
		if (!known) {
			fprintf(stderr, "bench_experts: '%s' is not an option with a number\n",
			    argv[i]);
			exit(2);
		}
	}
}

int main(int argc, char **argv)
{
	static struct bench b; /* the model's configuration is too big for a stack */

	b.shape = (struct shape){.width = 2048,
	    .expert_width = 768,
	    .experts = 16,
	    .active = 8,
	    .tokens = 8192,
	    .rounds = 3};
	read_options(argc, argv, &b.shape);
	make_layer(&b);
	make_statistics(&b);
	printf("D %zu, F %zu, E %zu, K %zu, T %zu\nworkers  way %34s GFLOP/s   of peak\n",
	    b.shape.width, b.shape.expert_width, b.shape.experts, b.shape.active, b.shape.tokens,
	    "");
	if (b.shape.workers > 0) {
		measure_workers(&b, (unsigned)b.shape.workers);
		return 0;
	}
	measure_workers(&b, 1);
	measure_workers(&b, 2);
	return 0;
}
