/*
 * parameters.c - tensors of a safetensors file as JSON
 */
#include "moecal/parameters.h"

#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"
#include "moecal/root.h"
#include "moecal/safetensors.h"

#define MAX_TENSOR_BYTES ((uint64_t)1 << 30)

static struct mc_json *element(enum mc_dtype dtype, const unsigned char *p)
{
	float wide;
	int8_t i8;
	int32_t i32;
	int64_t i64;

	switch ((int)dtype) {
	case MC_U8:
		return mc_json_new_integer(*p);
	case MC_I8:
		memcpy(&i8, p, 1);
		return mc_json_new_integer(i8);
	case MC_I32:
		memcpy(&i32, p, 4);
		return mc_json_new_integer(i32);
	case MC_I64:
		memcpy(&i64, p, 8);
		return mc_json_new_integer(i64);
	default:
		mc_widen(dtype, p, &wide, 1);
		return mc_json_new_real((double)wide);
	}
}

static bool can_show(enum mc_dtype dtype)
{
	return mc_dtype_is_weight(dtype) || dtype == MC_F8_E4M3 || dtype == MC_U8 ||
	       dtype == MC_I8 || dtype == MC_I32 || dtype == MC_I64;
}

static bool add_data(struct mc_json *list, const struct mc_st_file *file,
    const struct mc_st_entry *entry, struct mc_error *err)
{
	size_t size = mc_dtype_bits(entry->dtype) / 8;

	if (!can_show(entry->dtype) || entry->bytes > MAX_TENSOR_BYTES)
		return mc_fail(err, MC_UNSUPPORTED, entry->name, "%s values cannot be shown",
		    mc_dtype_name(entry->dtype));
	unsigned char *data = mc_alloc(entry->bytes, 1, "tensor", err);
	bool ok = data != NULL && mc_st_read(file, entry, 0, entry->bytes, data, err);
	for (uint64_t i = 0; ok && i < entry->bytes; i += size)
		ok = mc_json_append(list, element(entry->dtype, data + i), err);
	free(data);
	return ok;
}

static bool add_tensor(struct mc_json *list, const struct mc_st_file *file,
    const struct mc_st_entry *entry, struct mc_error *err)
{
	struct mc_json *one = mc_json_new_object(), *shape = mc_json_new_array(),
		       *data = mc_json_new_array();
	bool ok = mc_json_append(list, one, err) &&
		  mc_json_set(one, "name", mc_json_new_string(entry->name), err) &&
		  mc_json_set(one, "dtype", mc_json_new_string(mc_dtype_name(entry->dtype)), err);
	if (!ok) {
		mc_json_free(shape);
		mc_json_free(data);
		return false;
	}
	ok = mc_json_set(one, "shape", shape, err);
	for (unsigned d = 0; ok && d < entry->rank; d++)
		ok = mc_json_append(shape, mc_json_new_integer((int64_t)entry->shape[d]), err);
	if (!ok) {
		mc_json_free(data);
		return false;
	}
	return mc_json_set(one, "data", data, err) && add_data(data, file, entry, err);
}

static bool fill(struct mc_json *root, const struct mc_st_file *file, const char *prefix,
    const char *cursor, size_t limit, uint64_t elements, struct mc_error *err)
{
	struct mc_json *list = mc_json_new_array();
	const char *last = NULL;
	uint64_t shown = 0;
	size_t count = 0;

	if (!mc_json_set(root, "parameters", list, err))
		return false;
	for (size_t i = 0; i < file->count; i++) {
		const struct mc_st_entry *entry = &file->entries[file->by_name[i]];
		if (strncmp(entry->name, prefix, strlen(prefix)) != 0 ||
		    (cursor != NULL && strcmp(entry->name, cursor) <= 0))
			continue;
		uint64_t here = entry->bytes * 8 / mc_dtype_bits(entry->dtype);
		if ((limit > 0 && count == limit) ||
		    (elements > 0 && count > 0 && shown + here > elements))
			return mc_json_set(root, "next_cursor", mc_json_new_string(last), err);
		if (!add_tensor(list, file, entry, err))
			return false;
		last = entry->name;
		shown += here;
		count++;
	}
	return mc_json_set(root, "next_cursor", mc_json_new_null(), err);
}

struct mc_json *mc_parameters_json(const char *path, const char *prefix, const char *cursor,
    size_t limit, uint64_t elements, struct mc_error *err)
{
	struct mc_st_file file = {0};
	struct mc_json *root = mc_json_new_object();
	int fd;

	bool ok = mc_root_open(NULL, path, &fd, err) && mc_st_open_fd(&file, fd, path, err);
	if (ok) {
		ok = fill(root, &file, prefix, cursor, limit, elements, err);
		mc_st_close(&file);
	}
	if (ok)
		return root;
	mc_json_free(root);
	return NULL;
}
