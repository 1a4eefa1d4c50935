/*
 * model_weights.c - read weights into the arena, rounded to the precision asked for, all finite
 */
#include <math.h>
#include <string.h>

#include "moecal/model.h"
#include "moecal/ops.h"

#define CHUNK 65536 /* elements read and looked at together, while they are in the cache */

/* "[3, 0, 17]": element number `index` of a tensor. */
static const char *position_text(
    const struct mc_st_entry *entry, uint64_t index, char *text, size_t size)
{
	uint64_t at[MC_MAX_RANK];

	for (unsigned i = entry->rank; i-- > 0;) {
		at[i] = index % entry->shape[i];
		index /= entry->shape[i];
	}
	return mc_shape_text(entry->rank, at, text, size);
}

/* The first value that is not finite, of n from element `first` of the tensor on. */
static bool fail_not_finite(const struct mc_st_entry *entry, const float *values, size_t n,
    uint64_t first, struct mc_error *err)
{
	char position[96], shown[MC_ST_SHOWN];
	size_t i = 0;

	while (i + 1 < n && isfinite(values[i]))
		i++;
	return mc_fail(err, MC_CORRUPT, mc_st_shown(entry->name, shown),
	    "the value at %s is %s: a model with such weights cannot be calibrated",
	    position_text(entry, first + i, position, sizeof position),
	    isnan(values[i]) ? "NaN"
	    : values[i] > 0  ? "infinite"
			     : "negative infinite");
}

/* A narrower dtype may have no room for a value. */
static bool fail_too_large(const struct mc_st_entry *entry, enum mc_dtype to, struct mc_error *err)
{
	char shown[MC_ST_SHOWN];

	return mc_fail(err, MC_INVALID, mc_st_shown(entry->name, shown),
	    "has values too large for %s: choose another precision", mc_dtype_name(to));
}

/*
 * n elements at `offset` bytes of the tensor, checked, as dtype `to`, into `out`. A chunk goes
 * through float32, which every weight dtype fits in exactly.
 */
static bool read_elements(const struct mc_model *model, const struct mc_ckpt_tensor *tensor,
    uint64_t offset, size_t n, enum mc_dtype to, void *out, const struct mc_env *env,
    struct mc_error *err)
{
	const struct mc_st_entry *entry = tensor->entry;
	enum mc_dtype from = entry->dtype;
	size_t from_size = mc_dtype_bits(from) / 8, to_size = mc_dtype_bits(to) / 8;
	size_t mark = mc_arena_mark(env->arena), chunk = n < CHUNK ? n : CHUNK;
	float *wide = mc_arena_alloc(env->arena, chunk, sizeof *wide, "weight", err);
	void *other =
	    from == to ? NULL : mc_arena_alloc(env->arena, chunk, from_size, "weight", err);
	bool ok = wide != NULL && (from == to || other != NULL);

	for (size_t i = 0; ok && i < n; i += chunk) {
		size_t count = n - i < chunk ? n - i : chunk;
		char *result = (char *)out + i * to_size;
		void *stored = from == to ? result : other;
		ok = mc_checkpoint_read(&model->checkpoint, tensor, offset + i * from_size,
		    count * from_size, stored, err);
		if (!ok)
			break;
		mc_widen(from, stored, wide, count);
		if (!mc_all_finite(wide, count))
			ok = fail_not_finite(entry, wide, count, offset / from_size + i, err);
		if (!ok || from == to)
			continue;
		mc_narrow(wide, to, result, count);
		mc_widen(to, result, wide, count);
		ok = mc_all_finite(wide, count) || fail_too_large(entry, to, err);
	}
	mc_arena_rewind(env->arena, mark);
	return ok;
}

/* Rows that the source makes, on their way into a weight. */
struct made_rows {
	const struct mc_st_entry *entry;
	enum mc_dtype to;
	size_t cols;
	uint64_t done; /* elements */
	char *out;
};

static bool take_row(void *ctx, float *row, struct mc_error *err)
{
	struct made_rows *rows = ctx;
	char *out = rows->out + rows->done * (mc_dtype_bits(rows->to) / 8);

	if (!mc_all_finite(row, rows->cols))
		return fail_not_finite(rows->entry, row, rows->cols, rows->done, err);
	mc_narrow(row, rows->to, out, rows->cols);
	rows->done += rows->cols;
	mc_widen(rows->to, out, row, rows->cols);
	return mc_all_finite(row, rows->cols) || fail_too_large(rows->entry, rows->to, err);
}

static bool read_matrix(const struct mc_model *model, const struct mc_module *module,
    enum mc_dtype to, void *out, const struct mc_env *env, struct mc_error *err)
{
	struct made_rows rows = {
	    .entry = module->weight->entry, .to = to, .cols = module->cols, .out = out};

	if (!mc_module_is_made(module))
		return read_elements(model, module->weight, module->weight_offset,
		    module->rows * module->cols, to, out, env, err);
	return model->source->read(
	    model->source_state, module->weight, take_row, &rows, env, err);
}

bool mc_model_read_weight(const struct mc_model *model, const struct mc_module *module,
    enum mc_dtype precision, struct mc_weight *ret, const struct mc_env *env, struct mc_error *err)
{
	enum mc_dtype dtype =
	    precision == MC_DTYPE_COUNT ? module->weight->entry->dtype : precision;
	size_t n = module->rows * module->cols;
	void *data = mc_arena_alloc(env->arena, n, mc_dtype_bits(dtype) / 8, module->name, err);
	float *bias = NULL;

	if (data == NULL || !read_matrix(model, module, dtype, data, env, err))
		return false;
	if (module->bias != NULL) {
		bias = mc_arena_alloc(env->arena, module->rows, sizeof *bias, module->name, err);
		if (bias == NULL ||
		    !read_elements(model, module->bias, 0, module->rows, MC_F32, bias, env, err))
			return false;
	}
	*ret = (struct mc_weight){
	    .dtype = dtype, .rows = module->rows, .cols = module->cols, .data = data, .bias = bias};
	return true;
}

bool mc_model_read_vector(const struct mc_model *model, const struct mc_module *module,
    enum mc_dtype precision, float **ret, const struct mc_env *env, struct mc_error *err)
{
	float *values = mc_arena_alloc(env->arena, module->rows, sizeof *values, module->name, err);

	if (values == NULL || !read_elements(model, module->weight, module->weight_offset,
				  module->rows, MC_F32, values, env, err))
		return false;
	for (size_t i = 0; precision != MC_DTYPE_COUNT && i < module->rows; i++)
		values[i] = mc_round_to(precision, values[i]);
	if (!mc_all_finite(values, module->rows))
		return fail_too_large(module->weight->entry, precision, err);
	*ret = values;
	return true;
}

uint64_t mc_model_read_bytes(const struct mc_module *module, enum mc_dtype precision)
{
	uint64_t n = (uint64_t)module->rows * module->cols;
	enum mc_dtype dtype =
	    precision == MC_DTYPE_COUNT ? module->weight->entry->dtype : precision;
	uint64_t bias = module->bias != NULL ? module->rows * sizeof(float) + 64 : 0;

	return n * mc_dtype_bits(dtype) / 8 + 64 + bias + 2 * (CHUNK * sizeof(float) + 64) +
	       module->scratch_bytes;
}
