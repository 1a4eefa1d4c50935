/*
 * diff.h - drift between two calibrations: what changed of coverage, ranges, scales and errors
 */
#ifndef MC_DIFF_H
#define MC_DIFF_H

#include "moecal/env.h"
#include "moecal/json.h"

/*
 * What is compared, each as a number that is 0 for equal ones:
 *   coverage  the part of a layer's routed tokens that goes to another expert: half the sum of the
 *             distances of all shares; of one expert the distance of its shares
 *   inputs    of a linear's input range: the greatest distance of min, max and absmax, over the larger absmax
 *   scales    of a parameter of quantization.safetensors: the greatest |a - b| / max(|a|, |b|) of its
 *             elements; of packed integers the part that differs
 *   error     of error_relative: |a - b| / max(a, b)
 */
enum mc_drift { MC_DRIFT_COVERAGE, MC_DRIFT_INPUTS, MC_DRIFT_SCALES, MC_DRIFT_ERROR, MC_DRIFT_COUNT };
const char *mc_drift_name(enum mc_drift drift); /* "coverage"; static */

/*
 * Compares two job folders (spec.json, calibration.db; quantization.safetensors where both have it).
 * threshold: what each of these numbers may be at most; negative: nothing is judged. Document, new, owned:
 * {"a", "b": {folder, model, format, tokens, layers_done, finished}, "differences": [{key, a, b}] of the
 * specs and inputs, "largest": {coverage, inputs, scales, error}, "layers", "experts": [{layer, expert,
 * coverage, inputs, scales, error, largest}], "coverage", "inputs", "scales", "errors": what they are made
 * of, all largest first, "unlike": [{name, a, b}] of parameters whose dtype or shape differs so that they
 * cannot be compared, "only_a", "only_b": {"modules", "parameters", "layers"}, "threshold", "within"}.
 * Not finite numbers are null, and over every threshold. *ret_within as in the document; true when nothing is judged. What is in one only, or
 * unlike, is not within. Errors: NOT_FOUND, INVALID for what is no job folder; CORRUPT, IO, NO_MEMORY.
 */
bool mc_diff(const char *a, const char *b, double threshold, const struct mc_env *env,
    struct mc_json **ret_document, bool *ret_within, struct mc_error *err) MC_CHECKED;

#endif
