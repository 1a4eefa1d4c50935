/*
 * unpack.c - the tensors of a module in its checkpoint format back to codes, scales and zero points
 */
#include "moecal/pack.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "moecal/alloc.h"

#include "bits.h"

void mc_unpack_bits(const uint32_t *words, size_t word_stride, size_t n, unsigned bits,
    int8_t *codes, size_t stride)
{
	struct mc_bit_reader reader = {.words = words, .stride = word_stride};
	int32_t offset = 1 << (bits - 1);

	mc_assert(bits >= 1 && bits <= 8);
	for (size_t i = 0; i < n; i++)
		codes[i * stride] = (int8_t)((int32_t)mc_bits_take(&reader, bits) - offset);
}

static const struct mc_tensor *find(const struct mc_packed *packed, const char *suffix)
{
	for (size_t i = 0; i < packed->count; i++)
		if (strcmp(packed->items[i].suffix, suffix) == 0)
			return &packed->items[i].tensor;
	return NULL;
}

/* "MODULE.weight_scale", as far as it goes. */
struct full_name {
	char text[192];
};

static struct full_name full_name(const char *name, const char *suffix)
{
	struct full_name full;

	snprintf(full.text, sizeof full.text, "%.150s.%s", name, suffix);
	return full;
}

/* Every tensor of the weight is there, with data, in the dtype and shape that the scheme says. */
static bool require_tensors(const struct mc_packed *want, const struct mc_packed *have,
    const char *name, struct mc_error *err)
{
	for (size_t i = 0; i < want->count; i++) {
		const struct mc_tensor *w = &want->items[i].tensor,
				       *h = find(have, want->items[i].suffix);
		char found[96], needed[96];
		if (strncmp(want->items[i].suffix, "weight", 6) != 0)
			continue;
		struct full_name full = full_name(name, want->items[i].suffix);
		if (h == NULL || h->data == NULL)
			return mc_fail(err, MC_CORRUPT, full.text, "is missing");
		if (h->dtype != w->dtype)
			return mc_fail(err, MC_CORRUPT, full.text, "is %s; needed %s",
			    mc_dtype_name(h->dtype), mc_dtype_name(w->dtype));
		if (h->rank != w->rank ||
		    memcmp(h->shape, w->shape, w->rank * sizeof *w->shape) != 0)
			return mc_fail(err, MC_CORRUPT, full.text, "has shape %s; needed %s",
			    mc_shape_text(h->rank, h->shape, found, sizeof found),
			    mc_shape_text(w->rank, w->shape, needed, sizeof needed));
	}
	return true;
}

static bool require_shape(const struct mc_tensor *tensor, size_t rows, size_t cols,
    const char *name, struct mc_error *err)
{
	int64_t shape[2];

	memcpy(shape, tensor->data, sizeof shape);
	if (shape[0] == (int64_t)rows && shape[1] == (int64_t)cols)
		return true;
	return mc_fail(err, MC_CORRUPT, full_name(name, "weight_shape").text,
	    "says [%lld, %lld]; needed [%zu, %zu]", (long long)shape[0], (long long)shape[1], rows,
	    cols);
}

static void read_zero_points(struct mc_quantized *q, const struct mc_tensor *tensor, unsigned bits)
{
	int32_t offset = 1 << (bits - 1);

	if (tensor->dtype == MC_I8) {
		for (size_t i = 0; i < q->scale_rows * q->scale_cols; i++)
			q->zero_point[i] = ((const int8_t *)tensor->data)[i];
		return;
	}
	for (size_t c = 0; c < q->scale_cols; c++) {
		struct mc_bit_reader reader = {
		    .words = (const uint32_t *)tensor->data + c, .stride = q->scale_cols};
		for (size_t r = 0; r < q->scale_rows; r++)
			q->zero_point[r * q->scale_cols + c] =
			    (int32_t)mc_bits_take(&reader, bits) - offset;
	}
}

static void read_codes(struct mc_quantized *q, const struct mc_packed *packed, unsigned bits)
{
	const struct mc_tensor *words = find(packed, "weight_packed"),
			       *plain = find(packed, "weight");

	if (words == NULL) {
		memcpy(q->codes, plain->data, q->rows * q->cols);
		return;
	}
	if (words->dtype == MC_U8) {
		const uint8_t *bytes = words->data;
		for (size_t i = 0; i < q->rows * q->cols; i++)
			q->codes[i] = (int8_t)(bytes[i / 2] >> (i % 2 * 4) & 0xf);
		return;
	}
	for (size_t r = 0; r < q->rows; r++)
		mc_unpack_bits((const uint32_t *)words->data + r * words->shape[1], 1, q->cols,
		    bits, q->codes + r * q->cols, 1);
}

static void read_scales(struct mc_quantized *q, const struct mc_packed *packed)
{
	const struct mc_tensor *scale = find(packed, "weight_scale"),
			       *global = find(packed, "weight_global_scale");
	size_t scales = q->scale_rows * q->scale_cols;

	if (scale->dtype == MC_U8)
		for (size_t i = 0; i < scales; i++)
			q->scale[i] = mc_e8m0_to_f32(((const uint8_t *)scale->data)[i]);
	else
		mc_widen(scale->dtype, scale->data, q->scale, scales);
	if (global != NULL)
		memcpy(&q->global_scale, global->data, sizeof q->global_scale);
	for (size_t i = 0; i < scales; i++) {
		q->scale_min = fminf(q->scale_min, q->scale[i]);
		q->scale_max = fmaxf(q->scale_max, q->scale[i]);
	}
}

/* The dtype that scales of the format follow: the weight's, where they have no fixed one. */
static bool settle_dtype(const struct mc_scheme *scheme, const struct mc_packed *packed,
    const char *name, enum mc_dtype *ret, struct mc_error *err)
{
	const struct mc_tensor *scale = find(packed, "weight_scale");

	if (scale == NULL)
		return mc_fail(err, MC_CORRUPT, full_name(name, "weight_scale").text, "is missing");
	*ret = MC_BF16;
	if (scheme->format == MC_FORMAT_NVFP4 || scheme->format == MC_FORMAT_MXFP4 ||
	    scheme->format == MC_FORMAT_MXFP8)
		return true;
	*ret = scale->dtype;
	return mc_dtype_is_weight(scale->dtype) ||
	       mc_fail(err, MC_CORRUPT, full_name(name, "weight_scale").text,
		   "is %s; needed BF16, F16 or F32", mc_dtype_name(scale->dtype));
}

/* --- weight_g_idx ----------------------------------------------------------------------------- */

/* Groups of columns that were ordered by an older program: column c has the scale of column
 * g_idx[c]. NULL in *ret: there is none, or one that says "not set". */
static bool read_g_idx(const struct mc_quant_args *args, const struct mc_packed *packed,
    const char *name, size_t cols, size_t groups, const int32_t **ret, struct mc_error *err)
{
	const struct mc_tensor *tensor = find(packed, "weight_g_idx");
	char found[96];

	*ret = NULL;
	if (tensor == NULL || args->strategy != MC_STRATEGY_GROUP)
		return true;
	if (tensor->dtype != MC_I32 || tensor->rank != 1 || tensor->shape[0] != cols ||
	    tensor->data == NULL)
		return mc_fail(err, MC_CORRUPT, full_name(name, "weight_g_idx").text,
		    "is %s %s; needed I32 [%zu]", mc_dtype_name(tensor->dtype),
		    mc_shape_text(tensor->rank, tensor->shape, found, sizeof found), cols);
	const int32_t *group = tensor->data;
	for (size_t c = 0; c < cols; c++)
		if (group[c] == -1)
			return true;
	for (size_t c = 0; c < cols; c++)
		if (group[c] < 0 || (size_t)group[c] >= groups)
			return mc_fail(err, MC_CORRUPT, full_name(name, "weight_g_idx").text,
			    "column %zu is of group %d; needed 0 to %zu", c, (int)group[c],
			    groups - 1);
	*ret = group;
	return true;
}

bool mc_unpack(const struct mc_scheme *scheme, const struct mc_packed *packed, size_t rows,
    size_t cols, const char *name, struct mc_arena *arena, struct mc_quantized *ret,
    struct mc_error *err)
{
	const struct mc_quant_args *args = &scheme->weights;
	struct mc_quantized q = {
	    .rows = rows, .cols = cols, .scale_min = INFINITY, .scale_max = -INFINITY};
	struct mc_packed want;
	enum mc_dtype dt = MC_BF16;

	if (!settle_dtype(scheme, packed, name, &dt, err) ||
	    !mc_pack_layout(scheme, dt, rows, cols, name, &want, err) ||
	    !require_tensors(&want, packed, name, err) ||
	    !mc_scale_shape(args, rows, cols, name, &q.scale_rows, &q.scale_cols, err) ||
	    (find(&want, "weight_shape") != NULL &&
		!require_shape(find(packed, "weight_shape"), rows, cols, name, err)) ||
	    !read_g_idx(args, packed, name, cols, q.scale_cols, &q.group, err))
		return false;
	size_t scales = q.scale_rows * q.scale_cols;
	q.codes = mc_arena_alloc(arena, rows * cols, 1, "codes", err);
	q.scale = mc_arena_alloc(arena, scales, sizeof *q.scale, "scales", err);
	if (!args->symmetric)
		q.zero_point =
		    mc_arena_alloc(arena, scales, sizeof *q.zero_point, "zero points", err);
	if (q.codes == NULL || q.scale == NULL || (!args->symmetric && q.zero_point == NULL))
		return false;
	read_scales(&q, packed);
	read_codes(&q, packed, args->num_bits);
	if (!args->symmetric)
		read_zero_points(&q, find(packed, "weight_zero_point"), args->num_bits);
	*ret = q;
	return true;
}
