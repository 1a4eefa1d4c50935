/*
 * pack.c - what tensors a module has in its checkpoint format, and making them
 */
#include "moecal/pack.h"

#include <string.h>

#include "moecal/alloc.h"

#include "bits.h"

void mc_pack_bits(const int8_t *codes, size_t stride, size_t n, unsigned bits, uint32_t *words,
    size_t word_stride)
{
	struct mc_bit_writer writer = {.words = words, .stride = word_stride};
	uint32_t offset = 1u << (bits - 1), mask = (1u << bits) - 1;

	mc_assert(bits >= 1 && bits <= 8);
	for (size_t i = 0; i < n; i++)
		mc_bits_put(&writer, ((uint32_t)(int32_t)codes[i * stride] + offset) & mask, bits);
	mc_bits_finish(&writer);
}

/* --- layout ----------------------------------------------------------------------------------- */

static struct mc_tensor *add(struct mc_packed *packed, const char *suffix, enum mc_dtype dtype)
{
	mc_assert(packed->count < MC_MAX_PACKED);
	packed->items[packed->count] =
	    (struct mc_packed_tensor){.suffix = suffix, .tensor = {.dtype = dtype}};
	return &packed->items[packed->count++].tensor;
}

static void set_shape(struct mc_tensor *tensor, uint64_t rows, uint64_t cols)
{
	tensor->rank = 2;
	tensor->shape[0] = rows;
	tensor->shape[1] = cols;
}

static void set_one(struct mc_tensor *tensor)
{
	tensor->rank = 1;
	tensor->shape[0] = 1;
}

/* One number a tensor has one dimension, all else two. */
static void set_scale_shape(
    struct mc_tensor *tensor, const struct mc_quant_args *args, size_t rows, size_t cols)
{
	set_shape(tensor, rows, cols);
	if (args->strategy == MC_STRATEGY_TENSOR)
		tensor->rank = 1;
}

static uint64_t words(uint64_t values, unsigned bits)
{
	return values / 32 * bits + (values % 32 * bits + 31) / 32;
}

/* Zero points of rows are packed as the codes are, but along the rows. */
static bool packs_zero_points(const struct mc_quant_args *args, enum mc_format format)
{
	return format == MC_FORMAT_PACK &&
	       (args->strategy == MC_STRATEGY_GROUP || args->strategy == MC_STRATEGY_CHANNEL);
}

/* Two nibbles a byte, scales of a byte each, and the multiplier of NVFP4's. */
static void add_fp4(struct mc_packed *packed, enum mc_format format, size_t rows, size_t cols,
    size_t scale_rows, size_t scale_cols)
{
	bool global = format == MC_FORMAT_NVFP4;

	set_shape(add(packed, "weight_packed", MC_U8), rows, cols / 2);
	set_shape(add(packed, "weight_scale", global ? MC_F8_E4M3 : MC_U8), scale_rows, scale_cols);
	if (global)
		set_one(add(packed, "weight_global_scale", MC_F32));
}

static void add_weight(struct mc_packed *packed, const struct mc_scheme *scheme, enum mc_dtype dt,
    size_t rows, size_t cols, size_t scale_rows, size_t scale_cols)
{
	const struct mc_quant_args *args = &scheme->weights;

	if (scheme->format == MC_FORMAT_NVFP4 || scheme->format == MC_FORMAT_MXFP4) {
		add_fp4(packed, scheme->format, rows, cols, scale_rows, scale_cols);
		return;
	}
	if (scheme->format == MC_FORMAT_PACK)
		set_shape(add(packed, "weight_packed", MC_I32), rows, words(cols, args->num_bits));
	else
		set_shape(add(packed, "weight", args->type == MC_QUANT_FLOAT ? MC_F8_E4M3 : MC_I8),
		    rows, cols);
	set_scale_shape(
	    add(packed, "weight_scale", scheme->format == MC_FORMAT_MXFP8 ? MC_U8 : dt), args,
	    scale_rows, scale_cols);
	if (scheme->format == MC_FORMAT_PACK) {
		struct mc_tensor *shape = add(packed, "weight_shape", MC_I64);
		shape->rank = 1;
		shape->shape[0] = 2;
	}
	if (args->symmetric)
		return;
	if (packs_zero_points(args, scheme->format))
		set_shape(add(packed, "weight_zero_point", MC_I32),
		    words(scale_rows, args->num_bits), scale_cols);
	else
		set_scale_shape(
		    add(packed, "weight_zero_point", MC_I8), args, scale_rows, scale_cols);
}

static void add_input(struct mc_packed *packed, const struct mc_quant_args *args, enum mc_dtype dt)
{
	if (args->dynamic == MC_DYNAMIC_LOCAL) {
		set_one(add(packed, "input_global_scale", MC_F32));
		return;
	}
	if (args->dynamic != MC_DYNAMIC_NO)
		return;
	set_one(add(packed, "input_scale", dt));
	if (!args->symmetric)
		set_one(add(packed, "input_zero_point", MC_I8));
}

/* Whether weights of these arguments are stored in the format. */
static bool format_stores(const struct mc_quant_args *args, enum mc_format format)
{
	bool is_float = args->type == MC_QUANT_FLOAT, fp4 = is_float && args->num_bits == 4;
	bool fp8 = is_float && args->num_bits == 8;
	bool global = args->strategy == MC_STRATEGY_TENSOR_GROUP;

	switch (format) {
	case MC_FORMAT_PACK:
	case MC_FORMAT_INT:
		return !is_float && args->num_bits <= 8 && !global;
	case MC_FORMAT_FLOAT:
		return fp8 && !global && !mc_args_mx(args);
	case MC_FORMAT_NAIVE:
		return !global && !mc_args_mx(args) && (is_float ? fp8 : args->num_bits <= 8);
	case MC_FORMAT_NVFP4:
		return fp4 && global && mc_args_e4m3_scale(args);
	case MC_FORMAT_MXFP4:
		return fp4 && mc_args_mx(args) && args->strategy == MC_STRATEGY_GROUP;
	case MC_FORMAT_MXFP8:
		return fp8 && mc_args_mx(args) && args->strategy == MC_STRATEGY_GROUP;
	case MC_FORMAT_DENSE:
	case MC_FORMAT_MIXED:
		break;
	}
	return false;
}

bool mc_pack_layout(const struct mc_scheme *scheme, enum mc_dtype dt, size_t rows, size_t cols,
    const char *name, struct mc_packed *ret, struct mc_error *err)
{
	const struct mc_quant_args *args = &scheme->weights;
	bool is_float = args->type == MC_QUANT_FLOAT;
	struct mc_packed packed = {0};
	size_t scale_rows, scale_cols;

	if (!scheme->has_weights || !format_stores(args, scheme->format))
		return mc_fail(err, MC_UNSUPPORTED, name,
		    "storing %u-bit %s as '%s' is not there yet", args->num_bits,
		    is_float ? "floats" : "integers", mc_format_name(scheme->format));
	if (!args->symmetric && is_float)
		return mc_fail(
		    err, MC_UNSUPPORTED, name, "storing asymmetric floats is not there yet");
	if (!mc_scale_shape(args, rows, cols, name, &scale_rows, &scale_cols, err))
		return false;
	add_weight(&packed, scheme, dt, rows, cols, scale_rows, scale_cols);
	if (scheme->has_input)
		add_input(&packed, &scheme->input, dt);
	*ret = packed;
	return true;
}

/* --- data ------------------------------------------------------------------------------------- */

static void pack_codes(const struct mc_quantized *q, unsigned bits, uint32_t *into)
{
	size_t row_words = (size_t)words(q->cols, bits);

	for (size_t r = 0; r < q->rows; r++)
		mc_pack_bits(q->codes + r * q->cols, 1, q->cols, bits, into + r * row_words, 1);
}

static void pack_zero_points(const struct mc_quantized *q, unsigned bits, uint32_t *into)
{
	uint32_t offset = 1u << (bits - 1), mask = (1u << bits) - 1;

	for (size_t c = 0; c < q->scale_cols; c++) {
		struct mc_bit_writer writer = {.words = into + c, .stride = q->scale_cols};
		for (size_t r = 0; r < q->scale_rows; r++)
			mc_bits_put(&writer,
			    ((uint32_t)q->zero_point[r * q->scale_cols + c] + offset) & mask, bits);
		mc_bits_finish(&writer);
	}
}

static void store_zero_points(
    const struct mc_quantized *q, const struct mc_scheme *scheme, void *into)
{
	if (packs_zero_points(&scheme->weights, scheme->format)) {
		pack_zero_points(q, scheme->weights.num_bits, into);
		return;
	}
	for (size_t i = 0; i < q->scale_rows * q->scale_cols; i++)
		((int8_t *)into)[i] = (int8_t)q->zero_point[i];
}

/* Even columns in the low nibbles. Groups are of 16 or 32, so columns come in pairs. */
static void pack_nibbles(const struct mc_quantized *q, uint8_t *into)
{
	const int8_t *codes = q->codes;

	for (size_t i = 0; i < q->rows * q->cols / 2; i++)
		into[i] = (uint8_t)((codes[2 * i] & 0xf) | (codes[2 * i + 1] & 0xf) << 4);
}

/* Powers of two by their exponents: 2^-127, which is subnormal, is 0. */
static void store_exponents(const struct mc_quantized *q, uint8_t *into)
{
	for (size_t i = 0; i < q->scale_rows * q->scale_cols; i++) {
		uint32_t bits;
		memcpy(&bits, &q->scale[i], sizeof bits);
		into[i] = (uint8_t)(bits >> 23);
	}
}

static void make_data(const struct mc_scheme *scheme, const struct mc_quantized *q,
    const char *suffix, struct mc_tensor *tensor)
{
	if (strcmp(suffix, "weight_packed") == 0) {
		if (tensor->dtype == MC_U8)
			pack_nibbles(q, tensor->data);
		else
			pack_codes(q, scheme->weights.num_bits, tensor->data);
	} else if (strcmp(suffix, "weight_scale") == 0) {
		if (tensor->dtype == MC_U8)
			store_exponents(q, tensor->data);
		else
			mc_narrow(q->scale, tensor->dtype, tensor->data,
			    q->scale_rows * q->scale_cols);
	} else if (strcmp(suffix, "weight_global_scale") == 0) {
		memcpy(tensor->data, &q->global_scale, sizeof q->global_scale);
	} else if (strcmp(suffix, "weight_shape") == 0) {
		int64_t shape[2] = {(int64_t)q->rows, (int64_t)q->cols};
		memcpy(tensor->data, shape, sizeof shape);
	} else {
		store_zero_points(q, scheme, tensor->data);
	}
}

bool mc_pack(const struct mc_scheme *scheme, enum mc_dtype dt, const struct mc_quantized *q,
    const char *name, struct mc_arena *arena, struct mc_packed *ret, struct mc_error *err)
{
	struct mc_packed layout, packed = {0};

	if (!mc_pack_layout(scheme, dt, q->rows, q->cols, name, &layout, err))
		return false;
	for (size_t i = 0; i < layout.count; i++) {
		if (strncmp(layout.items[i].suffix, "weight", 6) != 0)
			continue; /* of the inputs: not ours to know */
		struct mc_packed_tensor *item = &packed.items[packed.count++];
		*item = layout.items[i];
		if (strcmp(item->suffix, "weight") == 0) {
			item->tensor.data = q->codes; /* stored as they are */
			continue;
		}
		item->tensor.data =
		    mc_arena_alloc(arena, mc_tensor_bytes(&item->tensor), 1, item->suffix, err);
		if (item->tensor.data == NULL)
			return false;
		make_data(scheme, q, item->suffix, &item->tensor);
	}
	*ret = packed;
	return true;
}
