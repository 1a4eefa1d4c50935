/*
 * api.c - see api.h
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "api.h"
#include "executor.h"
#include "inputs.h"
#include "state.h"

#include "moecal/alloc.h"

#define MAX_ANSWER ((size_t)512 << 20)
#define MAX_ASKED ((size_t)16 << 20)
#define SEAT_SECONDS 15 /* how long a request waits for an inspector */

/* --- lists ------------------------------------------------------------------------------------- */

bool page_read(struct page *page, const struct http_request *request,
    struct http_response *response, const char *fmt, ...)
{
	const char *cursor = http_query(request, "cursor");
	struct mc_error err;
	va_list args;

	*page = (struct page){0};
	va_start(args, fmt);
	int length = vsnprintf(page->filter, sizeof page->filter, fmt, args);
	va_end(args);
	if (length < 0 || (size_t)length >= sizeof page->filter) {
		problem_reply(response, PROBLEM_QUERY, "the filter is too long");
		return false;
	}
	if (!http_query_count(
		request, "limit", 1, API_MAX_LIMIT, API_LIMIT, &page->limit, response))
		return false;
	mc_error_init(&err);
	if (cursor == NULL ||
	    cursor_parse(cursor, page->filter, page->key, sizeof page->key, &err))
		return true;
	problem_reply(response, PROBLEM_CURSOR,
	    "use next_cursor of an answer to the same list with the same filter: %s", err.text);
	return false;
}

void page_reply(const struct page *page, const struct http_request *request,
    struct http_response *response, const char *name, struct mc_json *list, const char *next)
{
	char cursor[1024] = "";
	struct mc_error err;
	struct mc_json *root = mc_json_new_object();

	mc_error_init(&err);
	bool more = next != NULL && next[0] != '\0';
	bool ok = mc_json_set(root, name, list, &err) &&
		  (!more || cursor_make(next, page->filter, cursor, sizeof cursor, &err)) &&
		  mc_json_set(root, "next_cursor",
		      more ? mc_json_new_string(cursor) : mc_json_new_null(), &err);
	if (!ok) {
		mc_json_free(root);
		root = NULL;
	}
	api_reply(request, response, root, &err);
}

/* --- answers ----------------------------------------------------------------------------------- */

void api_reply(const struct http_request *request, struct http_response *response,
    struct mc_json *json, const struct mc_error *failed)
{
	char hex[MC_SHA256_HEX], tag[24];
	struct mc_buf text;
	struct mc_error err;

	if (json == NULL) {
		api_reply_error(response, failed);
		return;
	}
	mc_error_init(&err);
	mc_buf_init(&text, MAX_ANSWER);
	bool ok = mc_json_write(json, MC_JSON_COMPACT, &text, &err) &&
		  mc_buf_add(&text, "\n", 1, &err) &&
		  mc_sha256_bytes(text.data, text.length, hex, &err);
	mc_json_free(json);
	if (!ok) {
		mc_buf_release(&text);
		api_reply_error(response, &err);
		return;
	}
	snprintf(tag, sizeof tag, "\"%.16s\"", hex);
	if (http_none_match(request, tag)) {
		mc_buf_release(&text);
		http_reply_empty(response, 304);
	} else {
		http_reply_text(response, 200, "application/json", &text);
	}
	http_set_header(response, "ETag", tag);
	http_set_header(response, "Cache-Control", "no-cache");
}

void api_reply_error(struct http_response *response, const struct mc_error *err)
{
	if (err->code == MC_NOT_FOUND)
		problem_reply(response, PROBLEM_NOT_FOUND, "%s: %s", err->where, err->text);
	else if (err->code == MC_CONFLICT)
		problem_reply(response, PROBLEM_STATE, "%s: %s", err->where, err->text);
	else if (err->code == MC_IO && strcmp(err->where, "database") == 0)
		problem_reply(response, PROBLEM_STORE, "the database failed; the log has the reason");
	else
		problem_reply_error(response, err);
}

bool api_link(
    struct mc_json *object, const char *name, struct mc_error *err, const char *fmt, ...)
{
	char text[256];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	struct mc_json *links = (struct mc_json *)mc_json_get(object, "links");
	if (links == NULL) {
		links = mc_json_new_object();
		if (!mc_json_set(object, "links", links, err))
			return false;
	}
	return mc_json_set(links, name, mc_json_new_string(text), err);
}

bool api_set_time(struct mc_json *object, const char *key, int64_t ms, struct mc_error *err)
{
	char text[TIME_SIZE];

	return mc_json_set(object, key,
	    ms == 0 ? mc_json_new_null() : mc_json_new_string(time_text(ms, text)), err);
}

bool api_set_document(
    struct mc_json *object, const char *key, const char *text, struct mc_error *err)
{
	if (text == NULL)
		return mc_json_set(object, key, mc_json_new_null(), err);
	return mc_json_set(object, key, mc_json_parse(text, strlen(text), key, err), err);
}

char *api_text(const struct mc_json *json, struct mc_error *err)
{
	struct mc_buf text;
	char *copy = NULL;

	mc_buf_init(&text, (size_t)8 << 20);
	if (json != NULL && mc_json_write(json, MC_JSON_COMPACT, &text, err))
		copy = mc_strdup(mc_buf_text(&text), err);
	mc_buf_release(&text);
	return copy;
}

/* --- making ------------------------------------------------------------------------------------ */

bool api_idempotency_key(
    const struct http_request *request, char key[65], struct http_response *response)
{
	const char *value = http_header(request, "Idempotency-Key");
	size_t length = value == NULL ? 0 : strlen(value);

	key[0] = '\0';
	if (value == NULL)
		return true;
	if (length >= 2 && value[0] == '"' && value[length - 1] == '"') {
		value++;
		length -= 2;
	}
	bool ok = length > 0 && length <= 64;
	for (size_t i = 0; ok && i < length; i++)
		ok = strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-",
			 value[i]) != NULL;
	if (ok)
		snprintf(key, 65, "%.*s", (int)length, value);
	else
		problem_reply(response, PROBLEM_HEADER,
		    "Idempotency-Key must be 1 to 64 letters, digits, '_' or '-'");
	return ok;
}

bool api_fingerprint(
    const struct mc_json *json, char ret_hex[MC_SHA256_HEX], struct mc_error *err)
{
	struct mc_buf text;

	mc_buf_init(&text, MAX_ASKED);
	bool ok = mc_json_write(json, MC_JSON_SORTED, &text, err) &&
		  mc_sha256_bytes(mc_buf_text(&text), text.length, ret_hex, err);
	mc_buf_release(&text);
	return ok;
}

bool api_require_open(struct service *service, struct http_response *response)
{
	uint64_t bytes;

	if (atomic_load(&service->draining)) {
		problem_reply(response, PROBLEM_DRAINING, "ask again when it runs");
		return false;
	}
	if (state_has_space(
		service->settings.state, service_setting(service, free_percent), &bytes))
		return true;
	problem_reply(response, PROBLEM_DISK_LOW,
	    "%llu MB are free on the disk of the state folder, less than %llu %% of it",
	    (unsigned long long)(bytes >> 20),
	    (unsigned long long)service_setting(service, free_percent));
	http_set_header(response, "Retry-After", "60");
	return false;
}

bool api_require_body(const struct http_request *request, struct http_response *response)
{
	if (request->json != NULL)
		return true;
	problem_reply(response, PROBLEM_JSON, "a body is needed: a JSON document");
	return false;
}

bool api_require_no_body(const struct http_request *request, struct http_response *response)
{
	if (request->json == NULL || (mc_json_type(request->json) == MC_JSON_OBJECT &&
					 mc_json_size(request->json) == 0))
		return true;
	problem_reply(response, PROBLEM_REQUEST, "this takes no body, or an empty object");
	return false;
}

/* A full queue has room again about when one more job is done. */
static void set_retry_after(struct service *service, struct http_response *response)
{
	char text[24];
	double seconds = 0;
	struct mc_error err;

	mc_error_init(&err);
	if (!store_typical_seconds(service->store, &seconds, &err))
		log_error(NULL, "the typical time of a job", &err);
	snprintf(text, sizeof text, "%.0f", seconds < 10 ? 10 : seconds > 600 ? 600 : seconds);
	http_set_header(response, "Retry-After", text);
}

bool api_was_added(struct service *service, enum store_added added, const char *what, const char *id,
    struct http_response *response)
{
	switch (added) {
	case ADDED:
	case ADDED_BEFORE:
		return true;
	case ADD_KEY_REUSED:
		problem_reply(response, PROBLEM_KEY_REUSED,
		    "this Idempotency-Key was used for another request: use a new one");
		break;
	case ADD_NAME_TAKEN:
		problem_reply(response, PROBLEM_NAME_TAKEN, "there is a %s '%s'", what, id);
		break;
	case ADD_FULL:
		problem_reply(response, PROBLEM_QUEUE_FULL,
		    "as many %ss are held as the settings allow", what);
		set_retry_after(service, response);
		break;
	case ADD_QUOTA:
		problem_reply(response, PROBLEM_QUOTA,
		    "as many %ss of this token wait as the settings allow", what);
		set_retry_after(service, response);
		break;
	}
	return false;
}

#define NAME_FORM "1 to 64 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit"
#define MOST_TEXTS 8

static void read_text(const struct mc_json_iter *member, const struct api_text *texts, size_t count,
    struct mc_problems *problems)
{
	const char *known[MOST_TEXTS];
	char pointer[160];
	size_t found = count;

	for (size_t i = 0; i < count; i++) {
		known[i] = texts[i].name;
		if (strcmp(texts[i].name, member->key) == 0)
			found = i;
	}
	mc_pointer_join(pointer, "", member->key);
	if (found == count)
		mc_problems_add_unknown_key(problems, "", member->key, known, count);
	else if (mc_json_type(member->value) != MC_JSON_STRING)
		mc_problems_add(problems, pointer, "must be a string");
	else
		*texts[found].into = mc_json_string(member->value, NULL);
	if (found < count && strcmp(texts[found].name, "id") == 0 && *texts[found].into != NULL &&
	    !id_is_valid(*texts[found].into))
		mc_problems_add(problems, pointer, "must be " NAME_FORM);
}

bool api_read_texts(const struct mc_json *json, const struct api_text *texts, size_t count,
    struct http_response *response)
{
	struct mc_problems problems;
	struct mc_json_iter member = mc_json_iter(json);
	char pointer[160];

	mc_assert(count <= MOST_TEXTS);
	mc_problems_init(&problems);
	if (mc_json_type(json) != MC_JSON_OBJECT)
		mc_problems_add(&problems, "", "must be an object with a \"path\"");
	while (mc_json_next(&member))
		read_text(&member, texts, count, &problems);
	for (size_t i = 0; mc_json_type(json) == MC_JSON_OBJECT && i < count; i++)
		if (texts[i].needed != NULL && mc_json_get(json, texts[i].name) == NULL)
			mc_problems_add(&problems, mc_pointer_join(pointer, "", texts[i].name),
			    "is needed: %s", texts[i].needed);
	bool ok = problems.total == 0;
	if (!ok)
		problem_reply_fields(response, &problems);
	mc_problems_release(&problems);
	return ok;
}

bool api_choose_id(
    const char *given, const char *prefix, char ret_id[ID_SIZE], struct http_response *response)
{
	struct mc_error err;

	if (given != NULL && id_is_valid(given)) {
		snprintf(ret_id, ID_SIZE, "%s", given);
		return true;
	}
	if (given != NULL) { /* of a query: those of bodies were looked at */
		problem_reply(response, PROBLEM_QUERY, "id must be " NAME_FORM);
		return false;
	}
	mc_error_init(&err);
	if (id_make(prefix, now_ms(), ret_id, &err))
		return true;
	problem_reply_error(response, &err);
	return false;
}

/* --- asking moecal ----------------------------------------------------------------------------- */

static bool is_stopping(void *ctx)
{
	return atomic_load(&((struct service *)ctx)->draining);
}

static bool take_seat(struct service *service, struct http_response *response)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += SEAT_SECONDS;
	while (sem_timedwait(&service->inspectors, &until) != 0)
		if (errno != EINTR) {
			problem_reply(response, PROBLEM_BUSY,
			    "too many plans and registrations are in work");
			http_set_header(response, "Retry-After", "5");
			return false;
		}
	return true;
}

/* An upload lies under the id of its request; its sender calls it "the upload". */
static void hide_upload(const struct http_response *response, char *detail)
{
	static const char shown[] = "the upload";
	char name[64];
	int length = snprintf(name, sizeof name, "datasets/%s.", http_response_request(response));
	char *at = strstr(detail, name);

	if (at == NULL)
		return;
	size_t whole = (size_t)length + strcspn(at + length, ":");
	memmove(at + sizeof shown - 1, at + whole, strlen(at + whole) + 1);
	memcpy(at, shown, sizeof shown - 1);
}

/* What moecal said when it refused, to the answer that goes with it. */
static void reply_refusal(struct service *service, const struct mc_json *said,
    const struct mc_buf *messages, int exit_code, struct http_response *response)
{
	const struct mc_json *code = mc_json_get(said, "code"), *where = mc_json_get(said, "where"),
			     *text = mc_json_get(said, "text");
	char detail[768];

	if (code == NULL || text == NULL || where == NULL) {
		log_say(LOG_LEVEL_ERROR, NULL, NULL, "moecal ended with %d: %s", exit_code,
		    mc_buf_text(messages));
		problem_reply(response, PROBLEM_INTERNAL, "the inspection crashed");
		return;
	}
	snprintf(detail, sizeof detail, "%s: %s", mc_json_string(where, NULL),
	    mc_json_string(text, NULL));
	state_hide(service->settings.state, "", detail);
	hide_upload(response, detail);
	const char *name = mc_json_string(code, NULL);
	if (strcmp(name, mc_code_name(MC_UNSUPPORTED)) == 0)
		problem_reply(response, PROBLEM_UNSUPPORTED, "%s", detail);
	else if (strcmp(name, mc_code_name(MC_NO_MEMORY)) == 0)
		problem_reply(response, PROBLEM_TOO_BIG, "%s", detail);
	else if (strcmp(name, mc_code_name(MC_CANCELED)) == 0)
		problem_reply(response, PROBLEM_DRAINING, "ask again when it runs");
	else if (strcmp(name, mc_code_name(MC_IO)) == 0 ||
		 strcmp(name, mc_code_name(MC_INTERNAL)) == 0) {
		log_say(LOG_LEVEL_ERROR, NULL, NULL, "moecal: %s", detail);
		problem_reply(response, PROBLEM_INTERNAL, "the log has the reason");
	} else
		problem_reply(response, PROBLEM_INPUT, "%s", detail);
}

static bool understand(struct service *service, struct mc_buf *out, const struct mc_buf *messages,
    int exit_code, struct mc_json **ret, struct http_response *response)
{
	struct mc_error err;

	mc_error_init(&err);
	*ret = out->length > 0 ? mc_json_parse(out->data, out->length, "answer", &err) : NULL;
	if (*ret != NULL && mc_json_get(*ret, "event") == NULL)
		return true;
	reply_refusal(service, *ret, messages, exit_code, response);
	mc_json_free(*ret);
	*ret = NULL;
	return false;
}

static bool run_moecal(struct service *service, const char *const *words, const struct mc_buf *input,
    uint64_t seconds, struct mc_buf *out, struct mc_buf *messages, int *ret_exit, struct mc_error *err)
{
	size_t count = 0, given = 0;
	char parent[32];

	while (words[given] != NULL)
		given++;
	char *uploads = mc_format(err, "%s/datasets", service->settings.state);
	char **argv = mc_alloc(
	    given + 8 + 2 * service->settings.allow.count, sizeof *argv, "options", err);
	bool ok = uploads != NULL && argv != NULL;
	if (ok) {
		argv[count++] = service->program;
		for (size_t i = 0; i < given; i++)
			argv[count++] = (char *)words[i];
		snprintf(parent, sizeof parent, "%ld", (long)getpid());
		argv[count++] = (char *)"--parent";
		argv[count++] = parent;
		count = input_allow_options(service, uploads, argv, count);
		ok = executor_ask(argv, input, (unsigned)seconds, is_stopping, service, out, messages,
		    ret_exit, err);
	}
	free(argv);
	free(uploads);
	return ok;
}

bool api_ask(struct service *service, const char *const *words, const struct mc_buf *input,
    uint64_t seconds, struct mc_json **ret, struct http_response *response)
{
	struct mc_buf out, messages;
	struct mc_error err;
	int exit_code = 0;

	if (!take_seat(service, response))
		return false;
	int64_t began = monotonic_ms();
	mc_error_init(&err);
	mc_buf_init(&out, MAX_ASKED);
	mc_buf_init(&messages, 4096);
	bool ok = run_moecal(service, words, input, seconds, &out, &messages, &exit_code, &err);
	sem_post(&service->inspectors);
	metrics_observe(service->metrics, HISTOGRAM_PLAN, (double)(monotonic_ms() - began) / 1000);
	if (ok)
		ok = understand(service, &out, &messages, exit_code, ret, response);
	else if (err.code == MC_CANCELED && !atomic_load(&service->draining))
		problem_reply(response, PROBLEM_INPUT,
		    "looking at the files took longer than the %llu seconds allowed",
		    (unsigned long long)seconds);
	else
		problem_reply_error(response, &err);
	mc_buf_release(&out);
	mc_buf_release(&messages);
	return ok;
}
