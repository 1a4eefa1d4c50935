/*
 * test_forward.c - a decoder layer against its definition: values, bits, memory, failures
 */
#include "forward_setting.h"
#include "tap_recorder.h"

/* --- values ------------------------------------------------------------------------------- */

static void test_layer_is_its_definition(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
		struct setting *s = setting_new(shapes[i], few, 5, 2);
		struct ref_layer_inputs inputs;
		double *expected = reference(s, &inputs);
		float *got = forward(s, ROUTED, NULL);
		double away = distance(expected, got, values_of(s));
		if (!(away < 2e-6))
			fail_msg("shape %zu: off by %g", i, away);
		free(got);
		free(expected);
		ref_layer_inputs_release(&inputs);
		setting_free(s);
	}
}

/* The two modes differ in rounding at most. */
static void test_all_experts_do_not_change_the_output(void **state)
{
	static const size_t lengths[] = {100, 29};

	(void)state;
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
		struct setting *s = setting_new(shapes[i], lengths, 2, 2);
		struct recorder all, routed;
		struct mc_tap tap_all = recorder_init(&all, s),
			      tap_routed = recorder_init(&routed, s);
		float *a = forward(s, ALL, &tap_all), *b = forward(s, ROUTED, &tap_routed);
		float *c = forward(s, ALL, NULL), *d = forward(s, ROUTED, NULL);
		double squares = 0;
		for (size_t v = 0; v < values_of(s); v++)
			squares += ((double)a[v] - (double)b[v]) * ((double)a[v] - (double)b[v]);
		assert_true(squares / (double)values_of(s) < 1e-10);
		/* Without a tap there is one way to compute; listening to routed tokens changes
		 * nothing. */
		assert_memory_equal(c, d, values_of(s) * sizeof *c);
		assert_memory_equal(b, d, values_of(s) * sizeof *b);
		assert_memory_equal(
		    all.index, routed.index, all.tokens * all.k * sizeof *all.index);
		assert_memory_equal(
		    all.weight, routed.weight, all.tokens * all.k * sizeof *all.weight);
		free(a);
		free(b);
		free(c);
		free(d);
		recorder_release(&all);
		recorder_release(&routed);
		setting_free(s);
	}
}

/* Nothing leaks from one sequence into another, wherever it stands. */
static void test_sequences_are_alone(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
		struct setting *s = setting_new(shapes[i], few, 5, 2);
		float *together = forward(s, ROUTED, NULL);
		size_t D = shapes[i]->width;
		for (size_t q = 0; q < 5; q++) {
			struct setting *one = setting_new(shapes[i], &few[q], 1, 1);
			memcpy(
			    one->hidden, s->hidden + s->start[q] * D, few[q] * D * sizeof(float));
			float *alone = forward(one, ROUTED, NULL);
			double difference = 0, square = 0;
			for (size_t v = 0; v < few[q] * D; v++) {
				double d = (double)alone[v] - (double)together[s->start[q] * D + v];
				difference += d * d;
				square += (double)alone[v] * (double)alone[v];
			}
			assert_true(difference <= 1e-11 * square);
			free(alone);
			setting_free(one);
		}
		free(together);
		setting_free(s);
	}
}

/* --- bits --------------------------------------------------------------------------------- */

static void check_same_bits(const struct recorder *a, const struct recorder *b)
{
	for (size_t i = 0; i < MC_SITE_COUNT * (a->experts + 1) * a->slices; i++) {
		assert_int_equal(a->shown[i].rows, b->shown[i].rows);
		if (a->shown[i].rows > 0)
			assert_memory_equal(a->shown[i].x, b->shown[i].x,
			    a->tokens * a->shown[i].channels * sizeof(float));
	}
	assert_memory_equal(a->weight, b->weight, a->tokens * a->k * sizeof *a->weight);
}

static void test_same_bits_for_any_workers(void **state)
{
	static const size_t lengths[] = {150, 3, 97};
	static const unsigned workers[] = {1, 2, 3, 5};

	(void)state;
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
		for (int mode = ROUTED; mode <= ALL; mode++) {
			struct recorder first, other;
			float *expected = NULL;
			for (size_t w = 0; w < sizeof workers / sizeof *workers; w++) {
				struct setting *s = setting_new(shapes[i], lengths, 3, workers[w]);
				struct mc_tap tap = recorder_init(w == 0 ? &first : &other, s);
				float *got = forward(s, mode, &tap);
				if (w == 0) {
					expected = got;
				} else {
					assert_memory_equal(
					    expected, got, values_of(s) * sizeof *got);
					check_same_bits(&first, &other);
					recorder_release(&other);
					free(got);
				}
				setting_free(s);
			}
			recorder_release(&first);
			free(expected);
		}
}

/* --- memory ------------------------------------------------------------------------------- */

static void test_scratch_is_as_planned(void **state)
{
	static const size_t lengths[][3] = {{3, 2, 1}, {700, 20, 500}, {4300, 100, 900}};

	(void)state;
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
		for (size_t n = 0; n < (shapes[i] == &wide ? 2 : 3); n++)
			for (unsigned workers = 1; workers <= 3; workers += 2) {
				struct setting *s = setting_new(shapes[i], lengths[n], 3, workers);
				size_t longest = lengths[n][0] > 700 ? 4300 : lengths[n][0];
				uint64_t planned = mc_forward_scratch_bytes(
				    &s->hand.model, 0, s->batch.tokens, longest, workers);
				for (int mode = ROUTED; mode <= ALL; mode++) {
					struct recorder r;
					struct mc_tap tap = recorder_init(&r, s);
					free(forward(s, mode, &tap));
					free(forward(s, mode, NULL));
					recorder_release(&r);
				}
				if (s->arena.peak > planned)
					fail_msg("shape %zu, %zu tokens: %zu bytes, planned %zu", i,
					    s->batch.tokens, s->arena.peak, (size_t)planned);
				setting_free(s);
			}
}

static void test_scratch_does_not_grow(void **state)
{
	struct setting *s = setting_new(&plain, few, 5, 1);

	(void)state;
	assert_int_equal(mc_forward_scratch_bytes(&s->hand.model, 0, 5000, 2048, 4),
	    mc_forward_scratch_bytes(&s->hand.model, 0, 5000000, 2048, 4));
	setting_free(s);
}

/* However little memory there is: a clean refusal, nothing kept. */
static void test_too_little_memory(void **state)
{
	struct setting *s = setting_new(&plain, few, 5, 2);
	float *hidden = malloc(values_of(s) * sizeof *hidden);
	size_t refused = 0;

	(void)state;
	assert_non_null(hidden);
	free(forward(s, ROUTED, NULL));
	size_t peak = s->arena.peak, budget = s->arena.budget;
	for (size_t bytes = 0; bytes <= peak; bytes += 1024) {
		s->arena.budget = bytes;
		mc_error_init(&err);
		memcpy(hidden, s->hidden, values_of(s) * sizeof *hidden);
		if (!mc_forward_layer(&s->hand.layer, &s->batch, hidden, NULL, &s->env, &err)) {
			assert_int_equal(err.code, MC_NO_MEMORY);
			refused++;
		}
		assert_int_equal(s->arena.used, 0);
	}
	assert_true(refused >= peak / 1024);
	s->arena.budget = budget;
	free(hidden);
	setting_free(s);
}

/* --- stopping and failing ----------------------------------------------------------------- */

static bool cancel_after(void *ctx)
{
	long *left = ctx;
	return (*left)-- <= 0;
}

static void test_canceled_anywhere(void **state)
{
	struct setting *s = setting_new(&plain, few, 5, 1);
	float *hidden = malloc(values_of(s) * sizeof *hidden);
	long looks = 0;

	(void)state;
	assert_non_null(hidden);
	for (bool done = false; !done; looks++) {
		long left = looks;
		assert_true(looks < 1000);
		mc_error_init(&err);
		s->env.canceled = cancel_after;
		s->env.hook_ctx = &left;
		memcpy(hidden, s->hidden, values_of(s) * sizeof *hidden);
		done = mc_forward_layer(&s->hand.layer, &s->batch, hidden, NULL, &s->env, &err);
		assert_true(done || err.code == MC_CANCELED);
		assert_int_equal(s->arena.used, 0);
	}
	assert_true(looks > 10);
	free(hidden);
	setting_free(s);
}

static void expect_corrupt(struct setting *s, const char *what)
{
	mc_error_init(&err);
	s->hand.layer.index = 0;
	assert_false(mc_forward_layer(&s->hand.layer, &s->batch, s->hidden, NULL, &s->env, &err));
	assert_int_equal(err.code, MC_CORRUPT);
	assert_string_equal(err.where, "layer 0");
	if (strstr(err.text, what) == NULL)
		fail_msg("'%s' does not say '%s'", err.text, what);
	setting_free(s);
}

static void test_values_out_of_range(void **state)
{
	struct hand_shape shape = plain;
	struct setting *s;

	(void)state;
	shape.dtype = MC_F32;
	s = setting_new(&shape, few, 5, 2);
	((float *)s->hand.layer.o.data)[7 * s->hand.layer.o.cols] = INFINITY;
	expect_corrupt(s, "not finite after attention");
	s = setting_new(&shape, few, 5, 2);
	((float *)s->hand.layer.o.data)[7 * s->hand.layer.o.cols] = INFINITY;
	expect_corrupt(s, "for token 0, channel 7");
	s = setting_new(&shape, few, 5, 2);
	for (size_t e = 0; e < shape.experts; e++)
		((float *)s->hand.layer.down[e].data)[3] = NAN;
	expect_corrupt(s, "not finite after the experts");
	s = setting_new(&shape, few, 5, 2);
	((float *)s->hand.layer.router.data)[0] = NAN;
	expect_corrupt(s, "router logit of token 0");
	shape.experts = 0;
	s = setting_new(&shape, few, 5, 2);
	((float *)s->hand.layer.down[0].data)[3] = NAN;
	expect_corrupt(s, "not finite after the dense block");
}

/* The token is named by its place in the whole batch, not in what is computed at once. */
static void test_late_token_is_named(void **state)
{
	static const size_t lengths[] = {4500, 520};
	struct hand_shape shape = plain;

	(void)state;
	shape.dtype = MC_F32;
	shape.qk_norm = false;
	struct setting *s = setting_new(&shape, lengths, 2, 2);
	/* Channel 0 is nothing but in one token, and there it is too much for the router. */
	memset((void *)s->hand.layer.o.data, 0, shape.width * s->hand.layer.o.cols * sizeof(float));
	for (size_t t = 0; t < s->batch.tokens; t++)
		s->hidden[t * shape.width] = t == 5000 ? 1000.0f : 0.0f;
	((float *)s->hand.layer.router.data)[0] = 3e38f;
	expect_corrupt(s, "router logit of token 5000 ");
}

/* --- arithmetic --------------------------------------------------------------------------- */

static void test_flops(void **state)
{
	struct setting *s = setting_new(&plain, few, 5, 1);
	/* q and o 40 x 24, k and v 40 x 12, router 40 x 5, experts 40 x 24 */
	double attention = 2 * 40 * 24 + 2 * 40 * 12, expert = 40 * 24;

	(void)state;
	assert_true(mc_forward_flops(&s->hand.model, 0, 10, false) ==
		    20 * (attention + 40 * 5 + 3 * 2 * expert));
	assert_true(mc_forward_flops(&s->hand.model, 0, 10, true) ==
		    20 * (attention + 40 * 5 + 2 * 5 * expert + 2 * expert));
	setting_free(s);
	s = setting_new(&dense, few, 5, 1);
	assert_true(mc_forward_flops(&s->hand.model, 0, 1, true) ==
		    2.0 * (2 * 40 * 24 + 2 * 40 * 6 + 3 * 40 * 520));
	setting_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_layer_is_its_definition),
	    cmocka_unit_test(test_all_experts_do_not_change_the_output),
	    cmocka_unit_test(test_sequences_are_alone),
	    cmocka_unit_test(test_same_bits_for_any_workers),
	    cmocka_unit_test(test_scratch_is_as_planned),
	    cmocka_unit_test(test_scratch_does_not_grow),
	    cmocka_unit_test(test_too_little_memory),
	    cmocka_unit_test(test_canceled_anywhere),
	    cmocka_unit_test(test_values_out_of_range),
	    cmocka_unit_test(test_late_token_is_named),
	    cmocka_unit_test(test_flops),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
