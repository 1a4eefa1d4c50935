/*
 * verify_peers.c - modules against others of their kind
 *
 * Of one kind are modules whose names differ in their numbers alone: all experts' gate_proj of all
 * layers. What nobody else has is suspicious even where no original tells what is right.
 */
#include "verify_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"

/* Of so many at least it can be said what is usual. */
#define LEAST 4
/* Factors (as log2) that no training makes: of weights towards more only, because experts that were
 * never used shrink; of inputs, which have outliers of some thousands, wider. */
#define MOST_WEIGHT 8
#define MOST_INPUT 20

struct peer {
	struct mc_found *found;
	char *kind; /* owned */
};

struct peers {
	size_t count;
	struct peer *list; /* sorted by kind; owned */
};

static int compare_kinds(const void *a, const void *b)
{
	const struct peer *x = a, *y = b;
	int order = strcmp(x->kind, y->kind);

	return order != 0 ? order : strcmp(x->found->name, y->found->name);
}

static void release(struct peers *peers)
{
	for (size_t i = 0; i < peers->count; i++)
		free(peers->list[i].kind);
	free(peers->list);
}

/* "model.layers.#.mlp.experts.#.up_proj 0": the name without its numbers, and the scheme. */
static char *kind_of(const struct mc_found *m, struct mc_error *err)
{
	char *kind = mc_format(err, "%s %zu", m->name, m->scheme);
	size_t used = 0;

	for (const char *p = kind; p != NULL && *p != '\0' && *p != ' '; p++) {
		bool digit = *p >= '0' && *p <= '9', again = used > 0 && kind[used - 1] == '#';
		if (!digit || !again)
			kind[used++] = digit ? '#' : *p;
	}
	if (kind != NULL)
		kind[used] = '\0';
	return kind;
}

static bool collect(const struct mc_verification *v, struct peers *ret, struct mc_error *err)
{
	*ret = (struct peers){.list = mc_alloc(v->count + 1, sizeof *ret->list, "modules", err)};
	if (ret->list == NULL)
		return false;
	for (size_t i = 0; i < v->count; i++) {
		if (v->found[i].scheme == MC_NO_SCHEME)
			continue;
		struct peer *peer = &ret->list[ret->count];
		peer->found = &v->found[i];
		peer->kind = kind_of(peer->found, err);
		if (peer->kind == NULL) {
			release(ret);
			return false;
		}
		ret->count++;
	}
	qsort(ret->list, ret->count, sizeof *ret->list, compare_kinds);
	return true;
}

static size_t end_of_kind(const struct peers *peers, size_t first)
{
	size_t end = first + 1;

	while (end < peers->count && strcmp(peers->list[end].kind, peers->list[first].kind) == 0)
		end++;
	return end;
}

/* --- dtypes ----------------------------------------------------------------------------------- */

/* The dtype that more than half of the peers have; else `otherwise`. */
static enum mc_dtype most_have(
    const struct peers *peers, size_t first, size_t end, enum mc_dtype otherwise)
{
	size_t votes[MC_DTYPE_COUNT] = {0}, known = 0;

	for (size_t i = first; i < end; i++)
		if (peers->list[i].found->dt < MC_DTYPE_COUNT) {
			votes[peers->list[i].found->dt]++;
			known++;
		}
	for (unsigned d = 0; d < MC_DTYPE_COUNT; d++)
		if (2 * votes[d] > known)
			return (enum mc_dtype)d;
	return otherwise;
}

/* Where a kind does not agree, those who differ from most of it, or of all, are wrong. A kind of
 * its own may have a dtype of its own. */
bool mc_verify_settle_dtypes(struct mc_verification *v, struct mc_error *err)
{
	struct peers peers;

	if (!collect(v, &peers, err))
		return false;
	enum mc_dtype overall = most_have(&peers, 0, peers.count, v->dtype);
	for (size_t i = 0, end; i < peers.count; i = end) {
		end = end_of_kind(&peers, i);
		enum mc_dtype most = most_have(&peers, i, end, overall);
		for (size_t k = i; k < end; k++)
			peers.list[k].found->dt = most;
	}
	release(&peers);
	return true;
}

/* --- proportions ------------------------------------------------------------------------------ */

static int compare_numbers(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* NAN when too few say anything. */
static double median(double *values, size_t count)
{
	if (count < LEAST)
		return NAN;
	qsort(values, count, sizeof *values, compare_numbers);
	return values[count / 2];
}

static void judge(const struct mc_verification *v, const struct mc_found *m, double weight,
    double input, bool all_zero)
{
	const struct mc_scale_facts *f = &m->facts;
	bool bad = false;

	if (f->weight_level - weight > MOST_WEIGHT) {
		bad = true;
		mc_verdict_fail(v->verdict, MC_CHECK_PROPORTION,
		    "%s.weight_scale: weights are some %.3g times those of others of its kind",
		    m->name, exp2(f->weight_level - weight));
	}
	if (f->is_zero && !all_zero) {
		bad = true;
		mc_verdict_fail(v->verdict, MC_CHECK_PROPORTION,
		    "%s: all codes stand for zero, those of others of its kind do not", m->name);
	}
	if (fabs(f->input_level - input) > MOST_INPUT) {
		bad = true;
		mc_verdict_fail(v->verdict, MC_CHECK_PROPORTION,
		    "%s.%s: %.3g times that of others of its kind, as memory that was never "
		    "written",
		    m->name, f->input_suffix, exp2(f->input_level - input));
	}
	if (!bad)
		mc_verdict_pass(v->verdict, MC_CHECK_PROPORTION, 1);
}

static void judge_kind(const struct mc_verification *v, const struct peers *peers, size_t first,
    size_t end, double *values)
{
	size_t weights = 0, inputs = 0, zeros = 0, known = 0;

	for (size_t i = first; i < end; i++) {
		const struct mc_scale_facts *f = &peers->list[i].found->facts;
		known += f->known;
		zeros += f->known && f->is_zero;
		if (f->known && isfinite(f->weight_level) && !f->is_zero)
			values[weights++] = f->weight_level;
	}
	double weight = median(values, weights);
	for (size_t i = first; i < end; i++)
		if (peers->list[i].found->facts.known &&
		    isfinite(peers->list[i].found->facts.input_level))
			values[inputs++] = peers->list[i].found->facts.input_level;
	double input = median(values, inputs);
	for (size_t i = first; i < end; i++)
		if (peers->list[i].found->facts.known)
			judge(v, peers->list[i].found, weight, input,
			    known < LEAST || 2 * zeros > known);
}

bool mc_verify_proportions(const struct mc_verification *v, struct mc_error *err)
{
	struct peers peers;

	if (!collect(v, &peers, err))
		return false;
	double *values = mc_alloc(peers.count + 1, sizeof *values, "modules", err);
	for (size_t i = 0, end; values != NULL && i < peers.count; i = end) {
		end = end_of_kind(&peers, i);
		judge_kind(v, &peers, i, end, values);
	}
	free(values);
	release(&peers);
	return values != NULL;
}
