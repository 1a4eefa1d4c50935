/*
 * forward_setting.h - what the tests of the forward pass share: shapes, a layer and its environment
 */
#ifndef MC_UNIT_FORWARD_SETTING_H
#define MC_UNIT_FORWARD_SETTING_H

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

/* --- a layer, its input, an environment --------------------------------------------------- */

struct setting {
	struct hand_layer hand;
	struct mc_batch batch;
	uint64_t start[MOST_SEQUENCES + 1];
	float *hidden; /* [T, D], what goes in */
	struct mc_arena arena;
	struct mc_env env;
};

static inline bool all_experts(const struct mc_module *self, const struct mc_moe_call *call,
    const struct mc_env *env, struct mc_error *e)
{
	(void)self;
	return mc_moe_forward(call, true, env, e);
}
static const struct mc_moe_behaviour sees_all = {.forward = all_experts};

static inline struct setting *setting_new(
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
	return s;
}

static inline void setting_free(struct setting *s)
{
	mc_pool_free(s->env.pool);
	mc_arena_release(&s->arena);
	hand_layer_release(&s->hand);
	free(s->hidden);
	free(s);
}

static inline size_t values_of(const struct setting *s)
{
	return s->batch.tokens * s->hand.model.config.hidden;
}

/* The layer's output for a copy of the input; owned by the caller. */
static inline float *forward(struct setting *s, int mode, const struct mc_tap *tap)
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

static inline double *reference(struct setting *s, struct ref_layer_inputs *inputs)
{
	double *out = malloc(values_of(s) * sizeof *out + 1);

	assert_non_null(out);
	for (size_t i = 0; i < values_of(s); i++)
		out[i] = (double)s->hidden[i];
	ref_layer_forward(&s->hand.layer, &s->batch, out, inputs);
	return out;
}

/* rms of the difference over the rms of what is expected */
static inline double distance(const double *expected, const float *got, size_t n)
{
	double difference = 0, square = 0;

	for (size_t i = 0; i < n; i++) {
		difference += (expected[i] - (double)got[i]) * (expected[i] - (double)got[i]);
		square += expected[i] * expected[i];
	}
	return sqrt(difference / square);
}

#endif
