/*
 * command_submit.c - moecal submit: a job for the service
 *
 * Every request that makes something carries an idempotency key. When the answer is lost, nobody
 * knows whether there is a job; the same command with the same key then finds it or makes it.
 */
#include <stdlib.h>
#include <string.h>

#include "client.h"

#include "moecal/sha256.h"

struct submission {
	struct client_options options;
	struct spec_arguments spec;
	bool wait;
	const char *key;
	struct option_texts uploads;
	size_t uploaded; /* of them, by now */
	const char *text_column;
	int64_t priority, deadline_s, keep_s, retry_for_s; /* INT64_MIN: not given */
};

/* --- arguments ---------------------------------------------------------------------------------- */

static bool key_is_valid(const char *key)
{
	size_t length = strlen(key);

	return length > 0 && length < CLIENT_KEY_SIZE &&
	       strspn(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") ==
		   length;
}

static int read_submission(struct submission *s, int argc, char **argv)
{
	const struct option_row own[] = {CLIENT_OPTION_ROWS(&s->options),
	    {"--wait", OPTION_FLAG, &s->wait, 0, 0}, {"--key", OPTION_TEXT, &s->key, 0, 0},
	    {"--upload", OPTION_TEXTS, &s->uploads, 0, 0},
	    {"--text-column", OPTION_TEXT, &s->text_column, 0, 0},
	    {"--priority", OPTION_INTEGER, &s->priority, -1000, 1000},
	    {"--deadline-seconds", OPTION_INTEGER, &s->deadline_s, 1, INT64_MAX},
	    {"--keep-seconds", OPTION_INTEGER, &s->keep_s, 1, INT64_MAX},
	    {"--retry-for", OPTION_INTEGER, &s->retry_for_s, 0, 86400 * 7}, {0}};

	*s = (struct submission){.priority = INT64_MIN,
	    .deadline_s = INT64_MIN,
	    .keep_s = INT64_MIN,
	    .retry_for_s = WATCH_RETRY_FOR_S};
	int code = spec_arguments_read_with(&s->spec, own, argc, argv);
	s->options.json = s->spec.json;
	if (code == EXIT_DONE && s->key != NULL && !key_is_valid(s->key))
		code = usage_error(argv[0],
		    "--key needs 1 to 64 letters, digits, '_' or '-', not '%s'", s->key);
	if (code == EXIT_DONE && s->text_column != NULL && s->uploads.count == 0)
		code = usage_error(argv[0], "--text-column says how to read an --upload");
	return code;
}

static bool set_integer(
    struct mc_json *spec, const char *key, int64_t value, struct mc_error *err)
{
	return value == INT64_MIN || mc_json_set(spec, key, mc_json_new_integer(value), err);
}

/* --- local data --------------------------------------------------------------------------------- */

/* One more dataset in the spec, behind those that it has. */
static bool add_dataset(struct mc_json *spec, const char *id, struct mc_error *err)
{
	const struct mc_json *given = mc_json_get(spec, "dataset");

	if (mc_json_is_null(given))
		return mc_json_set(spec, "dataset", mc_json_new_string(id), err);
	struct mc_json *list = mc_json_new_array();
	bool ok = true;
	if (mc_json_type(given) != MC_JSON_ARRAY)
		ok = mc_json_append(list, mc_json_copy(given, err), err);
	for (size_t i = 0;
	     ok && mc_json_type(given) == MC_JSON_ARRAY && i < mc_json_size(given); i++)
		ok = mc_json_append(list, mc_json_copy(mc_json_at(given, i), err), err);
	ok = ok && mc_json_append(list, mc_json_new_string(id), err);
	if (ok)
		return mc_json_set(spec, "dataset", list, err);
	mc_json_free(list);
	return false;
}

/* The key of an upload follows from that of the job, so that a repeated command repeats both: with a
 * second dataset it would be another job. */
static bool upload_key(
    const char *key, size_t number, char ret_key[MC_SHA256_HEX], struct mc_error *err)
{
	char text[CLIENT_KEY_SIZE + 32];

	snprintf(text, sizeof text, "%s upload %zu", key, number);
	return mc_sha256_bytes(text, strlen(text), ret_key, err);
}

static int upload_all(struct client *client, struct submission *s, const char *key)
{
	int code = EXIT_DONE;
	struct mc_error err;

	mc_error_init(&err);
	for (size_t i = 0; code == EXIT_DONE && i < s->uploads.count; i++) {
		char own_key[MC_SHA256_HEX];
		struct mc_json *dataset = NULL;
		if (!upload_key(key, i, own_key, &err))
			return report_error(&err, s->options.json, false);
		struct upload upload = {.path = s->uploads.items[i],
		    .text_column = s->text_column,
		    .key = own_key};
		code = upload_dataset(client, &upload, s->options.json, &dataset);
		if (code == EXIT_DONE) {
			s->uploaded++;
			fprintf(stderr, "moecal: %s is dataset ", upload.path);
			print_plain(stderr, member_text(dataset, "id"));
			putc('\n', stderr);
			if (!add_dataset(s->spec.spec, member_text(dataset, "id"), &err))
				code = report_error(&err, s->options.json, false);
		}
		mc_json_free(dataset);
	}
	return code;
}

/* --- submitting --------------------------------------------------------------------------------- */

/* This command ended before what it waits for. */
static bool is_stopped(int code)
{
	return code == EXIT_UNREACHABLE || code == EXIT_REQUEUE || code == EXIT_INTERRUPTED;
}

/* Whether nobody knows if the request was carried out, or it may be carried out later. */
static bool is_open(int code)
{
	return is_stopped(code) || code == EXIT_JOB_FAILED;
}

static void print_submitted(const struct client_answer *answer, bool json, bool wait)
{
	struct mc_error err;

	mc_error_init(&err);
	if (json && wait)
		print_json_line(answer->json); /* the lines of events follow */
	else if (json)
		(void)(print_json(answer->json, &err) || report_error(&err, false, true));
	else {
		print_cell(member_text(answer->json, "id"), 0);
		putchar('\n');
	}
	fflush(stdout);
	if (answer->replayed)
		fprintf(stderr, "moecal: the key was used before: this is the job that was made then\n");
}

static int send_job(struct client *client, struct submission *s, const char *key, bool *ret_made)
{
	struct client_request request = {.method = "POST",
	    .path = "/v1/jobs",
	    .json = s->spec.spec,
	    .key = key,
	    .silence_s = CLIENT_SILENCE_LONG_S};
	struct client_answer answer;
	int code = client_do(client, &request, s->options.json, &answer);

	if (code != EXIT_DONE)
		return code;
	if (!client_id_is_valid(member_text(answer.json, "id"))) {
		client_answer_release(&answer);
		return client_wrong_answer(client, s->options.json);
	}
	*ret_made = true;
	print_submitted(&answer, s->options.json, s->wait);
	if (s->wait) {
		char id[CLIENT_KEY_SIZE];
		snprintf(id, sizeof id, "%s", member_text(answer.json, "id"));
		code = watch_job(client, id, s->options.json, s->retry_for_s, true);
	}
	client_answer_release(&answer);
	return code;
}

/* What can be done after a command that did not end as it should. */
static void tell_next(const struct submission *s, const char *key, bool made_job, int code)
{
	if (!made_job && is_open(code))
		fprintf(stderr,
		    "moecal: with --key %s the same command can be repeated safely: it makes at "
		    "most one job\n",
		    key);
	else if (made_job && is_stopped(code))
		fprintf(stderr, "moecal: the same command with --key %s waits for it again\n", key);
	else if (!made_job && code == EXIT_USAGE && s->uploaded > 0)
		fprintf(stderr,
		    "moecal: what was uploaded stays: --dataset ID uses it, moecal datasets rm ID "
		    "deletes it\n");
}

static int submit(struct client *client, struct submission *s)
{
	char made[CLIENT_KEY_SIZE];
	const char *key = s->key;
	struct mc_error err;

	mc_error_init(&err);
	if (key == NULL) {
		if (!client_make_key(made, &err))
			return report_error(&err, s->options.json, false);
		key = made;
	}
	if (!set_integer(s->spec.spec, "priority", s->priority, &err) ||
	    !set_integer(s->spec.spec, "deadline_seconds", s->deadline_s, &err) ||
	    !set_integer(s->spec.spec, "keep_seconds", s->keep_s, &err))
		return report_error(&err, s->options.json, false);
	bool made_job = false;
	int code = upload_all(client, s, key);
	if (code == EXIT_DONE)
		code = send_job(client, s, key, &made_job);
	tell_next(s, key, made_job, code);
	return code;
}

int command_submit(int argc, char **argv)
{
	struct submission s;
	struct mc_error err;
	int code = read_submission(&s, argc, argv);

	if (code == EXIT_DONE) {
		mc_error_init(&err);
		struct client *client = client_open(&s.options, &err);
		code = client != NULL ? submit(client, &s)
				      : report_error(&err, s.options.json, false);
		client_close(client);
	}
	spec_arguments_release(&s.spec);
	return code;
}
