/*
 * test_moe_block.c - what MoE blocks compute outside and inside the calibration context
 *
 * The same block is run as the original, with all experts and routed; only what the experts see may
 * differ.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "moecal/coverage.h"
#include "moecal/linalg.h"
#include "moecal/moe_context.h"
#include "moecal/observer.h"
#include "reference/hand_model.h"

enum { MAX_T = 64, MAX_E = 16, MAX_K = 4 };

struct fixture {
	struct mc_arena arena;
	struct mc_env env;
	struct mc_model model;
	struct mc_moe_registry registry;
	struct mc_layer layer;
	struct mc_batch batch;
	uint64_t start[2];
	float *x, *weights; /* all of the layer's weights, one after another */
	size_t weights_count;
	uint32_t seed;
};

/* What a tap was shown. */
struct shown {
	struct mc_tap next;
	size_t routings;
	uint32_t index[MAX_T * MAX_K];
	float weight[MAX_T * MAX_K];
	bool saw_gate_up[MAX_E][MAX_T], saw_down[MAX_E][MAX_T], saw_layer[MAX_T];
};

struct outcome {
	float out[MAX_T * 48];
	struct shown shown;
	uint64_t down_tokens[MAX_E], gate_up_tokens[MAX_E], routed[MAX_E], seen[MAX_E];
};

static struct mc_error err;

static float random_value(struct fixture *f)
{
	f->seed = f->seed * 1664525u + 1013904223u;
	return (float)(f->seed >> 8) / 8388608.0f - 1;
}

static struct mc_weight new_weight(struct fixture *f, size_t rows, size_t cols, float scale)
{
	float *data = f->weights + f->weights_count;

	for (size_t i = 0; i < rows * cols; i++)
		data[i] = random_value(f) * scale;
	f->weights_count += rows * cols;
	return (struct mc_weight){.dtype = MC_F32, .rows = rows, .cols = cols, .data = data};
}

static void make_layer(struct fixture *f)
{
	const struct mc_model_config *c = &f->model.config;
	size_t E = c->experts, D = c->hidden, F = c->expert_intermediate;
	struct mc_weight *experts;

	f->weights =
	    mc_arena_alloc(&f->arena, E * D + 3 * E * D * F, sizeof(float), "weights", &err);
	experts = mc_arena_zalloc(&f->arena, 3 * E, sizeof *experts, "experts", &err);
	assert_true(f->weights != NULL && experts != NULL);
	f->layer = (struct mc_layer){.model = &f->model,
	    .gate = experts,
	    .up = experts + E,
	    .down = experts + 2 * E,
	    .router = new_weight(f, E, D, 0.5f)};
	for (size_t e = 0; e < E; e++) {
		f->layer.gate[e] = new_weight(f, F, D, 0.3f);
		f->layer.up[e] = new_weight(f, F, D, 0.3f);
		f->layer.down[e] = new_weight(f, D, F, 0.3f);
	}
}

static struct fixture *new_fixture(const char *class_name, size_t experts, size_t k, size_t hidden,
    size_t tokens, bool renormalise)
{
	struct fixture *f = test_calloc(1, sizeof *f);
	struct mc_model_config config = {.hidden = hidden,
	    .expert_intermediate = 40,
	    .experts = experts,
	    .experts_per_token = k,
	    .renormalise = renormalise};

	mc_error_init(&err);
	f->seed = 42;
	assert_true(mc_arena_init(&f->arena, 64u << 20, &err));
	f->env.arena = &f->arena;
	f->env.pool = mc_pool_new(2, &err);
	assert_non_null(f->env.pool);
	assert_true(mc_linalg_init(f->env.pool, &err));
	assert_true(mc_moe_registry_init(&f->registry, &err));
	hand_model_init(&f->model, &config, &class_name, 1);
	make_layer(f);
	f->x = mc_arena_alloc(&f->arena, tokens * hidden, sizeof *f->x, "x", &err);
	for (size_t i = 0; i < tokens * hidden; i++)
		f->x[i] = random_value(f);
	f->start[1] = tokens;
	f->batch = (struct mc_batch){.start = f->start, .sequences = 1, .tokens = tokens};
	return f;
}

static void free_fixture(struct fixture *f)
{
	hand_model_release(&f->model);
	mc_moe_registry_release(&f->registry);
	mc_pool_free(f->env.pool);
	mc_arena_release(&f->arena);
	test_free(f);
}

static struct mc_module *block(const struct fixture *f)
{
	return f->model.modules[f->model.layers[0].moe];
}

/* --- looking over the tap's shoulder ---------------------------------------------------------- */

static bool see_inputs(void *ctx, const struct mc_tap_slice *slice, struct mc_error *error)
{
	struct shown *shown = ctx;

	for (size_t i = 0; slice->first_channel == 0 && i < slice->count; i++) {
		size_t token = slice->first_token + (slice->rows != NULL ? slice->rows[i] : i);
		if (slice->site == MC_SITE_GATE_UP)
			shown->saw_layer[token] = true;
		else if (slice->site == MC_SITE_EXPERT_GATE_UP)
			shown->saw_gate_up[slice->expert][token] = true;
		else if (slice->site == MC_SITE_DOWN)
			shown->saw_down[slice->expert][token] = true;
	}
	return shown->next.inputs(shown->next.ctx, slice, error);
}

static bool see_routing(void *ctx, const struct mc_tap_routing *routing, struct mc_error *error)
{
	struct shown *shown = ctx;
	size_t at = routing->first_token * routing->k, n = routing->tokens * routing->k;

	shown->routings++;
	memcpy(shown->index + at, routing->index, n * sizeof *routing->index);
	memcpy(shown->weight + at, routing->weight, n * sizeof *routing->weight);
	return shown->next.routing(shown->next.ctx, routing, error);
}

/* Runs the block as its module says, with a layer observer behind the tap. */
static void run_block(struct fixture *f, bool see_all, struct outcome *ret)
{
	const struct mc_model_config *c = &f->model.config;
	struct mc_layer_observer observer;
	struct mc_coverage coverage;
	struct mc_coverage_layer *counted;
	size_t mark = mc_arena_mark(&f->arena);

	memset(ret, 0, sizeof *ret);
	mc_coverage_init(&coverage);
	assert_true(
	    mc_coverage_layer_new(&coverage, 0, c->experts, c->experts_per_token, &counted, &err));
	assert_true(mc_layer_observer_init(
	    &observer, &f->model, 0, &f->batch, see_all, counted, &f->env, &err));
	ret->shown.next = mc_layer_observer_tap(&observer);

	struct mc_tap tap = {.inputs = see_inputs, .routing = see_routing, .ctx = &ret->shown};
	struct mc_moe_call call = {.layer = &f->layer,
	    .batch = &f->batch,
	    .x = f->x,
	    .out = ret->out,
	    .tokens = f->batch.tokens,
	    .tap = &tap};
	const struct mc_moe_behaviour *behaviour = block(f)->behaviour;
	if (behaviour != NULL)
		assert_true(behaviour->forward(block(f), &call, &f->env, &err));
	else
		assert_true(mc_moe_forward(&call, false, &f->env, &err));
	for (size_t e = 0; e < c->experts; e++) {
		ret->down_tokens[e] = observer.expert_down[e].tokens;
		ret->gate_up_tokens[e] = see_all ? 0 : observer.expert_gate_up[e].tokens;
		ret->routed[e] = counted->expert[e].routed;
		ret->seen[e] = counted->expert[e].seen;
	}
	mc_coverage_release(&coverage);
	mc_arena_rewind(&f->arena, mark);
}

static void run_in_context(struct fixture *f, bool all, struct outcome *ret)
{
	struct mc_calibration_context context;
	struct mc_module *original = block(f);

	assert_true(mc_calibration_context_enter(
	    &context, &f->model, &f->registry, all, NULL, NULL, &f->env, &err));
	assert_int_equal(context.replaced_count, 1);
	assert_ptr_not_equal(block(f), original);
	run_block(f, all, ret);
	assert_true(mc_calibration_context_exit(&context, &f->env, &err));
	assert_ptr_equal(block(f), original);
	assert_null(original->behaviour);
}

static double mse(const float *a, const float *b, size_t n)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
	return sum / (double)n;
}

/* --- the definition --------------------------------------------------------------------------- */

static double dot(const float *w, const float *x, size_t n)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += (double)w[i] * (double)x[i];
	return sum;
}

static void add_expert(const struct fixture *f, size_t e, const float *x, double share, double *out)
{
	size_t D = f->model.config.hidden, F = f->model.config.expert_intermediate;
	const float *gate = f->layer.gate[e].data, *up = f->layer.up[e].data,
		    *down = f->layer.down[e].data;

	for (size_t c = 0; c < F; c++) {
		double z = dot(gate + c * D, x, D);
		double act = z / (1 + exp(-z)) * dot(up + c * D, x, D);
		for (size_t d = 0; d < D; d++)
			out[d] += share * act * (double)down[d * F + c];
	}
}

/* One token: softmax over all experts, the k largest, weighted sum. */
static void naive_token(const struct fixture *f, const float *x, float *out)
{
	const struct mc_model_config *c = &f->model.config;
	double p[MAX_E], total = 0, chosen_total = 0, sum[48] = {0};
	bool chosen[MAX_E] = {false};

	for (size_t e = 0; e < c->experts; e++) {
		p[e] = exp(dot((const float *)f->layer.router.data + e * c->hidden, x, c->hidden));
		total += p[e];
	}
	for (size_t k = 0; k < c->experts_per_token; k++) {
		size_t best = MAX_E;
		for (size_t e = 0; e < c->experts; e++)
			if (!chosen[e] && (best == MAX_E || p[e] > p[best]))
				best = e;
		chosen[best] = true;
		chosen_total += p[best];
	}
	for (size_t e = 0; e < c->experts; e++)
		if (chosen[e])
			add_expert(f, e, x, p[e] / (c->renormalise ? chosen_total : total), sum);
	for (size_t d = 0; d < c->hidden; d++)
		out[d] = (float)sum[d];
}

/* --- tests ------------------------------------------------------------------------------------ */

static void check_outputs(const char *class_name, size_t k, bool renormalise)
{
	struct fixture *f = new_fixture(class_name, 8, k, 48, 64, renormalise);
	size_t n = f->batch.tokens * 48, weights_bytes = f->weights_count * sizeof(float);
	struct outcome *o = test_calloc(4, sizeof *o);
	float *weights = test_malloc(weights_bytes), *naive = o[3].out;
	double square = 0;

	memcpy(weights, f->weights, weights_bytes);
	for (size_t t = 0; t < f->batch.tokens; t++)
		naive_token(f, f->x + t * 48, naive + t * 48);
	run_block(f, false, &o[0]);
	run_in_context(f, true, &o[1]);
	run_in_context(f, false, &o[2]);

	for (size_t i = 0; i < 3; i++) {
		assert_true(mse(o[i].out, o[0].out, n) < 1e-10);
		assert_true(mse(o[i].out, naive, n) < 1e-10);
		for (size_t j = 0; j < n; j++)
			assert_true(isfinite(o[i].out[j]));
		/* the router chose the same and was shown once */
		assert_int_equal(o[i].shown.routings, 1);
		assert_memory_equal(o[i].shown.index, o[0].shown.index, sizeof o[0].shown.index);
		assert_memory_equal(o[i].shown.weight, o[0].shown.weight, sizeof o[0].shown.weight);
	}
	for (size_t j = 0; j < n; j++)
		square += (double)o[1].out[j] * (double)o[1].out[j];
	assert_true(square / (double)n > 1e-3);
	/* router and experts are as they were */
	assert_memory_equal(weights, f->weights, weights_bytes);
	test_free(weights);
	test_free(o);
	free_fixture(f);
}

static void test_outputs_are_the_original(void **state)
{
	(void)state;
	check_outputs("Qwen3MoeSparseMoeBlock", 2, true);
	check_outputs("Qwen3MoeSparseMoeBlock", 3, false);
	check_outputs("MixtralSparseMoeBlock", 2, true);
	check_outputs("MixtralSparseMoeBlock", 1, true);
}

/* Token t scores highest with expert order[t]. */
static void point_router(struct fixture *f, const size_t *order)
{
	size_t D = f->model.config.hidden, E = f->model.config.experts;
	float *router = f->weights; /* the first of the weights */

	memset(router, 0, E * D * sizeof *router);
	for (size_t t = 0; t < E; t++) {
		router[order[t] * D + t] = 20;
		for (size_t d = 0; d < D; d++)
			f->x[t * D + d] = f->x[t * D + d] * 0.1f + (d == t ? 2 : 0);
	}
}

/* Hidden 16, and exactly one token an expert: 1 row each outside, all rows inside. */
static void test_one_token_an_expert(void **state)
{
	static const size_t order[16] = {5, 2, 15, 0, 9, 11, 1, 14, 3, 8, 13, 4, 7, 10, 6, 12};
	struct fixture *f = new_fixture("Qwen3MoeSparseMoeBlock", 16, 1, 16, 16, true);
	struct outcome *original = test_calloc(1, sizeof *original);
	struct outcome *all = test_calloc(1, sizeof *all), *routed = test_calloc(1, sizeof *routed);

	(void)state;
	point_router(f, order);
	run_block(f, false, original);
	run_in_context(f, true, all);
	run_in_context(f, false, routed);
	for (size_t t = 0; t < 16; t++) {
		size_t e = order[t];
		assert_int_equal(original->routed[e], 1);
		assert_int_equal(original->down_tokens[e], 1);
		assert_int_equal(routed->down_tokens[e], 1);
		assert_int_equal(routed->gate_up_tokens[e], 1);
		assert_int_equal(routed->seen[e], 1);
		assert_int_equal(all->down_tokens[e], 16);
		assert_int_equal(all->seen[e], 16);
		assert_int_equal(all->routed[e], 1); /* the router still sent it one */
		for (size_t s = 0; s < 16; s++) {
			assert_int_equal(original->shown.saw_down[e][s], s == t);
			assert_int_equal(routed->shown.saw_down[e][s], s == t);
			assert_int_equal(routed->shown.saw_gate_up[e][s], s == t);
			assert_true(all->shown.saw_down[e][s]);
			assert_false(all->shown.saw_gate_up[e][s]);
			assert_true(all->shown.saw_layer[s]);
		}
	}
	assert_true(mse(all->out, original->out, 256) < 1e-10);
	for (size_t i = 0; i < 256; i++)
		assert_true(isfinite(original->out[i]) && isfinite(all->out[i]));
	test_free(original);
	test_free(all);
	test_free(routed);
	free_fixture(f);
}

/* With any routing: all rows inside, exactly the routed ones otherwise. */
static void test_rows_seen(void **state)
{
	struct fixture *f = new_fixture("MixtralSparseMoeBlock", 8, 2, 48, 61, true);
	struct outcome *all = test_calloc(1, sizeof *all), *routed = test_calloc(1, sizeof *routed);

	(void)state;
	run_in_context(f, true, all);
	run_in_context(f, false, routed);
	for (size_t e = 0; e < 8; e++) {
		uint64_t count = 0;
		for (size_t t = 0; t < 61; t++) {
			bool chosen =
			    routed->shown.index[2 * t] == e || routed->shown.index[2 * t + 1] == e;
			count += chosen;
			assert_int_equal(routed->shown.saw_down[e][t], chosen);
			assert_int_equal(routed->shown.saw_gate_up[e][t], chosen);
			assert_true(all->shown.saw_down[e][t]);
			assert_true(all->shown.saw_layer[t] && routed->shown.saw_layer[t]);
		}
		assert_int_equal(routed->routed[e], count);
		assert_int_equal(routed->down_tokens[e], count);
		assert_int_equal(all->down_tokens[e], 61);
	}
	test_free(all);
	test_free(routed);
	free_fixture(f);
}

/* One sample of one token: still, every linear of every expert has statistics. */
static void test_one_token_reaches_every_expert(void **state)
{
	struct fixture *f = new_fixture("Qwen3MoeSparseMoeBlock", 8, 2, 48, 1, true);
	struct mc_calibration_context context;
	struct mc_layer_observer observer;
	float out[48];

	(void)state;
	assert_true(mc_calibration_context_enter(
	    &context, &f->model, &f->registry, true, NULL, NULL, &f->env, &err));
	assert_true(
	    mc_layer_observer_init(&observer, &f->model, 0, &f->batch, true, NULL, &f->env, &err));
	struct mc_tap tap = mc_layer_observer_tap(&observer);
	struct mc_moe_call call = {.layer = &f->layer,
	    .batch = &f->batch,
	    .x = f->x,
	    .out = out,
	    .tokens = 1,
	    .tap = &tap};
	assert_true(block(f)->behaviour->forward(block(f), &call, &f->env, &err));
	size_t linears = 0;
	for (size_t i = 0; i < f->model.modules_count; i++) {
		const struct mc_module *module = f->model.modules[i];
		if (module->kind != MC_KIND_LINEAR)
			continue;
		const struct mc_input_stats *stats = mc_layer_observer_of(&observer, module);
		assert_non_null(stats);
		assert_int_equal(stats->tokens, 1);
		struct mc_range range = mc_input_stats_range(stats, &(struct mc_observer){MC_OBSERVER_STATIC, 0, MC_F32});
		assert_true(range.seen && isfinite(range.min) && isfinite(range.max));
		assert_true(range.max > range.min);
		linears++;
	}
	assert_int_equal(linears, 3 * 8);
	assert_true(mc_calibration_context_exit(&context, &f->env, &err));
	free_fixture(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_outputs_are_the_original),
	    cmocka_unit_test(test_one_token_an_expert),
	    cmocka_unit_test(test_rows_seen),
	    cmocka_unit_test(test_one_token_reaches_every_expert),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
