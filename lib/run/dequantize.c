/*
 * dequantize.c - the weights of an already quantized checkpoint: which tensors they are made of,
 * and making them
 *
 * compressed-tensors says in config.json which modules are quantized, so a tensor that such a
 * module lacks is an error. Block FP8 leaves out what everybody leaves out anyway, so there the
 * dtype of the stored weight decides.
 */
#include "dequantize.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check_module.h"

#include "moecal/alloc.h"
#include "moecal/match.h"
#include "moecal/pack.h"

#define MAX_TENSOR_NAME 640 /* a module's name has at most 511 bytes */

/* Everything that a quantization adds to a module, besides its weight. */
static const char *const additions[] = {"weight_packed", "weight_scale", "weight_scale_inv",
    "weight_shape", "weight_zero_point", "weight_global_scale", "weight_g_idx", "input_scale",
    "input_zero_point", "input_global_scale", "output_scale", "output_zero_point"};
/* And to attention, for its cache. */
static const char *const cache_additions[] = {
    "q_scale", "k_scale", "v_scale", "q_zero_point", "k_zero_point", "v_zero_point"};
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

struct made {
	struct mc_ckpt_tensor
	    weight; /* the first member: what the model is shown leads back here */
	struct mc_st_entry entry;
	char *module; /* its name; owned */
	char *name;   /* "<module>.weight"; owned */
	size_t rows, cols;
	enum mc_dtype stored; /* of the scales, as far as the layout asks for it */
	const struct mc_scheme *scheme;
	uint64_t scratch;
};

struct dequantizer {
	const struct mc_checkpoint *checkpoint; /* the model's */
	struct mc_old_quantization old;         /* owned */
	size_t modules_count;
	struct made **made;    /* [modules_count], NULL: stored as used; owned */
	unsigned char *stored; /* [checkpoint->count] of enum mc_stored; owned */
	char format[64];
};

static void free_made(struct made *made)
{
	if (made == NULL)
		return;
	free(made->module);
	free(made->name);
	free(made);
}

static void close_source(void *state)
{
	struct dequantizer *d = state;

	if (d == NULL)
		return;
	for (size_t i = 0; d->made != NULL && i < d->modules_count; i++)
		free_made(d->made[i]);
	free(d->made);
	free(d->stored);
	mc_old_quantization_release(&d->old);
	free(d);
}

/* --- tensors ---------------------------------------------------------------------------------- */

/* "<module>.<suffix>" as this checkpoint spells it. */
static const char *tensor_name(
    const struct dequantizer *d, const char *module, const char *suffix, char name[MAX_TENSOR_NAME])
{
	bool inverse = d->old.block_fp8 && strcmp(suffix, "weight_scale") == 0;

	snprintf(name, MAX_TENSOR_NAME, "%s.%s", module, inverse ? "weight_scale_inv" : suffix);
	return name;
}

static const struct mc_ckpt_tensor *find_tensor(
    const struct dequantizer *d, const char *module, const char *suffix)
{
	char name[MAX_TENSOR_NAME];

	return mc_checkpoint_find(d->checkpoint, tensor_name(d, module, suffix, name));
}

static bool fail_missing(
    const char *name, const char *format, const char *needed, struct mc_error *err)
{
	char shown[MC_ST_SHOWN];

	return mc_fail(err, MC_CORRUPT, mc_st_shown(name, shown),
	    "the checkpoint lacks this tensor of a quantized module (%s), needed as %s", format,
	    needed);
}

/* One number may be stored with one dimension, two, or none. */
static bool same_shape(const struct mc_tensor *want, const struct mc_st_entry *have)
{
	bool one = mc_tensor_elements(want) == 1;

	for (unsigned i = 0; one && i < have->rank; i++)
		one = have->shape[i] == 1;
	return one || (want->rank == have->rank &&
			  memcmp(want->shape, have->shape, want->rank * sizeof *want->shape) == 0);
}

static bool require_tensor(const struct dequantizer *d, const char *module,
    const struct mc_packed_tensor *want, struct mc_error *err)
{
	const struct mc_ckpt_tensor *have = find_tensor(d, module, want->suffix);
	const struct mc_tensor *t = &want->tensor;
	char name[MAX_TENSOR_NAME], shown[MC_ST_SHOWN], found[96], needed[96], whole[128];

	tensor_name(d, module, want->suffix, name);
	mc_shape_text(t->rank, t->shape, needed, sizeof needed);
	snprintf(whole, sizeof whole, "%s %s", mc_dtype_name(t->dtype), needed);
	if (have == NULL)
		return fail_missing(name, d->format, whole, err);
	if (have->entry->dtype == t->dtype && same_shape(t, have->entry))
		return true;
	return mc_fail(err, MC_CORRUPT, mc_st_shown(name, shown), "is %s %s; needed %s",
	    mc_dtype_name(have->entry->dtype),
	    mc_shape_text(have->entry->rank, have->entry->shape, found, sizeof found), whole);
}

static void mark(struct dequantizer *d, const struct mc_ckpt_tensor *tensor, enum mc_stored as)
{
	if (tensor != NULL)
		d->stored[tensor - d->checkpoint->tensors] = (unsigned char)as;
}

/* --- one module ------------------------------------------------------------------------------- */

/* From its scales: the dtype that the layout is written in, and the one that the weight has. */
static bool settle_dtypes(const struct dequantizer *d, struct made *made, struct mc_error *err)
{
	const struct mc_ckpt_tensor *scale = find_tensor(d, made->module, "weight_scale");
	char name[MAX_TENSOR_NAME], shown[MC_ST_SHOWN];

	tensor_name(d, made->module, "weight_scale", name);
	if (scale == NULL)
		return fail_missing(name, d->format, "its scales", err);
	bool plain = mc_dtype_is_weight(scale->entry->dtype);
	if (d->old.block_fp8 && !plain)
		return mc_fail(err, MC_CORRUPT, mc_st_shown(name, shown),
		    "is %s; needed F32, F16 or BF16", mc_dtype_name(scale->entry->dtype));
	made->stored = plain ? scale->entry->dtype : d->old.dtype;
	made->entry.dtype = plain && !d->old.block_fp8 ? scale->entry->dtype : d->old.dtype;
	return true;
}

/* Columns that were reordered by groups are a format of the past. */
static bool require_no_order(
    const struct dequantizer *d, const struct made *made, struct mc_error *err)
{
	const struct mc_ckpt_tensor *order = find_tensor(d, made->module, "weight_g_idx");
	const char *actorder = made->scheme->weights.actorder;
	char shown[MC_ST_SHOWN];

	if (order == NULL)
		return true;
	if (strcmp(actorder, "group") == 0 || strcmp(actorder, "dynamic") == 0)
		return mc_fail(err, MC_UNSUPPORTED, mc_st_shown(order->entry->name, shown),
		    "actorder '%s' (groups of columns that are not neighbours) cannot be read back",
		    actorder);
	if (order->entry->dtype == MC_I32 && order->entry->rank == 1 &&
	    order->entry->shape[0] == made->cols)
		return true;
	return mc_fail(err, MC_CORRUPT, mc_st_shown(order->entry->name, shown),
	    "needed I32 [%zu]: the group of each column", made->cols);
}

/* What cannot be stored cannot be read either; the error then speaks of reading. */
static bool find_layout(const struct made *made, struct mc_packed *ret, struct mc_error *err)
{
	struct mc_error inner;

	mc_error_init(&inner);
	if (mc_pack_layout(
		made->scheme, made->stored, made->rows, made->cols, made->module, ret, &inner))
		return true;
	if (inner.code != MC_UNSUPPORTED)
		return mc_fail(err, inner.code, inner.where, "%s", inner.text);
	return mc_fail(err, MC_UNSUPPORTED, inner.where,
	    "this module is quantized as %u-bit %s in the format '%s', which cannot be read back",
	    made->scheme->weights.num_bits,
	    made->scheme->weights.type == MC_QUANT_FLOAT ? "floats" : "integers",
	    mc_format_name(made->scheme->format));
}

static bool settle_made(struct dequantizer *d, struct made *made, struct mc_error *err)
{
	struct mc_packed layout;

	if (!settle_dtypes(d, made, err) || !find_layout(made, &layout, err))
		return false;
	for (size_t i = 0; i < layout.count; i++) {
		if (strncmp(layout.items[i].suffix, "weight", 6) != 0)
			continue; /* of its inputs: not needed for the weight */
		if (!require_tensor(d, made->module, &layout.items[i], err))
			return false;
		mark(d, find_tensor(d, made->module, layout.items[i].suffix), MC_STORED_PART);
	}
	for (size_t i = 0; i < COUNT(additions); i++)
		mark(d, find_tensor(d, made->module, additions[i]), MC_STORED_PART);
	/* what checking the module takes: its tensors, codes, scales and rows, and then some */
	return require_no_order(d, made, err) && mc_check_module_bytes(made->scheme, made->stored,
						     made->rows, made->cols, &made->scratch, err);
}

static bool add_made(struct dequantizer *d, size_t index, const struct mc_module *m,
    const struct mc_scheme *scheme, struct mc_error *err)
{
	struct made *made = mc_alloc(1, sizeof *made, "quantized weights", err);

	if (made == NULL)
		return false;
	d->made[index] = made;
	made->rows = m->rows;
	made->cols = m->cols;
	made->scheme = scheme;
	made->module = mc_strdup(m->name, err);
	made->name = made->module == NULL ? NULL : mc_format(err, "%s.weight", m->name);
	if (made->name == NULL || !settle_made(d, made, err))
		return false;
	made->entry.name = made->name;
	made->entry.rank = 2;
	made->entry.shape[0] = m->rows;
	made->entry.shape[1] = m->cols;
	made->entry.bytes = (uint64_t)m->rows * m->cols * mc_dtype_bits(made->entry.dtype) / 8;
	made->weight = (struct mc_ckpt_tensor){.entry = &made->entry, .shard = MC_NO_SHARD};
	return true;
}

/* --- which modules ---------------------------------------------------------------------------- */

static bool is_plain(const struct dequantizer *d, const struct mc_module *m)
{
	const struct mc_ckpt_tensor *weight = find_tensor(d, m->name, "weight");

	return weight != NULL && mc_dtype_is_weight(weight->entry->dtype) &&
	       find_tensor(d, m->name, "weight_scale") == NULL;
}

/* Targets match routers as linears, as they match them where they are linears; those and embeddings
 * are often meant by no one and stored as they are. */
static bool assign_compressed(
    struct dequantizer *d, const struct mc_model *model, struct mc_error *err)
{
	size_t n = model->modules_count;
	struct mc_match_module *modules = mc_alloc(n + 1, sizeof *modules, "modules", err);
	size_t *scheme = modules == NULL ? NULL : mc_alloc(n + 1, sizeof *scheme, "schemes", err);
	bool ok = scheme != NULL;

	for (size_t i = 0; ok && i < n; i++) {
		const struct mc_module *m = model->modules[i];
		bool router = m->kind == MC_KIND_ROUTER;
		modules[i] = (struct mc_match_module){.name = m->name,
		    .class_name = router ? "Linear" : m->class_name,
		    .quantizable = (router || m->kind == MC_KIND_LINEAR ||
				       m->kind == MC_KIND_EMBEDDING) &&
				   m->weight == NULL};
	}
	ok = ok && mc_match_schemes(&d->old.config, modules, n, scheme, NULL, NULL, err);
	for (size_t i = 0; ok && i < n; i++) {
		const struct mc_module *m = model->modules[i];
		if (scheme[i] == MC_NO_SCHEME || !d->old.config.schemes[scheme[i]].has_weights ||
		    (m->kind != MC_KIND_LINEAR && is_plain(d, m)))
			continue;
		ok = m->kind == MC_KIND_EMBEDDING
			 ? mc_fail(err, MC_UNSUPPORTED, m->name,
			       "this embedding is quantized, which cannot be read back yet")
			 : add_made(d, i, m, &d->old.config.schemes[scheme[i]], err);
	}
	free(modules);
	free(scheme);
	return ok;
}

static bool assign_block_fp8(
    struct dequantizer *d, const struct mc_model *model, struct mc_error *err)
{
	for (size_t i = 0; i < model->modules_count; i++) {
		const struct mc_module *m = model->modules[i];
		const struct mc_ckpt_tensor *weight = find_tensor(d, m->name, "weight");
		if ((m->kind != MC_KIND_LINEAR && m->kind != MC_KIND_ROUTER) || weight == NULL ||
		    weight->entry->dtype != MC_F8_E4M3)
			continue;
		if (mc_old_quantization_keeps(&d->old, m->name))
			return mc_fail(err, MC_CORRUPT, weight->entry->name,
			    "is F8_E4M3, but modules_to_not_convert of config.json says that it is "
			    "not quantized");
		if (!add_made(d, i, m, &d->old.config.schemes[0], err))
			return false;
	}
	return true;
}

/* --- what else is there ----------------------------------------------------------------------- */

static bool has_name(const char *const *names, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(names[i], name) == 0)
			return true;
	return false;
}

/* Scales of the cache are known; what is quantized and of no module of ours is foreign. */
static void mark_rest(struct dequantizer *d, const struct mc_model *model)
{
	for (size_t i = 0; i < model->modules_count; i++)
		for (size_t k = 0; k < COUNT(cache_additions); k++)
			if (model->modules[i]->role == MC_ROLE_ATTENTION)
				mark(d, find_tensor(d, model->modules[i]->name, cache_additions[k]),
				    MC_STORED_PART);
	for (size_t i = 0; i < d->checkpoint->count; i++) {
		const struct mc_st_entry *entry = d->checkpoint->tensors[i].entry;
		const char *dot = strrchr(entry->name, '.');
		if (dot == NULL || d->stored[i] != MC_STORED_PLAIN)
			continue;
		if (has_name(additions, COUNT(additions), dot + 1) ||
		    (strcmp(dot, ".weight") == 0 && !mc_dtype_is_weight(entry->dtype)))
			d->stored[i] = MC_STORED_FOREIGN;
	}
}

/* For people: the format of all quantized modules. */
static void describe(struct dequantizer *d)
{
	const struct mc_quant_config *config = &d->old.config;
	enum mc_format format = MC_FORMAT_DENSE;

	if (d->old.block_fp8) {
		snprintf(d->format, sizeof d->format, "fp8 in blocks of %llux%llu",
		    (unsigned long long)config->schemes[0].weights.block_rows,
		    (unsigned long long)config->schemes[0].weights.block_cols);
		return;
	}
	for (size_t i = 0; i < config->count; i++) {
		enum mc_format one = config->schemes[i].format;
		if (config->schemes[i].has_weights)
			format = format == MC_FORMAT_DENSE || format == one ? one : MC_FORMAT_MIXED;
	}
	snprintf(d->format, sizeof d->format, "compressed-tensors %s", mc_format_name(format));
}

static bool open_source(const struct mc_model *model, void **ret_state, struct mc_error *err)
{
	struct dequantizer *d = mc_alloc(1, sizeof *d, "quantized weights", err);

	if (d == NULL)
		return false;
	d->checkpoint = &model->checkpoint;
	d->modules_count = model->modules_count;
	bool ok = mc_old_quantization_read(&d->old, model, err);
	if (ok) {
		describe(d);
		d->made = mc_alloc(d->modules_count + 1, sizeof *d->made, "quantized weights", err);
		d->stored = mc_alloc(d->checkpoint->count + 1, 1, "quantized weights", err);
		ok = d->made != NULL && d->stored != NULL &&
		     (d->old.block_fp8 ? assign_block_fp8 : assign_compressed)(d, model, err);
	}
	if (!ok) {
		close_source(d);
		return false;
	}
	mark_rest(d, model);
	*ret_state = d;
	return true;
}

static const char *format_of(const void *state)
{
	return ((const struct dequantizer *)state)->format;
}

static const struct mc_ckpt_tensor *find_weight(const void *state, size_t module)
{
	const struct dequantizer *d = state;

	mc_assert(module < d->modules_count);
	return d->made[module] == NULL ? NULL : &d->made[module]->weight;
}

static enum mc_stored stored_as(const void *state, size_t tensor)
{
	const struct dequantizer *d = state;

	mc_assert(tensor < d->checkpoint->count);
	return (enum mc_stored)d->stored[tensor];
}

static uint64_t scratch_bytes(const void *state, const struct mc_ckpt_tensor *weight)
{
	(void)state;
	return ((const struct made *)weight)->scratch;
}

/* --- making ----------------------------------------------------------------------------------- */

/* An order is stored also where there is none: -1, or each column in its own group. */
static bool require_natural_order(const struct dequantizer *d, const struct made *made,
    struct mc_arena *arena, struct mc_error *err)
{
	const struct mc_ckpt_tensor *tensor = find_tensor(d, made->module, "weight_g_idx");
	int64_t width = made->scheme->weights.group_size;
	char shown[MC_ST_SHOWN];

	if (tensor == NULL)
		return true;
	size_t before = mc_arena_mark(arena);
	int32_t *group = mc_arena_alloc(arena, made->cols, sizeof *group, "order of columns", err);
	bool ok = group != NULL && mc_checkpoint_read(d->checkpoint, tensor, 0,
				       made->cols * sizeof *group, group, err);
	for (size_t c = 0; ok && c < made->cols; c++)
		if (group[c] != -1 && (width <= 0 || group[c] != (int64_t)c / width))
			ok = mc_fail(err, MC_UNSUPPORTED, mc_st_shown(tensor->entry->name, shown),
			    "groups of columns that are not neighbours cannot be read back");
	mc_arena_rewind(arena, before);
	return ok;
}

static bool read_tensors(const struct dequantizer *d, const struct made *made,
    struct mc_packed *packed, struct mc_arena *arena, struct mc_error *err)
{
	struct mc_packed layout;

	*packed = (struct mc_packed){0};
	if (!find_layout(made, &layout, err))
		return false;
	for (size_t i = 0; i < layout.count; i++) {
		struct mc_packed_tensor item = layout.items[i];
		uint64_t bytes = mc_tensor_bytes(&item.tensor);
		if (strncmp(item.suffix, "weight", 6) != 0)
			continue;
		const struct mc_ckpt_tensor *tensor = find_tensor(d, made->module, item.suffix);
		mc_assert(
		    tensor != NULL && tensor->entry->bytes == bytes); /* looked at when opened */
		item.tensor.data = mc_arena_alloc(arena, bytes, 1, made->name, err);
		if (item.tensor.data == NULL ||
		    !mc_checkpoint_read(d->checkpoint, tensor, 0, bytes, item.tensor.data, err))
			return false;
		packed->items[packed->count++] = item;
	}
	return true;
}

static bool read_rows(const struct dequantizer *d, const struct made *made, mc_weight_row_fn *take,
    void *ctx, struct mc_arena *arena, struct mc_error *err)
{
	const struct mc_quant_args *args = &made->scheme->weights;
	/* block FP8 multiplies in float32; whoever takes the rows rounds them */
	enum mc_dtype dt = d->old.block_fp8 ? MC_F32 : made->entry.dtype;
	struct mc_packed packed;
	struct mc_quantized q;

	if (!require_natural_order(d, made, arena, err) ||
	    !read_tensors(d, made, &packed, arena, err) ||
	    !mc_unpack(made->scheme, &packed, made->rows, made->cols, made->module, arena, &q, err))
		return false;
	float *row = mc_arena_alloc(arena, made->cols, sizeof *row, made->name, err);
	bool ok = row != NULL;
	for (size_t r = 0; ok && r < made->rows; r++) {
		mc_quantized_row(&q, args, dt, r, row);
		ok = take(ctx, row, err);
	}
	return ok;
}

static bool read_weight(const void *state, const struct mc_ckpt_tensor *weight,
    mc_weight_row_fn *take, void *ctx, const struct mc_env *env, struct mc_error *err)
{
	size_t before = mc_arena_mark(env->arena);
	bool ok = read_rows(state, (const struct made *)weight, take, ctx, env->arena, err);

	mc_arena_rewind(env->arena, before);
	return ok;
}

const struct mc_weight_source mc_quantized_source = {.open = open_source,
    .close = close_source,
    .format = format_of,
    .find = find_weight,
    .stored = stored_as,
    .scratch = scratch_bytes,
    .read = read_weight};

bool mc_dequantize_open(
    struct mc_model *model, const struct mc_roots *roots, const char *folder, struct mc_error *err)
{
	return mc_model_open_with(model, roots, folder, &mc_quantized_source, err);
}
