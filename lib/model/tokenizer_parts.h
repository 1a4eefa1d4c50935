/*
 * tokenizer_parts.h - what the files of the tokenizer share; private to lib/model/tokenizer*.c
 *
 * The way of a text: added tokens are cut out (tokenizer_added.c), each gap between them is
 * normalized (tokenizer_normalize.c), split into words (tokenizer_pretokenize.c,
 * tokenizer_split.c), each word becomes ids (tokenizer_bpe.c), and ids are put around the whole
 * (tokenizer_post.c). Texts between the parts are always valid UTF-8.
 */
#ifndef MC_TOKENIZER_PARTS_H
#define MC_TOKENIZER_PARTS_H

#include <stdint.h>

#include "moecal/json.h"
#include "moecal/tokenizer.h"

/* --- bytes ------------------------------------------------------------------------------------ */

struct mc_tok_text {
	char *bytes; /* owned; no NUL at the end */
	size_t length, capacity;
};

/* Room for `more` bytes. Errors: INVALID past 4 GiB (offsets have 32 bits), NO_MEMORY. */
bool mc_tok_reserve(struct mc_tok_text *text, size_t more, struct mc_error *err) MC_CHECKED;
bool mc_tok_add(
    struct mc_tok_text *text, const char *bytes, size_t length, struct mc_error *err) MC_CHECKED;
void mc_tok_text_release(struct mc_tok_text *text);
bool mc_tok_add_id(struct mc_ids *ids, uint32_t id, struct mc_error *err) MC_CHECKED;

/* --- tokenizer_unicode.c ---------------------------------------------------------------------- */

/* Bytes of the character that begins with this byte (valid UTF-8). */
size_t mc_utf8_length(unsigned char first);
/* The character at p (valid UTF-8), and its bytes. */
uint32_t mc_utf8_decode(const char *p, size_t *ret_length);
/* Bytes written, 1 to 4. */
size_t mc_utf8_encode(uint32_t code, char into[4]);
/* Where the character before `at` begins; at > 0. */
size_t mc_utf8_before(const char *text, size_t at);
/* Length of the longest valid beginning. */
size_t mc_utf8_valid(const char *text, size_t length);
/* Appends text to out, each maximal invalid part as U+FFFD. */
bool mc_utf8_mend(
    const char *text, size_t length, struct mc_tok_text *out, struct mc_error *err) MC_CHECKED;
bool mc_is_white_space(uint32_t code); /* White_Space */
bool mc_is_numeric(uint32_t code);     /* general category Nd, Nl or No */

/* --- tokenizer_fields.c: components of tokenizer.json ------------------------------------------
 */

/* One component: an object with a "type". */
struct mc_tok_node {
	const struct mc_json *json; /* borrowed */
	const char *role;           /* "normalizer", "pre_tokenizer", "post_processor", "model" */
	const char *type;           /* borrowed from json */
	char where[160];            /* "tokenizer.json /pre_tokenizer/pretokenizers/1" */
};

bool mc_tok_node_read(struct mc_tok_node *node, const struct mc_json *json, const char *role,
    const char *where, struct mc_error *err) MC_CHECKED;
/* Member `index` of the array under `key`, a component of the same role. */
bool mc_tok_node_child(struct mc_tok_node *child, const struct mc_tok_node *parent, const char *key,
    size_t index, struct mc_error *err) MC_CHECKED;
/* The array under `key`, or CORRUPT. */
const struct mc_json *mc_tok_array(
    const struct mc_tok_node *node, const char *key, struct mc_error *err) MC_CHECKED;
/* UNSUPPORTED unless every member's name is "type" or one of `known` (ends with NULL). */
bool mc_tok_known_fields(
    const struct mc_tok_node *node, const char *const *known, struct mc_error *err) MC_CHECKED;
enum mc_tok_absent { MC_TOK_FALSE, MC_TOK_TRUE, MC_TOK_REQUIRED };
bool mc_tok_bool(const struct mc_tok_node *node, const char *key, enum mc_tok_absent absent,
    bool *ret, struct mc_error *err) MC_CHECKED;
/* A text that must be there; borrowed, may hold NUL. */
bool mc_tok_string(const struct mc_tok_node *node, const char *key, const char **ret_text,
    size_t *ret_length, struct mc_error *err) MC_CHECKED;
/* An integer fit for an id. */
bool mc_tok_id(const struct mc_json *value, const char *where, const char *what, uint32_t *ret_id,
    struct mc_error *err) MC_CHECKED;
/* "normalizer Lowercase is not supported" */
bool mc_tok_unsupported_type(const struct mc_tok_node *node, struct mc_error *err);

/* --- tokenizer_split.c: expressions ------------------------------------------------------------
 */

struct mc_tok_regex; /* a compiled expression */

/* `text` is in PCRE2's own language. Errors: UNSUPPORTED with PCRE2's reason, NO_MEMORY. */
struct mc_tok_regex *mc_tok_regex_new(
    const char *text, size_t length, struct mc_error *err) MC_CHECKED;
void mc_tok_regex_free(struct mc_tok_regex *regex);
/* First match at or after `from`. Errors: UNSUPPORTED when a limit of the search is reached. */
bool mc_tok_regex_find(struct mc_tok_regex *regex, const char *text, size_t length, size_t from,
    bool *ret_found, size_t *ret_begin, size_t *ret_end, struct mc_error *err) MC_CHECKED;

/* tokenizer_pattern.c: an expression of tokenizer.json (Oniguruma, Ruby syntax) in PCRE2's
 * language. */
bool mc_tok_translate(
    const char *expression, size_t length, struct mc_buf *out, struct mc_error *err) MC_CHECKED;

enum mc_tok_pattern_kind { MC_TOK_PATTERN_STRING, MC_TOK_PATTERN_REGEX, MC_TOK_PATTERN_NUMERIC };

struct mc_tok_pattern {
	enum mc_tok_pattern_kind kind;
	struct mc_tok_text string;  /* of STRING */
	struct mc_tok_regex *regex; /* of REGEX; owned */
};

/* From {"String": s} or {"Regex": r} under "pattern". */
bool mc_tok_pattern_read(struct mc_tok_pattern *pattern, const struct mc_tok_node *node,
    struct mc_error *err) MC_CHECKED;
/* From an expression of our own. */
bool mc_tok_pattern_compile(struct mc_tok_pattern *pattern, const char *expression, size_t length,
    const char *who, const char *where, struct mc_error *err) MC_CHECKED;
void mc_tok_pattern_release(struct mc_tok_pattern *pattern);

/* All matches of a pattern in a text, left to right, not overlapping; an empty one never right
 * behind the match before it. */
struct mc_tok_finder {
	const struct mc_tok_pattern *pattern;
	const char *text;
	size_t length;
	size_t from;     /* where the next search begins */
	size_t last_end; /* of the last match; SIZE_MAX before the first */
};
void mc_tok_finder_init(struct mc_tok_finder *finder, const struct mc_tok_pattern *pattern,
    const char *text, size_t length);
bool mc_tok_finder_next(struct mc_tok_finder *finder, bool *ret_found, size_t *ret_begin,
    size_t *ret_end, struct mc_error *err) MC_CHECKED;

/* --- tokenizer_normalize.c ---------------------------------------------------------------------
 */

struct mc_tok_normalizers {
	struct mc_tok_normalizer *items; /* in order, Sequences laid flat; owned */
	size_t count, capacity;
	struct mc_tok_text spare;
	int32_t *codes; /* scratch of the Unicode forms; owned */
	size_t codes_capacity;
};

/* json may be null: no normalizer. */
bool mc_tok_normalizers_read(
    struct mc_tok_normalizers *list, const struct mc_json *json, struct mc_error *err) MC_CHECKED;
void mc_tok_normalizers_release(struct mc_tok_normalizers *list);
/* Replaces text by its normalized form. */
bool mc_tok_normalize(
    struct mc_tok_normalizers *list, struct mc_tok_text *text, struct mc_error *err) MC_CHECKED;

/* --- tokenizer_pretokenize.c -------------------------------------------------------------------
 */

struct mc_tok_span {
	uint32_t begin, end;
};

struct mc_tok_spans {
	struct mc_tok_span *items; /* owned */
	size_t count, capacity;
};

/* A text and the pieces of it that are still to become ids. */
struct mc_tok_pieces {
	struct mc_tok_text text, spare_text;
	struct mc_tok_spans spans, spare_spans;
	bool at_start; /* the first piece begins where the whole text begins */
};
void mc_tok_pieces_release(struct mc_tok_pieces *pieces);

struct mc_tok_steps {
	struct mc_tok_step *items; /* in order, Sequences laid flat; owned */
	size_t count, capacity;
};

bool mc_tok_steps_read(
    struct mc_tok_steps *steps, const struct mc_json *json, struct mc_error *err) MC_CHECKED;
void mc_tok_steps_release(struct mc_tok_steps *steps);
/* pieces holds one piece, the whole text; afterwards the words. */
bool mc_tok_pretokenize(const struct mc_tok_steps *steps, struct mc_tok_pieces *pieces,
    struct mc_error *err) MC_CHECKED;

/* --- tokenizer_vocab.c, tokenizer_bpe.c --------------------------------------------------------
 */

/* Texts to ids. */
struct mc_tok_vocab {
	struct mc_tok_text names;
	struct mc_tok_vocab_slot *slots; /* owned */
	size_t slots_count;              /* a power of two, or 0 */
	size_t count;
	uint32_t largest_id;
};

uint64_t mc_tok_hash(const char *bytes, size_t length);
/* A name that is there already gets the new id. */
bool mc_tok_vocab_add(struct mc_tok_vocab *vocab, const char *name, size_t length, uint32_t id,
    struct mc_error *err) MC_CHECKED;
bool mc_tok_vocab_find(
    const struct mc_tok_vocab *vocab, const char *name, size_t length, uint32_t *ret_id);
void mc_tok_vocab_release(struct mc_tok_vocab *vocab);

struct mc_tok_bpe; /* the model */

struct mc_tok_bpe *mc_tok_bpe_new(const struct mc_json *json, struct mc_error *err) MC_CHECKED;
void mc_tok_bpe_free(struct mc_tok_bpe *bpe);
const struct mc_tok_vocab *mc_tok_bpe_vocab(const struct mc_tok_bpe *bpe);
/* Appends the ids of one word. */
bool mc_tok_bpe_encode(struct mc_tok_bpe *bpe, const char *word, size_t length, struct mc_ids *out,
    struct mc_error *err) MC_CHECKED;

/* --- tokenizer_added.c -------------------------------------------------------------------------
 */

struct mc_tok_added; /* the added tokens */

/* normalizers: for the contents of tokens that are matched in normalized text. */
struct mc_tok_added *mc_tok_added_new(const struct mc_json *json, const struct mc_tok_vocab *vocab,
    struct mc_tok_normalizers *normalizers, struct mc_error *err) MC_CHECKED;
void mc_tok_added_free(struct mc_tok_added *added);
/* The id of an added token, else of the model's token. */
bool mc_tok_added_find(const struct mc_tok_added *added, const struct mc_tok_vocab *vocab,
    const char *content, size_t length, uint32_t *ret_id);
uint32_t mc_tok_added_largest_id(const struct mc_tok_added *added); /* 0 when there are none */

/* Cuts a text into added tokens and gaps. */
struct mc_tok_cut {
	bool is_token;
	uint32_t id;       /* of a token */
	size_t begin, end; /* of a gap */
};

struct mc_tok_cutter {
	const struct mc_tok_added *added;
	bool normalized; /* which tokens: those matched in normalized or in raw text */
	bool match_special;
	const char *text;
	size_t length;
	size_t scan, gap; /* private: where the search goes on; where the next gap begins */
	bool has_token;
	uint32_t token;
};
bool mc_tok_cutter_next(struct mc_tok_cutter *cutter, bool *ret_more, struct mc_tok_cut *ret_cut,
    struct mc_error *err) MC_CHECKED;

/* --- tokenizer_post.c --------------------------------------------------------------------------
 */

/* Ids in front of and behind a text. */
struct mc_tok_frame {
	struct mc_ids before, after;
};

bool mc_tok_frame_read(
    struct mc_tok_frame *frame, const struct mc_json *json, struct mc_error *err) MC_CHECKED;
/* tokenizer_config.json: *ret_decides when its add_bos_token and add_eos_token overrule the file.
 */
bool mc_tok_frame_of_flags(struct mc_tok_frame *frame, const struct mc_json *config,
    const struct mc_tok_added *added, const struct mc_tok_vocab *vocab, bool *ret_decides,
    struct mc_error *err) MC_CHECKED;
void mc_tok_frame_release(struct mc_tok_frame *frame);

#endif
