/*
 * safetensors.h - read one safetensors file, write one
 *
 * Reading parses and checks the whole header (every rejection of the format's reference reader,
 * plus duplicate names, NUL in names, first byte other than '{', rank > 8) before anything is
 * believed.
 * Data is read with pread on demand; nothing is mapped.
 */
#ifndef MC_SAFETENSORS_H
#define MC_SAFETENSORS_H

#include <stdint.h>

#include "moecal/json.h"
#include "moecal/tensor.h"

#define MC_SAFETENSORS_MAX_HEADER 100000000u   /* bytes; the format's own limit */
#define MC_SAFETENSORS_MAX_TENSORS 1000000u    /* of one file; ours */
#define MC_SAFETENSORS_MAX_ENTRY 65536u        /* bytes of JSON for one tensor; ours */
#define MC_SAFETENSORS_MAX_METADATA 8388608u   /* bytes of JSON in __metadata__; ours */

struct mc_st_entry {
	const char *name; /* owned by the file */
	enum mc_dtype dtype;
	unsigned rank;
	uint64_t shape[MC_MAX_RANK];
	uint64_t offset; /* absolute, in the file */
	uint64_t bytes;
};

struct mc_st_file {
	char *name; /* for errors: as the caller gave it; owned */
	int fd;     /* owned */
	size_t count;
	struct mc_st_entry *entries; /* in order of their offsets; owned */
	char *names;                 /* all names, each with its NUL; owned */
	struct mc_json *header;      /* owned; what metadata is borrowed from, NULL when absent */
	const struct mc_json *metadata; /* an object of strings; NULL when absent */
	size_t *by_name;             /* entry indices sorted by name; owned */
	uint64_t size;               /* of the file, at open */
};

/* Takes fd over, also on failure. Errors: CORRUPT naming file and reason, NO_MEMORY, IO. */
bool mc_st_open_fd(struct mc_st_file *file, int fd, const char *name, struct mc_error *err)
    MC_CHECKED;
void mc_st_close(struct mc_st_file *file); /* a zeroed struct is fine */
const struct mc_st_entry *mc_st_find(const struct mc_st_file *file, const char *name);
/* `bytes` at `offset` within the entry's data. Errors: CORRUPT when the file is shorter now, IO. */
bool mc_st_read(const struct mc_st_file *file, const struct mc_st_entry *entry, uint64_t offset,
    uint64_t bytes, void *into, struct mc_error *err) MC_CHECKED;

/* A tensor name fit for an error text: control characters as '?', long names cut. Returns text. */
#define MC_ST_SHOWN 128
const char *mc_st_shown(const char *name, char text[MC_ST_SHOWN]);

/*
 * Writer: declare all tensors, begin (header is written), then give the data of each in exactly the
 * order that mc_st_writer_begin settled (dtype rank descending, then name), in any chunks; finish
 * syncs and renames PATH.partial to PATH. Metadata is {"format": "pt"}.
 */
struct mc_st_writer;
struct mc_st_writer *mc_st_writer_new(const char *path, struct mc_error *err) MC_CHECKED;
/* Errors: INVALID on a duplicate or reserved name, one that is not UTF-8, more than 8 dims, a size
 * past 2^63 or of no whole number of bytes. */
bool mc_st_writer_declare(struct mc_st_writer *writer, const char *name, enum mc_dtype dtype,
    unsigned rank, const uint64_t *shape, struct mc_error *err) MC_CHECKED;
/* Errors: NO_SPACE, IO, UNSUPPORTED when the header would pass its limit. */
bool mc_st_writer_begin(struct mc_st_writer *writer, struct mc_error *err) MC_CHECKED;
/* After begin: tensor number `index` in writing order; NULL past the end. Borrowed. */
const struct mc_st_entry *mc_st_writer_entry(const struct mc_st_writer *writer, size_t index);
/* A chunk may span tensors. Errors: INVALID past the declared bytes, NO_SPACE, IO. */
bool mc_st_writer_data(struct mc_st_writer *writer, const void *bytes, size_t length,
    struct mc_error *err) MC_CHECKED;
/* Errors: INVALID naming the first tensor whose data is not complete, NO_SPACE, IO. */
bool mc_st_writer_finish(struct mc_st_writer *writer, struct mc_error *err) MC_CHECKED;
/* Removes the partial file when not finished. */
void mc_st_writer_free(struct mc_st_writer *writer);

#endif
