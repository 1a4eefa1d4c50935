/*
 * digest.c - what a model is, as one sha256
 *
 * Over the tensors in name order and config.json, so that how the tensors are spread over shards,
 * and the order inside them, does not matter. Every piece is preceded by its length: no two
 * different checkpoints feed the same bytes.
 */
#include "moecal/checkpoint.h"

#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"
#include "moecal/sha256.h"

#define CHUNK_BYTES ((size_t)4 << 20)
#define CONFIG_MAX_BYTES ((size_t)16 << 20)

static bool add_number(struct mc_sha256 *digest, uint64_t number, struct mc_error *err)
{
	unsigned char bytes[8];

	for (unsigned i = 0; i < 8; i++)
		bytes[i] = (unsigned char)(number >> (8 * i));
	return mc_sha256_add(digest, bytes, sizeof(bytes), err);
}

static bool add_text(
    struct mc_sha256 *digest, const char *text, size_t length, struct mc_error *err)
{
	return add_number(digest, length, err) && mc_sha256_add(digest, text, length, err);
}

static bool add_tensor(struct mc_sha256 *digest, const struct mc_checkpoint *ckpt,
    const struct mc_ckpt_tensor *tensor, unsigned char *chunk, struct mc_error *err)
{
	const struct mc_st_entry *entry = tensor->entry;
	const char *dtype = mc_dtype_name(entry->dtype);

	if (!add_text(digest, entry->name, strlen(entry->name), err) ||
	    !add_text(digest, dtype, strlen(dtype), err) || !add_number(digest, entry->rank, err))
		return false;
	for (unsigned i = 0; i < entry->rank; i++) {
		if (!add_number(digest, entry->shape[i], err))
			return false;
	}
	if (!add_number(digest, entry->bytes, err))
		return false;
	for (uint64_t at = 0; at < entry->bytes;) {
		uint64_t left = entry->bytes - at;
		size_t length = left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;

		if (!mc_checkpoint_read(ckpt, tensor, at, length, chunk, err) ||
		    !mc_sha256_add(digest, chunk, length, err))
			return false;
		at += length;
	}
	return true;
}

/* A folder without config.json has a digest too, and not that of an empty one. */
static bool add_config(
    struct mc_sha256 *digest, const struct mc_checkpoint *ckpt, struct mc_error *err)
{
	struct mc_error inner;
	struct mc_buf text;
	bool done;

	mc_error_init(&inner);
	mc_buf_init(&text, CONFIG_MAX_BYTES);
	if (mc_checkpoint_read_file(ckpt, "config.json", &text, &inner))
		done = add_number(digest, 1, err) &&
		       add_text(digest, mc_buf_text(&text), text.length, err);
	else if (inner.code == MC_NOT_FOUND)
		done = add_number(digest, 0, err);
	else
		done = mc_fail(err, inner.code, inner.where, "%s", inner.text);
	mc_buf_release(&text);
	return done;
}

bool mc_checkpoint_digest(const struct mc_checkpoint *ckpt, char ret_hex[65], struct mc_error *err)
{
	struct mc_sha256 *digest = mc_sha256_new(err);
	unsigned char *chunk = digest ? mc_alloc(CHUNK_BYTES, 1, "a chunk to digest", err) : NULL;
	bool done = chunk && add_number(digest, ckpt->count, err);

	for (size_t i = 0; done && i < ckpt->count; i++)
		done = add_tensor(digest, ckpt, &ckpt->tensors[i], chunk, err);
	done = done && add_config(digest, ckpt, err) && mc_sha256_hex(digest, ret_hex, err);
	free(chunk);
	mc_sha256_free(digest);
	return done;
}
