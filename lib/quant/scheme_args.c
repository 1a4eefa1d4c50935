/*
 * scheme_args.c - QuantizationArgs: read with all rules, copy, write
 */
#include "scheme_parse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static const char *const strategies[] = {
    [MC_STRATEGY_TENSOR] = "tensor",
    [MC_STRATEGY_CHANNEL] = "channel",
    [MC_STRATEGY_GROUP] = "group",
    [MC_STRATEGY_BLOCK] = "block",
    [MC_STRATEGY_TOKEN] = "token",
    [MC_STRATEGY_TENSOR_GROUP] = "tensor_group",
    [MC_STRATEGY_ATTN_HEAD] = "attn_head",
};
static const char *const types[] = {[MC_QUANT_INT] = "int", [MC_QUANT_FLOAT] = "float"};
static const char *const torch_dtypes[] = {"float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2",
    "float8_e5m2fnuz", "float8_e8m0fnu", "bfloat16", "float16", "float32", "float64", "int8",
    "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"};
/* Other names that torch has for the same. */
static const char *const torch_aliases[][2] = {{"float", "float32"}, {"double", "float64"},
    {"half", "float16"}, {"short", "int16"}, {"int", "int32"}, {"long", "int64"}};
static const char *const keys[] = {"actorder", "block_structure", "dynamic", "group_size",
    "num_bits", "observer", "observer_kwargs", "scale_dtype", "strategy", "symmetric", "type",
    "zp_dtype"};

/* Keys whose value was no good: rules about them would only repeat the complaint. */
enum bad {
	BAD_BITS = 1,
	BAD_TYPE = 2,
	BAD_GROUP = 4,
	BAD_STRATEGY = 8,
	BAD_BLOCK = 16,
	BAD_DYNAMIC = 32
};

struct reading {
	struct mc_quant_args *args;
	const struct mc_json *json;
	const char *pointer;
	const struct mc_scheme_reader *reader;
	struct mc_problems *problems; /* the reader's */
	unsigned bad;
};

/* --- values ----------------------------------------------------------------------------------- */

static bool find_name(const char *text, const char *const *names, size_t count, unsigned *ret)
{
	for (size_t i = 0; i < count; i++) {
		if (!mc_equal_folded(text, names[i]))
			continue;
		*ret = (unsigned)i;
		return true;
	}
	return false;
}

/* A name out of a table, any case. */
static bool read_name(struct reading *r, const struct mc_field *field, const char *what,
    const char *const *names, size_t count, unsigned *ret)
{
	if (mc_json_type(field->value) != MC_JSON_STRING) {
		mc_field_wrong_type(field, "a string", r->problems);
		return false;
	}
	const char *text = mc_json_string(field->value, NULL);
	if (find_name(text, names, count, ret))
		return true;
	mc_name_unknown(field->where, what, text, names, count, r->problems);
	return false;
}

static void read_type(struct reading *r)
{
	struct mc_field field = mc_field_get(r->json, r->pointer, "type");
	unsigned type;

	if (field.value == NULL)
		return;
	if (read_name(r, &field, "type", types, COUNT(types), &type))
		r->args->type = (enum mc_quant_type)type;
	else
		r->bad |= BAD_TYPE;
}

static void read_num_bits(struct reading *r)
{
	struct mc_field field = mc_field_get(r->json, r->pointer, "num_bits");
	int64_t bits = 8;

	if (field.value != NULL && !mc_integer_read(field.value, &bits)) {
		mc_field_wrong_type(&field, "an integer", r->problems);
		r->bad |= BAD_BITS;
		return;
	}
	if (r->bad & BAD_TYPE)
		return;
	if (r->args->type == MC_QUANT_FLOAT && bits != 4 && bits != 8) {
		mc_problems_add(
		    r->problems, field.where, "is %lld; floats have 4 or 8 bits", (long long)bits);
		r->bad |= BAD_BITS;
	} else if (bits < 1 || bits > 32) {
		mc_problems_add(
		    r->problems, field.where, "is %lld; needed 1 to 32", (long long)bits);
		r->bad |= BAD_BITS;
	} else {
		r->args->num_bits = (unsigned)bits;
	}
}

static void read_symmetric(struct reading *r)
{
	struct mc_field field = mc_field_get(r->json, r->pointer, "symmetric");

	if (field.value == NULL)
		return;
	if (!mc_bool_read(field.value, &r->args->symmetric))
		mc_field_wrong_type(&field, "true or false", r->problems);
}

static void read_group_size(struct reading *r)
{
	struct mc_field field = mc_field_get(r->json, r->pointer, "group_size");
	int64_t size;

	if (mc_json_is_null(field.value))
		return;
	/* a number in quotes is refused here, and only here, by the reference too */
	bool quoted = mc_json_type(field.value) == MC_JSON_STRING && !r->reader->written;
	if (quoted || !mc_integer_read(field.value, &size)) {
		mc_field_wrong_type(&field, "an integer or null", r->problems);
		r->bad |= BAD_GROUP;
	} else if (size < -1 || size > INT32_MAX) {
		mc_problems_add(r->problems, field.where,
		    "is %lld; needed a positive number, -1 (one group a row) or null",
		    (long long)size);
		r->bad |= BAD_GROUP;
	} else {
		r->args->group_size = size;
		r->args->group_size_zero = size == 0;
	}
}

static void read_strategy(struct reading *r)
{
	struct mc_field field = mc_field_get(r->json, r->pointer, "strategy");
	unsigned strategy;

	if (mc_json_is_null(field.value)) {
		if (r->args->group_size_zero) {
			mc_problems_add(r->problems, r->pointer,
			    "group_size 0 says no strategy; needed a positive number, "
			    "-1 (one group a row) or null");
			r->bad |= BAD_GROUP;
		}
		r->args->strategy = r->args->group_size > 0   ? MC_STRATEGY_GROUP
				    : r->args->group_size < 0 ? MC_STRATEGY_CHANNEL
							      : MC_STRATEGY_TENSOR;
		r->bad |= r->bad & BAD_GROUP ? BAD_STRATEGY : 0;
		return;
	}
	if (read_name(r, &field, "strategy", strategies, COUNT(strategies), &strategy))
		r->args->strategy = (enum mc_strategy)strategy;
	else
		r->bad |= BAD_STRATEGY;
}

/* "128x128" */
static bool parse_block_text(const char *text, int64_t block[2])
{
	char rows[32];
	const char *x = strchr(text, 'x');

	if (x == NULL || (size_t)(x - text) >= sizeof rows)
		return false;
	memcpy(rows, text, (size_t)(x - text));
	rows[x - text] = '\0';
	return mc_integer_parse(rows, false, &block[0]) &&
	       mc_integer_parse(x + 1, false, &block[1]);
}

/* Elements of a block are not coerced. */
static bool block_number(const struct mc_json *value, int64_t *ret)
{
	enum mc_json_type type = mc_json_type(value);

	return (type == MC_JSON_INTEGER || type == MC_JSON_BOOL) && mc_integer_read(value, ret);
}

static void read_block(struct reading *r)
{
	struct mc_field field = mc_field_get(r->json, r->pointer, "block_structure");
	int64_t block[2] = {0, 0};
	bool ok = false;

	if (mc_json_is_null(field.value))
		return;
	if (mc_json_type(field.value) == MC_JSON_STRING)
		ok = parse_block_text(mc_json_string(field.value, NULL), block);
	else if (mc_json_type(field.value) == MC_JSON_ARRAY && mc_json_size(field.value) == 2)
		ok = block_number(mc_json_at(field.value, 0), &block[0]) &&
		     block_number(mc_json_at(field.value, 1), &block[1]);
	if (!ok || block[0] < 1 || block[1] < 1 || block[0] > INT32_MAX || block[1] > INT32_MAX) {
		mc_problems_add(r->problems, field.where,
		    "needed two positive integers, [rows, columns] or \"ROWSxCOLUMNS\"");
		r->bad |= BAD_BLOCK;
		return;
	}
	r->args->block_rows = (uint64_t)block[0];
	r->args->block_cols = (uint64_t)block[1];
}

static void read_dynamic(struct reading *r)
{
	struct mc_field field = mc_field_get(r->json, r->pointer, "dynamic");
	bool text = field.value != NULL && mc_json_type(field.value) == MC_JSON_STRING, dynamic;

	if (field.value == NULL || (mc_json_is_null(field.value) && r->reader->written))
		return;
	if (text && mc_equal_folded(mc_json_string(field.value, NULL), "local")) {
		r->args->dynamic = MC_DYNAMIC_LOCAL;
	} else if (!text && mc_bool_read(field.value, &dynamic)) {
		r->args->dynamic = dynamic ? MC_DYNAMIC_YES : MC_DYNAMIC_NO;
	} else {
		mc_problems_add(r->problems, field.where, "needed true, false or \"local\"");
		r->bad |= BAD_DYNAMIC;
	}
}

static void read_actorder(struct reading *r)
{
	struct mc_field field = mc_field_get(r->json, r->pointer, "actorder");
	enum mc_json_type type = field.value == NULL ? MC_JSON_NULL : mc_json_type(field.value);

	if (type == MC_JSON_NULL || (type == MC_JSON_BOOL && !mc_json_bool(field.value)))
		return;
	const char *text = type == MC_JSON_STRING ? mc_json_string(field.value, NULL) : "";
	if (type == MC_JSON_BOOL)
		text = "group"; /* what true once meant */
	bool kept = strcmp(text, "weight") == 0 || strcmp(text, "static") == 0;
	bool gone = mc_equal_folded(text, "group") || mc_equal_folded(text, "dynamic");
	if (kept || (gone && r->reader->written))
		snprintf(r->args->actorder, sizeof r->args->actorder, "%s", text);
	else if (gone)
		mc_problems_add(r->problems, field.where,
		    "ordering by groups is no longer part of the format; needed \"weight\", "
		    "\"static\" or null");
	else
		mc_problems_add(r->problems, field.where, "needed \"weight\", \"static\" or null");
}

/* "torch.uint8" or "uint8", kept in the long form. */
static void read_torch_dtype(struct reading *r, const char *key, char into[32])
{
	struct mc_field field = mc_field_get(r->json, r->pointer, key);

	if (mc_json_is_null(field.value))
		return;
	if (mc_json_type(field.value) != MC_JSON_STRING) {
		mc_field_wrong_type(
		    &field, "a dtype such as \"torch.float8_e4m3fn\", or null", r->problems);
		return;
	}
	const char *text = mc_json_string(field.value, NULL);
	const char *bare = strncmp(text, "torch.", 6) == 0 ? text + 6 : text;
	for (size_t i = 0; i < COUNT(torch_aliases); i++)
		if (strcmp(bare, torch_aliases[i][0]) == 0)
			bare = torch_aliases[i][1];
	for (size_t i = 0; i < COUNT(torch_dtypes); i++) {
		if (strcmp(bare, torch_dtypes[i]) == 0) {
			snprintf(into, 32, "torch.%s", bare);
			return;
		}
	}
	mc_name_unknown(field.where, "dtype", bare, torch_dtypes, COUNT(torch_dtypes), r->problems);
}

/* --- observers -------------------------------------------------------------------------------- */

static void read_observer(struct reading *r)
{
	struct mc_field field = mc_field_get(r->json, r->pointer, "observer");

	if (mc_json_is_null(field.value))
		return;
	if (mc_json_type(field.value) != MC_JSON_STRING) {
		mc_field_wrong_type(&field, "an observer's name or null", r->problems);
		return;
	}
	const char *text = mc_json_string(field.value, NULL);
	bool fits = strlen(text) < sizeof r->args->observer;
	if (fits && (r->reader->written || mc_observer_known(text) != NULL))
		snprintf(r->args->observer, sizeof r->args->observer, "%s", text);
	else if (!r->reader->written)
		mc_observer_unknown(field.where, text, r->problems);
}

static bool read_observer_kwargs(struct reading *r, struct mc_error *err)
{
	struct mc_field field = mc_field_get(r->json, r->pointer, "observer_kwargs");
	bool object = field.value != NULL && mc_json_type(field.value) == MC_JSON_OBJECT;

	if (object) {
		if (!r->reader->written)
			mc_observer_check_arguments(&field, r->problems);
		r->args->observer_kwargs = mc_json_copy(field.value, err);
		return r->args->observer_kwargs != NULL;
	}
	if (field.value != NULL && !(mc_json_is_null(field.value) && r->reader->written))
		mc_field_wrong_type(&field, "an object", r->problems);
	r->args->observer_kwargs = mc_json_new_object();
	return r->args->observer_kwargs != NULL ||
	       mc_fail(err, MC_NO_MEMORY, r->pointer, "cannot allocate an object");
}

/* --- rules ------------------------------------------------------------------------------------ */

static void rule(struct reading *r, const char *key, const char *text)
{
	char where[160];

	mc_problems_add(r->problems, mc_pointer_join(where, r->pointer, key), "%s", text);
}

/* Which strategy goes with which group size and block. */
static void check_strategy(struct reading *r)
{
	const struct mc_quant_args *args = r->args;
	bool grouped = args->strategy == MC_STRATEGY_GROUP ||
		       args->strategy == MC_STRATEGY_TENSOR_GROUP;
	bool block = args->strategy == MC_STRATEGY_BLOCK;

	if (r->bad & BAD_STRATEGY)
		return;
	if (!(r->bad & BAD_GROUP) && grouped && args->group_size <= 0)
		mc_problems_add(r->problems, r->pointer,
		    "strategy '%s' needs a positive group_size", strategies[args->strategy]);
	if (!(r->bad & BAD_GROUP) && !grouped && args->group_size > 0) {
		char where[160];
		mc_problems_add(r->problems, mc_pointer_join(where, r->pointer, "group_size"),
		    "is %lld, which strategy '%s' has no use for; needed strategy 'group' or "
		    "'tensor_group'",
		    (long long)args->group_size, strategies[args->strategy]);
	}
	if (!(r->bad & BAD_BLOCK) && block && args->block_rows == 0)
		mc_problems_add(r->problems, r->pointer,
		    "strategy 'block' needs block_structure, such as [128, 128]");
	if (!(r->bad & BAD_BLOCK) && !block && args->block_rows != 0)
		mc_problems_add(r->problems, r->pointer,
		    "block_structure needs strategy 'block', not '%s'", strategies[args->strategy]);
}

static void check_dynamic(struct reading *r)
{
	const struct mc_quant_args *args = r->args;
	enum mc_strategy strategy = args->strategy;
	bool fit = strategy == MC_STRATEGY_TOKEN || strategy == MC_STRATEGY_TENSOR ||
		   strategy == MC_STRATEGY_GROUP || strategy == MC_STRATEGY_TENSOR_GROUP;

	if (r->bad & (BAD_STRATEGY | BAD_DYNAMIC))
		return;
	if (strategy == MC_STRATEGY_TOKEN && args->dynamic == MC_DYNAMIC_NO)
		rule(r, "dynamic", "is false; strategy 'token' needs true");
	if (args->dynamic == MC_DYNAMIC_LOCAL && strategy != MC_STRATEGY_TENSOR_GROUP)
		mc_problems_add(r->problems, r->pointer,
		    "dynamic \"local\" needs strategy 'tensor_group', not '%s'",
		    strategies[strategy]);
	else if (args->dynamic == MC_DYNAMIC_YES && !fit)
		mc_problems_add(r->problems, r->pointer,
		    "dynamic needs strategy 'token', 'tensor', 'group' or 'tensor_group', not '%s'",
		    strategies[strategy]);
}

static void settle_dtypes(struct reading *r)
{
	struct mc_quant_args *args = r->args;

	if (args->symmetric)
		args->zp_dtype[0] = '\0';
	else if (args->zp_dtype[0] == '\0')
		snprintf(args->zp_dtype, sizeof args->zp_dtype, "torch.%s",
		    args->type == MC_QUANT_FLOAT ? "float8_e4m3fn"
		    : args->num_bits <= 8        ? "int8"
		    : args->num_bits <= 16       ? "int16"
						 : "int32");
	if (!r->reader->written || args->scale_dtype[0] != '\0' || args->type != MC_QUANT_FLOAT ||
	    args->num_bits != 4)
		return;
	if (args->group_size == 16 || args->group_size == 32)
		snprintf(args->scale_dtype, sizeof args->scale_dtype, "torch.%s",
		    args->group_size == 16 ? "float8_e4m3fn" : "uint8");
}

bool mc_quant_args_read(struct mc_quant_args *args, const struct mc_json *json, const char *pointer,
    const struct mc_scheme_reader *reader, struct mc_error *err)
{
	struct reading r = {.args = args,
	    .json = json,
	    .pointer = pointer,
	    .reader = reader,
	    .problems = reader->problems};

	*args = (struct mc_quant_args){.num_bits = 8, .symmetric = true};
	if (mc_json_type(json) != MC_JSON_OBJECT) {
		struct mc_field field = {.value = json};
		snprintf(field.where, sizeof field.where, "%s", pointer);
		mc_field_wrong_type(&field, "an object or null", reader->problems);
		return mc_quant_args_copy(args, args, err);
	}
	if (!reader->written)
		mc_keys_require(json, pointer, keys, COUNT(keys), reader->problems);
	read_type(&r);
	read_num_bits(&r);
	read_symmetric(&r);
	read_group_size(&r);
	read_strategy(&r);
	read_block(&r);
	read_dynamic(&r);
	read_actorder(&r);
	read_torch_dtype(&r, "scale_dtype", args->scale_dtype);
	read_torch_dtype(&r, "zp_dtype", args->zp_dtype);
	read_observer(&r);
	check_strategy(&r);
	check_dynamic(&r);
	settle_dtypes(&r);
	return read_observer_kwargs(&r, err);
}

/* --- life and writing ------------------------------------------------------------------------- */

void mc_quant_args_release(struct mc_quant_args *args)
{
	mc_json_free(args->observer_kwargs);
	args->observer_kwargs = NULL;
}

static struct mc_json *kwargs_json(const struct mc_quant_args *args, struct mc_error *err)
{
	return args->observer_kwargs == NULL ? mc_json_new_object()
					     : mc_json_copy(args->observer_kwargs, err);
}

bool mc_quant_args_copy(
    struct mc_quant_args *args, const struct mc_quant_args *from, struct mc_error *err)
{
	struct mc_json *kwargs = kwargs_json(from, err);

	*args = *from;
	args->observer_kwargs = kwargs;
	return kwargs != NULL ||
	       mc_fail(err, MC_NO_MEMORY, "observer_kwargs", "cannot allocate an object");
}

static struct mc_json *text_or_null(const char *text)
{
	return text[0] == '\0' ? mc_json_new_null() : mc_json_new_string(text);
}

static struct mc_json *block_json(const struct mc_quant_args *args, struct mc_error *err)
{
	if (args->block_rows == 0)
		return mc_json_new_null();
	struct mc_json *list = mc_json_new_array();
	if (list != NULL &&
	    mc_json_append(list, mc_json_new_integer((int64_t)args->block_rows), err) &&
	    mc_json_append(list, mc_json_new_integer((int64_t)args->block_cols), err))
		return list;
	mc_json_free(list);
	return NULL;
}

static struct mc_json *dynamic_json(const struct mc_quant_args *args)
{
	if (args->dynamic == MC_DYNAMIC_LOCAL)
		return mc_json_new_string("local");
	return mc_json_new_bool(args->dynamic == MC_DYNAMIC_YES);
}

struct mc_json *mc_quant_args_json(const struct mc_quant_args *args, struct mc_error *err)
{
	if (args == NULL)
		return mc_json_new_null();
	struct mc_json *json = mc_json_new_object();
	if (json == NULL) {
		(void)mc_fail(err, MC_NO_MEMORY, "", "cannot allocate an object");
		return NULL;
	}
	if (mc_json_set(json, "actorder", text_or_null(args->actorder), err) &&
	    mc_json_set(json, "block_structure", block_json(args, err), err) &&
	    mc_json_set(json, "dynamic", dynamic_json(args), err) &&
	    mc_json_set(json, "group_size",
		args->group_size == 0 && !args->group_size_zero
		    ? mc_json_new_null()
		    : mc_json_new_integer(args->group_size),
		err) &&
	    mc_json_set(json, "num_bits", mc_json_new_integer(args->num_bits), err) &&
	    mc_json_set(json, "observer", text_or_null(args->observer), err) &&
	    mc_json_set(json, "observer_kwargs", kwargs_json(args, err), err) &&
	    mc_json_set(json, "scale_dtype", text_or_null(args->scale_dtype), err) &&
	    mc_json_set(json, "strategy", mc_json_new_string(strategies[args->strategy]), err) &&
	    mc_json_set(json, "symmetric", mc_json_new_bool(args->symmetric), err) &&
	    mc_json_set(json, "type", mc_json_new_string(types[args->type]), err) &&
	    mc_json_set(json, "zp_dtype", text_or_null(args->zp_dtype), err)) {
		return json;
	}
	mc_json_free(json);
	return NULL;
}
