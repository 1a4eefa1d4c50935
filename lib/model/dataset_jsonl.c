/*
 * dataset_jsonl.c - one JSON object a line: input_ids, or a column of text
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dataset_parts.h"

#include "moecal/alloc.h"
#include "moecal/json.h"

#define MAX_LINE ((size_t)64 << 20)
#define BLOCK ((size_t)1 << 18)

/* Lines of a file, one at a time. */
struct lines {
	int fd;
	const char *path;
	char *data; /* [capacity]; owned */
	size_t capacity, begin, end;
	bool at_end;
	uint64_t number; /* of the line given last, from 1 */
};

/* Makes room behind `end` and reads more. */
static bool fill(struct lines *l, struct mc_error *err)
{
	if (l->begin > 0) {
		memmove(l->data, l->data + l->begin, l->end - l->begin);
		l->end -= l->begin;
		l->begin = 0;
	}
	if (l->end >= MAX_LINE)
		return mc_fail(err, MC_INVALID, l->path, "line %llu is longer than %zu bytes",
		    (unsigned long long)l->number + 1, MAX_LINE);
	if (!mc_grow((void **)&l->data, &l->capacity, l->end + BLOCK, 1, "a line", err))
		return false;
	ssize_t n = read(l->fd, l->data + l->end, BLOCK);
	if (n < 0)
		return mc_fail(err, MC_IO, l->path, "cannot be read");
	l->at_end = n == 0;
	l->end += (size_t)n;
	return true;
}

/* The next line without its end; *ret_line NULL behind the last one. Borrowed until the next call.
 */
static bool next_line(
    struct lines *l, const char **ret_line, size_t *ret_length, struct mc_error *err)
{
	size_t searched = 0;

	for (;;) {
		const char *from = l->data == NULL ? "" : l->data + l->begin;
		const char *newline = l->end > l->begin + searched
					  ? memchr(
						from + searched, '\n', l->end - l->begin - searched)
					  : NULL;
		if (newline != NULL || (l->at_end && l->end > l->begin)) {
			size_t length = newline != NULL ? (size_t)(newline - from)
							: l->end - l->begin;
			l->begin += length + (newline != NULL);
			l->number++;
			*ret_line = from;
			*ret_length = length;
			return true;
		}
		if (l->at_end) {
			*ret_line = NULL;
			return true;
		}
		searched = l->end - l->begin;
		if (!fill(l, err))
			return false;
	}
}

static bool is_blank(const char *line, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r')
			return false;
	return true;
}

static bool add_ids(
    struct mc_samples *s, const struct mc_json *list, const char *where, struct mc_error *err)
{
	size_t count = mc_json_size(list);

	if (mc_json_type(list) != MC_JSON_ARRAY)
		return mc_fail(err, MC_UNSUPPORTED, where, "input_ids is not a list of integers");
	int64_t *ids = mc_alloc(count, sizeof *ids, "token ids", err);
	bool ok = ids != NULL;
	for (size_t i = 0; ok && i < count; i++) {
		const struct mc_json *id = mc_json_at(list, i);
		if (mc_json_type(id) != MC_JSON_INTEGER)
			ok = mc_fail(err, MC_UNSUPPORTED, where,
			    "input_ids is not a list of integers: entry %zu is a %s", i,
			    mc_json_type_name(mc_json_type(id)));
		else
			ids[i] = mc_json_integer(id);
	}
	ok = ok && mc_samples_add_ids(s, ids, count, where, err);
	free(ids);
	return ok;
}

static bool add_line(struct mc_samples *s, const struct mc_json *line, const char *text_column,
    const char *where, struct mc_error *err)
{
	const struct mc_json *ids = mc_json_get(line, "input_ids"),
			     *text = mc_json_get(line, text_column);
	size_t length;

	if (mc_json_type(line) != MC_JSON_OBJECT)
		return mc_fail(err, MC_INVALID, where, "a line must be an object, not %s",
		    mc_json_type_name(mc_json_type(line)));
	if (ids != NULL)
		return add_ids(s, ids, where, err);
	if (text == NULL)
		return mc_fail(err, MC_INVALID, where,
		    "has neither \"input_ids\" nor the text column \"%s\"", text_column);
	if (mc_json_type(text) != MC_JSON_STRING)
		return mc_fail(err, MC_INVALID, where, "\"%s\" must be a string, not %s",
		    text_column, mc_json_type_name(mc_json_type(text)));
	const char *bytes = mc_json_string(text, &length);
	return mc_samples_add_text(s, bytes, length, where, err);
}

bool mc_read_jsonl(struct mc_samples *s, int fd, const char *text_column, struct mc_error *err)
{
	struct lines lines = {.fd = fd, .path = s->path};
	const char *line;
	size_t length;
	bool ok = true;

	while (ok && s->left > 0 && !mc_samples_are_enough(s) &&
	       (ok = next_line(&lines, &line, &length, err)) && line != NULL) {
		char where[192];
		if (is_blank(line, length))
			continue;
		/* the number must survive a long path */
		snprintf(
		    where, sizeof where, "%.160s:%llu", s->path, (unsigned long long)lines.number);
		struct mc_json *json = mc_json_parse(line, length, where, err);
		ok = json != NULL && add_line(s, json, text_column, where, err);
		mc_json_free(json);
		s->left--;
	}
	free(lines.data);
	return ok;
}

bool mc_jsonl_holds_ids(int fd, const char *path, bool *ret, struct mc_error *err)
{
	struct lines lines = {.fd = fd, .path = path};
	const char *line;
	size_t length;
	bool ok = true;

	*ret = false;
	while ((ok = next_line(&lines, &line, &length, err)) && line != NULL) {
		if (is_blank(line, length))
			continue;
		struct mc_json *json = mc_json_parse(line, length, path, err);
		ok = json != NULL;
		*ret = ok && mc_json_get(json, "input_ids") != NULL;
		mc_json_free(json);
		break;
	}
	free(lines.data);
	return ok;
}
