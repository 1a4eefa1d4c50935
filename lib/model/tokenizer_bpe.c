/*
 * tokenizer_bpe.c - the model: a word becomes characters, and pairs are merged by rank
 *
 * A heap keeps the order of merges, as a word may be a whole text (files without pre-tokenizer).
 * Short words are remembered: most words of a text have come before.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"
#include "tokenizer_parts.h"

#define NONE UINT32_MAX
#define DIRECT 1024u        /* code points whose ids are looked up without a hash */
#define MARK "\xE2\x96\x81" /* U+2581, which stands for a space */
#define MARK_BYTES 3u
#define CACHED_WORD 256u       /* bytes; longer words are not remembered */
#define CACHE_SLOTS (1u << 16) /* a power of two */
#define CACHE_BYTES (8u << 20) /* of words, and as many ids; then it starts anew */

struct merge {         /* of the pair (left, right) */
	uint64_t pair; /* left << 32 | right; UINT64_MAX: an empty slot */
	uint32_t rank;
	uint32_t id; /* what it becomes */
};

struct symbol {
	uint32_t id;
	uint32_t before, after; /* neighbours or NONE */
	bool gone;
};

struct candidate {
	uint32_t rank, position; /* the order, in this order */
	uint32_t id;
};

struct remembered {
	uint64_t hash;
	uint32_t word, length; /* length 0: an empty slot */
	uint32_t first, count; /* of its ids */
};

struct mc_tok_bpe {
	struct mc_tok_vocab vocab;
	struct merge *merges; /* owned; merges_count is a power of two */
	size_t merges_count;
	bool ignore_merges, fuse_unk, byte_fallback;
	struct mc_tok_text unk_token; /* length 0: none */
	uint32_t unk_id;              /* NONE: not in the vocabulary */
	uint32_t direct[DIRECT];      /* ids of one-character tokens, or NONE */
	uint32_t byte_ids[256];       /* of "<0x00>" to "<0xFF>", or NONE */
	bool merges_over_mark;        /* some merge joins a text and a mark that follows it */
	bool cuts_at_marks;           /* long words may be cut in front of marks */

	struct symbol *symbols; /* scratch of one word */
	size_t symbols_count, symbols_capacity;
	struct candidate *heap;
	size_t heap_count, heap_capacity;

	struct remembered *cache; /* [CACHE_SLOTS] */
	size_t cache_count;
	struct mc_tok_text cache_words;
	struct mc_ids cache_ids;
};

/* --- reading ---------------------------------------------------------------------------------- */

static bool read_vocab(struct mc_tok_bpe *bpe, const struct mc_tok_node *node, struct mc_error *err)
{
	const struct mc_json *vocab = mc_json_get(node->json, "vocab");
	struct mc_json_iter member = mc_json_iter(vocab);
	uint32_t id;

	if (mc_json_type(vocab) != MC_JSON_OBJECT || mc_json_size(vocab) == 0)
		return mc_fail(err, MC_CORRUPT, "tokenizer.json /model/vocab",
		    "the vocabulary is not an object with at least one token");
	while (mc_json_next(&member)) {
		if (!mc_tok_id(member.value, "tokenizer.json /model/vocab", member.key, &id, err) ||
		    !mc_tok_vocab_add(&bpe->vocab, member.key, strlen(member.key), id, err))
			return false;
	}
	return true;
}

static void find_short_tokens(struct mc_tok_bpe *bpe)
{
	char text[8];

	for (uint32_t code = 0; code < DIRECT; code++) {
		if (!mc_tok_vocab_find(
			&bpe->vocab, text, mc_utf8_encode(code, text), &bpe->direct[code]))
			bpe->direct[code] = NONE;
	}
	for (unsigned byte = 0; byte < 256; byte++) {
		snprintf(text, sizeof(text), "<0x%02X>", byte);
		if (!mc_tok_vocab_find(&bpe->vocab, text, 6, &bpe->byte_ids[byte]))
			bpe->byte_ids[byte] = NONE;
	}
	if (bpe->unk_token.length == 0 || !mc_tok_vocab_find(&bpe->vocab, bpe->unk_token.bytes,
					      bpe->unk_token.length, &bpe->unk_id))
		bpe->unk_id = NONE;
}

static struct merge *merge_slot(const struct mc_tok_bpe *bpe, uint32_t left, uint32_t right)
{
	uint64_t pair = (uint64_t)left << 32 | right;
	uint64_t hash = pair * UINT64_C(0x9E3779B97F4A7C15);
	size_t mask = bpe->merges_count - 1;

	hash ^= hash >> 29;
	hash *= UINT64_C(0xD6E8FEB86659FD93);
	for (size_t i = (hash >> 32) & mask;; i = (i + 1) & mask) {
		if (bpe->merges[i].pair == pair || bpe->merges[i].pair == UINT64_MAX)
			return &bpe->merges[i];
	}
}

static const struct merge *find_merge(const struct mc_tok_bpe *bpe, uint32_t left, uint32_t right)
{
	const struct merge *merge = merge_slot(bpe, left, right);

	return merge->pair == UINT64_MAX ? NULL : merge;
}

static bool begins_with_mark(const char *text, size_t length)
{
	return length >= MARK_BYTES && memcmp(text, MARK, MARK_BYTES) == 0;
}

static bool ends_with_mark(const char *text, size_t length)
{
	return length >= MARK_BYTES && begins_with_mark(text + length - MARK_BYTES, MARK_BYTES);
}

struct merge_text {
	const char *left, *right;
	size_t left_length, right_length;
};

/* "a b" or ["a", "b"]. *ret_comment: a line of an old merges file that is no merge. */
static bool read_merge_text(const struct mc_json *value, size_t rank, struct merge_text *ret,
    bool *ret_comment, struct mc_error *err)
{
	const struct mc_json *left = mc_json_at(value, 0), *right = mc_json_at(value, 1);
	const char *text, *space;
	size_t length;

	*ret_comment = false;
	if (mc_json_type(value) == MC_JSON_STRING) {
		text = mc_json_string(value, &length);
		*ret_comment = length >= 8 && memcmp(text, "#version", 8) == 0;
		space = memchr(text, ' ', length);
		if (*ret_comment)
			return true;
		if (space && !memchr(space + 1, ' ', (size_t)(text + length - space - 1))) {
			*ret = (struct merge_text){.left = text,
			    .left_length = (size_t)(space - text),
			    .right = space + 1,
			    .right_length = (size_t)(text + length - space - 1)};
			return true;
		}
	} else if (mc_json_size(value) == 2 && mc_json_type(left) == MC_JSON_STRING &&
		   mc_json_type(right) == MC_JSON_STRING) {
		ret->left = mc_json_string(left, &ret->left_length);
		ret->right = mc_json_string(right, &ret->right_length);
		return true;
	}
	return mc_fail(err, MC_CORRUPT, "tokenizer.json /model/merges",
	    "merge number %zu is neither \"a b\" nor [\"a\", \"b\"]", rank + 1);
}

static bool missing(size_t rank, const char *text, size_t length, struct mc_error *err)
{
	return mc_fail(err, MC_CORRUPT, "tokenizer.json /model/merges",
	    "merge number %zu needs the token \"%.*s\", which the vocabulary does not have",
	    rank + 1, (int)(length < 64 ? length : 64), text);
}

static bool add_merge(struct mc_tok_bpe *bpe, const struct merge_text *text, size_t rank,
    struct mc_tok_text *whole, struct mc_error *err)
{
	uint32_t left, right, id;
	struct merge *slot;

	whole->length = 0;
	if (!mc_tok_add(whole, text->left, text->left_length, err) ||
	    !mc_tok_add(whole, text->right, text->right_length, err))
		return false;
	if (!mc_tok_vocab_find(&bpe->vocab, text->left, text->left_length, &left))
		return missing(rank, text->left, text->left_length, err);
	if (!mc_tok_vocab_find(&bpe->vocab, text->right, text->right_length, &right))
		return missing(rank, text->right, text->right_length, err);
	if (!mc_tok_vocab_find(&bpe->vocab, whole->bytes, whole->length, &id))
		return missing(rank, whole->bytes, whole->length, err);
	if (begins_with_mark(text->right, text->right_length) &&
	    !ends_with_mark(text->left, text->left_length))
		bpe->merges_over_mark = true;
	slot = merge_slot(bpe, left, right);
	/* Of two merges of one pair the later counts. */
	*slot = (struct merge){
	    .pair = (uint64_t)left << 32 | right, .rank = (uint32_t)rank, .id = id};
	return true;
}

static bool read_merges(
    struct mc_tok_bpe *bpe, const struct mc_tok_node *node, struct mc_error *err)
{
	const struct mc_json *merges = mc_tok_array(node, "merges", err);
	struct mc_tok_text whole = {0};
	struct merge_text text = {0};
	size_t rank = 0, count = mc_json_size(merges);
	bool ok = merges != NULL, comment;

	if (!ok)
		return false;
	if (count > INT32_MAX)
		return mc_fail(err, MC_UNSUPPORTED, node->where, "%zu merges are too many", count);
	for (bpe->merges_count = 64; bpe->merges_count < 2 * count;)
		bpe->merges_count *= 2;
	bpe->merges = mc_alloc(bpe->merges_count, sizeof(*bpe->merges), "merges", err);
	if (!bpe->merges)
		return false;
	for (size_t i = 0; i < bpe->merges_count; i++)
		bpe->merges[i].pair = UINT64_MAX;
	for (size_t i = 0; i < count && ok; i++) {
		ok = read_merge_text(mc_json_at(merges, i), rank, &text, &comment, err);
		if (ok && !comment)
			ok = add_merge(bpe, &text, rank++, &whole, err);
	}
	mc_tok_text_release(&whole);
	return ok;
}

/* Null or "" is off; anything else is nothing we do. */
static bool require_off(const struct mc_tok_node *node, const char *key, struct mc_error *err)
{
	const struct mc_json *value = mc_json_get(node->json, key);
	enum mc_json_type type = mc_json_type(value);
	size_t length = 1;

	if (type == MC_JSON_STRING)
		(void)mc_json_string(value, &length);
	if (mc_json_is_null(value) || length == 0 ||
	    ((type == MC_JSON_INTEGER || type == MC_JSON_REAL) && mc_json_number(value) == 0))
		return true;
	return mc_fail(err, MC_UNSUPPORTED, node->where,
	    "model BPE with a %s is not supported, needed null", key);
}

static bool read_model(struct mc_tok_bpe *bpe, const struct mc_tok_node *node, struct mc_error *err)
{
	static const char *const known[] = {"dropout", "unk_token", "continuing_subword_prefix",
	    "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges",
	    NULL};
	const char *unk;
	size_t length;
	uint32_t id;

	if (strcmp(node->type, "BPE") != 0)
		return mc_tok_unsupported_type(node, err);
	if (!mc_tok_known_fields(node, known, err) || !require_off(node, "dropout", err) ||
	    !require_off(node, "continuing_subword_prefix", err) ||
	    !require_off(node, "end_of_word_suffix", err) ||
	    !mc_tok_bool(node, "fuse_unk", MC_TOK_FALSE, &bpe->fuse_unk, err) ||
	    !mc_tok_bool(node, "byte_fallback", MC_TOK_FALSE, &bpe->byte_fallback, err) ||
	    !mc_tok_bool(node, "ignore_merges", MC_TOK_FALSE, &bpe->ignore_merges, err))
		return false;
	if (!mc_json_is_null(mc_json_get(node->json, "unk_token")) &&
	    (!mc_tok_string(node, "unk_token", &unk, &length, err) ||
		!mc_tok_add(&bpe->unk_token, unk, length, err)))
		return false;
	if (!read_vocab(bpe, node, err) || !read_merges(bpe, node, err))
		return false;
	find_short_tokens(bpe);
	/* Where a mark follows something else nothing merges over it, unless a merge says so or a
	 * character in between may vanish. ignore_merges asks for the word as a whole. */
	bpe->cuts_at_marks = !bpe->merges_over_mark && !bpe->ignore_merges && bpe->unk_id != NONE &&
			     mc_tok_vocab_find(&bpe->vocab, MARK, MARK_BYTES, &id);
	return true;
}

struct mc_tok_bpe *mc_tok_bpe_new(const struct mc_json *json, struct mc_error *err)
{
	static const char where[] = "tokenizer.json /model";
	struct mc_tok_bpe *bpe = mc_alloc(1, sizeof(*bpe), "a tokenizer", err);
	struct mc_tok_node node = {.json = json, .role = "model", .type = "BPE"};
	/* Old files do not say the type; only this model has merges. */
	bool untyped = mc_json_get(json, "merges") && !mc_json_get(json, "type");

	if (!bpe)
		return NULL;
	memcpy(node.where, where, sizeof(where));
	bpe->cache = mc_alloc(CACHE_SLOTS, sizeof(*bpe->cache), "a cache of words", err);
	if (!bpe->cache || (!untyped && !mc_tok_node_read(&node, json, "model", where, err)) ||
	    !read_model(bpe, &node, err)) {
		mc_tok_bpe_free(bpe);
		return NULL;
	}
	return bpe;
}

void mc_tok_bpe_free(struct mc_tok_bpe *bpe)
{
	if (!bpe)
		return;
	mc_tok_vocab_release(&bpe->vocab);
	mc_tok_text_release(&bpe->unk_token);
	mc_tok_text_release(&bpe->cache_words);
	mc_ids_release(&bpe->cache_ids);
	free(bpe->merges);
	free(bpe->symbols);
	free(bpe->heap);
	free(bpe->cache);
	free(bpe);
}

const struct mc_tok_vocab *mc_tok_bpe_vocab(const struct mc_tok_bpe *bpe)
{
	return &bpe->vocab;
}

/* --- characters ------------------------------------------------------------------------------- */

static bool add_symbol(struct mc_tok_bpe *bpe, uint32_t id, struct mc_error *err)
{
	uint32_t at = (uint32_t)bpe->symbols_count;

	if (at == INT32_MAX)
		return mc_fail(
		    err, MC_INVALID, "", "a word has more than %" PRId32 " characters", INT32_MAX);
	if (at == bpe->symbols_capacity &&
	    !mc_grow((void **)&bpe->symbols, &bpe->symbols_capacity, bpe->symbols_count + 1,
		sizeof(*bpe->symbols), "the characters of a word", err))
		return false;
	if (at > 0)
		bpe->symbols[at - 1].after = at;
	bpe->symbols[at] = (struct symbol){
	    .id = id, .before = at > 0 ? at - 1 : NONE, .after = NONE};
	bpe->symbols_count++;
	return true;
}

static bool all_bytes_known(const struct mc_tok_bpe *bpe, const char *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		if (bpe->byte_ids[(unsigned char)bytes[i]] == NONE)
			return false;
	}
	return true;
}

/*
 * An unknown character waits until one of the vocabulary, or the end, comes: bytes that stand for
 * characters in between are written before it. The reference does so.
 */
static bool read_characters(
    struct mc_tok_bpe *bpe, const char *word, size_t length, struct mc_error *err)
{
	bool waiting = false;
	size_t bytes;

	bpe->symbols_count = 0;
	for (size_t at = 0; at < length; at += bytes) {
		uint32_t code = mc_utf8_decode(word + at, &bytes), id = NONE;

		if (code < DIRECT)
			id = bpe->direct[code];
		else if (!mc_tok_vocab_find(&bpe->vocab, word + at, bytes, &id))
			id = NONE;
		if (id != NONE) {
			if (waiting && !add_symbol(bpe, bpe->unk_id, err))
				return false;
			waiting = false;
			if (!add_symbol(bpe, id, err))
				return false;
		} else if (bpe->byte_fallback && all_bytes_known(bpe, word + at, bytes)) {
			for (size_t i = 0; i < bytes; i++) {
				unsigned char byte = (unsigned char)word[at + i];

				if (!add_symbol(bpe, bpe->byte_ids[byte], err))
					return false;
			}
		} else if (bpe->unk_token.length > 0) {
			if (bpe->unk_id == NONE)
				return mc_fail(err, MC_CORRUPT, "tokenizer.json /model/unk_token",
				    "U+%04" PRIX32 " is not in the vocabulary, and neither is the "
				    "unk_token \"%.*s\"",
				    code, (int)bpe->unk_token.length, bpe->unk_token.bytes);
			if (waiting && !bpe->fuse_unk && !add_symbol(bpe, bpe->unk_id, err))
				return false;
			waiting = true;
		}
	}
	return !waiting || add_symbol(bpe, bpe->unk_id, err);
}

/* --- merging ---------------------------------------------------------------------------------- */

static bool comes_before(const struct candidate *a, const struct candidate *b)
{
	return a->rank != b->rank ? a->rank < b->rank : a->position < b->position;
}

/* Adds the pair that begins at `left` when it merges. */
static bool push_pair(struct mc_tok_bpe *bpe, uint32_t left, struct mc_error *err)
{
	uint32_t right = bpe->symbols[left].after;
	const struct merge *merge;
	size_t at = bpe->heap_count;

	if (right == NONE)
		return true;
	merge = find_merge(bpe, bpe->symbols[left].id, bpe->symbols[right].id);
	if (!merge)
		return true;
	if (at == bpe->heap_capacity && !mc_grow((void **)&bpe->heap, &bpe->heap_capacity, at + 1,
					    sizeof(*bpe->heap), "the merges of a word", err))
		return false;
	const struct candidate new = {.rank = merge->rank, .position = left, .id = merge->id};
	for (; at > 0 && comes_before(&new, &bpe->heap[(at - 1) / 2]); at = (at - 1) / 2)
		bpe->heap[at] = bpe->heap[(at - 1) / 2];
	bpe->heap[at] = new;
	bpe->heap_count++;
	return true;
}

static struct candidate pop(struct mc_tok_bpe *bpe)
{
	struct candidate first = bpe->heap[0], last = bpe->heap[--bpe->heap_count];
	size_t at = 0, child;

	while ((child = 2 * at + 1) < bpe->heap_count) {
		if (child + 1 < bpe->heap_count &&
		    comes_before(&bpe->heap[child + 1], &bpe->heap[child]))
			child++;
		if (!comes_before(&bpe->heap[child], &last))
			break;
		bpe->heap[at] = bpe->heap[child];
		at = child;
	}
	bpe->heap[at] = last;
	return first;
}

static bool merge_symbols(struct mc_tok_bpe *bpe, struct mc_error *err)
{
	bpe->heap_count = 0;
	for (uint32_t i = 0; i + 1 < bpe->symbols_count; i++) {
		if (!push_pair(bpe, i, err))
			return false;
	}
	while (bpe->heap_count > 0) {
		struct candidate best = pop(bpe);
		struct symbol *left = &bpe->symbols[best.position], *right;
		const struct merge *merge;

		if (left->gone || left->after == NONE)
			continue;
		/* The pair may be another by now; what counts is what it becomes. */
		right = &bpe->symbols[left->after];
		merge = find_merge(bpe, left->id, right->id);
		if (!merge || merge->id != best.id)
			continue;
		left->id = best.id;
		left->after = right->after;
		right->gone = true;
		if (left->after != NONE)
			bpe->symbols[left->after].before = best.position;
		if ((left->before != NONE && !push_pair(bpe, left->before, err)) ||
		    !push_pair(bpe, best.position, err))
			return false;
	}
	return true;
}

/* --- the cache -------------------------------------------------------------------------------- */

/* The slot that holds the word, or the empty one where it belongs. */
static struct remembered *cache_slot(
    struct mc_tok_bpe *bpe, uint64_t hash, const char *word, size_t length)
{
	for (size_t i = hash & (CACHE_SLOTS - 1);; i = (i + 1) & (CACHE_SLOTS - 1)) {
		struct remembered *slot = &bpe->cache[i];

		if (slot->length == 0 ||
		    (slot->hash == hash && slot->length == length &&
			memcmp(bpe->cache_words.bytes + slot->word, word, length) == 0))
			return slot;
	}
}

/* The word became the ids of `from` from `first` on. */
static bool remember(struct mc_tok_bpe *bpe, uint64_t hash, const char *word, size_t length,
    const struct mc_ids *from, size_t first, struct mc_error *err)
{
	if (bpe->cache_count >= CACHE_SLOTS / 2 || bpe->cache_words.length >= CACHE_BYTES) {
		memset(bpe->cache, 0, CACHE_SLOTS * sizeof(*bpe->cache));
		bpe->cache_count = bpe->cache_words.length = bpe->cache_ids.count = 0;
	}
	const struct remembered new = {.hash = hash,
	    .word = (uint32_t)bpe->cache_words.length,
	    .length = (uint32_t)length,
	    .first = (uint32_t)bpe->cache_ids.count,
	    .count = (uint32_t)(from->count - first)};
	if (!mc_tok_add(&bpe->cache_words, word, length, err))
		return false;
	for (size_t i = first; i < from->count; i++) {
		if (!mc_tok_add_id(&bpe->cache_ids, from->ids[i], err))
			return false;
	}
	*cache_slot(bpe, hash, word, length) = new;
	bpe->cache_count++;
	return true;
}

static bool encode_word(struct mc_tok_bpe *bpe, const char *word, size_t length, struct mc_ids *out,
    struct mc_error *err)
{
	bool short_word = length < CACHED_WORD;
	uint64_t hash = short_word ? mc_tok_hash(word, length) : 0;
	const struct remembered *known = short_word ? cache_slot(bpe, hash, word, length) : NULL;
	size_t first = out->count;
	uint32_t id;

	if (length == 0)
		return true;
	if (known && known->length > 0) {
		for (size_t i = 0; i < known->count; i++) {
			if (!mc_tok_add_id(out, bpe->cache_ids.ids[known->first + i], err))
				return false;
		}
		return true;
	}
	if (bpe->ignore_merges && mc_tok_vocab_find(&bpe->vocab, word, length, &id)) {
		if (!mc_tok_add_id(out, id, err))
			return false;
	} else {
		if (!read_characters(bpe, word, length, err) || !merge_symbols(bpe, err))
			return false;
		for (size_t i = 0; i < bpe->symbols_count; i++) {
			if (!bpe->symbols[i].gone && !mc_tok_add_id(out, bpe->symbols[i].id, err))
				return false;
		}
	}
	return !short_word || remember(bpe, hash, word, length, out, first, err);
}

/* How far the beginning of a text reaches that merges by itself. */
static size_t cut_before_mark(const char *text, size_t length)
{
	size_t at = 1;

	for (;;) {
		const char *mark = memmem(text + at, length - at, MARK, MARK_BYTES);

		if (!mark)
			return length;
		at = (size_t)(mark - text);
		if (!ends_with_mark(text, at))
			return at;
		at += MARK_BYTES;
	}
}

bool mc_tok_bpe_encode(struct mc_tok_bpe *bpe, const char *word, size_t length, struct mc_ids *out,
    struct mc_error *err)
{
	/* A whole text as one word: its parts are short, and most have come before. */
	while (bpe->cuts_at_marks && length >= CACHED_WORD) {
		size_t first = cut_before_mark(word, length);

		if (!encode_word(bpe, word, first, out, err))
			return false;
		word += first;
		length -= first;
	}
	return encode_word(bpe, word, length, out, err);
}
