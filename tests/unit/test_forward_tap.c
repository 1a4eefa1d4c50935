/*
 * test_forward_tap.c - what a listener is shown, and when
 */
#include "forward_setting.h"
#include "tap_recorder.h"

/* --- the tap ------------------------------------------------------------------------------ */

static void check_heads(const struct recorder *r, const struct ref_layer_inputs *in)
{
	check_shown(r, MC_SITE_QUERY, MC_NO_INDEX, in->query, in->q_width, in, MC_NO_INDEX);
	check_shown(r, MC_SITE_KEY, MC_NO_INDEX, in->key, in->kv_width, in, MC_NO_INDEX);
	check_shown(r, MC_SITE_VALUE, MC_NO_INDEX, in->value, in->kv_width, in, MC_NO_INDEX);
}

static void check_tap(const struct hand_shape *shape, int mode)
{
	struct setting *s = setting_new(shape, few, 5, 3);
	struct ref_layer_inputs in;
	struct recorder r;
	struct mc_tap tap = recorder_init(&r, s);
	double *expected = reference(s, &in);
	float *got = forward(s, mode, &tap);
	size_t F = in.expert_width;

	assert_int_equal(r.wrong, 0);
	check_shown(&r, MC_SITE_QKV, MC_NO_INDEX, in.qkv, in.width, &in, MC_NO_INDEX);
	check_shown(&r, MC_SITE_O, MC_NO_INDEX, in.o, in.q_width, &in, MC_NO_INDEX);
	check_heads(&r, &in);
	check_shown(&r, MC_SITE_GATE_UP, MC_NO_INDEX, in.gate_up, in.width, &in, MC_NO_INDEX);
	assert_false(was_shown(&r, MC_SITE_EXPERT_GATE_UP, MC_NO_INDEX));
	if (shape->experts == 0) {
		check_shown(&r, MC_SITE_DOWN, MC_NO_INDEX, in.down, F, &in, MC_NO_INDEX);
		assert_int_equal(r.routed, 0);
	} else {
		assert_int_equal(r.routed, r.tokens);
		assert_memory_equal(r.index, in.index, r.tokens * r.k * sizeof *r.index);
		assert_true(distance(in.weight, r.weight, r.tokens * r.k) < 1e-6);
		assert_false(was_shown(&r, MC_SITE_DOWN, MC_NO_INDEX));
	}
	for (size_t e = 0; e < shape->experts; e++) {
		size_t only_of = mode == ALL ? MC_NO_INDEX : e;
		check_shown(&r, MC_SITE_DOWN, e, in.down + e * in.tokens * F, F, &in, only_of);
		if (mode == ALL)
			assert_false(was_shown(&r, MC_SITE_EXPERT_GATE_UP, e));
		else
			check_shown(&r, MC_SITE_EXPERT_GATE_UP, e, in.gate_up, in.width, &in, e);
	}
	free(got);
	free(expected);
	recorder_release(&r);
	ref_layer_inputs_release(&in);
	setting_free(s);
}

static void test_tap_sees_every_token(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
		check_tap(shapes[i], ALL);
}

static void test_tap_sees_routed_tokens(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
		check_tap(shapes[i], ROUTED);
}

/* An expert that no token is sent to: seen by all in one mode, silent in the other. */
static void test_expert_without_tokens(void **state)
{
	struct hand_shape shape = plain;

	(void)state;
	shape.dtype = MC_F32;
	for (int mode = ROUTED; mode <= ALL; mode++) {
		struct setting *s = setting_new(&shape, few, 5, 2);
		/* Channel 0 is made large and positive, and expert 3 hates it. */
		float *router = (float *)s->hand.layer.router.data;
		for (size_t e = 0; e < shape.experts; e++)
			router[e * shape.width] = e == 3 ? -50.0f : 1.0f;
		for (size_t t = 0; t < s->batch.tokens; t++)
			s->hidden[t * shape.width] = 40.0f;
		struct recorder r;
		struct mc_tap tap = recorder_init(&r, s);
		struct ref_layer_inputs in;
		double *expected = reference(s, &in);
		float *got = forward(s, mode, &tap);

		assert_true(distance(expected, got, values_of(s)) < 2e-6);
		assert_int_equal(r.wrong, 0);
		assert_int_equal(
		    shown_at(&r, MC_SITE_DOWN, 3, 0)->rows, mode == ALL ? r.tokens : 0);
		assert_false(was_shown(&r, MC_SITE_EXPERT_GATE_UP, 3));
		for (size_t i = 0; i < r.tokens * r.k; i++)
			assert_int_not_equal(r.index[i], 3);
		free(got);
		free(expected);
		recorder_release(&r);
		ref_layer_inputs_release(&in);
		setting_free(s);
	}
}

/* --- more tokens than go through at once -------------------------------------------------- */

static void check_many_tokens(const struct hand_shape *shape, int mode)
{
	/* Groups of attention: 1500 + 2000, then 600 + 1, 0, 4200 alone; blocks cut elsewhere. */
	static const size_t lengths[] = {1500, 2000, 600, 1, 0, 4200};
	struct setting *s = setting_new(shape, lengths, 6, 2);
	struct recorder r;
	struct mc_tap tap = recorder_init(&r, s);
	struct ref_layer_inputs in;
	double *expected = reference(s, &in);
	float *got = forward(s, mode, &tap);
	size_t F = in.expert_width;

	assert_true(distance(expected, got, values_of(s)) < 1e-5);
	assert_int_equal(r.wrong, 0);
	assert_int_equal(r.routed, shape->experts > 0 ? r.tokens : 0);
	for (size_t e = 0; e < shape->experts; e++)
		check_shown(&r, MC_SITE_DOWN, e, in.down + e * in.tokens * F, F, &in,
		    mode == ALL ? MC_NO_INDEX : e);
	if (shape->experts == 0)
		check_shown(&r, MC_SITE_DOWN, MC_NO_INDEX, in.down, F, &in, MC_NO_INDEX);
	check_shown(&r, MC_SITE_GATE_UP, MC_NO_INDEX, in.gate_up, in.width, &in, MC_NO_INDEX);
	check_shown(&r, MC_SITE_O, MC_NO_INDEX, in.o, in.q_width, &in, MC_NO_INDEX);
	check_heads(&r, &in);
	free(got);
	free(expected);
	recorder_release(&r);
	ref_layer_inputs_release(&in);
	setting_free(s);
}

static void test_many_tokens(void **state)
{
	struct hand_shape shape = {.width = 8,
	    .heads = 2,
	    .kv_heads = 1,
	    .head_dim = 4,
	    .expert_width = 5,
	    .experts = 3,
	    .active = 2,
	    .window = 300,
	    .renormalise = true,
	    .dtype = MC_F32,
	    .seed = 8};

	(void)state;
	check_many_tokens(&shape, ROUTED);
	check_many_tokens(&shape, ALL);
	shape.experts = 0;
	check_many_tokens(&shape, ROUTED);
}

static bool refuse_down(void *ctx, const struct mc_tap_slice *slice, struct mc_error *e)
{
	return slice->site != *(enum mc_site *)ctx ||
	       mc_fail(e, MC_CONFLICT, "tap", "not this one");
}

/* What the tap says is what the caller hears, whatever site it is. */
static void test_tap_fails(void **state)
{
	struct setting *s = setting_new(&plain, few, 5, 2);

	(void)state;
	for (enum mc_site site = 0; site < MC_SITE_COUNT; site++) {
		struct mc_tap tap = {.inputs = refuse_down, .ctx = &site};
		s->hand.block.behaviour = NULL;
		mc_error_init(&err);
		assert_false(
		    mc_forward_layer(&s->hand.layer, &s->batch, s->hidden, &tap, &s->env, &err));
		assert_int_equal(err.code, MC_CONFLICT);
		assert_int_equal(s->arena.used, 0);
	}
	setting_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_tap_sees_every_token),
	    cmocka_unit_test(test_tap_sees_routed_tokens),
	    cmocka_unit_test(test_expert_without_tokens),
	    cmocka_unit_test(test_many_tokens),
	    cmocka_unit_test(test_tap_fails),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
