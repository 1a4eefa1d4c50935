/*
 * linalg.c - products of tokens with a weight, in tiles, on the pool
 *
 * The tiles follow from the shape alone, never from the number of workers, and a sum over inputs is
 * made inside one item: so the bits do not depend on the number of workers.
 */
#include "moecal/linalg.h"

#include "linalg_backend.h"
#include "moecal/ops.h"

/*
 * Tiles from big to small. Big ones come nearer to the peak (768 x 1024: 95 %, 256 x 256: 83 % of
 * one product of everything, bf16 weights, AVX-512), small ones occupy more cores: the first one
 * that cuts the product into ENOUGH items is taken, else the last.
 */
static const struct {
	size_t outputs, tokens;
} tiles[] = {{768, 1024}, {512, 1024}, {512, 512}, {256, 512}, {256, 256}, {256, 128}};
#define ENOUGH 12
/* Inputs converted at a time: bounds the scratch of a worker (768 x 2048 floats: 6 MiB). */
#define MOST_INPUTS 2048
/* Parts are cut to multiples of this, so that the kernels see few ragged edges. */
#define GRAIN 16

static const struct mc_linalg_backend *backend(void)
{
	return &mc_linalg_openblas;
}

const char *mc_linalg_kernel(void)
{
	return backend()->kernel();
}

/* --- y = x W' + b ----------------------------------------------------------------------------- */

struct linear {
	const float *x;
	size_t ldx, tokens;
	const struct mc_weight *w;
	float *y;
	size_t ldy;
	const struct mc_env *env;
	size_t outputs_tile, tokens_tile, inputs_tile; /* a part of each dimension */
	size_t token_parts;
	unsigned char *scratch; /* scratch_bytes a worker */
	size_t scratch_bytes;
};

static size_t divide_up(size_t a, size_t b)
{
	return a / b + (a % b != 0);
}

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Even parts of n >= 1, none above `most` (a multiple of GRAIN), cut at multiples of GRAIN. */
static size_t even_part(size_t n, size_t most)
{
	return divide_up(divide_up(n, divide_up(n, most)), GRAIN) * GRAIN;
}

static void choose_tile(struct linear *linear)
{
	for (size_t i = 0; i < sizeof(tiles) / sizeof(tiles[0]); i++) {
		linear->outputs_tile = even_part(linear->w->rows, tiles[i].outputs);
		linear->tokens_tile = even_part(linear->tokens, tiles[i].tokens);
		linear->token_parts = divide_up(linear->tokens, linear->tokens_tile);
		if (divide_up(linear->w->rows, linear->outputs_tile) * linear->token_parts >=
		    ENOUGH)
			break;
	}
	linear->inputs_tile = even_part(linear->w->cols, MOST_INPUTS);
}

static bool linear_item(void *ctx, size_t item, unsigned worker, struct mc_error *err)
{
	const struct linear *linear = ctx;
	const struct mc_weight *w = linear->w;
	if (!mc_env_go_on(linear->env, err))
		return false;
	size_t row = item / linear->token_parts * linear->outputs_tile;
	size_t rows = smaller(linear->outputs_tile, w->rows - row);
	size_t token = item % linear->token_parts * linear->tokens_tile;
	size_t tokens = smaller(linear->tokens_tile, linear->tokens - token);
	float *y = linear->y + token * linear->ldy + row;
	const float *x = linear->x + token * linear->ldx;
	void *scratch = NULL;
	if (linear->scratch != NULL)
		scratch = linear->scratch + worker * linear->scratch_bytes;

	for (size_t col = 0; col < w->cols; col += linear->inputs_tile) {
		size_t cols = smaller(linear->inputs_tile, w->cols - col);
		struct mc_panel panel;
		backend()->make_panel(w, row, rows, col, cols, scratch, &panel);
		backend()->multiply(
		    x + col, linear->ldx, tokens, &panel, col == 0 ? 0.0f : 1.0f, y, linear->ldy);
	}
	if (w->bias != NULL)
		for (size_t t = 0; t < tokens; t++)
			mc_add_to(w->bias + row, y + t * linear->ldy, rows);
	return true;
}

bool mc_linear(const float *x, size_t ldx, size_t tokens, const struct mc_weight *w, float *y,
    size_t ldy, const struct mc_env *env, struct mc_error *err)
{
	mc_assert(mc_dtype_is_weight(w->dtype) && w->cols >= 1);
	mc_assert(ldx >= w->cols && ldy >= w->rows);
	if (tokens == 0 || w->rows == 0)
		return true;
	struct linear linear = {
	    .x = x, .ldx = ldx, .tokens = tokens, .w = w, .y = y, .ldy = ldy, .env = env};
	choose_tile(&linear);
	size_t mark = mc_arena_mark(env->arena);
	/* A multiple of 64, as GRAIN * 4 is: each worker's scratch is aligned like the first. */
	linear.scratch_bytes =
	    backend()->panel_bytes(w->dtype, linear.outputs_tile, linear.inputs_tile);
	if (linear.scratch_bytes > 0) {
		linear.scratch = mc_arena_alloc(env->arena, mc_pool_workers(env->pool),
		    linear.scratch_bytes, "converted weights", err);
		if (linear.scratch == NULL)
			return false;
	}
	size_t items = divide_up(w->rows, linear.outputs_tile) * linear.token_parts;
	bool done = mc_pool_run(env->pool, items, linear_item, &linear, err);
	mc_arena_rewind(env->arena, mark);
	return done;
}
