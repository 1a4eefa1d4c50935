/*
 * dataset_parts.h - what the readers of single kinds of file share
 */
#ifndef MC_MODEL_DATASET_PARTS_H
#define MC_MODEL_DATASET_PARTS_H

#include "moecal/dataset.h"

enum mc_dataset_kind { MC_DATA_JSONL, MC_DATA_TEXT, MC_DATA_NPY, MC_DATA_SAFETENSORS };

/* Samples as they come out of files, before any are chosen. */
struct mc_samples {
	const struct mc_dataset_options *options;
	struct mc_tokenizer *tokenizer; /* or NULL */
	const char *path;               /* of the file in work, for messages */
	uint64_t left;                  /* samples of this source that may still be taken */
	struct mc_ids ids;              /* of all samples, one after another; owned */
	uint64_t *start;                /* [count + 1]; owned */
	size_t count, capacity;
	uint64_t read, empty;
	bool count_only; /* nothing is kept, only read and empty count */
};

/* A sample of ids or of text. `where` ("file:line") goes into errors. */
bool mc_samples_add_ids(struct mc_samples *samples, const int64_t *ids, size_t count,
    const char *where, struct mc_error *err) MC_CHECKED;
bool mc_samples_add_text(struct mc_samples *samples, const char *text, size_t length,
    const char *where, struct mc_error *err) MC_CHECKED;

/* Whether enough samples are there, so that the rest of the files need not be read. */
bool mc_samples_are_enough(const struct mc_samples *samples);

bool mc_read_jsonl(
    struct mc_samples *samples, int fd, const char *text_column, struct mc_error *err) MC_CHECKED;
bool mc_read_npy(struct mc_samples *samples, int fd, struct mc_error *err) MC_CHECKED;
bool mc_read_id_tensor(
    struct mc_samples *samples, int fd, struct mc_error *err) MC_CHECKED; /* takes fd over */
/* Whether the first line of a JSONL file holds input_ids. */
bool mc_jsonl_holds_ids(int fd, const char *path, bool *ret, struct mc_error *err) MC_CHECKED;

#endif
