/*
 * block.h - what the files of the forward pass share
 *
 * Letters: T tokens, D model width, F expert width, E experts, K active experts a token.
 */
#ifndef MC_FORWARD_BLOCK_H
#define MC_FORWARD_BLOCK_H

#include "moecal/alloc.h"
#include "moecal/forward.h"

/*
 * Tokens that go through a block at once. A constant: where products are cut decides their last
 * bits, and those must depend neither on the memory nor on the workers of a machine.
 */
#define MC_FORWARD_CHUNK 4096u

static inline size_t mc_least(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Sums and products of sizes that stay at UINT64_MAX once they are too big: a plan refuses those.
 */
static inline uint64_t mc_plus(uint64_t a, uint64_t b)
{
	uint64_t sum;

	return mc_add(a, b, &sum) ? sum : UINT64_MAX;
}

static inline uint64_t mc_times(uint64_t a, uint64_t b)
{
	uint64_t product;

	return mc_mul(a, b, &product) ? product : UINT64_MAX;
}

/* What count elements cost in the arena, with what its alignment may add. */
static inline uint64_t mc_arena_cost(uint64_t count, size_t element)
{
	return mc_plus(mc_times(count, element), 64);
}

/* Blocks of `size` that n things fill, the last one perhaps not wholly. */
static inline size_t mc_blocks(size_t n, size_t size)
{
	return n / size + (n % size != 0);
}

/* A weight's rows first .. first + count - 1 as float32 [count, cols]. */
void mc_weight_rows(const struct mc_weight *weight, size_t first, size_t count, float *ret);

/* --- loops over rows on the pool (rows.c) ------------------------------------------------- */

/* y [rows, n] = RMS norm of x [rows, n]. Errors: CANCELED. */
bool mc_norm_rows(const float *x, size_t rows, size_t n, const float *w, float eps, float *y,
    const struct mc_env *env, struct mc_error *err) MC_CHECKED;
/* hidden [rows, n] += delta. Errors: CANCELED; CORRUPT when a sum is not finite, naming the layer,
 * `after` what, the token (the first row is token first_token) and the channel. */
bool mc_add_residual(const float *delta, size_t rows, size_t n, float *hidden, size_t layer,
    const char *after, size_t first_token, const struct mc_env *env,
    struct mc_error *err) MC_CHECKED;

/* --- the tap (offer.c) -------------------------------------------------------------------- */

/* x [tokens, channels] offered for a whole layer, slices on the pool. tap may be NULL. */
bool mc_offer_rows(const struct mc_tap *tap, enum mc_site site, const float *x, size_t channels,
    size_t tokens, size_t first_token, const struct mc_env *env, struct mc_error *err) MC_CHECKED;
struct mc_routing;
/* The rows of x [tokens, channels] that each expert was given, site EXPERT_GATE_UP. tap may be
 * NULL. */
bool mc_offer_routed(const struct mc_tap *tap, const struct mc_routing *routing, const float *x,
    size_t channels, size_t first_token, const struct mc_env *env, struct mc_error *err) MC_CHECKED;

/* --- attention (attention.c) -------------------------------------------------------------- */

/* hidden [T, D] += attention of its norm. Errors: NO_MEMORY, CANCELED, CORRUPT, those of the tap.
 */
bool mc_attention_forward(const struct mc_layer *layer, const struct mc_batch *batch, float *hidden,
    const struct mc_tap *tap, const struct mc_env *env, struct mc_error *err) MC_CHECKED;
/* Tokens of the largest group of sequences that attention takes at once. */
size_t mc_attention_group(size_t tokens, size_t longest_sequence);

/* --- router (router.c) -------------------------------------------------------------------- */

/* Who computes which of `tokens` rows. The lists of all experts stand one after another. */
struct mc_routing {
	size_t tokens, experts, k;
	uint32_t *index; /* [tokens, k], ascending in a row; NULL in a dense block */
	float *weight;   /* [tokens, k]; NULL in a dense block */
	size_t *begin;   /* [experts + 1]: expert e has entries begin[e] .. begin[e + 1] - 1 */
	uint32_t *row;   /* [tokens * k] rows, ascending within an expert */
	float *share;    /* [tokens * k] what the expert's output for that row is multiplied with */
};
/* Takes the arrays from the arena. Errors: NO_MEMORY, CANCELED, CORRUPT when a logit is not finite.
 */
bool mc_route(const struct mc_layer *layer, const float *x, size_t tokens, size_t first_token,
    struct mc_routing *ret, const struct mc_env *env, struct mc_error *err) MC_CHECKED;
/* One expert that takes every row with weight 1: a dense block. */
bool mc_route_dense(size_t tokens, struct mc_routing *ret, const struct mc_env *env,
    struct mc_error *err) MC_CHECKED;

/* --- experts (expert_pass.c) -------------------------------------------------------------- */

/* At most MC_FORWARD_CHUNK tokens through the experts that routing names. */
struct mc_expert_pass {
	const struct mc_weight *gate, *up, *down; /* [routing->experts] */
	const struct mc_routing *routing;
	bool see_all_tokens; /* gated activations of all tokens, not of the routed ones alone */
	bool dense;          /* the one expert goes by MC_NO_INDEX */
	const float *x;      /* [tokens, D] */
	float *out;          /* [tokens, D], overwritten */
	size_t first_token;  /* what the tap is told of row 0 */
	const struct mc_tap *tap; /* or NULL */
};
/* Errors: NO_MEMORY, CANCELED, those of the tap. */
bool mc_expert_pass(
    const struct mc_expert_pass *pass, const struct mc_env *env, struct mc_error *err) MC_CHECKED;
/* Arena bytes of a pass in its most expensive mode: every row has k experts, a tap listens. */
uint64_t mc_expert_pass_bytes(
    size_t width, size_t expert_width, size_t tokens, size_t k, unsigned workers);

/* --- dense block (dense.c) ---------------------------------------------------------------- */

bool mc_dense_forward(const struct mc_layer *layer, const float *x, float *out, size_t tokens,
    size_t first_token, const struct mc_tap *tap, const struct mc_env *env,
    struct mc_error *err) MC_CHECKED;

#endif
