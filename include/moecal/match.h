/*
 * match.h - which scheme a module gets: targets and ignore of compressed-tensors
 *
 * Forms: a full module name; "re:PATTERN" anchored at the start only (Python's re.match); a class name.
 * Priority: exact names, then regexes, then classes; inside a kind the target strings are sorted, the
 * first that matches wins; of equal strings the later group wins. Ignore beats every target. Of
 * several modifiers (config->parts) the last that targets a module and does not ignore it wins. An
 * attention module gets a scheme when one of the scheme's targets matches it and neither its parent
 * nor anything inside it.
 */
#ifndef MC_MATCH_H
#define MC_MATCH_H

#include "moecal/scheme.h"

struct mc_match_module {
	const char *name;
	const char *class_name; /* besides it every module matches "Module" */
	bool quantizable;       /* a linear or an embedding; others are passed over silently */
	bool attention;         /* one with a cache: matched narrowly, see below */
};

#define MC_NO_SCHEME ((size_t)-1)

/*
 * ret_scheme [count]: index into config->schemes or MC_NO_SCHEME. ret_unmatched (may be NULL) is called
 * for each target string that matched nothing. Errors: INVALID for a pattern that does not compile
 * (names it), NO_MEMORY.
 */
bool mc_match_schemes(const struct mc_quant_config *config, const struct mc_match_module *modules,
    size_t count, size_t *ret_scheme, void (*unmatched)(void *ctx, const char *target), void *ctx,
    struct mc_error *err) MC_CHECKED;

/* Whether a target can be used: "re:" patterns must compile. INVALID names the pattern and the reason. */
bool mc_match_check(const char *target, struct mc_error *err) MC_CHECKED;

/* One pattern list against one module (for tools). */
bool mc_match_any(char *const *patterns, size_t patterns_count, const struct mc_match_module *module,
    bool *ret_matched, struct mc_error *err) MC_CHECKED;

#endif
