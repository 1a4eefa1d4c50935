/*
 * problem.c - error answers (RFC 9457)
 */
#include "problem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http_parts.h"
#include "log.h"

#include "moecal/json.h"

static const struct {
	unsigned status;
	const char *name, *title;
} rows[PROBLEM_COUNT] = {
#define X(id, number, text, headline) [PROBLEM_##id] = {number, text, headline},
    PROBLEMS(X)
#undef X
};

unsigned problem_status(enum problem problem)
{
	return rows[problem].status;
}

const char *problem_name(enum problem problem)
{
	return rows[problem].name;
}

/* What users send may be in a text, cut off in the middle of a character: never invalid UTF-8. */
static struct mc_json *text_json(const char *text)
{
	char plain[1024];
	size_t length = strnlen(text, sizeof(plain) - 1);
	if (http_is_utf8(text, strlen(text)))
		return mc_json_new_string(text);
	for (size_t i = 0; i < length; i++)
		plain[i] = (unsigned char)text[i] < 0x80 ? text[i] : '?';
	plain[length] = '\0';
	return mc_json_new_string(plain);
}

static bool add_error(struct mc_json *errors, const char *pointer, const char *detail,
    struct mc_error *err)
{
	struct mc_json *entry = mc_json_new_object();
	if (!entry)
		return mc_fail(err, MC_NO_MEMORY, "problem", "no memory");
	if (!mc_json_set(entry, "pointer", text_json(pointer), err) ||
	    !mc_json_set(entry, "detail", text_json(detail), err)) {
		mc_json_free(entry);
		return false;
	}
	return mc_json_append(errors, entry, err);
}

static bool make_document(enum problem problem, const char *detail, const char *request_id,
    const struct mc_problems *problems, struct mc_json *document, struct mc_error *err)
{
	char text[128];
	snprintf(text, sizeof(text), "urn:moecal:problem:%s", rows[problem].name);
	if (!mc_json_set(document, "type", mc_json_new_string(text), err) ||
	    !mc_json_set(document, "title", mc_json_new_string(rows[problem].title), err) ||
	    !mc_json_set(document, "status", mc_json_new_integer(rows[problem].status), err) ||
	    !mc_json_set(document, "detail", text_json(detail), err))
		return false;
	snprintf(text, sizeof(text), "urn:moecal:request:%s", request_id);
	if (!mc_json_set(document, "instance", mc_json_new_string(text), err))
		return false;
	if (!problems)
		return true;
	struct mc_json *errors = mc_json_new_array();
	for (size_t i = 0; errors && i < problems->count; i++) {
		const struct mc_problem *one = &problems->items[i];
		if (!add_error(errors, one->pointer, one->text, err)) {
			mc_json_free(errors);
			return false;
		}
	}
	return mc_json_set(document, "errors", errors, err);
}

/* Drops what the response held and fills it. */
static void fill(struct http_response *response, enum problem problem, const char *detail,
    const struct mc_problems *problems)
{
	struct mc_error err;
	struct mc_buf text;
	struct mc_json *document = mc_json_new_object();
	mc_error_init(&err);
	mc_buf_init(&text, SIZE_MAX);
	http_response_clear(response);
	bool made =
	    document &&
	    make_document(problem, detail, response->request_id, problems, document, &err) &&
	    mc_json_write(document, MC_JSON_COMPACT, &text, &err);
	if (made)
		http_reply_text(response, rows[problem].status, "application/problem+json", &text);
	else /* no memory: the status still tells the truth */
		http_reply_empty(response, rows[problem].status);
	mc_buf_release(&text);
	mc_json_free(document);
	if (rows[problem].status == 401)
		http_set_header(response, "WWW-Authenticate", "Bearer");
	if (rows[problem].status == 429 || rows[problem].status == 503)
		http_set_header(response, "Retry-After", "1");
}

void problem_reply(struct http_response *response, enum problem problem, const char *fmt, ...)
{
	char detail[1024];
	va_list args;
	va_start(args, fmt);
	vsnprintf(detail, sizeof(detail), fmt, args);
	va_end(args);
	fill(response, problem, detail, NULL);
}

void problem_reply_fields(struct http_response *response, const struct mc_problems *problems)
{
	char detail[96];
	if (problems->total == 1)
		snprintf(detail, sizeof(detail), "One field is not valid; see errors.");
	else if (problems->total == problems->count)
		snprintf(
		    detail, sizeof(detail), "%zu fields are not valid; see errors.", problems->total);
	else
		snprintf(detail, sizeof(detail),
		    "%zu fields are not valid; errors has the first %zu.", problems->total,
		    problems->count);
	fill(response, PROBLEM_SPEC, detail, problems);
}

static void reply_field(struct http_response *response, const struct mc_error *err)
{
	struct mc_problems problems;
	bool pointer = err->where[0] == '/';
	mc_problems_init(&problems);
	if (pointer || err->where[0] == '\0')
		mc_problems_add(&problems, err->where, "%s", err->text);
	else
		mc_problems_add(&problems, "", "%s: %s", err->where, err->text);
	problem_reply_fields(response, &problems);
	mc_problems_release(&problems);
}

static void reply_plain(struct http_response *response, enum problem problem,
    const struct mc_error *err)
{
	problem_reply(
	    response, problem, "%s%s%s", err->where, err->where[0] ? ": " : "", err->text);
}

void problem_reply_error(struct http_response *response, const struct mc_error *err)
{
	switch (err->code) {
	case MC_INVALID:
		reply_field(response, err);
		return;
	case MC_NOT_FOUND:
	case MC_CORRUPT:
		reply_plain(response, PROBLEM_INPUT, err);
		return;
	case MC_CONFLICT:
		reply_plain(response, PROBLEM_STATE, err);
		return;
	case MC_UNSUPPORTED:
		reply_plain(response, PROBLEM_UNSUPPORTED, err);
		return;
	case MC_NO_MEMORY:
		reply_plain(response, PROBLEM_TOO_BIG, err);
		return;
	case MC_NO_SPACE:
		reply_plain(response, PROBLEM_DISK_LOW, err);
		return;
	case MC_CANCELED:
		reply_plain(response, PROBLEM_DRAINING, err);
		return;
	case MC_OK:
	case MC_IO:
	case MC_INTERNAL:
		break;
	}
	log_say(LOG_LEVEL_ERROR, NULL, response->request_id, "a request failed: %s: %s", err->where,
	    err->text);
	problem_reply(response, PROBLEM_INTERNAL,
	    "The service's log has the details under this request's id.");
}
