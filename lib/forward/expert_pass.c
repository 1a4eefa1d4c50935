/*
 * expert_pass.c - the products of the experts, where nearly all of the time goes
 *
 * Two phases, each split by its output. First the gated activations: an item is a slice of one
 * expert's channels; it widens its rows of gate and up once, stacked, and makes both products of a
 * tile of tokens in one call. While a few rows of the activation are in the cache they are shown to
 * the tap and, where the router chose the token, kept. Then down, for the kept rows alone: an item
 * is a slice of the output's columns and goes through the experts in ascending order, so that every
 * sum has one order and nobody else writes there.
 *
 * Without a listener nobody needs the activations of tokens that the router sent elsewhere, so they
 * are not made.
 */
#include "block.h"

#include <string.h>

#include "moecal/linalg.h"
#include "moecal/ops.h"

/* Tokens of one product: packing the weights costs the same for few tokens as for many. */
#define TILE_ROWS 1024u
/* Rows of activations that are made, shown and kept before the next: they stay in the L2 cache. */
#define ACT_ROWS 128u
/* Columns of the output that a second-phase item owns. */
#define DOWN_COLUMNS 128u

/* One worker's memory; each array is [..] long. */
struct scratch {
	float *weight;  /* phase 1: [2 * slice, D]; phase 2: [DOWN_COLUMNS, F] */
	float *product; /* phase 1: [TILE_ROWS, 2 * slice]; phase 2: [TILE_ROWS, DOWN_COLUMNS] */
	float *x; /* [TILE_ROWS, D]: rows of one expert, gathered; NULL when all tokens are seen */
	float
	    *act; /* all tokens: [ACT_ROWS, slice]; routed with a tap: [tokens, slice]; else NULL */
};

struct pass {
	const struct mc_expert_pass *in;
	const struct mc_env *env;
	size_t width, expert_width; /* D, F */
	float *kept;                /* activations of routed rows, [entries of the lists, F] */
	struct scratch *scratch;    /* [workers] */
};

/* A slice of one expert's channels on one worker. */
struct slice {
	size_t expert, first, channels;
	unsigned worker;
	struct scratch *scratch;
};

/* --- phase 1: gated activations ----------------------------------------------------------- */

/* product [rows, gate | up] = x [rows, D] times the stacked rows of gate and up. */
static void make_gate_up(
    const struct pass *pass, const struct slice *s, const float *x, size_t rows)
{
	mc_gemm_nt(rows, 2 * s->channels, pass->width, x, pass->width, s->scratch->weight,
	    pass->width, 0, s->scratch->product, 2 * s->channels);
}

static void make_act_row(const struct slice *s, size_t product_row, float *act)
{
	const float *gate = s->scratch->product + product_row * 2 * s->channels;

	mc_silu_mul(gate, gate + s->channels, act, s->channels);
}

static bool show(const struct pass *pass, const struct slice *s, const float *act, size_t ldx,
    const uint32_t *rows, size_t count, size_t first_row, struct mc_error *err)
{
	const struct mc_tap *tap = pass->in->tap;
	struct mc_tap_slice slice = {.site = MC_SITE_DOWN,
	    .expert = pass->in->dense ? MC_NO_INDEX : s->expert,
	    .first_channel = s->first,
	    .channels = s->channels,
	    .x = act,
	    .ldx = ldx,
	    .rows = rows,
	    .count = count,
	    .first_token = pass->in->first_token + first_row,
	    .worker = s->worker};

	return tap == NULL || tap->inputs(tap->ctx, &slice, err);
}

/* All tokens: a few rows at a time are made, shown, and kept where the router chose them. */
static bool act_of_all(const struct pass *pass, const struct slice *s, struct mc_error *err)
{
	const struct mc_routing *routing = pass->in->routing;
	size_t next = routing->begin[s->expert], end = routing->begin[s->expert + 1];

	for (size_t tile = 0; tile < routing->tokens; tile += TILE_ROWS) {
		size_t rows = mc_least(routing->tokens - tile, TILE_ROWS);

		if (!mc_env_go_on(pass->env, err))
			return false;
		make_gate_up(pass, s, pass->in->x + tile * pass->width, rows);
		for (size_t r = 0; r < rows; r += ACT_ROWS) {
			size_t first = tile + r, count = mc_least(rows - r, ACT_ROWS);
			float *act = s->scratch->act;

			for (size_t i = 0; i < count; i++)
				make_act_row(s, r + i, act + i * s->channels);
			if (!show(pass, s, act, s->channels, NULL, count, first, err))
				return false;
			for (; next < end && routing->row[next] < first + count; next++)
				memcpy(pass->kept + next * pass->expert_width + s->first,
				    act + (routing->row[next] - first) * s->channels,
				    s->channels * sizeof *act);
		}
	}
	return true;
}

/* The rows of the list from `at` on, side by side. When the list names every row they already are.
 */
static const float *gather_x(
    const struct pass *pass, const struct slice *s, size_t at, size_t rows, bool every_row)
{
	const struct mc_routing *routing = pass->in->routing;
	size_t width = pass->width;

	if (every_row)
		return pass->in->x + (at - routing->begin[s->expert]) * width;
	for (size_t i = 0; i < rows; i++)
		memcpy(s->scratch->x + i * width, pass->in->x + routing->row[at + i] * width,
		    width * sizeof(float));
	return s->scratch->x;
}

/* The tap finds a row by its token, so the kept rows are laid out by token for it. */
static bool show_routed(const struct pass *pass, const struct slice *s, size_t at, size_t rows,
    bool every_row, struct mc_error *err)
{
	const struct mc_routing *routing = pass->in->routing;
	const float *kept = pass->kept + at * pass->expert_width + s->first;

	if (pass->in->tap == NULL)
		return true;
	if (every_row)
		return show(pass, s, kept, pass->expert_width, NULL, rows,
		    at - routing->begin[s->expert], err);
	for (size_t i = 0; i < rows; i++)
		memcpy(s->scratch->act + routing->row[at + i] * s->channels,
		    kept + i * pass->expert_width, s->channels * sizeof *kept);
	return show(pass, s, s->scratch->act, s->channels, routing->row + at, rows, 0, err);
}

/* Routed tokens only: activations go straight to where they are kept. */
static bool act_of_routed(const struct pass *pass, const struct slice *s, struct mc_error *err)
{
	const struct mc_routing *routing = pass->in->routing;
	size_t begin = routing->begin[s->expert], end = routing->begin[s->expert + 1];
	bool every_row = end - begin == routing->tokens;

	for (size_t at = begin; at < end; at += TILE_ROWS) {
		size_t rows = mc_least(end - at, TILE_ROWS);

		if (!mc_env_go_on(pass->env, err))
			return false;
		make_gate_up(pass, s, gather_x(pass, s, at, rows, every_row), rows);
		for (size_t i = 0; i < rows; i++)
			make_act_row(s, i, pass->kept + (at + i) * pass->expert_width + s->first);
		if (!show_routed(pass, s, at, rows, every_row, err))
			return false;
	}
	return true;
}

static bool act_item(void *ctx, size_t item, unsigned worker, struct mc_error *err)
{
	const struct pass *pass = ctx;
	const struct mc_expert_pass *in = pass->in;
	/* Slice by slice: the narrow last ones come at the end, when there is little left to share
	 * out. */
	size_t expert = item % in->routing->experts,
	       first = item / in->routing->experts * MC_TAP_CHANNELS;
	struct slice s = {.expert = expert,
	    .first = first,
	    .channels = mc_least(pass->expert_width - first, MC_TAP_CHANNELS),
	    .worker = worker,
	    .scratch = &pass->scratch[worker]};

	if (!mc_env_go_on(pass->env, err))
		return false;
	if (!in->see_all_tokens && in->routing->begin[expert] == in->routing->begin[expert + 1])
		return true;
	mc_weight_rows(&in->gate[expert], first, s.channels, s.scratch->weight);
	mc_weight_rows(
	    &in->up[expert], first, s.channels, s.scratch->weight + s.channels * pass->width);
	return in->see_all_tokens ? act_of_all(pass, &s, err) : act_of_routed(pass, &s, err);
}

/* --- phase 2: down and the weighted sum --------------------------------------------------- */

static void add_expert(
    const struct pass *pass, size_t expert, size_t first, size_t columns, struct scratch *scratch)
{
	const struct mc_routing *routing = pass->in->routing;
	size_t begin = routing->begin[expert], end = routing->begin[expert + 1];

	if (begin == end)
		return;
	mc_weight_rows(&pass->in->down[expert], first, columns, scratch->weight);
	for (size_t at = begin; at < end; at += TILE_ROWS) {
		size_t rows = mc_least(end - at, TILE_ROWS);

		mc_gemm_nt(rows, columns, pass->expert_width, pass->kept + at * pass->expert_width,
		    pass->expert_width, scratch->weight, pass->expert_width, 0, scratch->product,
		    columns);
		for (size_t i = 0; i < rows; i++)
			mc_axpy(routing->share[at + i], scratch->product + i * columns,
			    pass->in->out + routing->row[at + i] * pass->width + first, columns);
	}
}

static bool down_item(void *ctx, size_t item, unsigned worker, struct mc_error *err)
{
	const struct pass *pass = ctx;
	size_t first = item * DOWN_COLUMNS, columns = mc_least(pass->width - first, DOWN_COLUMNS);

	for (size_t t = 0; t < pass->in->routing->tokens; t++)
		memset(pass->in->out + t * pass->width + first, 0, columns * sizeof(float));
	for (size_t e = 0; e < pass->in->routing->experts; e++) {
		if (!mc_env_go_on(pass->env, err))
			return false;
		add_expert(pass, e, first, columns, &pass->scratch[worker]);
	}
	return true;
}

/* --- memory ------------------------------------------------------------------------------- */

static bool take(
    const struct mc_env *env, size_t rows, size_t cols, float **ret, struct mc_error *err)
{
	uint64_t count;

	if (!mc_mul(rows, cols, &count))
		return mc_fail(err, MC_NO_MEMORY, "expert scratch",
		    "%zu rows of %zu cannot be counted", rows, cols);
	*ret = mc_arena_alloc(env->arena, count, sizeof **ret, "expert scratch", err);
	return *ret != NULL;
}

static size_t slice_channels(size_t expert_width)
{
	return mc_least(expert_width, MC_TAP_CHANNELS);
}

static bool take_act_scratch(const struct pass *pass, struct scratch *s, struct mc_error *err)
{
	const struct mc_expert_pass *in = pass->in;
	size_t channels = slice_channels(pass->expert_width), tokens = in->routing->tokens;
	size_t tile = mc_least(tokens, TILE_ROWS), act = 0;
	bool gathers = !in->see_all_tokens && !in->dense;

	*s = (struct scratch){0};
	if (in->see_all_tokens)
		act = mc_least(tokens, ACT_ROWS);
	else if (gathers && in->tap != NULL)
		act = tokens;
	return take(pass->env, 2 * channels, pass->width, &s->weight, err) &&
	       take(pass->env, tile, 2 * channels, &s->product, err) &&
	       (!gathers || take(pass->env, tile, pass->width, &s->x, err)) &&
	       (act == 0 || take(pass->env, act, channels, &s->act, err));
}

static bool take_down_scratch(const struct pass *pass, struct scratch *s, struct mc_error *err)
{
	size_t columns = mc_least(pass->width, DOWN_COLUMNS);

	*s = (struct scratch){0};
	return take(pass->env, columns, pass->expert_width, &s->weight, err) &&
	       take(pass->env, mc_least(pass->in->routing->tokens, TILE_ROWS), columns, &s->product,
		   err);
}

/* What `take` costs. */
static uint64_t take_bytes(size_t rows, size_t cols)
{
	return mc_arena_cost(mc_times(rows, cols), sizeof(float));
}

uint64_t mc_expert_pass_bytes(
    size_t width, size_t expert_width, size_t tokens, size_t k, unsigned workers)
{
	size_t channels = slice_channels(expert_width), columns = mc_least(width, DOWN_COLUMNS);
	size_t chunk = mc_least(tokens, MC_FORWARD_CHUNK), tile = mc_least(chunk, TILE_ROWS);
	uint64_t act =
	    mc_plus(mc_plus(take_bytes(2 * channels, width), take_bytes(tile, 2 * channels)),
		mc_plus(take_bytes(tile, width), take_bytes(chunk, channels)));
	uint64_t down = mc_plus(take_bytes(columns, expert_width), take_bytes(tile, columns));
	uint64_t worker = act > down ? act : down;

	return mc_plus(mc_plus(take_bytes(chunk * k, expert_width), mc_times(worker, workers)),
	    mc_arena_cost(workers, sizeof(struct scratch)));
}

/* --- both phases -------------------------------------------------------------------------- */

static bool run_phase(struct pass *pass, size_t items, mc_pool_fn *fn,
    bool (*take_scratch)(const struct pass *, struct scratch *, struct mc_error *),
    struct mc_error *err)
{
	size_t mark = mc_arena_mark(pass->env->arena);
	bool ok = true;

	for (unsigned w = 0; ok && w < mc_pool_workers(pass->env->pool); w++)
		ok = take_scratch(pass, &pass->scratch[w], err);
	ok = ok && mc_pool_run(pass->env->pool, items, fn, pass, err);
	mc_arena_rewind(pass->env->arena, mark);
	return ok;
}

bool mc_expert_pass(const struct mc_expert_pass *in, const struct mc_env *env, struct mc_error *err)
{
	size_t mark = mc_arena_mark(env->arena), experts = in->routing->experts;
	struct pass pass = {
	    .in = in, .env = env, .width = in->gate[0].cols, .expert_width = in->gate[0].rows};

	mc_assert(in->routing->tokens <= MC_FORWARD_CHUNK);
	if (in->routing->tokens == 0)
		return true;
	size_t slices = mc_blocks(pass.expert_width, MC_TAP_CHANNELS);
	pass.scratch = mc_arena_alloc(
	    env->arena, mc_pool_workers(env->pool), sizeof *pass.scratch, "expert scratch", err);
	bool ok = pass.scratch != NULL &&
		  take(env, in->routing->begin[experts], pass.expert_width, &pass.kept, err) &&
		  run_phase(&pass, experts * slices, act_item, take_act_scratch, err) &&
		  run_phase(&pass, mc_blocks(pass.width, DOWN_COLUMNS), down_item,
		      take_down_scratch, err);
	mc_arena_rewind(env->arena, mark);
	return ok;
}
