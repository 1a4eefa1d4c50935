/*
 * client_calls.c - requests as commands make them: patience, messages, pages
 */
#include "client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/random.h>
#include <time.h>

#include "moecal/alloc.h"

#define MOST_TRIES 5
#define MOST_WAIT_S 600
#define PAGE 200
#define MOST_QUERY 1000 /* characters of a value, so that an address holds it */

/* --- what a service says of itself --------------------------------------------------------- */

/* Kinds of problems whose detail says all that there is to say. */
static bool is_told_by_detail(const char *type)
{
	static const char *const names[] = {"not-found", "state-conflict", "not-finished",
	    "name-taken", "unsupported", "input-invalid", "idempotency-key-reused"};
	static const char prefix[] = "urn:moecal:problem:";

	if (strncmp(type, prefix, sizeof prefix - 1) != 0)
		return false;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (strcmp(type + sizeof prefix - 1, names[i]) == 0)
			return true;
	return false;
}

/* "TITLE: DETAIL" of a problem document to stderr; `otherwise` when it is none. */
static void print_cause(const struct mc_json *problem, const char *otherwise)
{
	const char *title = member_text(problem, "title"), *detail = member_text(problem, "detail");

	if (title[0] == '\0')
		title = otherwise;
	if (detail[0] == '\0' || !is_told_by_detail(member_text(problem, "type"))) {
		print_plain(stderr, title);
		print_plain(stderr, detail[0] != '\0' ? ": " : "");
	}
	print_plain(stderr, detail);
}

/* --- patience ----------------------------------------------------------------------------------- */

bool client_pause(int64_t seconds)
{
	int64_t until = client_clock_s() + seconds;

	/* a signal may come just before the sleep: not longer than a second at once */
	while (session_signal() == 0 && client_clock_s() < until)
		nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
	return session_signal() == 0;
}

bool client_is_busy(const struct client_answer *answer)
{
	return answer->outcome == CLIENT_REFUSED && (answer->status == 429 || answer->status == 503);
}

enum client_outcome client_call(
    struct client *client, const struct client_request *request, struct client_answer *answer)
{
	for (int try = 1;; try++) {
		client_send(client, request, answer);
		if (!client_is_busy(answer) || try == MOST_TRIES)
			return answer->outcome;
		int64_t wait = answer->retry_after_s > 0 ? answer->retry_after_s : 1 << try;
		wait = wait < MOST_WAIT_S ? wait : MOST_WAIT_S;
		fprintf(stderr, "moecal: ");
		print_cause(answer->json, "The service is busy");
		fprintf(stderr, " (trying again in %lld s)\n", (long long)wait);
		client_answer_release(answer);
		if (!client_pause(wait)) {
			answer->outcome = CLIENT_STOPPED;
			return CLIENT_STOPPED;
		}
	}
}

/* --- messages ----------------------------------------------------------------------------------- */

/* 4xx wants another request; 429 and 5xx the same one later; a bug of the service neither. */
static int exit_code_of(int status)
{
	if (status == 500)
		return EXIT_JOB_FAILED;
	if (status == 408 || status == 429 || status > 500 || status < 400)
		return EXIT_UNREACHABLE;
	return EXIT_USAGE;
}

static void print_problem(const struct mc_json *problem)
{
	const struct mc_json *errors = mc_json_get(problem, "errors");

	/* the detail only counts the errors that follow */
	if (mc_json_size(errors) > 0)
		print_plain(stderr, member_text(problem, "title"));
	else
		print_cause(problem, "");
	fprintf(stderr, "%s\n", mc_json_size(errors) > 0 ? ":" : "");
	for (size_t i = 0; i < mc_json_size(errors); i++) {
		const struct mc_json *one = mc_json_at(errors, i);
		const char *pointer = member_text(one, "pointer");
		fprintf(stderr, "  ");
		print_plain(stderr, pointer[0] != '\0' ? pointer : "/");
		print_plain(stderr, ": ");
		print_plain(stderr, member_text(one, "detail"));
		putc('\n', stderr);
	}
}

/* The service speaks of headers; who types commands has variables. */
static void print_token_needed(const struct client *client)
{
	const char *from = client_token_from(client);

	print_plain(stderr, client_url(client));
	if (from != NULL)
		fprintf(stderr, ": the service does not know the token of %s\n", from);
	else
		fprintf(stderr, ": a token is needed: put it into MOECAL_TOKEN, or the name of its "
				"file into MOECAL_TOKEN_FILE\n");
}

static int report_refusal(
    const struct client *client, const struct client_answer *answer, bool json)
{
	char text[96];
	int code = exit_code_of(answer->status);

	if (member_text(answer->json, "title")[0] == '\0') {
		snprintf(text, sizeof text, "answers with status %d, and not as moecald does",
		    answer->status);
		report_failure("unreachable", client_url(client), text, EXIT_UNREACHABLE, json);
		return EXIT_UNREACHABLE;
	}
	if (json)
		print_json_line(answer->json);
	fprintf(stderr, "moecal: ");
	if (answer->status == 401)
		print_token_needed(client);
	else
		print_problem(answer->json);
	return code;
}

int client_report(const struct client *client, const struct client_answer *answer, bool json)
{
	switch (answer->outcome) {
	case CLIENT_STOPPED:
		fprintf(stderr, "moecal: stopped\n");
		return session_signal() == SIGTERM ? EXIT_REQUEUE : EXIT_INTERRUPTED;
	case CLIENT_UNREACHABLE:
		report_failure("unreachable", answer->err.where, answer->err.text, EXIT_UNREACHABLE,
		    json);
		return EXIT_UNREACHABLE;
	case CLIENT_REFUSED:
		return report_refusal(client, answer, json);
	case CLIENT_FAILED:
		return report_error(&answer->err, json, answer->err.code != MC_INVALID);
	case CLIENT_DONE:
		break;
	}
	return EXIT_DONE;
}

int client_wrong_answer(const struct client *client, bool json)
{
	report_failure(
	    "unreachable", client_url(client), CLIENT_NOT_MOECALD, EXIT_UNREACHABLE, json);
	return EXIT_UNREACHABLE;
}

int client_do(struct client *client, const struct client_request *request, bool json,
    struct client_answer *answer)
{
	if (client_call(client, request, answer) == CLIENT_DONE)
		return EXIT_DONE;
	int code = client_report(client, answer, json);
	client_answer_release(answer);
	return code;
}

/* --- what several commands print ----------------------------------------------------------- */

void client_print_removed(const char *id, bool json)
{
	struct mc_json *document;
	struct mc_error err;

	if (!json) {
		printf("%s: deleted\n", id);
		return;
	}
	mc_error_init(&err);
	document = mc_json_new_object();
	if (!mc_json_set(document, "id", mc_json_new_string(id), &err) ||
	    !mc_json_set(document, "deleted", mc_json_new_bool(true), &err) ||
	    !print_json(document, &err))
		(void)report_error(&err, false, true);
	mc_json_free(document);
}

void client_tell_more(const struct mc_json *document)
{
	if (member_text(document, "next_cursor")[0] == '\0')
		return;
	fflush(stdout); /* on a terminal this comes behind the table */
	fprintf(stderr, "moecal: more follow; --limit 0 shows all\n");
}

/* --- addresses ---------------------------------------------------------------------------------- */

bool query_add(struct mc_buf *path, const char *name, const char *value, struct mc_error *err)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
				    "-._~/,";

	if (value == NULL)
		return true;
	if (strlen(value) > MOST_QUERY)
		return mc_fail(err, MC_INVALID, name, "has more than %d characters", MOST_QUERY);
	bool ok = mc_buf_addf(
	    path, err, "%c%s=", strchr(mc_buf_text(path), '?') != NULL ? '&' : '?', name);
	for (; ok && *value != '\0'; value++)
		ok = strchr(plain, *value) != NULL
			 ? mc_buf_add(path, value, 1, err)
			 : mc_buf_addf(path, err, "%%%02X", (unsigned)(unsigned char)*value);
	return ok;
}

bool client_id_is_valid(const char *id)
{
	size_t length = strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789._-");

	return length > 0 && length <= 64 && id[length] == '\0' && strchr("._-", id[0]) == NULL;
}

int client_read_id(const struct option_row *table, int argc, char **argv, const char *thing,
    const char **ret_id)
{
	size_t count;
	int code = options_read(table, argc, argv, ret_id, 1, &count);

	if (code != EXIT_DONE)
		return code;
	if (count == 0)
		return usage_error(argv[0], "the id of a %s is needed", thing);
	return client_id_is_valid(*ret_id)
		   ? EXIT_DONE
		   : usage_error(argv[0], "'%s' is no id of a %s", *ret_id, thing);
}

bool client_make_key(char ret_key[CLIENT_KEY_SIZE], struct mc_error *err)
{
	unsigned char bytes[16];

	if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
		return mc_fail_errno(err, errno, "key", "the kernel gives no random bytes");
	for (size_t i = 0; i < sizeof bytes; i++)
		snprintf(ret_key + 2 * i, 3, "%02x", bytes[i]);
	return true;
}

/* --- lists -------------------------------------------------------------------------------------- */

static bool page_path(struct mc_buf *path, const char *base, int64_t want, const char *cursor,
    struct mc_error *err)
{
	char count[24];

	mc_buf_clear(path);
	snprintf(count, sizeof count, "%lld", (long long)want);
	return mc_buf_add(path, base, strlen(base), err) && query_add(path, "limit", count, err) &&
	       query_add(path, "cursor", cursor[0] != '\0' ? cursor : NULL, err);
}

/* The entries of a page to those before; what follows it into the document. */
static bool take_page(struct mc_json *document, struct mc_json *list, const struct mc_json *page,
    const char *name, struct mc_error *err)
{
	const struct mc_json *entries = mc_json_get(page, name);
	const struct mc_json *next = mc_json_get(page, "next_cursor");

	if (mc_json_type(entries) != MC_JSON_ARRAY ||
	    (mc_json_type(next) != MC_JSON_STRING && !mc_json_is_null(next)))
		return mc_fail(err, MC_CORRUPT, "service", "its answer has no list of %s", name);
	for (size_t i = 0; i < mc_json_size(entries); i++)
		if (!mc_json_append(list, mc_json_copy(mc_json_at(entries, i), err), err))
			return false;
	return mc_json_set(document, "next_cursor",
	    next != NULL ? mc_json_copy(next, err) : mc_json_new_null(), err);
}

static int fill_list(struct client *client, const char *base, const char *name, int64_t limit,
    bool json, struct mc_json *document, struct mc_json *list)
{
	struct mc_buf path;
	struct mc_error err;
	int code = EXIT_DONE;
	bool more = true;

	mc_error_init(&err);
	mc_buf_init(&path, 8192);
	while (code == EXIT_DONE && more) {
		struct client_answer answer;
		size_t before = mc_json_size(list);
		int64_t left = limit > 0 ? limit - (int64_t)before : PAGE;
		if (!page_path(&path, base, left < PAGE ? left : PAGE,
			member_text(document, "next_cursor"), &err)) {
			code = report_error(&err, json, true);
			break;
		}
		struct client_request request = {.path = mc_buf_text(&path)};
		code = client_do(client, &request, json, &answer);
		if (code != EXIT_DONE)
			break;
		if (!take_page(document, list, answer.json, name, &err))
			code = report_error(&err, json, true);
		client_answer_release(&answer);
		/* an empty page with a cursor would lead round and round */
		more = member_text(document, "next_cursor")[0] != '\0' &&
		       mc_json_size(list) > before &&
		       (limit == 0 || (int64_t)mc_json_size(list) < limit);
	}
	mc_buf_release(&path);
	return code;
}

int client_list(struct client *client, const char *path, const char *name, int64_t limit, bool json,
    struct mc_json **ret)
{
	struct mc_json *document = mc_json_new_object(), *list = mc_json_new_array();
	struct mc_error err;

	mc_error_init(&err);
	*ret = NULL;
	if (!mc_json_set(document, name, list, &err) ||
	    !mc_json_set(document, "next_cursor", mc_json_new_null(), &err)) {
		mc_json_free(document);
		return report_error(&err, json, true);
	}
	int code = fill_list(client, path, name, limit, json, document, list);
	if (code == EXIT_DONE)
		*ret = document;
	else
		mc_json_free(document);
	return code;
}
