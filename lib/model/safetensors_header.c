/*
 * safetensors_header.c - the JSON header of a safetensors file, as a list of tensors
 *
 * The header is walked once. Each tensor's own few bytes of JSON go through the strict parser and
 * are dropped again, so that a header of 100 MB never becomes a tree of gigabytes.
 */
#include "safetensors_header.h"

#include <stdio.h>
#include <string.h>

#include "moecal/alloc.h"

/* --- walking --------------------------------------------------------------------------------- */

/* Where we are in the header, and what it fills. */
struct walk {
	struct mc_st_file *file;
	const char *text;
	size_t length;
	size_t at;
	size_t entries_capacity;
	size_t names_used;
	bool metadata_seen;
};

/* A piece of the header, not yet checked. */
struct slice {
	const char *text;
	size_t length;
};

const char *mc_st_shown(const char *name, char text[MC_ST_SHOWN])
{
	static const char more[] = "...";
	size_t length = strlen(name);
	size_t kept = length;

	if (length >= MC_ST_SHOWN) {
		kept = MC_ST_SHOWN - sizeof(more);
		while (kept > 0 && ((unsigned char)name[kept] & 0xC0) == 0x80)
			kept--; /* never through the middle of a character */
	}
	for (size_t i = 0; i < kept; i++) {
		unsigned char c = (unsigned char)name[i];

		text[i] = (c < 0x20 || c == 0x7F) ? '?' : (char)c;
	}
	text[kept] = '\0';
	if (kept < length)
		memcpy(text + kept, more, sizeof(more));
	return text;
}

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void skip_space(struct walk *walk)
{
	while (walk->at < walk->length && is_space(walk->text[walk->at]))
		walk->at++;
}

static bool unexpected(const struct walk *walk, const char *needed, struct mc_error *err)
{
	if (walk->at >= walk->length)
		return mc_fail(err, MC_CORRUPT, walk->file->name,
		    "the header is not valid JSON: it ends after %zu bytes, needed %s",
		    walk->length, needed);
	return mc_fail(err, MC_CORRUPT, walk->file->name,
	    "the header is not valid JSON: its byte %zu is 0x%02X, needed %s", walk->at,
	    (unsigned)(unsigned char)walk->text[walk->at], needed);
}

static bool take_byte(struct walk *walk, char byte, const char *needed, struct mc_error *err)
{
	skip_space(walk);
	if (walk->at >= walk->length || walk->text[walk->at] != byte)
		return unexpected(walk, needed, err);
	walk->at++;
	return true;
}

/* Moves past the string that begins here; what is in it is checked later. */
static bool skip_string(struct walk *walk, struct mc_error *err)
{
	walk->at++;
	while (walk->at < walk->length && walk->text[walk->at] != '"')
		walk->at += walk->text[walk->at] == '\\' ? 2 : 1;
	if (walk->at >= walk->length) {
		walk->at = walk->length;
		return unexpected(walk, "the end of a string", err);
	}
	walk->at++;
	return true;
}

static bool take_string(struct walk *walk, struct slice *ret_slice, struct mc_error *err)
{
	size_t begin;

	skip_space(walk);
	begin = walk->at;
	if (begin >= walk->length || walk->text[begin] != '"')
		return unexpected(walk, "a name in quotes", err);
	if (!skip_string(walk, err))
		return false;
	*ret_slice = (struct slice){walk->text + begin, walk->at - begin};
	return true;
}

/* Any value, found by its brackets only: whether they match in kind is the parser's business. */
static bool take_value(struct walk *walk, struct slice *ret_slice, struct mc_error *err)
{
	size_t depth = 0;
	size_t begin;

	skip_space(walk);
	begin = walk->at;
	while (walk->at < walk->length) {
		char c = walk->text[walk->at];

		if (depth == 0 && (c == ',' || c == '}' || c == ']' || is_space(c)))
			break;
		if (c == '"') {
			if (!skip_string(walk, err))
				return false;
			continue;
		}
		if (c == '{' || c == '[')
			depth++;
		if (c == '}' || c == ']')
			depth--;
		walk->at++;
	}
	if (depth > 0)
		return unexpected(walk, "the end of an object or array", err);
	if (walk->at == begin)
		return unexpected(walk, "a value", err);
	*ret_slice = (struct slice){walk->text + begin, walk->at - begin};
	return true;
}

/* The strict parser on one slice; a syntax error in a file is the file's fault, not the request's.
 */
static struct mc_json *parse_slice(
    const struct walk *walk, struct slice slice, const char *what, struct mc_error *err)
{
	struct mc_error inner;
	struct mc_json *json;

	mc_error_init(&inner);
	json = mc_json_parse(slice.text, slice.length, what, &inner);
	if (!json)
		mc_fail(err, inner.code == MC_INVALID ? MC_CORRUPT : inner.code, walk->file->name,
		    "the header is not valid JSON from its byte %zu on (%s): %s",
		    (size_t)(slice.text - walk->text), what, inner.text);
	return json;
}

/* --- names ----------------------------------------------------------------------------------- */

/* Printable ASCII without escapes stands for itself; nearly all names are like that. */
static bool is_plain(struct slice quoted)
{
	for (size_t i = 1; i + 1 < quoted.length; i++) {
		unsigned char c = (unsigned char)quoted.text[i];

		if (c < 0x20 || c > 0x7E || c == '\\')
			return false;
	}
	return true;
}

static const char *add_name(struct walk *walk, const char *text, size_t length)
{
	/* Fits: the names block is as long as the header, where each name has two quotes. */
	char *name = walk->file->names + walk->names_used;

	memcpy(name, text, length);
	name[length] = '\0';
	walk->names_used += length + 1;
	return name;
}

static bool decode_name(
    struct walk *walk, struct slice quoted, const char **ret_name, struct mc_error *err)
{
	struct mc_json *json;
	const char *text;
	size_t length;
	char shown[MC_ST_SHOWN];

	if (is_plain(quoted)) {
		*ret_name = add_name(walk, quoted.text + 1, quoted.length - 2);
		return true;
	}
	json = parse_slice(walk, quoted, "a name", err);
	if (!json)
		return false;
	text = mc_json_string(json, &length);
	if (memchr(text, '\0', length)) {
		mc_fail(err, MC_CORRUPT, walk->file->name,
		    "the tensor name that begins with '%s' contains a NUL character",
		    mc_st_shown(text, shown));
		mc_json_free(json);
		return false;
	}
	*ret_name = add_name(walk, text, length);
	mc_json_free(json);
	return true;
}

/* --- one tensor's entry ---------------------------------------------------------------------- */

static const char *type_of(const struct mc_json *value)
{
	return value ? mc_json_type_name(mc_json_type(value)) : "missing";
}

static bool is_type(const struct mc_json *value, enum mc_json_type type)
{
	return value && mc_json_type(value) == type;
}

/* A whole number from 0 on; everything else the format knows no meaning for. */
static bool read_count(const struct mc_json *value, uint64_t *ret_count)
{
	if (!is_type(value, MC_JSON_INTEGER) || mc_json_integer(value) < 0)
		return false;
	*ret_count = (uint64_t)mc_json_integer(value);
	return true;
}

static bool read_dtype(const struct mc_json *value, struct mc_st_entry *entry, const char *where,
    const char *shown, struct mc_error *err)
{
	const char *code;
	size_t length;
	char code_shown[MC_ST_SHOWN];

	if (!is_type(value, MC_JSON_STRING))
		return mc_fail(err, MC_CORRUPT, where, "tensor '%s': dtype is %s, needed a string",
		    shown, type_of(value));
	code = mc_json_string(value, &length);
	if (strlen(code) != length || !mc_dtype_find(code, &entry->dtype))
		return mc_fail(err, MC_CORRUPT, where,
		    "tensor '%s': dtype '%s' is not one that safetensors files have", shown,
		    mc_st_shown(code, code_shown));
	return true;
}

static bool read_shape(const struct mc_json *value, struct mc_st_entry *entry, const char *where,
    const char *shown, struct mc_error *err)
{
	size_t rank = mc_json_size(value);

	if (!is_type(value, MC_JSON_ARRAY))
		return mc_fail(err, MC_CORRUPT, where, "tensor '%s': shape is %s, needed an array",
		    shown, type_of(value));
	if (rank > MC_MAX_RANK)
		return mc_fail(err, MC_CORRUPT, where,
		    "tensor '%s': shape has %zu dimensions, at most %d are read", shown, rank,
		    MC_MAX_RANK);
	entry->rank = (unsigned)rank;
	for (size_t i = 0; i < rank; i++) {
		if (!read_count(mc_json_at(value, i), &entry->shape[i]))
			return mc_fail(err, MC_CORRUPT, where,
			    "tensor '%s': dimension %zu of its shape is not a whole number from 0 "
			    "on",
			    shown, i);
	}
	return true;
}

/* Leaves the begin, counted from the start of the data, in entry->offset. */
static bool read_offsets(const struct mc_json *value, struct mc_st_entry *entry, const char *where,
    const char *shown, struct mc_error *err)
{
	uint64_t end;

	if (!is_type(value, MC_JSON_ARRAY) || mc_json_size(value) != 2)
		return mc_fail(err, MC_CORRUPT, where,
		    "tensor '%s': data_offsets is %s of %zu, needed an array of 2", shown,
		    type_of(value), mc_json_size(value));
	if (!read_count(mc_json_at(value, 0), &entry->offset) ||
	    !read_count(mc_json_at(value, 1), &end))
		return mc_fail(err, MC_CORRUPT, where,
		    "tensor '%s': data_offsets are not whole numbers from 0 on", shown);
	if (end < entry->offset)
		return mc_fail(err, MC_CORRUPT, where,
		    "tensor '%s': data_offsets end at %llu, before their begin at %llu", shown,
		    (unsigned long long)end, (unsigned long long)entry->offset);
	entry->bytes = end - entry->offset;
	return true;
}

/* The shape in its dtype must take exactly the bytes that the offsets span. */
static bool check_bytes(
    const struct mc_st_entry *entry, const char *where, const char *shown, struct mc_error *err)
{
	uint64_t bits = 1;
	char shape[200];

	mc_shape_text(entry->rank, entry->shape, shape, sizeof(shape));
	for (unsigned i = 0; i < entry->rank; i++) {
		if (!mc_mul(bits, entry->shape[i], &bits))
			return mc_fail(err, MC_CORRUPT, where,
			    "tensor '%s': shape %s overflows 64 bits", shown, shape);
	}
	if (!mc_mul(bits, mc_dtype_bits(entry->dtype), &bits))
		return mc_fail(err, MC_CORRUPT, where,
		    "tensor '%s': shape %s of %s overflows 64 bits", shown, shape,
		    mc_dtype_name(entry->dtype));
	if (bits % 8 != 0)
		return mc_fail(err, MC_CORRUPT, where,
		    "tensor '%s': shape %s of %s is %llu bits, not a whole number of bytes", shown,
		    shape, mc_dtype_name(entry->dtype), (unsigned long long)bits);
	if (bits / 8 != entry->bytes)
		return mc_fail(err, MC_CORRUPT, where,
		    "tensor '%s': shape %s of %s needs %llu bytes, data_offsets span %llu", shown,
		    shape, mc_dtype_name(entry->dtype), (unsigned long long)(bits / 8),
		    (unsigned long long)entry->bytes);
	return true;
}

static bool read_entry(
    const struct mc_json *json, struct mc_st_entry *entry, const char *where, struct mc_error *err)
{
	char shown[MC_ST_SHOWN];

	mc_st_shown(entry->name, shown);
	if (!is_type(json, MC_JSON_OBJECT))
		return mc_fail(err, MC_CORRUPT, where,
		    "tensor '%s' is %s, needed an object with dtype, shape and data_offsets", shown,
		    type_of(json));
	/* Other members are allowed: newer writers may add some. */
	return read_dtype(mc_json_get(json, "dtype"), entry, where, shown, err) &&
	       read_shape(mc_json_get(json, "shape"), entry, where, shown, err) &&
	       read_offsets(mc_json_get(json, "data_offsets"), entry, where, shown, err) &&
	       check_bytes(entry, where, shown, err);
}

static bool add_entry(struct walk *walk, const char *name, struct slice value, struct mc_error *err)
{
	struct mc_st_file *file = walk->file;
	void *entries = file->entries;
	struct mc_json *json;
	char what[MC_ST_SHOWN + 16];
	char shown[MC_ST_SHOWN];
	bool done;

	mc_st_shown(name, shown);
	if (value.length > MC_SAFETENSORS_MAX_ENTRY)
		return mc_fail(err, MC_CORRUPT, file->name,
		    "tensor '%s': its entry in the header is %zu bytes, at most %u are read", shown,
		    value.length, MC_SAFETENSORS_MAX_ENTRY);
	if (file->count >= MC_SAFETENSORS_MAX_TENSORS)
		return mc_fail(err, MC_CORRUPT, file->name, "more than %u tensors in one file",
		    MC_SAFETENSORS_MAX_TENSORS);
	done = mc_grow(&entries, &walk->entries_capacity, file->count + 1, sizeof(*file->entries),
	    "the list of tensors", err);
	file->entries = entries;
	if (!done)
		return false;
	snprintf(what, sizeof(what), "tensor '%s'", shown);
	json = parse_slice(walk, value, what, err);
	if (!json)
		return false;
	file->entries[file->count].name = name;
	done = read_entry(json, &file->entries[file->count], file->name, err);
	mc_json_free(json);
	if (done)
		file->count++;
	return done;
}

static bool add_metadata(struct walk *walk, struct slice value, struct mc_error *err)
{
	struct mc_st_file *file = walk->file;
	struct mc_json_iter member;
	char shown[MC_ST_SHOWN];

	if (walk->metadata_seen)
		return mc_fail(err, MC_CORRUPT, file->name, "__metadata__ is in the header twice");
	walk->metadata_seen = true;
	if (value.length > MC_SAFETENSORS_MAX_METADATA)
		return mc_fail(err, MC_CORRUPT, file->name,
		    "__metadata__ is %zu bytes, at most %u are read", value.length,
		    MC_SAFETENSORS_MAX_METADATA);
	file->header = parse_slice(walk, value, "__metadata__", err);
	if (!file->header)
		return false;
	if (mc_json_is_null(file->header))
		return true; /* as the reference reader: the same as absent */
	if (mc_json_type(file->header) != MC_JSON_OBJECT)
		return mc_fail(err, MC_CORRUPT, file->name, "__metadata__ is %s, needed an object",
		    type_of(file->header));
	member = mc_json_iter(file->header);
	while (mc_json_next(&member)) {
		if (mc_json_type(member.value) != MC_JSON_STRING)
			return mc_fail(err, MC_CORRUPT, file->name,
			    "__metadata__: the value of '%s' is %s, needed a string",
			    mc_st_shown(member.key, shown), type_of(member.value));
	}
	file->metadata = file->header;
	return true;
}

static bool walk_member(struct walk *walk, struct mc_error *err)
{
	struct slice quoted = {0};
	struct slice value = {0};
	const char *name = NULL;

	if (!take_string(walk, &quoted, err) || !take_byte(walk, ':', "':' after a name", err) ||
	    !take_value(walk, &value, err) || !decode_name(walk, quoted, &name, err))
		return false;
	if (strcmp(name, "__metadata__") == 0)
		return add_metadata(walk, value, err);
	return add_entry(walk, name, value, err);
}

static bool walk_header(struct walk *walk, struct mc_error *err)
{
	if (walk->length == 0 || walk->text[0] != '{')
		return unexpected(walk, "'{' as the first byte", err);
	walk->at = 1;
	skip_space(walk);
	if (walk->at < walk->length && walk->text[walk->at] == '}') {
		walk->at++;
	} else {
		do {
			if (!walk_member(walk, err))
				return false;
			skip_space(walk);
		} while (walk->at < walk->length && walk->text[walk->at] == ',' && ++walk->at);
		if (!take_byte(walk, '}', "',' or '}' after a tensor", err))
			return false;
	}
	while (walk->at < walk->length && walk->text[walk->at] == ' ')
		walk->at++;
	if (walk->at < walk->length)
		return unexpected(walk, "nothing but spaces after the closing '}'", err);
	return true;
}

bool mc_st_parse_header(
    struct mc_st_file *file, const char *text, size_t length, struct mc_error *err)
{
	struct walk walk = {.file = file, .text = text, .length = length};

	/* As long as the header, but only the pages that names fill are ever touched. */
	file->names = mc_alloc(length + 1, 1, "the names of tensors", err);
	return file->names && walk_header(&walk, err);
}
