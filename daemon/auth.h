/*
 * auth.h - bearer tokens with scopes; only their digests are kept
 *
 * Token file: one token a line, "NAME SCOPE SHA256", '#' comments. NAME [a-z0-9][a-z0-9._-]{0,63},
 * SCOPE read, submit (reads too) or admin (everything), SHA256 64 hex digits of the token.
 * A token is 43 characters of base64url (256 random bits) when --make-token made it; any string of
 * 16..256 visible ASCII characters is accepted.
 */
#ifndef MOECALD_AUTH_H
#define MOECALD_AUTH_H

#include "moecal/error.h"

enum scope { SCOPE_NONE, SCOPE_READ, SCOPE_SUBMIT, SCOPE_ADMIN };

struct tokens; /* a token file as read */

/* Errors: NOT_FOUND, INVALID ("FILE:LINE": what is wrong; duplicate names; no token at all; a file
 * that others than its owner may write). Owned: tokens_free. */
struct tokens *tokens_read(const char *path, struct mc_error *err) MC_CHECKED;
void tokens_free(struct tokens *tokens);
/*
 * The scope of the token in the value of an Authorization header ("Bearer TOKEN"), SCOPE_NONE when
 * there is none or it is unknown. All lines are compared, each in constant time. ret_name: borrowed
 * from tokens; "" when none.
 */
enum scope tokens_find(const struct tokens *tokens, const char *authorization, const char **ret_name);
const char *scope_name(enum scope scope);
/* A new random token to `out` and its line for the token file. */
bool token_make(const char *name, const char *scope, char ret_token[64], char ret_line[256],
    struct mc_error *err) MC_CHECKED;

#endif
