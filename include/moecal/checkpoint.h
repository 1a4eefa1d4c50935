/*
 * checkpoint.h - a folder of safetensors shards seen as one set of named tensors
 *
 * Rules: model.safetensors.index.json if present; else model.safetensors; else every *.safetensors in
 * the folder but consolidated*. File names in the index are plain names. A tensor the index lists and
 * its shard lacks is an error. *.rotary_emb.inv_freq tensors are ignored.
 */
#ifndef MC_CHECKPOINT_H
#define MC_CHECKPOINT_H

#include "moecal/root.h"
#include "moecal/safetensors.h"

struct mc_ckpt_tensor {
	const struct mc_st_entry *entry; /* borrowed from the shard */
	uint32_t shard;
};

struct mc_checkpoint {
	char *path;   /* the folder as the caller named it; owned */
	int folder_fd;
	const struct mc_roots *roots; /* borrowed */
	size_t shards_count;
	struct mc_st_file *shards;    /* owned */
	size_t count;
	struct mc_ckpt_tensor *tensors; /* sorted by name; owned */
	uint64_t bytes;               /* of all tensors */
};

/* Opens all shards and reads their headers. Errors: NOT_FOUND, CORRUPT, INVALID, IO, NO_MEMORY. */
bool mc_checkpoint_open(struct mc_checkpoint *ckpt, const struct mc_roots *roots, const char *folder,
    struct mc_error *err) MC_CHECKED;
void mc_checkpoint_close(struct mc_checkpoint *ckpt);
const struct mc_ckpt_tensor *mc_checkpoint_find(const struct mc_checkpoint *ckpt, const char *name);
/* All or part of a tensor's bytes as stored. */
bool mc_checkpoint_read(const struct mc_checkpoint *ckpt, const struct mc_ckpt_tensor *tensor,
    uint64_t offset, uint64_t bytes, void *into, struct mc_error *err) MC_CHECKED;
/* A small file of the folder (config.json, tokenizer.json ...) into buf. NOT_FOUND when absent. */
bool mc_checkpoint_read_file(const struct mc_checkpoint *ckpt, const char *name, struct mc_buf *buf,
    struct mc_error *err) MC_CHECKED;
/* sha256 over (name, dtype, shape, data) of all tensors in name order and config.json: the model's
 * digest. Reads every byte. */
bool mc_checkpoint_digest(const struct mc_checkpoint *ckpt, char ret_hex[65], struct mc_error *err)
    MC_CHECKED;

#endif
