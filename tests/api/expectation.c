/*
 * expectation.c - holds an answer against what a scenario expects of it
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scenario.h"

static bool holds(const struct mc_json *got, const struct mc_json *wanted);

static bool object_holds(const struct mc_json *got, const struct mc_json *wanted)
{
	struct mc_json_iter member = mc_json_iter(wanted);

	while (mc_json_next(&member))
		if (!holds(mc_json_get(got, member.key), member.value))
			return false;
	return true;
}

static bool holds(const struct mc_json *got, const struct mc_json *wanted)
{
	enum mc_json_type type = mc_json_type(wanted);

	if (got == NULL)
		return false;
	if (type == MC_JSON_STRING) {
		const char *text = mc_json_string(wanted, NULL);
		if (strcmp(text, "*") == 0)
			return !mc_json_is_null(got);
		if (text[0] == '~')
			return mc_json_type(got) == MC_JSON_STRING &&
			       strstr(mc_json_string(got, NULL), text + 1) != NULL;
	}
	if (mc_json_type(got) != type)
		return false;
	if (type == MC_JSON_OBJECT)
		return object_holds(got, wanted);
	if (type != MC_JSON_ARRAY)
		return mc_json_equal(got, wanted);
	if (mc_json_size(got) != mc_json_size(wanted))
		return false;
	for (size_t i = 0; i < mc_json_size(wanted); i++)
		if (!holds(mc_json_at(got, i), mc_json_at(wanted, i)))
			return false;
	return true;
}

static void compare_json(struct scenario *s, const char *text)
{
	char found[4096];
	struct mc_error err;

	mc_error_init(&err);
	struct mc_json *wanted = mc_json_parse(text, strlen(text), "expected", &err);
	if (wanted == NULL) {
		complain(s, "the expected JSON: %s", err.text);
		return;
	}
	mc_error_init(&err);
	struct mc_json *got = s->body.length == 0
				  ? NULL
				  : mc_json_parse(s->body.data, s->body.length, "answer", &err);
	show(got, found, sizeof found);
	if (!holds(got, wanted))
		complain(s, "expected %.300s, the answer is %.3000s", text, found);
	mc_json_free(wanted);
	mc_json_free(got);
}

/* A JSON string, which the body must hold. */
static void compare_text(struct scenario *s, const char *line)
{
	struct mc_error err;

	mc_error_init(&err);
	struct mc_json *wanted = mc_json_parse(line, strlen(line), "expected", &err);
	if (wanted == NULL || mc_json_type(wanted) != MC_JSON_STRING)
		complain(s, "the expected text: %s", err.text);
	else if (strstr(mc_buf_text(&s->body), mc_json_string(wanted, NULL)) == NULL)
		complain(s, "%s is not in the body: %.600s", line, mc_buf_text(&s->body));
	mc_json_free(wanted);
}

static void compare_header(struct scenario *s, char *line)
{
	char *colon = strchr(line, ':');

	if (line[0] == '!') {
		if (header(s, line + 1) != NULL)
			complain(s, "the header %s should not be there", line + 1);
		return;
	}
	*colon = '\0';
	const char *wanted = colon + 1 + strspn(colon + 1, " "), *got = header(s, line);
	if (got == NULL)
		complain(s, "the header %s is missing", line);
	else if (wanted[0] == '~' ? strstr(got, wanted + 1) == NULL
				  : strcmp(wanted, "*") != 0 && strcmp(wanted, got) != 0)
		complain(s, "%s is '%s', expected '%s'", line, got, wanted);
}

void compare(struct scenario *s)
{
	struct mc_buf json; /* its lines, which come last */

	mc_buf_init(&json, MAX_EXPECTED * LINE_SIZE);
	for (size_t i = 0; i < s->expected_count; i++) {
		char *line = s->expected[i];
		if (strcmp(line, "silent") == 0) {
			if (s->answered)
				complain(s, "expected no answer, got %u", s->status);
		} else if (!s->answered) {
			complain(s, "there was no answer");
			break;
		} else if (isdigit((unsigned char)line[0]) && json.length == 0) {
			if ((unsigned)strtoul(line, NULL, 10) != s->status)
				complain(s, "status %u, expected %s; %.600s", s->status, line,
				    mc_buf_text(&s->body));
		} else if (strcmp(line, "closed") == 0) {
			if (!is_closed(s->connection))
				complain(s, "the connection is still open");
		} else if (line[0] == '"' && json.length == 0) {
			compare_text(s, line);
		} else if (line[0] == '{' || line[0] == '[' || json.length > 0) {
			add(&json, line, strlen(line));
			add(&json, "\n", 1);
		} else {
			compare_header(s, line);
		}
	}
	if (json.length > 0 && s->answered)
		compare_json(s, mc_buf_text(&json));
	mc_buf_release(&json);
}
