/*
 * auth.c - the token file, who a token belongs to, new tokens
 */
#include "auth.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ids.h"

#include "moecal/alloc.h"
#include "moecal/base64.h"
#include "moecal/file.h"
#include "moecal/sha256.h"

#define FILE_BYTES ((size_t)1 << 20)
#define WHERE_SIZE 160
#define SHORTEST_TOKEN 16
#define LONGEST_TOKEN 256
#define RANDOM_BYTES 32
#define DIGEST_LENGTH (MC_SHA256_HEX - 1)
#define BLANKS " \t\r"

struct token {
	char name[ID_SIZE];
	enum scope scope;
	char digest[MC_SHA256_HEX]; /* lower case */
	size_t line;
};

struct tokens {
	struct token *items;
	size_t count, capacity;
};

static const char *const scopes[] = {
    [SCOPE_NONE] = "none",
    [SCOPE_READ] = "read",
    [SCOPE_SUBMIT] = "submit",
    [SCOPE_ADMIN] = "admin",
};

const char *scope_name(enum scope scope)
{
	return (size_t)scope < sizeof(scopes) / sizeof(scopes[0]) ? scopes[scope] : "none";
}

/* SCOPE_NONE when the name is none of a token's. */
static enum scope find_scope(const char *name)
{
	for (int scope = SCOPE_READ; scope <= SCOPE_ADMIN; scope++)
		if (strcmp(scopes[scope], name) == 0)
			return (enum scope)scope;
	return SCOPE_NONE;
}

/* --- the file ----------------------------------------------------------------------------------
 */

/* Exactly 64 hex digits, to lower case. */
static bool parse_digest(const char *text, char ret_digest[MC_SHA256_HEX])
{
	if (strlen(text) != DIGEST_LENGTH ||
	    strspn(text, "0123456789abcdefABCDEF") != DIGEST_LENGTH)
		return false;
	for (size_t i = 0; i <= DIGEST_LENGTH; i++)
		ret_digest[i] = (char)(text[i] >= 'A' && text[i] <= 'F' ? text[i] - 'A' + 'a'
									: text[i]);
	return true;
}

static bool add_token(
    struct tokens *tokens, const struct token *token, const char *where, struct mc_error *err)
{
	for (size_t i = 0; i < tokens->count; i++) {
		const struct token *other = &tokens->items[i];

		if (strcmp(other->name, token->name) == 0)
			return mc_fail(err, MC_INVALID, where, "the name '%s' is taken by line %zu",
			    token->name, other->line);
		/* who asks must be one */
		if (strcmp(other->digest, token->digest) == 0)
			return mc_fail(err, MC_INVALID, where,
			    "'%s' has the same token as '%s' in line %zu", token->name, other->name,
			    other->line);
	}
	if (!mc_grow((void **)&tokens->items, &tokens->capacity, tokens->count + 1,
		sizeof(*tokens->items), "tokens", err))
		return false;
	tokens->items[tokens->count++] = *token;
	return true;
}

/* Errors show no field that is not valid: somebody may have put the token itself there. */
static bool read_line(
    struct tokens *tokens, char *line, size_t number, const char *where, struct mc_error *err)
{
	struct token token = {.line = number};
	char *fields[3];
	size_t count = 0;

	for (char *rest = line, *field; (field = strsep(&rest, BLANKS)) != NULL;) {
		if (field[0] == '\0')
			continue;
		if (field[0] == '#')
			break;
		if (count == 3)
			return mc_fail(err, MC_INVALID, where,
			    "has more than three fields, needed are NAME SCOPE SHA256");
		fields[count++] = field;
	}
	if (count == 0)
		return true;
	if (count < 3)
		return mc_fail(err, MC_INVALID, where,
		    "has %zu of three fields, needed are NAME SCOPE SHA256", count);
	if (!id_is_valid(fields[0]))
		return mc_fail(err, MC_INVALID, where,
		    "the name must have 1 to 64 of a-z, 0-9, '.', '_', '-' and begin with a letter "
		    "or "
		    "digit");
	snprintf(token.name, sizeof(token.name), "%s", fields[0]);
	token.scope = find_scope(fields[1]);
	if (token.scope == SCOPE_NONE)
		return mc_fail(err, MC_INVALID, where,
		    "the scope of '%s' is not one of read, submit, admin", token.name);
	if (!parse_digest(fields[2], token.digest))
		return mc_fail(err, MC_INVALID, where,
		    "the third field of '%s' has %zu characters, needed are the 64 hex digits of "
		    "the "
		    "token's SHA-256, not the token",
		    token.name, strlen(fields[2]));
	return add_token(tokens, &token, where, err);
}

static bool read_lines(
    struct tokens *tokens, struct mc_buf *text, const char *path, struct mc_error *err)
{
	size_t number = 0, length = strlen(path), room = WHERE_SIZE - 32;

	if (memchr(text->data, '\0', text->length) != NULL)
		return mc_fail(err, MC_INVALID, path, "is not a text: it holds a byte 0");
	for (char *rest = text->data, *line; (line = strsep(&rest, "\n")) != NULL;) {
		char where[WHERE_SIZE];

		/* of a long path the end says more */
		snprintf(where, sizeof(where), "%s%s:%zu", length > room ? "..." : "",
		    length > room ? path + length - room : path, ++number);
		if (!read_line(tokens, line, number, where, err))
			return false;
	}
	return tokens->count > 0 || mc_fail(err, MC_INVALID, path,
					"has no token; moecald --make-token NAME SCOPE makes one");
}

/* Whoever can write the file can let himself in. */
static bool check_file(int fd, const char *path, struct mc_error *err)
{
	struct stat status;

	if (fstat(fd, &status) != 0)
		return mc_fail_errno(err, errno, path, "cannot be looked at");
	if (!S_ISREG(status.st_mode))
		return mc_fail(err, MC_INVALID, path, "is not a file");
	return (status.st_mode & (S_IWGRP | S_IWOTH)) == 0 ||
	       mc_fail(err, MC_INVALID, path,
		   "may be written by others than its owner (mode %04o); chmod go-w mends that",
		   (unsigned)status.st_mode & 07777);
}

static bool read_file(struct tokens *tokens, const char *path, struct mc_error *err)
{
	struct mc_buf text;
	/* O_NONBLOCK: a FIFO that nobody writes must not hold up the start */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return mc_fail_errno(err, errno, path, "cannot be opened");
	mc_buf_init(&text, FILE_BYTES);
	bool ok = check_file(fd, path, err) && mc_file_read_all(fd, path, &text, err) &&
		  read_lines(tokens, &text, path, err);
	mc_buf_release(&text);
	mc_close(fd);
	return ok;
}

struct tokens *tokens_read(const char *path, struct mc_error *err)
{
	struct tokens *tokens = mc_alloc(1, sizeof(*tokens), "tokens", err);

	if (tokens && !read_file(tokens, path, err)) {
		tokens_free(tokens);
		tokens = NULL;
	}
	return tokens;
}

void tokens_free(struct tokens *tokens)
{
	if (!tokens)
		return;
	free(tokens->items);
	free(tokens);
}

/* --- who asks ----------------------------------------------------------------------------------
 */

/* TOKEN of "Bearer TOKEN", NULL when it is not of that form. The scheme may be in any case. */
static const char *parse_bearer(const char *authorization, size_t *ret_length)
{
	static const char scheme[] = "Bearer ";
	const char *token;
	size_t length = 0;

	if (!authorization || strncasecmp(authorization, scheme, sizeof(scheme) - 1) != 0)
		return NULL;
	token = authorization + sizeof(scheme) - 1;
	token += strspn(token, " ");
	while (token[length] > 0x20 && token[length] < 0x7f && length <= LONGEST_TOKEN)
		length++;
	*ret_length = length;
	return token[length] == '\0' && length >= SHORTEST_TOKEN && length <= LONGEST_TOKEN ? token
											    : NULL;
}

/* 1 when the digests are the same, else 0, in the same time either way. */
static unsigned same_digest(const char *a, const char *b)
{
	/* volatile: the compiler must not find out that it could stop early */
	volatile unsigned difference = 0;

	for (size_t i = 0; i < DIGEST_LENGTH; i++)
		difference |= (unsigned)((unsigned char)a[i] ^ (unsigned char)b[i]);
	return ((difference - 1) >> 8) & 1;
}

enum scope tokens_find(
    const struct tokens *tokens, const char *authorization, const char **ret_name)
{
	char digest[MC_SHA256_HEX];
	size_t length = 0, found = 0; /* 1 + index of the line */
	struct mc_error err;

	*ret_name = "";
	mc_error_init(&err);
	const char *token = parse_bearer(authorization, &length);
	if (!token || !mc_sha256_bytes(token, length, digest, &err))
		return SCOPE_NONE;
	for (size_t i = 0; i < tokens->count; i++) {
		size_t mask = (size_t)0 - same_digest(tokens->items[i].digest, digest);

		found = (found & ~mask) | ((i + 1) & mask);
	}
	if (found == 0)
		return SCOPE_NONE;
	*ret_name = tokens->items[found - 1].name;
	return tokens->items[found - 1].scope;
}

/* --- new tokens --------------------------------------------------------------------------------
 */

bool token_make(const char *name, const char *scope, char ret_token[64], char ret_line[256],
    struct mc_error *err)
{
	unsigned char bytes[RANDOM_BYTES];
	char digest[MC_SHA256_HEX];

	if (!id_is_valid(name))
		return mc_fail(err, MC_INVALID, "--make-token",
		    "'%.80s' is not a name: needed are 1 to 64 of a-z, 0-9, '.', '_', '-', "
		    "beginning "
		    "with a letter or digit",
		    name);
	if (find_scope(scope) == SCOPE_NONE)
		return mc_fail(err, MC_INVALID, "--make-token",
		    "'%.80s' is not a scope: needed is read, submit or admin", scope);
	/* so few bytes come whole or not at all */
	if (getrandom(bytes, sizeof(bytes), 0) != (ssize_t)sizeof(bytes))
		return mc_fail_errno(
		    err, errno, "--make-token", "the system gives no random bytes");
	mc_base64url_encode(bytes, sizeof bytes, ret_token);
	explicit_bzero(bytes, sizeof(bytes));
	if (!mc_sha256_bytes(ret_token, strlen(ret_token), digest, err))
		return false;
	snprintf(ret_line, 256, "%s %s %s", name, scope, digest);
	return true;
}
