/*
 * verdict.h - the proof: checks of a quantized checkpoint, each counted
 */
#ifndef MC_VERDICT_H
#define MC_VERDICT_H

#include "moecal/env.h"
#include "moecal/json.h"

#define MC_VERDICT_EXAMPLES 8

struct mc_check {
	const char *name; /* "parameters-present", ... static */
	uint64_t counted, failed;
	size_t examples_count;
	char *examples[MC_VERDICT_EXAMPLES]; /* owned sentences */
};

#define MC_CHECKS(X)                                                                               \
	X(MC_CHECK_FILES, "files-complete")                                                        \
	X(MC_CHECK_CONFIG, "config-consistent")                                                    \
	X(MC_CHECK_PRESENT, "parameters-present")                                                  \
	X(MC_CHECK_EXPECTED, "no-unexpected-tensors")                                              \
	X(MC_CHECK_SHAPES, "shapes-and-dtypes")                                                    \
	X(MC_CHECK_FINITE, "parameters-finite")                                                    \
	X(MC_CHECK_POSITIVE, "scales-positive")                                                    \
	X(MC_CHECK_CODES, "codes-in-range")                                                        \
	X(MC_CHECK_FUSED, "fused-scales-shared")                                                   \
	X(MC_CHECK_PROPORTION, "scales-in-proportion")                                             \
	X(MC_CHECK_SOURCES, "expert-sources-named")                                                \
	X(MC_CHECK_REREAD, "written-equals-computed")                                              \
	X(MC_CHECK_BOUND, "dequantized-within-bound")
enum mc_check_id {
#define X(id, name) id,
	MC_CHECKS(X)
#undef X
	    MC_CHECK_COUNT
};

struct mc_verdict {
	bool made[MC_CHECK_COUNT]; /* checks that apply */
	struct mc_check checks[MC_CHECK_COUNT];
	struct mc_json *experts; /* coverage document or NULL; owned */
};

void mc_verdict_init(struct mc_verdict *verdict);
void mc_verdict_release(struct mc_verdict *verdict);
/* Counts one thing checked; `failed` adds the sentence as an example while there is room. */
void mc_verdict_pass(struct mc_verdict *verdict, enum mc_check_id check, uint64_t count);
void mc_verdict_fail(struct mc_verdict *verdict, enum mc_check_id check, const char *fmt, ...)
    MC_PRINTF(3, 4);
bool mc_verdict_valid(const struct mc_verdict *verdict);
/* The document of verdict.json. New, owned. */
struct mc_json *mc_verdict_json(const struct mc_verdict *verdict, struct mc_error *err) MC_CHECKED;

/*
 * Checks a compressed-tensors checkpoint folder by itself: index and shards, config.json, presence,
 * shapes, finiteness, signs, codes, global scales of merged linears, proportions. original (may be
 * NULL): the folder it was made from; then dequantized weights are compared within the scheme's bound.
 * Whatever is wrong with the folder's files is a failed check, and true is returned; false: there is no
 * such folder, or none of safetensors (NOT_FOUND, INVALID); it is not quantized (INVALID); not in a way
 * that can be checked (UNSUPPORTED); the original cannot be opened; IO, NO_MEMORY, CANCELED.
 */
bool mc_verify_checkpoint(struct mc_verdict *verdict, const char *folder, const char *original,
    const struct mc_env *env, struct mc_error *err) MC_CHECKED;

#endif
