/*
 * test_layer_observer.c - inputs of a layer's linears find their statistics, and modules find them
 * back
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
#include "moecal/observer.h"

/* A layer of 3 experts and a dense one: only what the observer looks at. */
enum { E = 3, D = 600, HEADS = 520, F = 700, DENSE = 90, T = 5, LAYERS = 2 };
enum {
	Q,
	O,
	ROUTER,
	GATE0,
	UP0,
	DOWN0,
	GATE2,
	UP2,
	DOWN2,
	DENSE_Q,
	DENSE_GATE,
	DENSE_DOWN,
	K,
	NORM,
	DOWN1,
	MODULES
};

static struct mc_error err;

struct fixture {
	struct mc_arena arena;
	struct mc_env env;
	struct mc_model model;
	struct mc_module modules[MODULES], *pointers[MODULES];
	struct mc_layer_index layers[LAYERS];
	struct mc_batch batch;
	struct mc_coverage coverage;
	struct mc_coverage_layer *counted;
	float *x;
};

static const uint64_t starts[] = {0, 2, T};

static void set_module(
    struct fixture *f, size_t i, enum mc_role role, size_t layer, size_t expert, size_t cols)
{
	f->pointers[i] = &f->modules[i];
	f->modules[i] = (struct mc_module){.kind = MC_KIND_LINEAR,
	    .role = role,
	    .layer = layer,
	    .expert = expert,
	    .rows = 8,
	    .cols = cols};
}

static void set_modules(struct fixture *f)
{
	set_module(f, Q, MC_ROLE_Q, 1, MC_NO_INDEX, D);
	set_module(f, K, MC_ROLE_K, 1, MC_NO_INDEX, D);
	set_module(f, O, MC_ROLE_O, 1, MC_NO_INDEX, HEADS);
	set_module(f, ROUTER, MC_ROLE_ROUTER, 1, MC_NO_INDEX, D);
	f->modules[ROUTER].kind = MC_KIND_ROUTER;
	set_module(f, NORM, MC_ROLE_FFN_NORM, 1, MC_NO_INDEX, 1);
	f->modules[NORM].kind = MC_KIND_NORM;
	set_module(f, GATE0, MC_ROLE_GATE, 1, 0, D);
	set_module(f, UP0, MC_ROLE_UP, 1, 0, D);
	set_module(f, DOWN0, MC_ROLE_DOWN, 1, 0, F);
	set_module(f, DOWN1, MC_ROLE_DOWN, 1, 1, F);
	set_module(f, GATE2, MC_ROLE_GATE, 1, 2, D);
	set_module(f, UP2, MC_ROLE_UP, 1, 2, D);
	set_module(f, DOWN2, MC_ROLE_DOWN, 1, 2, F);
	set_module(f, DENSE_Q, MC_ROLE_Q, 0, MC_NO_INDEX, D);
	set_module(f, DENSE_GATE, MC_ROLE_GATE, 0, MC_NO_INDEX, D);
	set_module(f, DENSE_DOWN, MC_ROLE_DOWN, 0, MC_NO_INDEX, DENSE);
}

static int set_up(void **state)
{
	struct fixture *f = test_calloc(1, sizeof *f);

	mc_error_init(&err);
	set_modules(f);
	f->layers[1] = (struct mc_layer_index){.q = Q,
	    .o = O,
	    .moe = ROUTER,
	    .router = ROUTER,
	    .gate = GATE0,
	    .up = UP0,
	    .down = DOWN0};
	f->layers[0] = (struct mc_layer_index){.q = DENSE_Q,
	    .o = O,
	    .moe = MC_NO_INDEX,
	    .router = MC_NO_INDEX,
	    .gate = DENSE_GATE,
	    .up = DENSE_GATE,
	    .down = DENSE_DOWN};
	f->model = (struct mc_model){
	    .modules = f->pointers, .modules_count = MODULES, .layers = f->layers};
	f->model.config.layers = LAYERS;
	f->model.config.experts = E;
	f->batch = (struct mc_batch){.start = starts, .sequences = 2, .tokens = T};
	mc_coverage_init(&f->coverage);
	if (!mc_arena_init(&f->arena, 8u << 20, &err) ||
	    !mc_coverage_layer_new(&f->coverage, 1, E, 1, &f->counted, &err))
		return -1;
	f->env.arena = &f->arena;
	f->x = mc_arena_alloc(&f->arena, (size_t)T * F, sizeof *f->x, "x", &err);
	for (size_t i = 0; i < (size_t)T * F; i++)
		f->x[i] = (float)((i * 7919) % 1000) / 500.0f - 1;
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	mc_coverage_release(&f->coverage);
	mc_arena_release(&f->arena);
	test_free(f);
	return 0;
}

/* All slices of `count` rows, first row token 0 or those of `rows`. */
static bool offer(const struct mc_tap *tap, const struct fixture *f, enum mc_site site,
    size_t expert, size_t channels, const uint32_t *rows, size_t count)
{
	for (size_t c = 0; c < channels; c += MC_TAP_CHANNELS) {
		struct mc_tap_slice slice = {.site = site,
		    .expert = expert,
		    .first_channel = c,
		    .channels = channels - c < MC_TAP_CHANNELS ? channels - c : MC_TAP_CHANNELS,
		    .x = f->x + c,
		    .ldx = F,
		    .rows = rows,
		    .count = count};
		if (!tap->inputs(tap->ctx, &slice, &err))
			return false;
	}
	return true;
}

static bool route(const struct mc_tap *tap, const uint32_t *index)
{
	static const float ones[T] = {1, 1, 1, 1, 1};
	struct mc_tap_routing routing = {
	    .tokens = T, .k = 1, .experts = E, .index = index, .weight = ones};

	return tap->routing(tap->ctx, &routing, &err);
}

static struct mc_layer_observer observer_for(struct fixture *f, size_t layer, bool all)
{
	struct mc_layer_observer observer;
	size_t before = f->arena.used;

	assert_true(mc_layer_observer_init(&observer, &f->model, layer, &f->batch, all,
	    layer == 1 ? f->counted : NULL, &f->env, &err));
	assert_int_equal(f->arena.used - before,
	    mc_layer_observer_bytes(&f->model, layer, f->batch.sequences, all));
	return observer;
}

static void test_all_experts(void **state)
{
	static const uint32_t index[T] = {2, 2, 0, 2, 2};
	struct fixture *f = *state;
	struct mc_layer_observer observer = observer_for(f, 1, true);
	struct mc_tap tap = mc_layer_observer_tap(&observer);

	assert_null(observer.expert_gate_up);
	assert_true(route(&tap, index));
	assert_true(offer(&tap, f, MC_SITE_QKV, MC_NO_INDEX, D, NULL, T));
	assert_true(offer(&tap, f, MC_SITE_O, MC_NO_INDEX, HEADS, NULL, T));
	assert_true(offer(&tap, f, MC_SITE_GATE_UP, MC_NO_INDEX, D, NULL, T));
	for (size_t e = 0; e < E; e++)
		assert_true(offer(&tap, f, MC_SITE_DOWN, e, F, NULL, T));

	for (size_t e = 0; e < E; e++) {
		assert_int_equal(observer.expert_down[e].tokens, T);
		assert_int_equal(f->counted->expert[e].seen, T);
	}
	assert_int_equal(f->counted->expert[2].routed, 4);
	assert_int_equal(f->counted->expert[1].routed, 0);
	assert_ptr_equal(mc_layer_observer_of(&observer, &f->modules[Q]), &observer.qkv);
	assert_ptr_equal(mc_layer_observer_of(&observer, &f->modules[K]), &observer.qkv);
	assert_ptr_equal(mc_layer_observer_of(&observer, &f->modules[O]), &observer.o);
	assert_ptr_equal(mc_layer_observer_of(&observer, &f->modules[GATE0]), &observer.gate_up);
	assert_ptr_equal(mc_layer_observer_of(&observer, &f->modules[UP2]), &observer.gate_up);
	assert_ptr_equal(
	    mc_layer_observer_of(&observer, &f->modules[DOWN1]), &observer.expert_down[1]);
	assert_null(mc_layer_observer_of(&observer, &f->modules[ROUTER]));
	assert_null(mc_layer_observer_of(&observer, &f->modules[NORM]));
	assert_null(mc_layer_observer_of(&observer, &f->modules[DENSE_Q])); /* of another layer */
}

static void test_routed(void **state)
{
	static const uint32_t index[T] = {2, 2, 0, 2, 2};
	static const uint32_t of_2[] = {0, 1, 3, 4}, of_0[] = {2};
	struct fixture *f = *state;
	struct mc_layer_observer observer = observer_for(f, 1, false);
	struct mc_tap tap = mc_layer_observer_tap(&observer);

	assert_true(route(&tap, index));
	assert_true(offer(&tap, f, MC_SITE_GATE_UP, MC_NO_INDEX, D, NULL, T));
	assert_true(offer(&tap, f, MC_SITE_EXPERT_GATE_UP, 2, D, of_2, 4));
	assert_true(offer(&tap, f, MC_SITE_EXPERT_GATE_UP, 0, D, of_0, 1));
	assert_true(offer(&tap, f, MC_SITE_DOWN, 2, F, of_2, 4));
	assert_true(offer(&tap, f, MC_SITE_DOWN, 0, F, of_0, 1));
	assert_int_equal(f->counted->expert[0].seen, 1);
	assert_int_equal(f->counted->expert[1].seen, 0);
	assert_int_equal(f->counted->expert[2].seen, 4);

	assert_ptr_equal(
	    mc_layer_observer_of(&observer, &f->modules[GATE0]), &observer.expert_gate_up[0]);
	assert_ptr_equal(
	    mc_layer_observer_of(&observer, &f->modules[UP2]), &observer.expert_gate_up[2]);
	assert_ptr_equal(
	    mc_layer_observer_of(&observer, &f->modules[DOWN2]), &observer.expert_down[2]);
	/* expert 1 got nothing: the layer's inputs stand in for gate and up only */
	f->modules[UP0].expert = 1;
	assert_ptr_equal(mc_layer_observer_of(&observer, &f->modules[UP0]), &observer.gate_up);
	assert_null(mc_layer_observer_of(&observer, &f->modules[DOWN1]));

	/* token 2 is the first of the second sequence */
	const struct mc_input_stats *stats = &observer.expert_down[0];
	assert_true(stats->slice_min[0] > stats->slice_max[0]);
	assert_true(stats->slice_min[1] <= stats->slice_max[1]);
	assert_true(stats->sum[F - 1] == (double)f->x[2 * F + F - 1]);
}

static void test_dense_layer(void **state)
{
	struct fixture *f = *state;
	struct mc_layer_observer observer = observer_for(f, 0, true);
	struct mc_tap tap = mc_layer_observer_tap(&observer);

	assert_null(observer.expert_down);
	assert_int_equal(observer.experts, 0);
	assert_true(offer(&tap, f, MC_SITE_GATE_UP, MC_NO_INDEX, D, NULL, T));
	assert_true(offer(&tap, f, MC_SITE_DOWN, MC_NO_INDEX, DENSE, NULL, T));
	assert_int_equal(observer.dense_down.tokens, T);
	assert_ptr_equal(
	    mc_layer_observer_of(&observer, &f->modules[DENSE_DOWN]), &observer.dense_down);
	assert_ptr_equal(
	    mc_layer_observer_of(&observer, &f->modules[DENSE_GATE]), &observer.gate_up);
}

static void test_no_place_for_it(void **state)
{
	struct fixture *f = *state;
	struct mc_layer_observer observer = observer_for(f, 1, true);
	struct mc_tap tap = mc_layer_observer_tap(&observer);

	assert_false(offer(&tap, f, MC_SITE_EXPERT_GATE_UP, 0, D, NULL, T));
	assert_int_equal(err.code, MC_INTERNAL);
	mc_error_init(&err);
	assert_false(offer(&tap, f, MC_SITE_DOWN, E, F, NULL, T));
	assert_int_equal(err.code, MC_INTERNAL);
	assert_non_null(strstr(err.where, "layer 1, expert 3, input of down"));
}

static void test_where_a_bad_value_is(void **state)
{
	struct fixture *f = *state;
	struct mc_layer_observer observer = observer_for(f, 1, true);
	struct mc_tap tap = mc_layer_observer_tap(&observer);

	f->x[3 * F + 650] = NAN;
	assert_false(offer(&tap, f, MC_SITE_DOWN, 2, F, NULL, T));
	assert_int_equal(err.code, MC_CORRUPT);
	assert_string_equal(err.where, "layer 1, expert 2, input of down");
	assert_non_null(strstr(err.text, "token 3, channel 650"));
}

static void test_no_memory(void **state)
{
	struct fixture *f = *state;
	struct mc_layer_observer observer;
	struct mc_arena small;
	struct mc_env poor = {.arena = &small};
	uint64_t need = mc_layer_observer_bytes(&f->model, 1, 2, false);

	for (uint64_t budget = 4096; budget + 4096 < need; budget += 16384) {
		mc_error_init(&err);
		assert_true(mc_arena_init(&small, budget, &err));
		assert_false(mc_layer_observer_init(
		    &observer, &f->model, 1, &f->batch, false, f->counted, &poor, &err));
		assert_int_equal(err.code, MC_NO_MEMORY);
		mc_arena_release(&small);
	}
}

/* What enters attention goes by where nobody asked for it, and to whoever did. */
static void test_attention_heads(void **state)
{
	enum { CHANNELS = 130 * 4 };
	const struct mc_observer exact = {MC_OBSERVER_STATIC, 0, MC_F32};
	struct fixture *f = *state;
	struct mc_layer_observer observer = observer_for(f, 1, true);
	struct mc_tap tap = mc_layer_observer_tap(&observer);
	struct mc_head_ranges key;

	assert_true(offer(&tap, f, MC_SITE_QUERY, MC_NO_INDEX, CHANNELS, NULL, T));
	assert_true(offer(&tap, f, MC_SITE_VALUE, MC_NO_INDEX, CHANNELS, NULL, T));
	assert_true(mc_head_ranges_init(&key, 4, 130, f->batch.sequences, &f->env, &err));
	observer.key = &key;
	f->x[3 * F + 515] = 99;
	assert_true(offer(&tap, f, MC_SITE_KEY, MC_NO_INDEX, CHANNELS, NULL, T));
	assert_true(mc_head_ranges_range(&key, 3, &exact).max == 99);
	assert_true(mc_head_ranges_range(&key, 2, &exact).max < 2);
	f->x[1 * F + 7] = NAN;
	assert_false(offer(&tap, f, MC_SITE_KEY, MC_NO_INDEX, CHANNELS, NULL, T));
	assert_int_equal(err.code, MC_CORRUPT);
	assert_non_null(strstr(err.where, "layer 1, input of attention (k)"));
	assert_int_equal(observer.qkv.tokens, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_all_experts, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_routed, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_dense_layer, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_no_place_for_it, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_attention_heads, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_where_a_bad_value_is, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_no_memory, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
