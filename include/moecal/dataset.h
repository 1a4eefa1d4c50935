/*
 * dataset.h - calibration sequences from files
 *
 * Kinds: JSONL with "input_ids" (array of integers) or a text column; .txt (one sample: the whole
 * file); .npy of integers, rank 1 or 2 (a row = a sample), little-endian u1 u2 u4 i4 i8 u8, C order;
 * .safetensors with one integer tensor "input_ids" of rank 1 or 2. Kind by magic, then by name.
 * What cannot be read is refused by name and line, never skipped.
 */
#ifndef MC_DATASET_H
#define MC_DATASET_H

#include "moecal/root.h"
#include "moecal/tokenizer.h"

struct mc_dataset_source {
	const char *path;
	const char *text_column; /* NULL: "text" */
	uint64_t num_samples;    /* 0: no limit of its own */
};

struct mc_dataset_options {
	uint64_t num_samples;    /* keep at most so many sequences; 0: all */
	uint64_t max_seq_length; /* cut longer ones; never pad; > 0 */
	bool concatenate;        /* join all samples, cut into full chunks, drop the tail */
	bool shuffle;            /* samples by seed, before joining and choosing; else file order */
	uint64_t seed;
	enum mc_add_special add_special;
	uint64_t vocab_size;     /* ids at or above are INVALID; names file, line/row and id */
};

/* All sequences one after another: sequence s is ids[start[s]] .. ids[start[s + 1] - 1]. */
struct mc_dataset {
	uint32_t *ids;       /* [tokens]; owned */
	uint64_t *start;     /* [sequences + 1]; owned */
	size_t sequences;
	uint64_t tokens;
	uint64_t samples_read; /* all of the files, or as many as num_samples needed (not shuffled) */
	uint64_t empty_samples; /* samples that yielded no token, left out */
};

/* tokenizer may be NULL when every source holds ids. Errors: NOT_FOUND, INVALID ("... has no samples",
 * "no sample yields a token", bad line), UNSUPPORTED (shape, dtype, column type), CORRUPT, NO_MEMORY. */
bool mc_dataset_load(struct mc_dataset *dataset, const struct mc_dataset_source *sources,
    size_t sources_count, const struct mc_dataset_options *options, const struct mc_roots *roots,
    struct mc_tokenizer *tokenizer, struct mc_error *err) MC_CHECKED;
void mc_dataset_release(struct mc_dataset *dataset);
/* true when the file at path holds ids already (so that no tokenizer is needed). */
bool mc_dataset_holds_ids(const char *path, const struct mc_roots *roots, bool *ret_holds,
    struct mc_error *err) MC_CHECKED;
/* What a file of data is, from one pass over all of it; nothing is tokenized. Errors: as loading. */
struct mc_dataset_info {
	const char *kind; /* "jsonl", "txt", "npy", "safetensors"; static */
	uint64_t samples, bytes;
	bool holds_ids; /* no tokenizer is needed */
	char sha256[65];
};
bool mc_dataset_inspect(const char *path, const char *text_column, const struct mc_roots *roots,
    struct mc_dataset_info *ret, struct mc_error *err) MC_CHECKED;
/* sha256 of a source file and its size. */
bool mc_dataset_digest(const char *path, const struct mc_roots *roots, char ret_hex[65],
    uint64_t *ret_bytes, struct mc_error *err) MC_CHECKED;

#endif
