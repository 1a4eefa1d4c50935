/*
 * test_forward.c - a decoder layer against its definition: values, what the tap is shown, bits,
 * memory
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "moecal/forward.h"
#include "moecal/linalg.h"
#include "reference/decoder.h"
#include "reference/hand_layer.h"

#define BUDGET ((uint64_t)512 << 20)
#define MOST_SEQUENCES 8

enum { ALL = 1, ROUTED = 0 };

/* Shapes that differ in what a layer can have; wide ones have more than one slice of channels. */
static const struct hand_shape plain = {.width = 40,
    .heads = 4,
    .kv_heads = 2,
    .head_dim = 6,
    .expert_width = 24,
    .experts = 5,
    .active = 2,
    .qk_norm = true,
    .renormalise = true,
    .dtype = MC_BF16,
    .seed = 1};
static const struct hand_shape window = {.width = 33,
    .heads = 6,
    .kv_heads = 2,
    .head_dim = 8,
    .expert_width = 17,
    .experts = 4,
    .active = 3,
    .window = 5,
    .dtype = MC_F16,
    .seed = 2};
static const struct hand_shape biased = {.width = 24,
    .heads = 3,
    .kv_heads = 3,
    .head_dim = 10,
    .expert_width = 40,
    .experts = 3,
    .active = 1,
    .bias = true,
    .renormalise = false,
    .dtype = MC_F32,
    .seed = 3};
static const struct hand_shape dense = {.width = 40,
    .heads = 4,
    .kv_heads = 1,
    .head_dim = 6,
    .expert_width = 520,
    .experts = 0,
    .qk_norm = true,
    .dtype = MC_BF16,
    .seed = 4};
static const struct hand_shape wide = {.width = 530,
    .heads = 2,
    .kv_heads = 1,
    .head_dim = 260,
    .expert_width = 600,
    .experts = 3,
    .active = 2,
    .renormalise = true,
    .dtype = MC_BF16,
    .seed = 5};
static const struct hand_shape every = {.width = 20,
    .heads = 2,
    .kv_heads = 1,
    .head_dim = 6,
    .expert_width = 12,
    .experts = 3,
    .active = 3,
    .dtype = MC_F32,
    .seed = 6};
static const struct hand_shape *const shapes[] = {&plain, &window, &biased, &dense, &wide, &every};

static const size_t few[] = {7, 1, 0, 12, 4};
static struct mc_error err;

/* --- a layer, its input, an environment ----------------------------------------------------------
 */

struct setting {
	struct hand_layer hand;
	struct mc_batch batch;
	uint64_t start[MOST_SEQUENCES + 1];
	float *hidden; /* [T, D], what goes in */
	struct mc_arena arena;
	struct mc_env env;
};

static bool all_experts(const struct mc_module *self, const struct mc_moe_call *call,
    const struct mc_env *env, struct mc_error *e)
{
	(void)self;
	return mc_moe_forward(call, true, env, e);
}
static const struct mc_moe_behaviour sees_all = {.forward = all_experts};

static struct setting *setting_new(
    const struct hand_shape *shape, const size_t *lengths, size_t sequences, unsigned workers)
{
	struct setting *s = calloc(1, sizeof *s);
	uint64_t state = shape->seed + 100;

	assert_non_null(s);
	mc_error_init(&err);
	hand_layer_init(&s->hand, shape);
	for (size_t i = 0; i < sequences; i++)
		s->start[i + 1] = s->start[i] + lengths[i];
	s->batch = (struct mc_batch){
	    .start = s->start, .sequences = sequences, .tokens = (size_t)s->start[sequences]};
	s->hidden = calloc(s->batch.tokens * shape->width, sizeof *s->hidden);
	assert_non_null(s->hidden);
	for (size_t i = 0; i < s->batch.tokens * shape->width; i++)
		s->hidden[i] = 2 * hand_draw(&state);
	assert_true(mc_arena_init(&s->arena, BUDGET, &err));
	s->env = (struct mc_env){.arena = &s->arena, .pool = mc_pool_new(workers, &err)};
	assert_non_null(s->env.pool);
	assert_true(mc_linalg_init(s->env.pool, &err));
	s->arena.peak = 0;
	return s;
}

static void setting_free(struct setting *s)
{
	mc_pool_free(s->env.pool);
	mc_arena_release(&s->arena);
	hand_layer_release(&s->hand);
	free(s->hidden);
	free(s);
}

static size_t values_of(const struct setting *s)
{
	return s->batch.tokens * s->hand.model.config.hidden;
}

/* The layer's output for a copy of the input; owned by the caller. */
static float *forward(struct setting *s, int mode, const struct mc_tap *tap)
{
	float *out = malloc(values_of(s) * sizeof *out + 1);

	assert_non_null(out);
	memcpy(out, s->hidden, values_of(s) * sizeof *out);
	s->hand.block.behaviour = mode == ALL ? &sees_all : NULL;
	if (!mc_forward_layer(&s->hand.layer, &s->batch, out, tap, &s->env, &err))
		fail_msg("%s: %s", err.where, err.text);
	assert_int_equal(s->arena.used, 0);
	return out;
}

static double *reference(struct setting *s, struct ref_layer_inputs *inputs)
{
	double *out = malloc(values_of(s) * sizeof *out + 1);

	assert_non_null(out);
	for (size_t i = 0; i < values_of(s); i++)
		out[i] = (double)s->hidden[i];
	ref_layer_forward(&s->hand.layer, &s->batch, out, inputs);
	return out;
}

/* rms of the difference over the rms of what is expected */
static double distance(const double *expected, const float *got, size_t n)
{
	double difference = 0, square = 0;

	for (size_t i = 0; i < n; i++) {
		difference += (expected[i] - (double)got[i]) * (expected[i] - (double)got[i]);
		square += expected[i] * expected[i];
	}
	return sqrt(difference / square);
}

/* --- a tap that writes down what it is shown -----------------------------------------------------
 */

/* One slice of one site of one expert. */
struct shown {
	size_t channels, rows;
	size_t next; /* lowest token that may come */
	float *x;    /* [T, channels], rows at their tokens */
	bool *seen;  /* [T] */
};

struct recorder {
	size_t tokens, experts, k;
	struct shown *shown; /* [site][experts + 1][slice]; the last expert is the layer */
	size_t slices;
	uint32_t *index;
	float *weight;
	size_t routed;
	int wrong; /* broken promises; counted, as a worker must not leave the test */
};

static struct shown *shown_at(
    const struct recorder *r, enum mc_site site, size_t expert, size_t slice)
{
	size_t row = expert == MC_NO_INDEX ? r->experts : expert;

	return &r->shown[((size_t)site * (r->experts + 1) + row) * r->slices + slice];
}

static bool record_inputs(void *ctx, const struct mc_tap_slice *slice, struct mc_error *e)
{
	struct recorder *r = ctx;
	bool bad = slice->first_channel % MC_TAP_CHANNELS != 0 || slice->channels == 0 ||
		   slice->channels > MC_TAP_CHANNELS || slice->count == 0;

	(void)e;
	if (bad || slice->first_channel / MC_TAP_CHANNELS >= r->slices) {
		r->wrong++;
		return true;
	}
	struct shown *s =
	    shown_at(r, slice->site, slice->expert, slice->first_channel / MC_TAP_CHANNELS);
	if (s->x == NULL) {
		s->channels = slice->channels;
		s->x = calloc(r->tokens * s->channels, sizeof *s->x);
		s->seen = calloc(r->tokens, sizeof *s->seen);
	}
	r->wrong += s->channels != slice->channels;
	for (size_t i = 0; i < slice->count; i++) {
		size_t row = slice->rows != NULL ? slice->rows[i] : i,
		       token = slice->first_token + row;
		if (token < s->next || token >= r->tokens) {
			r->wrong++;
			return true;
		}
		s->next = token + 1;
		s->seen[token] = true;
		s->rows++;
		memcpy(s->x + token * s->channels, slice->x + row * slice->ldx,
		    s->channels * sizeof *s->x);
	}
	return true;
}

static bool record_routing(void *ctx, const struct mc_tap_routing *routing, struct mc_error *e)
{
	struct recorder *r = ctx;

	(void)e;
	assert_int_equal(routing->first_token, r->routed);
	assert_int_equal(routing->k, r->k);
	assert_int_equal(routing->experts, r->experts);
	memcpy(
	    r->index + r->routed * r->k, routing->index, routing->tokens * r->k * sizeof *r->index);
	memcpy(r->weight + r->routed * r->k, routing->weight,
	    routing->tokens * r->k * sizeof *r->weight);
	r->routed += routing->tokens;
	return true;
}

static struct mc_tap recorder_init(struct recorder *r, const struct setting *s)
{
	const struct mc_model_config *c = &s->hand.model.config;

	*r = (struct recorder){.tokens = s->batch.tokens,
	    .experts = c->experts,
	    .k = c->experts_per_token,
	    .slices = 2};
	r->shown = calloc(MC_SITE_COUNT * (r->experts + 1) * r->slices, sizeof *r->shown);
	r->index = calloc(r->tokens * r->k + 1, sizeof *r->index);
	r->weight = calloc(r->tokens * r->k + 1, sizeof *r->weight);
	assert_true(r->shown != NULL && r->index != NULL && r->weight != NULL);
	return (struct mc_tap){.inputs = record_inputs, .routing = record_routing, .ctx = r};
}

static void recorder_release(struct recorder *r)
{
	for (size_t i = 0; i < MC_SITE_COUNT * (r->experts + 1) * r->slices; i++) {
		free(r->shown[i].x);
		free(r->shown[i].seen);
	}
	free(r->shown);
	free(r->index);
	free(r->weight);
}

/* The slices of a site hold exactly the chosen rows of expected [T, width]; only_of: of this
 * expert's tokens alone, MC_NO_INDEX: all of them. */
static void check_shown(const struct recorder *r, enum mc_site site, size_t expert,
    const double *expected, size_t width, const struct ref_layer_inputs *in, size_t only_of)
{
	double difference = 0, square = 0;

	for (size_t slice = 0; slice * MC_TAP_CHANNELS < width; slice++) {
		const struct shown *s = shown_at(r, site, expert, slice);
		size_t first = slice * MC_TAP_CHANNELS, count = 0;
		for (size_t t = 0; t < r->tokens; t++) {
			bool wanted = only_of == MC_NO_INDEX || ref_is_routed(in, t, only_of);
			count += wanted;
			assert_int_equal(s->seen != NULL && s->seen[t], wanted);
			for (size_t c = 0; wanted && c < s->channels; c++) {
				double e = expected[t * width + first + c];
				double d = (double)s->x[t * s->channels + c] - e;
				difference += d * d;
				square += e * e;
			}
		}
		assert_int_equal(s->rows, count);
		if (count > 0)
			assert_int_equal(s->channels,
			    width - first < MC_TAP_CHANNELS ? width - first : MC_TAP_CHANNELS);
	}
	assert_true(difference <= 1e-10 * square);
}

static bool was_shown(const struct recorder *r, enum mc_site site, size_t expert)
{
	return shown_at(r, site, expert, 0)->rows > 0;
}

/* --- values --------------------------------------------------------------------------------------
 */

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

/* --- the tap -------------------------------------------------------------------------------------
 */

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

/* --- more tokens than go through at once ---------------------------------------------------------
 */

static void test_many_tokens(void **state)
{
	/* Groups of attention: 1500 + 2000, then 600 + 1, 0, 4200 alone; blocks cut elsewhere. */
	static const size_t lengths[] = {1500, 2000, 600, 1, 0, 4200};
	static const struct hand_shape shape = {.width = 8,
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
	for (int mode = ROUTED; mode <= ALL; mode++) {
		struct setting *s = setting_new(&shape, lengths, 6, 2);
		struct recorder r;
		struct mc_tap tap = recorder_init(&r, s);
		struct ref_layer_inputs in;
		double *expected = reference(s, &in);
		float *got = forward(s, mode, &tap);

		assert_true(distance(expected, got, values_of(s)) < 1e-5);
		assert_int_equal(r.wrong, 0);
		assert_int_equal(r.routed, r.tokens);
		for (size_t e = 0; e < shape.experts; e++)
			check_shown(&r, MC_SITE_DOWN, e, in.down + e * in.tokens * in.expert_width,
			    in.expert_width, &in, mode == ALL ? MC_NO_INDEX : e);
		check_shown(&r, MC_SITE_O, MC_NO_INDEX, in.o, in.q_width, &in, MC_NO_INDEX);
		free(got);
		free(expected);
		recorder_release(&r);
		ref_layer_inputs_release(&in);
		setting_free(s);
	}
}

/* --- bits ----------------------------------------------------------------------------------------
 */

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

/* --- memory --------------------------------------------------------------------------------------
 */

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

/* --- stopping and failing ------------------------------------------------------------------------
 */

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

/* --- arithmetic ----------------------------------------------------------------------------------
 */

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
	    cmocka_unit_test(test_tap_sees_every_token),
	    cmocka_unit_test(test_tap_sees_routed_tokens),
	    cmocka_unit_test(test_expert_without_tokens),
	    cmocka_unit_test(test_many_tokens),
	    cmocka_unit_test(test_same_bits_for_any_workers),
	    cmocka_unit_test(test_scratch_is_as_planned),
	    cmocka_unit_test(test_scratch_does_not_grow),
	    cmocka_unit_test(test_too_little_memory),
	    cmocka_unit_test(test_canceled_anywhere),
	    cmocka_unit_test(test_values_out_of_range),
	    cmocka_unit_test(test_tap_fails),
	    cmocka_unit_test(test_flops),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
