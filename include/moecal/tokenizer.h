/*
 * tokenizer.h - text to token ids, driven by tokenizer.json alone
 *
 * Components: see docs/ARCHITECTURE.md. Anything in the file that is not known is UNSUPPORTED and the
 * message names the component; nothing is skipped silently. PCRE2 and utf8proc stay behind this wall.
 */
#ifndef MC_TOKENIZER_H
#define MC_TOKENIZER_H

#include <stdint.h>

#include "moecal/buf.h"
#include "moecal/error.h"

struct mc_tokenizer;

struct mc_ids {
	uint32_t *ids; /* owned */
	size_t count, capacity;
};
void mc_ids_release(struct mc_ids *ids);

enum mc_add_special { MC_ADD_SPECIAL_AUTO, MC_ADD_SPECIAL_NO, MC_ADD_SPECIAL_YES };

/*
 * json: text of tokenizer.json; config_json: text of tokenizer_config.json or NULL.
 * Errors: UNSUPPORTED naming the component ("pre_tokenizer BertPreTokenizer"), CORRUPT, NO_MEMORY.
 * Owned: mc_tokenizer_free. Afterwards usable from one thread at a time.
 */
struct mc_tokenizer *mc_tokenizer_new(const char *json, size_t json_length, const char *config_json,
    size_t config_length, struct mc_error *err) MC_CHECKED;
void mc_tokenizer_free(struct mc_tokenizer *tokenizer);
/* every id that encoding can give is below this */
size_t mc_tokenizer_size(const struct mc_tokenizer *tokenizer);

/*
 * Appends the ids of text (invalid UTF-8 is read as U+FFFD) to out.
 * add_special: YES = the template of tokenizer.json; AUTO = the template, but when tokenizer_class
 * begins with "Llama" and tokenizer_config.json has add_bos_token, its flags decide (BOS never
 * twice); NO = none. match_special false: special added tokens in the text are ordinary text.
 * Errors: UNSUPPORTED, NO_MEMORY, INVALID (text over 256 MiB).
 */
bool mc_tokenizer_encode(struct mc_tokenizer *tokenizer, const char *text, size_t length,
    enum mc_add_special add_special, bool match_special, struct mc_ids *out, struct mc_error *err)
    MC_CHECKED;

#endif
