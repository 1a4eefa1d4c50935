/*
 * tokenizer_added.c - the added tokens: their ids, and cutting texts at them
 *
 * Two tries, one for tokens matched in the raw text, one for those matched after normalization. At
 * each place the longest content that begins there wins, and the search goes on behind it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"
#include "tokenizer_parts.h"

/* Word characters, as the reference's single_word understands them. */
static const char word_character[] = "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]";

struct token {
	char *content; /* owned */
	size_t length;
	uint32_t id;
	bool single_word, lstrip, rstrip, normalized, special;
};

struct node {
	uint32_t child, sibling; /* 0: none */
	uint32_t token;          /* index + 1; 0: no content ends here */
	unsigned char byte;
};

struct trie {
	struct node *nodes; /* number 0 is unused; owned */
	size_t count, capacity;
	uint32_t first[256]; /* nodes by the first byte */
};

struct mc_tok_added {
	struct token *tokens; /* owned */
	size_t count, capacity;
	struct mc_tok_vocab by_content; /* ids */
	struct trie raw, normalized;
	struct mc_tok_regex *word; /* when some token is single_word; owned */
};

/* --- tries ------------------------------------------------------------------------------------ */

static bool trie_add(
    struct trie *trie, const char *content, size_t length, uint32_t token, struct mc_error *err)
{
	uint32_t parent = 0, at = 0;

	for (size_t i = 0; i < length; i++, parent = at) {
		unsigned char byte = (unsigned char)content[i];

		at = i == 0 ? trie->first[byte] : trie->nodes[parent].child;
		while (at && trie->nodes[at].byte != byte)
			at = trie->nodes[at].sibling;
		if (at)
			continue;
		if (trie->count == 0)
			trie->count = 1;
		if (!mc_grow((void **)&trie->nodes, &trie->capacity, trie->count + 1,
			sizeof(*trie->nodes), "added tokens", err))
			return false;
		at = (uint32_t)trie->count++;
		trie->nodes[at] = (struct node){.byte = byte};
		if (i == 0) {
			trie->first[byte] = at;
		} else {
			trie->nodes[at].sibling = trie->nodes[parent].child;
			trie->nodes[parent].child = at;
		}
	}
	/* Of two tokens with the same content the first is the one that is found. */
	if (trie->nodes[at].token == 0)
		trie->nodes[at].token = token + 1;
	return true;
}

/* The longest content that begins at `at`; false when none does. */
static bool trie_match(const struct trie *trie, const char *text, size_t length, size_t at,
    uint32_t *ret_token, size_t *ret_end)
{
	uint32_t node = trie->first[(unsigned char)text[at]];
	bool found = false;

	while (node) {
		at++;
		if (trie->nodes[node].token) {
			*ret_token = trie->nodes[node].token - 1;
			*ret_end = at;
			found = true;
		}
		if (at == length)
			break;
		node = trie->nodes[node].child;
		while (node && trie->nodes[node].byte != (unsigned char)text[at])
			node = trie->nodes[node].sibling;
	}
	return found;
}

/* --- reading ---------------------------------------------------------------------------------- */

static bool read_token(struct token *token, const struct mc_tok_node *node, struct mc_error *err)
{
	static const char *const known[] = {
	    "id", "content", "single_word", "lstrip", "rstrip", "normalized", "special", NULL};
	const char *content;
	uint32_t id;

	if (!mc_tok_known_fields(node, known, err) ||
	    !mc_tok_string(node, "content", &content, &token->length, err) ||
	    !mc_tok_id(mc_json_get(node->json, "id"), node->where, content, &id, err) ||
	    !mc_tok_bool(node, "single_word", MC_TOK_REQUIRED, &token->single_word, err) ||
	    !mc_tok_bool(node, "lstrip", MC_TOK_REQUIRED, &token->lstrip, err) ||
	    !mc_tok_bool(node, "rstrip", MC_TOK_REQUIRED, &token->rstrip, err) ||
	    !mc_tok_bool(node, "normalized", MC_TOK_REQUIRED, &token->normalized, err) ||
	    !mc_tok_bool(node, "special", MC_TOK_REQUIRED, &token->special, err))
		return false;
	token->content = mc_alloc(token->length + 1, 1, "an added token", err);
	if (!token->content)
		return false;
	memcpy(token->content, content, token->length);
	return true;
}

/*
 * A content of the vocabulary keeps its id. Others are numbered on from the vocabulary's size or
 * the largest added id; the "id" of the file is not asked, as the reference does not ask it.
 */
static bool add_token(struct mc_tok_added *added, struct token *token,
    const struct mc_tok_vocab *vocab, struct mc_error *err)
{
	uint32_t next = (uint32_t)vocab->count;
	bool again = mc_tok_vocab_find(
	    &added->by_content, token->content, token->length, &token->id);

	if (added->by_content.count > 0 && added->by_content.largest_id >= next)
		next = added->by_content.largest_id + 1;
	if (!mc_tok_added_find(added, vocab, token->content, token->length, &token->id))
		token->id = next;
	if (!mc_tok_vocab_add(&added->by_content, token->content, token->length, token->id, err))
		return false;
	/* The same content again: the later entry says how it is matched. */
	for (size_t i = 0; again && i < added->count; i++) {
		if (added->tokens[i].id == token->id) {
			free(added->tokens[i].content);
			added->tokens[i] = *token;
			token->content = NULL;
			return true;
		}
	}
	if (!mc_grow((void **)&added->tokens, &added->capacity, added->count + 1,
		sizeof(*added->tokens), "added tokens", err))
		return false;
	added->tokens[added->count++] = *token;
	token->content = NULL;
	return true;
}

static bool add_to_trie(struct mc_tok_added *added, size_t index,
    struct mc_tok_normalizers *normalizers, struct mc_error *err)
{
	const struct token *token = &added->tokens[index];
	struct mc_tok_text content = {0};
	bool ok = mc_tok_add(&content, token->content, token->length, err);

	if (ok && token->normalized)
		ok = mc_tok_normalize(normalizers, &content, err);
	if (ok && content.length == 0)
		ok = mc_fail(err, MC_UNSUPPORTED, "tokenizer.json /added_tokens",
		    "the added token \"%.64s\" is empty after normalization", token->content);
	if (ok)
		ok = trie_add(token->normalized ? &added->normalized : &added->raw, content.bytes,
		    content.length, (uint32_t)index, err);
	mc_tok_text_release(&content);
	if (ok && token->single_word && !added->word)
		added->word = mc_tok_regex_new(word_character, strlen(word_character), err);
	return ok && (added->word || !token->single_word);
}

static bool read_tokens(struct mc_tok_added *added, const struct mc_json *json,
    const struct mc_tok_vocab *vocab, struct mc_error *err)
{
	if (mc_json_is_null(json))
		return true;
	if (mc_json_type(json) != MC_JSON_ARRAY)
		return mc_fail(err, MC_CORRUPT, "tokenizer.json /added_tokens",
		    "added_tokens is a %s, needed an array", mc_json_type_name(mc_json_type(json)));
	for (size_t i = 0; i < mc_json_size(json); i++) {
		struct mc_tok_node node = {
		    .json = mc_json_at(json, i), .role = "added token", .type = ""};
		struct token token = {0};
		bool ok;

		snprintf(node.where, sizeof(node.where), "tokenizer.json /added_tokens/%zu", i);
		ok = read_token(&token, &node, err) &&
		     (token.length == 0 || add_token(added, &token, vocab, err));
		free(token.content);
		if (!ok)
			return false;
	}
	return true;
}

struct mc_tok_added *mc_tok_added_new(const struct mc_json *json, const struct mc_tok_vocab *vocab,
    struct mc_tok_normalizers *normalizers, struct mc_error *err)
{
	struct mc_tok_added *added = mc_alloc(1, sizeof(*added), "added tokens", err);
	bool ok = added && read_tokens(added, json, vocab, err);

	/* Special ones first: they win where two become the same by normalization. */
	for (size_t i = 0; ok && i < added->count; i++)
		ok = !added->tokens[i].special || add_to_trie(added, i, normalizers, err);
	for (size_t i = 0; ok && i < added->count; i++)
		ok = added->tokens[i].special || add_to_trie(added, i, normalizers, err);
	if (ok)
		return added;
	mc_tok_added_free(added);
	return NULL;
}

void mc_tok_added_free(struct mc_tok_added *added)
{
	if (!added)
		return;
	for (size_t i = 0; i < added->count; i++)
		free(added->tokens[i].content);
	free(added->tokens);
	free(added->raw.nodes);
	free(added->normalized.nodes);
	mc_tok_vocab_release(&added->by_content);
	mc_tok_regex_free(added->word);
	free(added);
}

bool mc_tok_added_find(const struct mc_tok_added *added, const struct mc_tok_vocab *vocab,
    const char *content, size_t length, uint32_t *ret_id)
{
	return mc_tok_vocab_find(&added->by_content, content, length, ret_id) ||
	       mc_tok_vocab_find(vocab, content, length, ret_id);
}

uint32_t mc_tok_added_largest_id(const struct mc_tok_added *added)
{
	return added->by_content.largest_id;
}

/* --- cutting ---------------------------------------------------------------------------------- */

static bool is_word_character(
    const struct mc_tok_added *added, const char *at, bool *ret, struct mc_error *err)
{
	size_t begin, end;

	return mc_tok_regex_find(
	    added->word, at, mc_utf8_length((unsigned char)*at), 0, ret, &begin, &end, err);
}

static bool stands_alone(const struct mc_tok_cutter *cutter, size_t begin, size_t end,
    bool *ret_alone, struct mc_error *err)
{
	bool before = false, after = false;

	if (begin > 0 && !is_word_character(cutter->added,
			     cutter->text + mc_utf8_before(cutter->text, begin), &before, err))
		return false;
	if (end < cutter->length &&
	    !is_word_character(cutter->added, cutter->text + end, &after, err))
		return false;
	*ret_alone = !before && !after;
	return true;
}

static size_t space_before(const char *text, size_t at)
{
	size_t bytes;

	while (at > 0) {
		size_t before = mc_utf8_before(text, at);

		if (!mc_is_white_space(mc_utf8_decode(text + before, &bytes)))
			break;
		at = before;
	}
	return at;
}

static size_t space_after(const char *text, size_t at, size_t length)
{
	size_t bytes;

	while (at < length && mc_is_white_space(mc_utf8_decode(text + at, &bytes)))
		at += bytes;
	return at;
}

/* A token was found at [begin, end): widens it over white space; false in *ret_more when there is
 * no gap in front of it to give first. */
static void take_match(struct mc_tok_cutter *cutter, const struct token *token, size_t begin,
    size_t end, bool *ret_gap, struct mc_tok_cut *gap)
{
	if (token->lstrip) {
		begin = space_before(cutter->text, begin);
		if (begin < cutter->gap)
			begin = cutter->gap;
	}
	if (token->rstrip)
		end = space_after(cutter->text, end, cutter->length);
	*ret_gap = cutter->gap < begin;
	*gap = (struct mc_tok_cut){.begin = cutter->gap, .end = begin};
	cutter->gap = end;
	cutter->has_token = true;
	cutter->token = token->id;
}

bool mc_tok_cutter_next(
    struct mc_tok_cutter *cutter, bool *ret_more, struct mc_tok_cut *ret_cut, struct mc_error *err)
{
	const struct trie *trie = cutter->normalized ? &cutter->added->normalized
						     : &cutter->added->raw;
	uint32_t index;
	size_t end;

	*ret_more = true;
	while (!cutter->has_token && cutter->scan < cutter->length) {
		size_t begin = cutter->scan;
		bool alone = true, gap;

		if (!trie_match(trie, cutter->text, cutter->length, begin, &index, &end)) {
			cutter->scan++;
			continue;
		}
		/* Also a match that does not count is passed over as a whole, and one that takes
		 * white space with it does not keep the search from looking into that. */
		cutter->scan = end;
		const struct token *token = &cutter->added->tokens[index];
		if (token->special && !cutter->match_special)
			continue;
		if (token->single_word && !stands_alone(cutter, begin, end, &alone, err))
			return false;
		if (!alone)
			continue;
		take_match(cutter, token, begin, end, &gap, ret_cut);
		if (gap)
			return true;
	}
	if (cutter->has_token) {
		*ret_cut = (struct mc_tok_cut){.is_token = true, .id = cutter->token};
		cutter->has_token = false;
		return true;
	}
	*ret_cut = (struct mc_tok_cut){.begin = cutter->gap, .end = cutter->length};
	*ret_more = cutter->gap < cutter->length;
	cutter->gap = cutter->length;
	return true;
}
