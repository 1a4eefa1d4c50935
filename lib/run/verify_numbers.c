/*
 * verify_numbers.c - which layers and experts there are, by the numbers in names: what can be said
 * of a family that is not known
 */
#include "verify_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"

/* What follows an expert's number, of one expert of one layer. */
struct part {
	const char *name; /* of the whole tensor; borrowed */
	const char *rest; /* "up_proj" of "up_proj.weight_scale": its linear; borrowed */
	int rest_length;
	size_t layer, expert;
};

struct parts {
	size_t count, capacity;
	struct part *list; /* owned */
};

static const char experts_word[] = "experts.";

/* Towers beside the decoder have layers too; theirs are not counted in num_hidden_layers. */
static bool is_of_decoder(const char *name)
{
	static const char *const others[] = {
	    "vision", "visual", "encoder", "audio", "mtp", "projector"};

	for (size_t i = 0; i < sizeof others / sizeof *others; i++)
		if (strstr(name, others[i]) != NULL)
			return false;
	return true;
}

/* --- layers ----------------------------------------------------------------------------------- */

static bool check_layers(const struct mc_verification *v, struct mc_error *err)
{
	size_t layers = mc_verify_size(v, "num_hidden_layers"), most, layer;

	if (layers == 0 || layers > MC_MAX_LAYERS)
		return true;
	most = layers + mc_verify_extra_layers(v);
	bool *there = mc_alloc(layers, sizeof *there, "layers", err), any = false;
	if (there == NULL)
		return false;
	for (size_t i = 0; i < v->checkpoint.count; i++) {
		const char *name = v->checkpoint.tensors[i].entry->name;
		char shown[MC_ST_SHOWN];
		if (!is_of_decoder(name) || !mc_verify_number(name, "layers.", &layer))
			continue;
		any = true;
		if (layer < layers)
			there[layer] = true;
		else if (layer >= most)
			mc_verdict_fail(v->verdict, MC_CHECK_EXPECTED,
			    "%s is of a layer that config.json does not have",
			    mc_st_shown(name, shown));
	}
	for (size_t l = 0; any && l < layers; l++)
		if (there[l])
			mc_verdict_pass(v->verdict, MC_CHECK_PRESENT, 1);
		else
			mc_verdict_fail(v->verdict, MC_CHECK_PRESENT,
			    "layers.%zu has no tensor; config.json has %zu layers", l, layers);
	free(there);
	return true;
}

/* --- experts ---------------------------------------------------------------------------------- */

static int compare_parts(const void *a, const void *b)
{
	const struct part *x = a, *y = b;
	int order = (x->layer > y->layer) - (x->layer < y->layer);

	if (order == 0)
		order = x->rest_length - y->rest_length;
	if (order == 0)
		order = strncmp(x->rest, y->rest, (size_t)x->rest_length);
	return order != 0 ? order : (x->expert > y->expert) - (x->expert < y->expert);
}

static bool collect(const struct mc_verification *v, struct parts *parts, struct mc_error *err)
{
	for (size_t i = 0; i < v->checkpoint.count; i++) {
		const char *name = v->checkpoint.tensors[i].entry->name;
		size_t layer, expert;
		if (!is_of_decoder(name) || !mc_verify_number(name, "layers.", &layer) ||
		    !mc_verify_number(name, experts_word, &expert))
			continue;
		const char *rest = strchr(strstr(name, experts_word) + strlen(experts_word), '.');
		const char *dot = strrchr(name, '.');
		if (rest == NULL || dot <= rest)
			continue;
		if (!mc_grow((void **)&parts->list, &parts->capacity, parts->count + 1,
			sizeof *parts->list, "experts", err))
			return false;
		parts->list[parts->count++] = (struct part){.name = name,
		    .rest = rest + 1,
		    .rest_length = (int)(dot - rest - 1),
		    .layer = layer,
		    .expert = expert};
	}
	if (parts->count > 0)
		qsort(parts->list, parts->count, sizeof *parts->list, compare_parts);
	return true;
}

static size_t experts_of(const struct mc_verification *v)
{
	static const char *const keys[] = {"num_experts", "num_local_experts", "n_routed_experts",
	    "moe_num_experts", "num_routed_experts"};
	size_t n = 0;

	for (size_t i = 0; n == 0 && i < sizeof keys / sizeof *keys; i++)
		n = mc_verify_size(v, keys[i]);
	return n;
}

static void miss(const struct mc_verification *v, const struct part *like, size_t expert)
{
	int before = (int)(strstr(like->name, experts_word) - like->name) +
		     (int)strlen(experts_word);

	mc_verdict_fail(v->verdict, MC_CHECK_PRESENT,
	    "%.*s%zu.%.*s has no tensor, other experts of its layer have", before, like->name,
	    expert, like->rest_length, like->rest);
}

/* One linear of one layer: its experts should be 0, 1, ... experts - 1. */
static void check_kind(
    const struct mc_verification *v, const struct part *first, size_t count, size_t experts)
{
	size_t next = 0;
	char shown[MC_ST_SHOWN];

	for (size_t i = 0; i < count; i++) {
		for (; next < first[i].expert && next < experts; next++)
			miss(v, first, next);
		if (first[i].expert >= experts)
			mc_verdict_fail(v->verdict, MC_CHECK_EXPECTED,
			    "%s is of an expert that config.json does not have",
			    mc_st_shown(first[i].name, shown));
		else
			next = first[i].expert + 1;
	}
	for (; next < experts; next++)
		miss(v, first, next);
}

static bool check_experts(const struct mc_verification *v, struct mc_error *err)
{
	struct parts parts = {0};
	size_t experts = experts_of(v), end;
	bool ok = collect(v, &parts, err);

	for (size_t i = 0; ok && experts == 0 && i < parts.count; i++)
		experts = parts.list[i].expert + 1 > experts ? parts.list[i].expert + 1 : experts;
	for (size_t i = 0; ok && i < parts.count; i = end) {
		end = i + 1;
		while (end < parts.count && parts.list[end].layer == parts.list[i].layer &&
		       parts.list[end].rest_length == parts.list[i].rest_length &&
		       strncmp(parts.list[end].rest, parts.list[i].rest,
			   (size_t)parts.list[i].rest_length) == 0)
			end++;
		check_kind(v, &parts.list[i], end - i, experts);
	}
	free(parts.list);
	return ok;
}

bool mc_verify_numbers(const struct mc_verification *v, struct mc_error *err)
{
	return check_layers(v, err) && check_experts(v, err);
}
