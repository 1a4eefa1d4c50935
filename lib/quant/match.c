/*
 * match.c - see match.h; the only user of PCRE2 in this folder
 */
#include "moecal/match.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "moecal/alloc.h"

/* Steps of one match: patterns come from requests, and some take for ever. */
#define MATCH_LIMIT 1000000
#define MATCH_HEAP_KIB 16384

static bool is_regex(const char *target)
{
	return strncmp(target, "re:", 3) == 0;
}

/* Python's re.match: anchored at the start only. Names of modules are what a file says, so any
 * bytes. */
static pcre2_code *compile(const char *target, struct mc_error *err)
{
	int code;
	PCRE2_SIZE offset;
	PCRE2_UCHAR text[160];
	pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)(target + 3), PCRE2_ZERO_TERMINATED,
	    PCRE2_ANCHORED | PCRE2_UTF | PCRE2_MATCH_INVALID_UTF | PCRE2_NEVER_BACKSLASH_C, &code,
	    &offset, NULL);

	if (compiled != NULL)
		return compiled;
	if (code == PCRE2_ERROR_HEAP_FAILED)
		(void)mc_fail(err, MC_NO_MEMORY, "targets", "cannot allocate a compiled pattern");
	else if (pcre2_get_error_message(code, text, sizeof text) < 0)
		(void)mc_fail(
		    err, MC_INVALID, "targets", "'%.200s' is not a valid pattern", target);
	else
		(void)mc_fail(err, MC_INVALID, "targets",
		    "'%.200s' is not a valid pattern: %s at character %zu", target,
		    (const char *)text, (size_t)offset);
	return NULL;
}

bool mc_match_check(const char *target, struct mc_error *err)
{
	if (!is_regex(target))
		return true;
	pcre2_code *compiled = compile(target, err);
	pcre2_code_free(compiled);
	return compiled != NULL;
}

/* --- compiled targets ------------------------------------------------------------------------- */

struct target {
	const char *text; /* borrowed */
	size_t scheme;
	pcre2_code *regex; /* NULL: a module's or a class's name */
	bool matched;      /* anything */
};

struct matcher {
	size_t count;
	struct target *targets; /* sorted by text, each text once */
	pcre2_match_data *data;
	pcre2_match_context *context;
};

/* Equal texts by group, so that the later one can be kept. */
static int compare_targets(const void *a, const void *b)
{
	const struct target *x = a, *y = b;
	int order = strcmp(x->text, y->text);

	return order != 0 ? order : (x->scheme > y->scheme) - (x->scheme < y->scheme);
}

static void matcher_release(struct matcher *m)
{
	for (size_t i = 0; i < m->count; i++)
		pcre2_code_free(m->targets[i].regex);
	free(m->targets);
	pcre2_match_data_free(m->data);
	pcre2_match_context_free(m->context);
	*m = (struct matcher){0};
}

static bool matcher_init(struct matcher *m, size_t most, struct mc_error *err)
{
	*m = (struct matcher){
	    .data = pcre2_match_data_create(1, NULL), .context = pcre2_match_context_create(NULL)};
	m->targets = mc_alloc(most, sizeof *m->targets, "targets", err);
	if (m->targets == NULL || m->data == NULL || m->context == NULL) {
		matcher_release(m);
		return mc_fail(err, MC_NO_MEMORY, "targets", "cannot allocate %zu targets", most);
	}
	pcre2_set_match_limit(m->context, MATCH_LIMIT);
	pcre2_set_heap_limit(m->context, MATCH_HEAP_KIB);
	return true;
}

static void matcher_add(struct matcher *m, char *const *texts, size_t count, size_t scheme)
{
	for (size_t i = 0; i < count; i++)
		m->targets[m->count++] = (struct target){.text = texts[i], .scheme = scheme};
}

/* Sorts, keeps the last of equal texts, compiles. */
static bool matcher_settle(struct matcher *m, struct mc_error *err)
{
	size_t kept = 0;

	if (m->count > 1)
		qsort(m->targets, m->count, sizeof *m->targets, compare_targets);
	for (size_t i = 0; i < m->count; i++)
		if (i + 1 == m->count || strcmp(m->targets[i].text, m->targets[i + 1].text) != 0)
			m->targets[kept++] = m->targets[i];
	m->count = kept;
	for (size_t i = 0; i < m->count; i++) {
		if (!is_regex(m->targets[i].text))
			continue;
		m->targets[i].regex = compile(m->targets[i].text, err);
		if (m->targets[i].regex == NULL)
			return false;
	}
	return true;
}

static bool regex_matches(const struct matcher *m, const struct target *target, const char *name,
    bool *ret, struct mc_error *err)
{
	int code = pcre2_match(
	    target->regex, (PCRE2_SPTR)name, strlen(name), 0, 0, m->data, m->context);

	*ret = code >= 0;
	if (code >= 0 || code == PCRE2_ERROR_NOMATCH)
		return true;
	return mc_fail(err, MC_INVALID, "targets",
	    "'%.200s' takes too long or too much memory to match against '%.128s'", target->text,
	    name);
}

/* The kinds of a match, strongest first. */
enum kind { BY_NAME, BY_REGEX, BY_CLASS, NOT_AT_ALL };

static bool match_one(const struct matcher *m, const struct target *target,
    const struct mc_match_module *module, enum kind *ret, struct mc_error *err)
{
	bool matched;

	*ret = NOT_AT_ALL;
	if (target->regex != NULL) {
		if (!regex_matches(m, target, module->name, &matched, err))
			return false;
		if (matched)
			*ret = BY_REGEX;
	} else if (strcmp(target->text, module->name) == 0) {
		*ret = BY_NAME;
	} else if (strcmp(target->text, "Module") == 0 ||
		   (module->class_name != NULL && strcmp(target->text, module->class_name) == 0)) {
		*ret = BY_CLASS;
	}
	return true;
}

/* All targets are tried, to know which of them match anything at all. */
static bool best_scheme(struct matcher *m, const struct mc_match_module *module, size_t *ret_scheme,
    struct mc_error *err)
{
	enum kind best = NOT_AT_ALL, kind;

	*ret_scheme = MC_NO_SCHEME;
	for (size_t i = 0; i < m->count; i++) {
		if (!match_one(m, &m->targets[i], module, &kind, err))
			return false;
		if (kind == NOT_AT_ALL)
			continue;
		m->targets[i].matched = true;
		if (kind < best) {
			best = kind;
			*ret_scheme = m->targets[i].scheme;
		}
	}
	return true;
}

static bool any_matches(
    const struct matcher *m, const struct mc_match_module *module, bool *ret, struct mc_error *err)
{
	enum kind kind = NOT_AT_ALL;

	for (size_t i = 0; i < m->count && kind == NOT_AT_ALL; i++)
		if (!match_one(m, &m->targets[i], module, &kind, err))
			return false;
	*ret = kind != NOT_AT_ALL;
	return true;
}

/* --- attention -------------------------------------------------------------------------------- */

static bool target_matches(const struct matcher *m, const struct target *target,
    const struct mc_match_module *module, bool *ret, struct mc_error *err)
{
	enum kind kind;

	if (!match_one(m, target, module, &kind, err))
		return false;
	*ret = kind != NOT_AT_ALL;
	return true;
}

/* "a.b" is the parent of "a.b.c"; the whole model of what has no dot, which has no name to match.
 */
static bool is_parent(const char *name, size_t length, const char *of)
{
	const char *dot = strrchr(of, '.');

	return dot != NULL && (size_t)(dot - of) == length && strncmp(name, of, length) == 0;
}

/* Whether the target matches the parent of `module` or anything inside it. */
static bool matches_around(const struct matcher *m, const struct target *target,
    const struct mc_match_module *module, const struct mc_match_module *modules, size_t count,
    bool *ret, struct mc_error *err)
{
	size_t length = strlen(module->name);

	*ret = false;
	for (size_t i = 0; i < count && !*ret; i++) {
		const char *name = modules[i].name;
		bool inside = strncmp(name, module->name, length) == 0 && name[length] == '.';
		if (!inside && !is_parent(name, strlen(name), module->name))
			continue;
		if (!target_matches(m, target, &modules[i], ret, err))
			return false;
	}
	return true;
}

/* Of the targets of the scheme, all are tried: it need not be the one that won. */
static bool is_narrow(const struct matcher *m, size_t scheme, const struct mc_match_module *module,
    const struct mc_match_module *modules, size_t count, bool *ret, struct mc_error *err)
{
	bool matches, around;

	*ret = false;
	for (size_t i = 0; i < m->count && !*ret; i++) {
		if (m->targets[i].scheme != scheme)
			continue;
		if (!target_matches(m, &m->targets[i], module, &matches, err))
			return false;
		if (!matches)
			continue;
		if (!matches_around(m, &m->targets[i], module, modules, count, &around, err))
			return false;
		*ret = !around;
	}
	return true;
}

/* --- the whole -------------------------------------------------------------------------------- */

static bool match_all(struct matcher *targets, const struct matcher *ignore,
    const struct mc_match_module *modules, size_t count, size_t *ret_scheme, struct mc_error *err)
{
	bool ignored, narrow = true;
	size_t scheme;

	for (size_t i = 0; i < count; i++) {
		if (!modules[i].quantizable && !modules[i].attention)
			continue;
		if (!best_scheme(targets, &modules[i], &scheme, err))
			return false;
		if (scheme == MC_NO_SCHEME)
			continue;
		if (!any_matches(ignore, &modules[i], &ignored, err))
			return false;
		if (!ignored && modules[i].attention &&
		    !is_narrow(targets, scheme, &modules[i], modules, count, &narrow, err))
			return false;
		if (!ignored && (narrow || !modules[i].attention))
			ret_scheme[i] = scheme;
	}
	return true;
}

/* What one modifier says: `schemes` groups from number `first` on. */
static bool match_part(const struct mc_quant_config *config, size_t first, size_t schemes,
    char *const *ignored, size_t ignored_count, const struct mc_match_module *modules, size_t count,
    size_t *ret_scheme, void (*unmatched)(void *ctx, const char *target), void *ctx,
    struct mc_error *err)
{
	struct matcher targets = {0}, ignore = {0};
	size_t most = 0;

	for (size_t i = first; i < first + schemes; i++)
		most += config->schemes[i].targets_count;
	bool ok = matcher_init(&targets, most, err) && matcher_init(&ignore, ignored_count, err);
	for (size_t i = first; ok && i < first + schemes; i++)
		matcher_add(
		    &targets, config->schemes[i].targets, config->schemes[i].targets_count, i);
	if (ok)
		matcher_add(&ignore, ignored, ignored_count, 0);
	ok = ok && matcher_settle(&targets, err) && matcher_settle(&ignore, err) &&
	     match_all(&targets, &ignore, modules, count, ret_scheme, err);
	for (size_t i = 0; ok && unmatched != NULL && i < targets.count; i++)
		if (!targets.targets[i].matched)
			unmatched(ctx, targets.targets[i].text);
	matcher_release(&targets);
	matcher_release(&ignore);
	return ok;
}

bool mc_match_schemes(const struct mc_quant_config *config, const struct mc_match_module *modules,
    size_t count, size_t *ret_scheme, void (*unmatched)(void *ctx, const char *target), void *ctx,
    struct mc_error *err)
{
	const struct mc_quant_part whole = {config->count, config->ignore_count};
	const struct mc_quant_part *parts = config->parts_count > 0 ? config->parts : &whole;
	size_t parts_count = config->parts_count > 0 ? config->parts_count : 1;
	size_t first = 0, ignore = 0;

	for (size_t i = 0; i < count; i++)
		ret_scheme[i] = MC_NO_SCHEME;
	for (size_t p = 0; p < parts_count; p++) {
		if (!match_part(config, first, parts[p].schemes, config->ignore + ignore,
			parts[p].ignore, modules, count, ret_scheme, unmatched, ctx, err))
			return false;
		first += parts[p].schemes;
		ignore += parts[p].ignore;
	}
	return true;
}

bool mc_match_any(char *const *patterns, size_t patterns_count,
    const struct mc_match_module *module, bool *ret_matched, struct mc_error *err)
{
	struct matcher m;

	if (!matcher_init(&m, patterns_count, err))
		return false;
	matcher_add(&m, patterns, patterns_count, 0);
	bool ok = matcher_settle(&m, err) && any_matches(&m, module, ret_matched, err);
	matcher_release(&m);
	return ok;
}
