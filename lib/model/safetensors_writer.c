/*
 * safetensors_writer.c - write one safetensors file, durably
 *
 * Tensors are laid out by dtype rank descending, then name: wide types first, and a buffer that
 * begins on a multiple of 8, keep every tensor on its natural alignment.
 */
#include "moecal/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "moecal/alloc.h"
#include "moecal/fault.h"
#include "moecal/file.h"

#define PREFIX_BYTES 8u

struct mc_st_writer {
	char *path;
	char *partial; /* path.partial; where everything goes until finish */
	int fd;
	bool created; /* the partial file is there and ours to remove */
	bool begun;
	bool failed; /* a write did not succeed: what is in the file is unknown */
	size_t count;
	size_t capacity;
	struct mc_st_entry *entries; /* names owned; in writing order once begun */
	size_t *slots;               /* open addressing by name, entry index + 1; 0 = free */
	size_t slots_count;          /* a power of two */
	uint64_t data_begin;
	uint64_t data_bytes; /* declared, of all tensors */
	uint64_t written;    /* of them */
};

struct mc_st_writer *mc_st_writer_new(const char *path, struct mc_error *err)
{
	struct mc_st_writer *writer = mc_alloc(1, sizeof(*writer), "a safetensors writer", err);

	if (!writer)
		return NULL;
	writer->fd = -1;
	writer->path = mc_strdup(path, err);
	if (writer->path)
		writer->partial = mc_format(err, "%s.partial", path);
	if (!writer->partial)
		goto failed;
	/* What an earlier, interrupted run left is removed, not reused: O_EXCL follows no link. */
	if (unlink(writer->partial) != 0 && errno != ENOENT) {
		mc_fail_errno(err, errno, path, "cannot replace '%s'", writer->partial);
		goto failed;
	}
	writer->fd = open(writer->partial, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (writer->fd < 0) {
		mc_fail_errno(err, errno, path, "cannot create '%s'", writer->partial);
		goto failed;
	}
	writer->created = true;
	return writer;
failed:
	mc_st_writer_free(writer);
	return NULL;
}

void mc_st_writer_free(struct mc_st_writer *writer)
{
	if (!writer)
		return;
	if (writer->fd >= 0)
		close(writer->fd);
	if (writer->created)
		unlink(writer->partial);
	for (size_t i = 0; i < writer->count; i++)
		free((char *)writer->entries[i].name);
	free(writer->entries);
	free(writer->slots);
	free(writer->partial);
	free(writer->path);
	free(writer);
}

/* --- declaring ------------------------------------------------------------------------------- */

/* FNV-1a; only says where to look first, never in which order anything is written. */
static uint64_t hash_name(const char *name)
{
	uint64_t hash = 14695981039346656037u;

	for (; *name; name++)
		hash = (hash ^ (unsigned char)*name) * 1099511628211u;
	return hash;
}

/* The slot that holds `name`, or the free one where it belongs. */
static size_t *find_slot(const struct mc_st_writer *writer, const char *name)
{
	size_t mask = writer->slots_count - 1;
	size_t at = hash_name(name) & mask;

	while (writer->slots[at] && strcmp(writer->entries[writer->slots[at] - 1].name, name) != 0)
		at = (at + 1) & mask;
	return &writer->slots[at];
}

/* At most half of the slots are ever taken. */
static bool grow_slots(struct mc_st_writer *writer, struct mc_error *err)
{
	size_t wanted = writer->slots_count ? 2 * writer->slots_count : 64;
	size_t *slots;

	if (2 * (writer->count + 1) <= writer->slots_count)
		return true;
	slots = mc_alloc(wanted, sizeof(*slots), "the names to write", err);
	if (!slots)
		return false;
	free(writer->slots);
	writer->slots = slots;
	writer->slots_count = wanted;
	for (size_t i = 0; i < writer->count; i++)
		*find_slot(writer, writer->entries[i].name) = i + 1;
	return true;
}

/* Bytes of the tensor; at most INT64_MAX, as readers take offsets and dimensions as signed numbers.
 */
static bool count_bytes(
    struct mc_st_entry *entry, const char *where, const char *shown, struct mc_error *err)
{
	uint64_t bits = 1;
	bool fits = true;
	char shape[200];

	for (unsigned i = 0; i < entry->rank; i++)
		fits = fits && entry->shape[i] <= INT64_MAX && mc_mul(bits, entry->shape[i], &bits);
	fits = fits && mc_mul(bits, mc_dtype_bits(entry->dtype), &bits);
	mc_shape_text(entry->rank, entry->shape, shape, sizeof(shape));
	if (!fits)
		return mc_fail(err, MC_INVALID, where, "tensor '%s': shape %s of %s is too large",
		    shown, shape, mc_dtype_name(entry->dtype));
	if (bits % 8 != 0)
		return mc_fail(err, MC_INVALID, where,
		    "tensor '%s': shape %s of %s is %llu bits, not a whole number of bytes", shown,
		    shape, mc_dtype_name(entry->dtype), (unsigned long long)bits);
	entry->bytes = bits / 8;
	return true;
}

/* Names go into JSON, which is UTF-8: the JSON module is asked. */
static bool check_utf8(const char *name, const char *where, const char *shown, struct mc_error *err)
{
	struct mc_json *probe = mc_json_new_object();
	struct mc_error inner;
	bool done;

	if (!probe)
		return mc_fail(err, MC_NO_MEMORY, where, "no memory to check a tensor's name");
	mc_error_init(&inner);
	done = mc_json_set(probe, name, mc_json_new_bool(true), &inner);
	mc_json_free(probe);
	if (!done && inner.code == MC_INVALID)
		return mc_fail(
		    err, MC_INVALID, where, "the tensor name '%s' is not valid UTF-8", shown);
	return done || mc_fail(err, inner.code, where, "%s", inner.text);
}

static bool check_name(
    const struct mc_st_writer *writer, const char *name, const char *shown, struct mc_error *err)
{
	if (strcmp(name, "__metadata__") == 0)
		return mc_fail(err, MC_INVALID, writer->path,
		    "'__metadata__' is reserved and cannot name a tensor");
	if (writer->count > 0 && *find_slot(writer, name))
		return mc_fail(
		    err, MC_INVALID, writer->path, "tensor '%s' is declared twice", shown);
	return check_utf8(name, writer->path, shown, err);
}

bool mc_st_writer_declare(struct mc_st_writer *writer, const char *name, enum mc_dtype dtype,
    unsigned rank, const uint64_t *shape, struct mc_error *err)
{
	struct mc_st_entry entry = {.dtype = dtype, .rank = rank};
	void *entries = writer->entries;
	uint64_t total;
	char shown[MC_ST_SHOWN];
	bool grown;

	mc_assert(!writer->begun);
	mc_st_shown(name, shown);
	if (rank > MC_MAX_RANK)
		return mc_fail(err, MC_INVALID, writer->path,
		    "tensor '%s' has %u dimensions, at most %d can be written", shown, rank,
		    MC_MAX_RANK);
	if (rank > 0)
		memcpy(entry.shape, shape, rank * sizeof(*shape));
	if (!check_name(writer, name, shown, err) || !count_bytes(&entry, writer->path, shown, err))
		return false;
	if (!mc_add(writer->data_bytes, entry.bytes, &total) || total > INT64_MAX)
		return mc_fail(err, MC_INVALID, writer->path,
		    "tensor '%s' makes the file larger than 2^63 bytes", shown);
	grown = mc_grow(&entries, &writer->capacity, writer->count + 1, sizeof(entry),
	    "the tensors to write", err);
	writer->entries = entries;
	if (!grown || !grow_slots(writer, err))
		return false;
	entry.name = mc_strdup(name, err);
	if (!entry.name)
		return false;
	writer->entries[writer->count] = entry;
	*find_slot(writer, name) = ++writer->count;
	writer->data_bytes = total;
	return true;
}

/* --- writing --------------------------------------------------------------------------------- */

static int compare_order(const void *a, const void *b)
{
	const struct mc_st_entry *x = a;
	const struct mc_st_entry *y = b;

	if (x->dtype != y->dtype)
		return x->dtype > y->dtype ? -1 : 1;
	return strcmp(x->name, y->name);
}

static bool add_entry(
    struct mc_buf *text, const struct mc_st_entry *entry, uint64_t begin, struct mc_error *err)
{
	struct mc_json *name = mc_json_new_string(entry->name);
	bool done;

	if (!name)
		return mc_fail(err, MC_NO_MEMORY, "", "no memory for a tensor's name");
	done =
	    mc_buf_add(text, ",", 1, err) && mc_json_write(name, MC_JSON_COMPACT, text, err) &&
	    mc_buf_addf(text, err, ":{\"dtype\":\"%s\",\"shape\":[", mc_dtype_name(entry->dtype));
	mc_json_free(name);
	for (unsigned i = 0; done && i < entry->rank; i++)
		done = mc_buf_addf(
		    text, err, "%s%llu", i > 0 ? "," : "", (unsigned long long)entry->shape[i]);
	return done && mc_buf_addf(text, err, "],\"data_offsets\":[%llu,%llu]}",
			   (unsigned long long)begin, (unsigned long long)(begin + entry->bytes));
}

static bool write_bytes(
    struct mc_st_writer *writer, const void *bytes, size_t length, struct mc_error *err)
{
	if (writer->failed)
		return mc_fail(
		    err, MC_IO, writer->path, "an earlier write to '%s' failed", writer->partial);
	writer->failed = !mc_file_write(writer->fd, bytes, length, writer->path, err);
	return !writer->failed;
}

/* Length, JSON and padding; settles every entry's offset. */
static bool make_header(struct mc_st_writer *writer, struct mc_buf *text, struct mc_error *err)
{
	static const char start[] = "{\"__metadata__\":{\"format\":\"pt\"}";
	unsigned char prefix[PREFIX_BYTES] = {0};
	uint64_t length;
	uint64_t begin = 0;
	size_t rest;

	if (!mc_buf_add(text, prefix, PREFIX_BYTES, err) ||
	    !mc_buf_add(text, start, sizeof(start) - 1, err))
		return false;
	for (size_t i = 0; i < writer->count; i++) {
		writer->entries[i].offset = begin;
		if (!add_entry(text, &writer->entries[i], begin, err))
			return false;
		begin += writer->entries[i].bytes;
	}
	if (!mc_buf_add(text, "}", 1, err))
		return false;
	rest = text->length % 8;
	if (rest > 0 && !mc_buf_add(text, "       ", 8 - rest, err))
		return false;
	length = text->length - PREFIX_BYTES;
	for (unsigned i = 0; i < PREFIX_BYTES; i++)
		text->data[i] = (char)(unsigned char)(length >> (8 * i));
	writer->data_begin = text->length;
	for (size_t i = 0; i < writer->count; i++)
		writer->entries[i].offset += writer->data_begin;
	return true;
}

bool mc_st_writer_begin(struct mc_st_writer *writer, struct mc_error *err)
{
	struct mc_error inner;
	struct mc_buf text;
	bool done;

	mc_assert(!writer->begun);
	writer->begun = true;
	writer->failed = true; /* until the header stands */
	if (writer->count > MC_SAFETENSORS_MAX_TENSORS)
		return mc_fail(err, MC_UNSUPPORTED, writer->path,
		    "%zu tensors for one file, at most %u are read back", writer->count,
		    MC_SAFETENSORS_MAX_TENSORS);
	if (writer->count > 0)
		qsort(writer->entries, writer->count, sizeof(*writer->entries), compare_order);
	mc_error_init(&inner);
	mc_buf_init(&text, PREFIX_BYTES + MC_SAFETENSORS_MAX_HEADER);
	if (!make_header(writer, &text, &inner)) {
		mc_buf_release(&text);
		if (inner.code == MC_INVALID)
			return mc_fail(err, MC_UNSUPPORTED, writer->path,
			    "the header of %zu tensors would be longer than the %u bytes that the "
			    "format allows",
			    writer->count, MC_SAFETENSORS_MAX_HEADER);
		return mc_fail(err, inner.code, writer->path, "%s", inner.text);
	}
	writer->failed = false;
	done = write_bytes(writer, text.data, text.length, err);
	mc_buf_release(&text);
	return done;
}

const struct mc_st_entry *mc_st_writer_entry(const struct mc_st_writer *writer, size_t index)
{
	mc_assert(writer->begun);
	return index < writer->count ? &writer->entries[index] : NULL;
}

/* The first tensor that has not all of its bytes yet, or NULL. */
static const struct mc_st_entry *find_unfinished(const struct mc_st_writer *writer)
{
	uint64_t at = writer->data_begin + writer->written;
	size_t low = 0;
	size_t high = writer->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (writer->entries[middle].offset + writer->entries[middle].bytes > at)
			high = middle;
		else
			low = middle + 1;
	}
	return low < writer->count ? &writer->entries[low] : NULL;
}

bool mc_st_writer_data(
    struct mc_st_writer *writer, const void *bytes, size_t length, struct mc_error *err)
{
	uint64_t left = writer->data_bytes - writer->written;

	mc_assert(writer->begun && writer->fd >= 0);
	if (length > left)
		return mc_fail(err, MC_INVALID, writer->path,
		    "%zu bytes of data were given where %llu of the declared %llu were left",
		    length, (unsigned long long)left, (unsigned long long)writer->data_bytes);
	if (!write_bytes(writer, bytes, length, err))
		return false;
	writer->written += length;
	return true;
}

static bool sync_file(const struct mc_st_writer *writer, struct mc_error *err)
{
	if (mc_fault_here("sync"))
		errno = EIO;
	else if (fsync(writer->fd) == 0)
		return true;
	return mc_fail_errno(err, errno, writer->path, "cannot sync '%s'", writer->partial);
}

bool mc_st_writer_finish(struct mc_st_writer *writer, struct mc_error *err)
{
	const struct mc_st_entry *unfinished = find_unfinished(writer);
	char shown[MC_ST_SHOWN];
	int closed;

	mc_assert(writer->begun && writer->fd >= 0);
	if (writer->failed)
		return mc_fail(
		    err, MC_IO, writer->path, "an earlier write to '%s' failed", writer->partial);
	if (unfinished)
		return mc_fail(err, MC_INVALID, writer->path,
		    "tensor '%s' is not complete: %llu of the declared %llu bytes of data were "
		    "given",
		    mc_st_shown(unfinished->name, shown), (unsigned long long)writer->written,
		    (unsigned long long)writer->data_bytes);
	if (!sync_file(writer, err))
		return false;
	closed = close(writer->fd);
	writer->fd = -1;
	if (closed != 0)
		return mc_fail_errno(
		    err, errno, writer->path, "cannot close '%s'", writer->partial);
	if (!mc_file_rename_durable(writer->partial, writer->path, err))
		return false;
	writer->created = false;
	return true;
}
