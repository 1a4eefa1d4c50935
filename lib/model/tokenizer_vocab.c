/*
 * tokenizer_vocab.c - texts to ids, by hash
 */
#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"
#include "tokenizer_parts.h"

struct mc_tok_vocab_slot {
	uint32_t hash; /* upper half; only to skip most comparisons */
	uint32_t id;
	uint32_t offset; /* in names */
	uint32_t length; /* + 1; 0: an empty slot */
};

uint64_t mc_tok_hash(const char *bytes, size_t length)
{
	uint64_t hash = length * UINT64_C(0x9E3779B97F4A7C15), word;

	for (; length >= 8; bytes += 8, length -= 8) {
		memcpy(&word, bytes, 8);
		hash = (hash ^ word) * UINT64_C(0xD6E8FEB86659FD93);
		hash ^= hash >> 32;
	}
	word = 0;
	for (size_t i = 0; i < length; i++)
		word |= (uint64_t)(unsigned char)bytes[i] << 8 * i;
	hash = (hash ^ word) * UINT64_C(0xD6E8FEB86659FD93);
	hash ^= hash >> 32;
	hash *= UINT64_C(0xD6E8FEB86659FD93);
	return hash ^ hash >> 32;
}

/* The slot that holds the name, or the empty one where it belongs. */
static struct mc_tok_vocab_slot *slot_of(
    const struct mc_tok_vocab *vocab, const char *name, size_t length)
{
	uint64_t hash = mc_tok_hash(name, length);
	size_t mask = vocab->slots_count - 1;

	for (size_t i = hash & mask;; i = (i + 1) & mask) {
		struct mc_tok_vocab_slot *slot = &vocab->slots[i];

		if (slot->length == 0 ||
		    (slot->hash == hash >> 32 && slot->length == length + 1 &&
			memcmp(vocab->names.bytes + slot->offset, name, length) == 0))
			return slot;
	}
}

static bool enlarge(struct mc_tok_vocab *vocab, struct mc_error *err)
{
	struct mc_tok_vocab bigger = *vocab;

	bigger.slots_count = vocab->slots_count ? vocab->slots_count * 2 : 256;
	bigger.slots = mc_alloc(bigger.slots_count, sizeof(*bigger.slots), "a vocabulary", err);
	if (!bigger.slots)
		return false;
	for (size_t i = 0; i < vocab->slots_count; i++) {
		const struct mc_tok_vocab_slot *slot = &vocab->slots[i];

		if (slot->length > 0)
			*slot_of(
			    &bigger, vocab->names.bytes + slot->offset, slot->length - 1) = *slot;
	}
	free(vocab->slots);
	*vocab = bigger;
	return true;
}

bool mc_tok_vocab_add(
    struct mc_tok_vocab *vocab, const char *name, size_t length, uint32_t id, struct mc_error *err)
{
	struct mc_tok_vocab_slot *slot;

	if (vocab->count >= vocab->slots_count / 2 && !enlarge(vocab, err))
		return false;
	slot = slot_of(vocab, name, length);
	if (slot->length == 0) {
		size_t offset = vocab->names.length;

		if (!mc_tok_add(&vocab->names, name, length, err))
			return false;
		*slot = (struct mc_tok_vocab_slot){
		    .hash = (uint32_t)(mc_tok_hash(name, length) >> 32),
		    .offset = (uint32_t)offset,
		    .length = (uint32_t)length + 1};
		vocab->count++;
	}
	slot->id = id;
	if (id > vocab->largest_id)
		vocab->largest_id = id;
	return true;
}

bool mc_tok_vocab_find(
    const struct mc_tok_vocab *vocab, const char *name, size_t length, uint32_t *ret_id)
{
	const struct mc_tok_vocab_slot *slot;

	if (vocab->slots_count == 0)
		return false;
	slot = slot_of(vocab, name, length);
	if (slot->length == 0)
		return false;
	*ret_id = slot->id;
	return true;
}

void mc_tok_vocab_release(struct mc_tok_vocab *vocab)
{
	mc_tok_text_release(&vocab->names);
	free(vocab->slots);
	*vocab = (struct mc_tok_vocab){0};
}
