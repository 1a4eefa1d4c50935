/*
 * openapi_document.h - docs/openapi.json for tests that hold it against tables of the program
 */
#ifndef TEST_OPENAPI_DOCUMENT_H
#define TEST_OPENAPI_DOCUMENT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "moecal/file.h"
#include "moecal/json.h"
#include "moecal/root.h"

#define DOCUMENT "docs/openapi.json"

static inline void read_text(const char *path, struct mc_buf *text)
{
	struct mc_error err;
	int fd;

	mc_error_init(&err);
	mc_buf_init(text, 4 << 20);
	assert_true(mc_root_open(NULL, path, &fd, &err));
	assert_true(mc_file_read_all(fd, path, text, &err));
	mc_close(fd);
}

static inline int read_document(void **state)
{
	struct mc_error err;
	struct mc_buf text;

	mc_error_init(&err);
	read_text(DOCUMENT, &text);
	struct mc_json *document = mc_json_parse(mc_buf_text(&text), text.length, DOCUMENT, &err);
	if (document == NULL)
		print_error("%s: %s\n", DOCUMENT, err.text);
	mc_buf_release(&text);
	*state = document;
	return document != NULL ? 0 : -1;
}

static inline int free_document(void **state)
{
	mc_json_free(*state);
	return 0;
}

static inline const char *text_of(const struct mc_json *object, const char *key)
{
	const struct mc_json *value = mc_json_get(object, key);

	return mc_json_type(value) == MC_JSON_STRING ? mc_json_string(value, NULL) : "";
}

static inline const struct mc_json *component(
    const struct mc_json *document, const char *kind, const char *name)
{
	return mc_json_get(mc_json_get(mc_json_get(document, "components"), kind), name);
}

/* What "#/a/b~1c" points to, or NULL. */
static inline const struct mc_json *follow(const struct mc_json *document, const char *reference)
{
	const struct mc_json *at = document;
	const char *from = reference;

	if (strncmp(from, "#/", 2) != 0)
		return NULL;
	for (from++; at != NULL && *from == '/';) {
		char key[128];
		size_t length = 0;
		for (from++; *from != '\0' && *from != '/' && length < sizeof key - 1; from++) {
			char c = *from;
			if (c == '~' && (from[1] == '0' || from[1] == '1'))
				c = *++from == '1' ? '/' : '~';
			key[length++] = c;
		}
		key[length] = '\0';
		at = mc_json_get(at, key);
	}
	return at;
}

/* The object itself, or what its $ref points to. */
static inline const struct mc_json *resolved(
    const struct mc_json *document, const struct mc_json *object)
{
	const char *reference = text_of(object, "$ref");

	return reference[0] != '\0' ? follow(document, reference) : object;
}

#endif
