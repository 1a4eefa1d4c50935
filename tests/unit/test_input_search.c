/*
 * test_input_search.c - observers of inputs that read them again, against the reference's vectors
 */
#include "../../lib/run/input_search.h"

#include <math.h>
#include <unistd.h>

#include "golden.h"

#define TOKENS 6
#define CHANNELS 32
#define BATCHES 5

static struct mc_arena arena;
static struct mc_env env = {.arena = &arena};

static int open_env(void **state)
{
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	env.pool = mc_pool_new(1, &err);
	return env.pool != NULL && mc_arena_init(&arena, 64u << 20, &err) ? 0 : -1;
}

static int close_env(void **state)
{
	(void)state;
	mc_pool_free(env.pool);
	mc_arena_release(&arena);
	return 0;
}

static void offer(const struct mc_tap *tap, const float *x)
{
	struct mc_tap_slice slice = {.site = MC_SITE_QKV,
	    .expert = MC_NO_INDEX,
	    .channels = CHANNELS,
	    .x = x,
	    .ldx = CHANNELS,
	    .count = 7};
	struct mc_error err;

	mc_error_init(&err);
	/* in pieces that do not end with sequences */
	for (size_t t = 0; t < TOKENS * BATCHES; t += 7) {
		slice.x = x + t * CHANNELS;
		slice.first_token = t;
		slice.count = TOKENS * BATCHES - t < 7 ? TOKENS * BATCHES - t : 7;
		assert_true(tap->inputs(tap->ctx, &slice, &err));
	}
}

struct taking {
	struct mc_input_stats stats;
	uint64_t start[BATCHES + 1];
};

static bool take(void *ctx, const struct mc_tap_slice *slice, struct mc_error *err)
{
	struct taking *taking = ctx;
	return mc_input_stats_add(&taking->stats, slice, taking->start, err);
}

/* The range after all batches, as a job would find it; true when passes were needed for it. */
static bool observe(
    struct mc_scheme *scheme, enum mc_dtype dt, const float *x, struct mc_range *ret)
{
	struct mc_module module = {
	    .kind = MC_KIND_LINEAR, .expert = MC_NO_INDEX, .rows = 1, .cols = CHANNELS};
	struct mc_module *modules[] = {&module};
	struct mc_spec spec = {.precision = dt};
	size_t assigned = 0;
	struct mc_job job = {.spec = &spec,
	    .scheme = &assigned,
	    .schemes = scheme,
	    .schemes_count = 1,
	    .dataset = {.sequences = BATCHES},
	    .model = {.modules = modules, .modules_count = 1, .head = 0}};
	struct taking taking;
	struct mc_tap tap = {.inputs = take, .ctx = &taking};
	struct mc_input_searches searches;
	struct mc_observer observer = {.kind = MC_OBSERVER_MOVING, .dtype = dt};
	const struct mc_json *constant = mc_json_get(
	    scheme->input.observer_kwargs, "averaging_constant");
	size_t mark = mc_arena_mark(&arena);
	struct mc_error err;

	mc_error_init(&err);
	for (size_t b = 0; b <= BATCHES; b++)
		taking.start[b] = b * TOKENS;
	assert_true(mc_input_stats_init(&taking.stats, CHANNELS, BATCHES, &env, &err));
	offer(&tap, x);
	size_t before = mc_arena_mark(&arena);
	assert_true(mc_input_searches_init(
	    &searches, &job, 0, NULL, &taking.stats, taking.start, &env, &err));
	assert_true(mc_arena_mark(&arena) - before <= mc_input_searches_bytes(&job, 0, 1));
	while (mc_input_searches_next(&searches)) {
		tap = mc_input_searches_tap(&searches);
		offer(&tap, x);
	}
	bool found = mc_input_searches_find(&searches, &taking.stats, scheme, ret);
	if (!found) {
		assert_int_equal(mc_input_searches_bytes(&job, 0, 1), 0);
		observer.averaging_constant = constant == NULL ? 0.01 : mc_json_number(constant);
		*ret = mc_input_stats_range(&taking.stats, &observer);
	}
	mc_arena_rewind(&arena, mark);
	return found;
}

static void vectors_are_the_references(void **state)
{
	struct golden g;
	size_t cases = 0, searched = 0;

	(void)state;
	golden_open(&g);
	while (golden_next(&g, "activation_observer")) {
		struct mc_quant_config config;
		struct mc_range range;
		golden_scheme(&g, &config);
		struct mc_scheme *scheme = &config.schemes[0];
		bool local = scheme->weights.strategy == MC_STRATEGY_TENSOR_GROUP;
		/* the vector's arguments are those of the inputs */
		struct mc_scheme of_input = {
		    .name = scheme->name, .has_input = true, .input = scheme->weights};
		if (local)
			of_input.input.dynamic = MC_DYNAMIC_LOCAL;
		struct mc_tensor batches = golden_tensor(&g, "in", "batches");
		assert_int_equal(mc_tensor_elements(&batches), BATCHES * TOKENS * CHANNELS);
		float *x = golden_floats(&batches);
		searched += observe(&of_input, batches.dtype, x, &range);
		struct mc_tensor scale = golden_tensor(&g, "out", local ? "global_scale" : "scale");
		float *want = golden_floats(&scale), have;
		if (local)
			have = mc_global_scale(batches.dtype, fmaxf(range.max, -range.min));
		else
			have = mc_qparam_make(&of_input.input, batches.dtype, range.min, range.max)
				   .scale;
		if (have != want[0])
			fail_msg("%s: %.9g; needed %.9g", g.name, have, want[0]);
		if (!of_input.input.symmetric) {
			struct mc_tensor zero = golden_tensor(&g, "out", "zero_point");
			struct mc_qparam q = mc_qparam_make(
			    &of_input.input, batches.dtype, range.min, range.max);
			assert_int_equal(((int8_t *)zero.data)[0], q.zero_point);
			free(zero.data);
		}
		free(x), free(want), free(batches.data), free(scale.data);
		mc_quant_config_release(&config);
		cases++;
	}
	golden_close(&g);
	assert_true(cases >= 30);
	assert_true(searched >= 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(vectors_are_the_references),
	};
	return cmocka_run_group_tests_name("input_search", tests, open_env, close_env);
}
