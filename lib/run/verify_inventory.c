/*
 * verify_inventory.c - the modules of a checkpoint: those that its tensors name, and those that its
 * config.json asks for
 */
#include "verify_parts.h"

#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"

static int compare_found(const void *a, const void *b)
{
	return strcmp(((const struct mc_found *)a)->name, ((const struct mc_found *)b)->name);
}

static int compare_name(const void *name, const void *found)
{
	return strcmp(name, ((const struct mc_found *)found)->name);
}

struct mc_found *mc_verify_find(const struct mc_verification *v, const char *name)
{
	return v->count == 0 ? NULL
			     : bsearch(name, v->found, v->count, sizeof *v->found, compare_name);
}

void mc_verify_take(const struct mc_verification *v, const char *name, enum mc_taken as)
{
	const struct mc_ckpt_tensor *tensor = mc_checkpoint_find(&v->checkpoint, name);

	if (tensor != NULL)
		v->taken[tensor - v->checkpoint.tensors] = (unsigned char)as;
}

/* --- names ------------------------------------------------------------------------------------ */

static bool add(struct mc_verification *v, const char *name, size_t length, struct mc_error *err)
{
	const char *last = v->count > 0 ? v->found[v->count - 1].name : NULL;

	if (last != NULL && strlen(last) == length && memcmp(last, name, length) == 0)
		return true;
	if (!mc_grow(
		(void **)&v->found, &v->capacity, v->count + 1, sizeof *v->found, "modules", err))
		return false;
	char *copy = mc_alloc(length + 1, 1, "modules", err);
	if (copy == NULL)
		return false;
	memcpy(copy, name, length);
	v->found[v->count++] = (struct mc_found){
	    .name = copy, .dt = MC_DTYPE_COUNT, .scheme = MC_NO_SCHEME};
	return true;
}

/* Sorted, each name once. */
static void settle_names(struct mc_verification *v)
{
	size_t kept = 0;

	if (v->count == 0)
		return;
	qsort(v->found, v->count, sizeof *v->found, compare_found);
	for (size_t i = 1; i < v->count; i++)
		if (strcmp(v->found[kept].name, v->found[i].name) == 0)
			free(v->found[i].name);
		else
			v->found[++kept] = v->found[i];
	v->count = kept + 1;
}

static bool add_names(struct mc_verification *v, struct mc_error *err)
{
	for (size_t i = 0; i < v->checkpoint.count; i++) {
		const char *name = v->checkpoint.tensors[i].entry->name, *dot = strrchr(name, '.');
		if (dot != NULL && !add(v, name, (size_t)(dot - name), err))
			return false;
	}
	for (size_t i = 0; v->outline != NULL && i < v->outline->modules_count; i++) {
		const struct mc_module *m = v->outline->modules[i];
		if (m->kind != MC_KIND_CONTAINER && !add(v, m->name, strlen(m->name), err))
			return false;
	}
	settle_names(v);
	for (size_t i = 0; v->outline != NULL && i < v->outline->modules_count; i++) {
		const struct mc_module *m = v->outline->modules[i];
		struct mc_found *found = m->kind == MC_KIND_CONTAINER ? NULL
								      : mc_verify_find(v, m->name);
		if (found != NULL)
			found->expected = m;
	}
	return true;
}

/* --- what tensors say ------------------------------------------------------------------------- */

static bool read_shape_tensor(const struct mc_checkpoint *checkpoint,
    const struct mc_ckpt_tensor *tensor, struct mc_found *m, struct mc_error *err)
{
	int64_t shape[2];

	if (tensor->entry->dtype != MC_I64 || tensor->entry->bytes != sizeof shape)
		return true; /* its own check says so */
	if (!mc_checkpoint_read(checkpoint, tensor, 0, sizeof shape, shape, err))
		return false;
	if (shape[0] > 0 && shape[1] > 0 && shape[0] < INT32_MAX && shape[1] < INT32_MAX) {
		m->rows = (size_t)shape[0];
		m->cols = (size_t)shape[1];
		m->size_from = "weight_shape";
	}
	return true;
}

static bool note_tensor(const struct mc_checkpoint *checkpoint, const struct mc_ckpt_tensor *tensor,
    const char *suffix, struct mc_found *m, struct mc_error *err)
{
	const struct mc_st_entry *entry = tensor->entry;

	if (strcmp(suffix, "weight") == 0 && entry->rank == 2) {
		m->linear = true;
		if (m->size_from != NULL)
			return true; /* beside codes: it should not be there */
		m->rows = entry->shape[0];
		m->cols = entry->shape[1];
		m->size_from = "weight";
		if (mc_dtype_is_weight(entry->dtype))
			m->dt = entry->dtype;
	} else if (strcmp(suffix, "weight_packed") == 0) {
		m->linear = m->quantized = true;
		if (entry->dtype == MC_U8 && entry->rank == 2) { /* two values a byte */
			m->rows = entry->shape[0];
			m->cols = 2 * entry->shape[1];
			m->size_from = "weight_packed";
		}
	} else if (strcmp(suffix, "weight_scale") == 0) {
		m->linear = m->quantized = true;
		if (mc_dtype_is_weight(entry->dtype))
			m->dt = entry->dtype;
	} else if (strcmp(suffix, "input_scale") == 0) {
		m->quantized = true;
		if (mc_dtype_is_weight(entry->dtype))
			m->dt = entry->dtype;
	} else if (strcmp(suffix, "weight_shape") == 0) {
		m->quantized = true;
		return read_shape_tensor(checkpoint, tensor, m, err);
	} else if (strcmp(suffix, "weight_global_scale") == 0 ||
		   strcmp(suffix, "input_global_scale") == 0 ||
		   strcmp(suffix, "weight_zero_point") == 0) {
		m->quantized = true;
	}
	return true;
}

static bool note_tensors(struct mc_verification *v, struct mc_error *err)
{
	for (size_t i = 0; i < v->checkpoint.count; i++) {
		const struct mc_ckpt_tensor *tensor = &v->checkpoint.tensors[i];
		const char *name = tensor->entry->name, *dot = strrchr(name, '.');
		if (dot == NULL)
			continue;
		char *module = mc_format(err, "%.*s", (int)(dot - name), name);
		if (module == NULL)
			return false;
		bool ok = note_tensor(
		    &v->checkpoint, tensor, dot + 1, mc_verify_find(v, module), err);
		free(module);
		if (!ok)
			return false;
	}
	for (size_t i = 0; i < v->count; i++) {
		struct mc_found *m = &v->found[i];
		if (m->expected == NULL)
			continue;
		m->rows = m->expected->rows;
		m->cols = m->expected->cols;
		m->linear = m->expected->kind == MC_KIND_LINEAR ||
			    m->expected->kind == MC_KIND_ROUTER ||
			    m->expected->kind == MC_KIND_EMBEDDING;
	}
	return true;
}

/* --- schemes ---------------------------------------------------------------------------------- */

/* Modules that targets match as linears and that are stored as they are nevertheless: routers,
 * embeddings, and what is none but has a weight of two dimensions. */
static bool is_often_kept(const struct mc_found *m)
{
	static const char *const words[] = {"embed", "router", "conv", "rotary", "wte", "wpe"};
	const char *dot = strrchr(m->name, '.'), *last = dot == NULL ? m->name : dot + 1;
	size_t length = strlen(last);

	if (m->expected != NULL)
		return m->expected->kind != MC_KIND_LINEAR;
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (strstr(m->name, words[i]) != NULL)
			return true;
	return strcmp(last, "gate") == 0 || (length > 5 && strcmp(last + length - 5, "_gate") == 0);
}

static bool assign(struct mc_verification *v, struct mc_error *err)
{
	struct mc_match_module *modules = mc_alloc(v->count + 1, sizeof *modules, "modules", err);
	size_t *scheme = mc_alloc(v->count + 1, sizeof *scheme, "schemes", err);
	bool ok = modules != NULL && scheme != NULL;

	for (size_t i = 0; ok && i < v->count; i++) {
		const struct mc_found *m = &v->found[i];
		bool embedding = m->expected != NULL ? m->expected->kind == MC_KIND_EMBEDDING
						     : strstr(m->name, "embed") != NULL;
		modules[i] = (struct mc_match_module){.name = m->name,
		    .class_name = embedding ? "Embedding" : "Linear",
		    .quantizable = m->linear};
	}
	ok = ok && mc_match_schemes(&v->config, modules, v->count, scheme, NULL, NULL, err);
	for (size_t i = 0; ok && i < v->count; i++) {
		struct mc_found *m = &v->found[i];
		bool meant = scheme[i] != MC_NO_SCHEME && v->config.schemes[scheme[i]].has_weights;
		/* where it is known what should be there, other modules are judged as a whole */
		meant = meant && (v->outline == NULL || m->expected != NULL);
		m->scheme = meant && (m->quantized || !is_often_kept(m)) ? scheme[i] : MC_NO_SCHEME;
	}
	free(modules);
	free(scheme);
	return ok;
}

bool mc_verify_take_inventory(struct mc_verification *v, struct mc_error *err)
{
	v->taken = mc_alloc(v->checkpoint.count + 1, 1, "tensors", err);
	return v->taken != NULL && add_names(v, err) && note_tensors(v, err) && assign(v, err) &&
	       mc_verify_settle_dtypes(v, err);
}
