/*
 * safetensors.c - open, check and read one safetensors file
 *
 * What the header says of single tensors is checked in safetensors_header.c; here, that they fill
 * the file without hole, overlap or rest.
 */
#include "moecal/safetensors.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "moecal/alloc.h"
#include "moecal/file.h"
#include "safetensors_header.h"

#define PREFIX_BYTES 8u /* the header's length, little-endian */

static int compare_offsets(const void *a, const void *b)
{
	const struct mc_st_entry *x = a;
	const struct mc_st_entry *y = b;

	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	if (x->bytes != y->bytes)
		return x->bytes < y->bytes ? -1 : 1;
	return strcmp(x->name, y->name);
}

static int compare_names(const void *a, const void *b, void *ctx)
{
	const struct mc_st_entry *entries = ctx;

	return strcmp(entries[*(const size_t *)a].name, entries[*(const size_t *)b].name);
}

static bool sort_entries(struct mc_st_file *file, struct mc_error *err)
{
	char shown[MC_ST_SHOWN];

	if (file->count == 0)
		return true;
	file->by_name = mc_alloc(file->count, sizeof(*file->by_name), "the order of names", err);
	if (!file->by_name)
		return false;
	qsort(file->entries, file->count, sizeof(*file->entries), compare_offsets);
	for (size_t i = 0; i < file->count; i++)
		file->by_name[i] = i;
	qsort_r(file->by_name, file->count, sizeof(*file->by_name), compare_names, file->entries);
	for (size_t i = 1; i < file->count; i++) {
		const char *name = file->entries[file->by_name[i]].name;

		if (strcmp(file->entries[file->by_name[i - 1]].name, name) == 0)
			return mc_fail(err, MC_CORRUPT, file->name,
			    "tensor '%s' is in the header twice", mc_st_shown(name, shown));
	}
	return true;
}

/* No holes, no overlap, and the file ends where the last tensor does. Makes offsets absolute. */
static bool check_layout(struct mc_st_file *file, uint64_t data_begin, struct mc_error *err)
{
	uint64_t data_bytes = file->size - data_begin;
	uint64_t expected = 0;
	char shown[MC_ST_SHOWN];
	char before[MC_ST_SHOWN];

	for (size_t i = 0; i < file->count; i++) {
		struct mc_st_entry *entry = &file->entries[i];

		mc_st_shown(entry->name, shown);
		if (entry->offset < expected)
			return mc_fail(err, MC_CORRUPT, file->name,
			    "tensors '%s' and '%s' overlap: data byte %llu belongs to both",
			    mc_st_shown(file->entries[i - 1].name, before), shown,
			    (unsigned long long)entry->offset);
		if (entry->offset > expected)
			return mc_fail(err, MC_CORRUPT, file->name,
			    "tensor '%s' begins at data byte %llu, needed %llu: the bytes between "
			    "belong to no tensor",
			    shown, (unsigned long long)entry->offset, (unsigned long long)expected);
		expected +=
		    entry->bytes; /* both came from numbers below 2^63: begin + bytes = end */
		if (expected > data_bytes)
			return mc_fail(err, MC_CORRUPT, file->name,
			    "the file is truncated: tensor '%s' ends at data byte %llu, there are "
			    "%llu",
			    shown, (unsigned long long)expected, (unsigned long long)data_bytes);
		entry->offset += data_begin;
	}
	if (expected < data_bytes)
		return mc_fail(err, MC_CORRUPT, file->name,
		    "%llu bytes follow the data of the last tensor, needed none",
		    (unsigned long long)(data_bytes - expected));
	return true;
}

static bool read_length(const struct mc_st_file *file, uint64_t *ret_length, struct mc_error *err)
{
	unsigned char prefix[PREFIX_BYTES];
	uint64_t length = 0;

	if (file->size < PREFIX_BYTES)
		return mc_fail(err, MC_CORRUPT, file->name,
		    "the file has %llu bytes, too few for the header's length (8)",
		    (unsigned long long)file->size);
	if (!mc_file_read_at(file->fd, prefix, PREFIX_BYTES, 0, file->name, err))
		return false;
	for (unsigned i = 0; i < PREFIX_BYTES; i++)
		length |= (uint64_t)prefix[i] << (8 * i);
	if (length > MC_SAFETENSORS_MAX_HEADER)
		return mc_fail(err, MC_CORRUPT, file->name,
		    "the header is too large: %llu bytes, at most %u are allowed",
		    (unsigned long long)length, MC_SAFETENSORS_MAX_HEADER);
	if (length > file->size - PREFIX_BYTES)
		return mc_fail(err, MC_CORRUPT, file->name,
		    "the header should have %llu bytes, the file has %llu after the length",
		    (unsigned long long)length, (unsigned long long)(file->size - PREFIX_BYTES));
	*ret_length = length;
	return true;
}

static bool read_file(struct mc_st_file *file, struct mc_error *err)
{
	uint64_t length = 0;
	char *text;
	bool done;

	if (!mc_file_size(file->fd, file->name, &file->size, err) ||
	    !read_length(file, &length, err))
		return false;
	text = mc_alloc(length + 1, 1, "a safetensors header", err);
	if (!text)
		return false;
	done = mc_file_read_at(file->fd, text, length, PREFIX_BYTES, file->name, err) &&
	       mc_st_parse_header(file, text, length, err) && sort_entries(file, err) &&
	       check_layout(file, PREFIX_BYTES + length, err);
	free(text);
	return done;
}

bool mc_st_open_fd(struct mc_st_file *file, int fd, const char *name, struct mc_error *err)
{
	memset(file, 0, sizeof(*file));
	file->name = mc_strdup(name, err);
	if (!file->name) {
		close(fd);
		return false;
	}
	file->fd = fd;
	if (!read_file(file, err)) {
		mc_st_close(file);
		return false;
	}
	return true;
}

void mc_st_close(struct mc_st_file *file)
{
	if (!file->name)
		return; /* zeroed: fd 0 is not ours */
	close(file->fd);
	mc_json_free(file->header);
	free(file->by_name);
	free(file->entries);
	free(file->names);
	free(file->name);
	memset(file, 0, sizeof(*file));
}

const struct mc_st_entry *mc_st_find(const struct mc_st_file *file, const char *name)
{
	size_t low = 0;
	size_t high = file->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct mc_st_entry *entry = &file->entries[file->by_name[middle]];
		int order = strcmp(name, entry->name);

		if (order == 0)
			return entry;
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}

bool mc_st_read(const struct mc_st_file *file, const struct mc_st_entry *entry, uint64_t offset,
    uint64_t bytes, void *into, struct mc_error *err)
{
	mc_assert(offset <= entry->bytes && bytes <= entry->bytes - offset);
	return mc_file_read_at(file->fd, into, bytes, entry->offset + offset, file->name, err);
}
