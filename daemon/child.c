/*
 * child.c - see child.h
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "artifacts.h"
#include "child.h"
#include "inputs.h"
#include "memory_kills.h"
#include "state.h"

#include "moecal/alloc.h"
#include "moecal/file.h"

#define MAX_EVENT ((size_t)1 << 20)
#define MAX_LOG ((uint64_t)1 << 20)
#define MAX_REQUEST ((size_t)16 << 20)

static const char *text_of(const struct mc_json *object, const char *key)
{
	const struct mc_json *value = mc_json_get(object, key);
	return mc_json_type(value) == MC_JSON_STRING ? mc_json_string(value, NULL) : "";
}

/* --- starting ----------------------------------------------------------------------------------
 */

/* The spec of a request to the file that the child reads. */
static bool write_request(const char *path, const struct mc_json *request, struct mc_error *err)
{
	struct mc_buf text;

	mc_buf_init(&text, MAX_REQUEST);
	bool ok = mc_json_write(mc_json_get(request, "spec"), MC_JSON_PRETTY, &text, err) &&
		  mc_file_write_durable(path, text.data, text.length, err);
	mc_buf_release(&text);
	return ok;
}

static bool open_log(struct child *child, const char *path, struct mc_error *err)
{
	child->log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (child->log < 0)
		return mc_fail_errno(err, errno, "log", "cannot be opened");
	struct stat status;
	child->logged = fstat(child->log, &status) == 0 ? (uint64_t)status.st_size : MAX_LOG;
	return true;
}

/* Names of registered inputs as options; the strings are owned by `owned`, count of them returned.
 */
static size_t alias_options(const struct mc_json *inputs, char **argv, size_t count, char **owned,
    size_t *ret_owned, struct mc_error *err)
{
	for (size_t i = 0; i < mc_json_size(inputs); i++) {
		const struct mc_json *one = mc_json_at(inputs, i);
		const char *kind = mc_json_string(mc_json_get(one, "kind"), NULL);
		argv[count++] = (char *)(strcmp(kind, "model") == 0 ? "--model-alias"
								    : "--dataset-alias");
		owned[*ret_owned] = mc_format(err, "%s=%s",
		    mc_json_string(mc_json_get(one, "name"), NULL),
		    mc_json_string(mc_json_get(one, "path"), NULL));
		argv[count++] = owned[(*ret_owned)++];
	}
	return count;
}

/* The words that say what the child makes; *ret_owned is to be freed. */
static size_t first_words(struct service *service, const struct mc_json *request, char **argv,
    char **ret_owned, struct mc_error *err)
{
	const char *source = text_of(request, "derived_from");
	size_t count = 0;

	argv[count++] = service->program;
	if (source[0] == '\0') {
		argv[count++] = (char *)"run";
		return count;
	}
	*ret_owned = state_job_path(service->settings.state, source, "folder", err);
	argv[count++] = (char *)"derive";
	argv[count++] = *ret_owned;
	return count;
}

static bool spawn(struct child *child, struct service *service, const struct mc_json *request,
    const char *request_path, const char *folder, struct mc_error *err)
{
	const struct mc_json *inputs = mc_json_get(request, "inputs");
	size_t aliases = mc_json_size(inputs), count = 0, owned_count = 0;
	char **argv = mc_alloc(
	    16 + 2 * (service->settings.allow.count + 1 + aliases), sizeof *argv, "options", err);
	char **owned = mc_alloc(aliases + 1, sizeof *owned, "options", err);
	char *source = NULL, *uploads = mc_format(err, "%s/datasets", service->settings.state);
	char parent[32];
	bool ok = argv != NULL && owned != NULL && uploads != NULL;

	if (ok) {
		snprintf(parent, sizeof parent, "%ld", (long)getpid());
		const char *const fixed[] = {
		    request_path, "-o", folder, "--json", "--parent", parent};
		count = first_words(service, request, argv, &source, err);
		for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
			argv[count++] = (char *)fixed[i];
		count = input_allow_options(service, uploads, argv, count);
		count = alias_options(inputs, argv, count, owned, &owned_count, err);
		ok = err->code == MC_OK && executor_start(&child->process, argv, -1, err);
	}
	for (size_t i = 0; i < owned_count; i++)
		free(owned[i]);
	free(owned);
	free(argv);
	free(source);
	free(uploads);
	return ok;
}

bool child_start(
    struct child *child, struct service *service, const struct job_row *row, struct mc_error *err)
{
	const char *state = service->settings.state;

	*child = (struct child){.process = {.pidfd = -1, .out = -1, .err = -1},
	    .log = -1,
	    .memory = (uint64_t)row->memory_bytes,
	    .started_ms = row->started_ms,
	    .deadline = row->deadline_ms > 0 ? row->started_ms + row->deadline_ms : 0,
	    .kills = memory_kills()};
	snprintf(child->id, sizeof child->id, "%s", row->id);
	mc_buf_init(&child->line, MAX_EVENT);
	char *job = state_job_path(state, row->id, NULL, err);
	char *folder = state_job_path(state, row->id, "folder", err);
	char *path = state_job_path(state, row->id, "request.json", err);
	char *log = state_job_path(state, row->id, "log", err);
	struct mc_json *request = mc_json_parse(row->request, strlen(row->request), "request", err);
	bool ok = job != NULL && folder != NULL && path != NULL && log != NULL && request != NULL &&
		  mc_file_make_folders(job, err) && write_request(path, request, err) &&
		  open_log(child, log, err) && spawn(child, service, request, path, folder, err);
	mc_json_free(request);
	free(job);
	free(folder);
	free(path);
	free(log);
	if (!ok)
		child_release(child);
	return ok;
}

void child_start_failed(struct child *child, struct service *service, const struct job_row *row,
    const struct mc_error *err)
{
	*child = (struct child){.process = {.pidfd = -1, .out = -1, .err = -1},
	    .log = -1,
	    .ended = true,
	    .status = EXIT_FAILURE << 8 /* as wait() says it */};
	snprintf(child->id, sizeof child->id, "%s", row->id);
	snprintf(child->error_code, sizeof child->error_code, "%s", mc_code_name(err->code));
	snprintf(child->error_detail, sizeof child->error_detail, "%.128s: %.512s", err->where,
	    err->text);
	state_hide(service->settings.state, child->id, child->error_detail);
}

void child_release(struct child *child)
{
	mc_close(child->process.out);
	mc_close(child->process.err);
	mc_close(child->process.pidfd);
	mc_close(child->log);
	mc_buf_release(&child->line);
	mc_json_free(child->progress);
	*child = (struct child){.process = {.pidfd = -1, .out = -1, .err = -1}, .log = -1};
}

/* --- events ------------------------------------------------------------------------------------
 */

static double number_of(const struct mc_json *object, const char *key)
{
	const struct mc_json *value = mc_json_get(object, key);
	enum mc_json_type type = mc_json_type(value);
	return type == MC_JSON_INTEGER || type == MC_JSON_REAL ? mc_json_number(value) : 0;
}

/* Why the child gives up. It is shown to users, so it does not tell where the service lives. */
static void keep_error(struct child *child, struct service *service, const struct mc_json *event)
{
	const char *where = text_of(event, "where"), *text = text_of(event, "text");

	snprintf(child->error_code, sizeof child->error_code, "%s", text_of(event, "code"));
	snprintf(child->error_detail, sizeof child->error_detail, "%s%s%s", where,
	    where[0] != '\0' ? ": " : "", text);
	state_hide(service->settings.state, child->id, child->error_detail);
}

/* What a counter may go up by, whatever the child says. */
static uint64_t count_of(double number)
{
	return number >= 1 && number < 1e18 ? (uint64_t)number : 0;
}

static void count_layer(struct service *service, const struct mc_json *event)
{
	double seconds = number_of(event, "seconds");

	metrics_add(service->metrics, METRIC_LAYERS, 1);
	metrics_add(service->metrics, METRIC_TOKENS, count_of(number_of(event, "tokens")));
	metrics_add(service->metrics, METRIC_FLOPS,
	    count_of(number_of(event, "gflops") * seconds * 1e9));
	metrics_observe(service->metrics, HISTOGRAM_LAYER, seconds);
}

/* The progress that a layer's end means. */
static bool note_layer(struct child *child, const struct mc_json *event, struct mc_error *err)
{
	static const char *const same[] = {"layers_done", "layers_total", "tokens"};
	struct mc_json *old = child->progress, *now = mc_json_new_object();

	child->starved += (double)mc_json_size(mc_json_get(event, "starved"));
	bool ok = mc_json_set(now, "phase", mc_json_new_string("calibrate"), err);
	for (size_t i = 0; ok && i < 3; i++)
		ok = mc_json_set(now, same[i],
		    mc_json_new_integer((int64_t)count_of(number_of(event, same[i]))), err);
	ok = ok && mc_json_set(now, "seconds", mc_json_new_real(number_of(old, "seconds")), err) &&
	     mc_json_set(now, "seconds_left",
		 mc_json_get(old, "seconds_left") != NULL
		     ? mc_json_copy(mc_json_get(old, "seconds_left"), err)
		     : mc_json_new_null(),
		 err) &&
	     mc_json_set(
		 now, "starved", mc_json_new_integer((int64_t)count_of(child->starved)), err);
	if (!ok) {
		mc_json_free(now);
		return false;
	}
	mc_json_free(old);
	child->progress = now;
	return true;
}

static bool note_progress(struct child *child, struct mc_json *event, struct mc_error *err)
{
	struct mc_json *copy = mc_json_copy(event, err);

	if (copy == NULL)
		return false;
	mc_json_free(child->progress);
	child->progress = copy;
	child->starved = number_of(event, "starved");
	return true;
}

static bool handle_event(
    struct child *child, struct service *service, struct mc_json *event, struct mc_error *err)
{
	char type[32];

	snprintf(type, sizeof type, "%s", text_of(event, "event"));
	mc_json_remove(event, "event");
	mc_json_remove(event, "seq");
	mc_json_remove(event, "time");
	if (strcmp(type, "failed") == 0) {
		keep_error(child, service, event);
		return true;
	}
	if (strcmp(type, "progress") == 0)
		return note_progress(child, event, err) &&
		       store_job_progress(service->store, child->id, child->progress, err);
	if (strcmp(type, "layer") == 0) {
		count_layer(service, event);
		return note_layer(child, event, err) && store_job_event(service->store, child->id,
							    type, event, child->progress, err);
	}
	if (strcmp(type, "warning") == 0)
		log_say(LOG_LEVEL_WARNING, child->id, NULL, "%s", text_of(event, "text"));
	return type[0] == '\0' ||
	       store_job_event(service->store, child->id, type, event, NULL, err);
}

static void handle_line(
    struct child *child, struct service *service, const char *line, size_t length)
{
	struct mc_error err;

	mc_error_init(&err);
	struct mc_json *event = mc_json_parse(line, length, "event", &err);
	if (event == NULL || !handle_event(child, service, event, &err))
		log_error(child->id, "an event of the job", &err);
	mc_json_free(event);
}

/* --- reading -----------------------------------------------------------------------------------
 */

static void read_events(
    struct child *child, struct service *service, const char *bytes, size_t length)
{
	struct mc_error err;

	mc_error_init(&err);
	while (length > 0) {
		const char *end = memchr(bytes, '\n', length);
		size_t part = end != NULL ? (size_t)(end - bytes) : length;
		if (!mc_buf_add(&child->line, bytes, part, &err)) {
			log_error(child->id, "an event of the job", &err);
			mc_buf_clear(&child->line);
			mc_error_init(&err);
		}
		if (end != NULL) {
			if (child->line.length > 0)
				handle_line(
				    child, service, mc_buf_text(&child->line), child->line.length);
			mc_buf_clear(&child->line);
			part++;
		}
		bytes += part;
		length -= part;
	}
}

static void keep_words(struct child *child, const char *bytes, size_t length)
{
	struct mc_error err;
	size_t start = length, end = length;

	mc_error_init(&err);
	if (child->logged < MAX_LOG && !mc_file_write(child->log, bytes, length, "log", &err))
		child->logged = MAX_LOG; /* the job matters more than its log */
	child->logged += length;
	while (end > 0 && bytes[end - 1] == '\n')
		end--;
	for (start = end; start > 0 && bytes[start - 1] != '\n'; start--)
		;
	if (end > start)
		snprintf(child->last_words, sizeof child->last_words, "%.*s", (int)(end - start),
		    bytes + start);
}

static void read_pipe(struct child *child, struct service *service, bool events)
{
	int *fd = events ? &child->process.out : &child->process.err;
	char chunk[16384];
	ssize_t n = -1;

	while (
	    *fd >= 0 && ((n = read(*fd, chunk, sizeof chunk)) > 0 || (n < 0 && errno == EINTR))) {
		if (n <= 0)
			continue;
		if (events)
			read_events(child, service, chunk, (size_t)n);
		else
			keep_words(child, chunk, (size_t)n);
	}
	if (*fd >= 0 && (n == 0 || errno != EAGAIN)) {
		mc_close(*fd);
		*fd = -1;
	}
}

void child_read(struct child *child, struct service *service)
{
	read_pipe(child, service, true);
	read_pipe(child, service, false);
}

/* --- ending ------------------------------------------------------------------------------------
 */

void child_ask(struct child *child, enum want want)
{
	if (want > child->want)
		child->want = want;
	if (child->asked != 0)
		return;
	child->asked = monotonic_ms();
	kill(child->process.pid, SIGTERM);
}

void child_kill(struct child *child)
{
	kill(child->process.pid, SIGKILL);
}

/* How often the job was started over already: it says so in its reason. */
static int64_t restarts_of(const struct job_row *row)
{
	return row->reason != NULL && strstr(row->reason, "\"started-over\"") != NULL;
}

static bool record(struct service *service, const struct job_row *row,
    const struct outcome *outcome, struct mc_error *err)
{
	bool canceled = row->state == JOB_CANCELING && outcome->to != JOB_SUCCEEDED;
	struct job_change change = {.to = canceled ? JOB_CANCELED : outcome->to,
	    .now_ms = now_ms(),
	    .crash = outcome->crash};
	struct mc_json *artifacts = NULL;
	char *folder = state_job_path(service->settings.state, row->id, "folder", err);
	bool ok = folder != NULL;

	if (!canceled) {
		change.reason_code = outcome->reason;
		change.reason_detail = outcome->detail;
		change.not_before_ms = outcome->delay_ms > 0 ? change.now_ms + outcome->delay_ms
							     : 0;
	}
	if (ok && outcome->artifacts)
		ok = (artifacts = folder_artifacts(folder, err)) != NULL;
	if (ok && outcome->start_over)
		ok = mc_file_remove_tree(folder, err);
	change.artifacts = artifacts;
	ok = ok && store_job_move(service->store, row->id, row->state, &change, err);
	if (ok && job_state_is_final(change.to)) {
		metrics_job_finished(service->metrics, job_state_name(change.to),
		    change.reason_code != NULL ? change.reason_code : "");
		metrics_observe(service->metrics, HISTOGRAM_JOB,
		    (double)(change.now_ms - row->started_ms) / 1000);
	}
	if (ok && outcome->crash)
		metrics_add(service->metrics, METRIC_CRASHES, 1);
	if (ok)
		log_say(outcome->crash ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO, row->id, NULL,
		    "%s%s%s%s%s", job_state_name(change.to), change.reason_code != NULL ? ": " : "",
		    change.reason_code != NULL ? change.reason_code : "",
		    change.reason_code != NULL ? ": " : "",
		    change.reason_code != NULL ? outcome->detail : "");
	mc_json_free(artifacts);
	free(folder);
	return ok;
}

/* Whoever changes files under a running job gets no checkpoint called good; what was written stays to
 * be looked at. */
static void require_same_inputs(
    struct service *service, const struct job_row *row, struct outcome *outcome, struct mc_error *err)
{
	struct mc_json *request = mc_json_parse(row->request, strlen(row->request), "request", err);
	const struct mc_json *changed =
	    inputs_first_changed(service->roots, mc_json_get(request, "inputs"));

	if (changed != NULL) {
		outcome->to = JOB_FAILED;
		outcome->reason = "files-changed";
		snprintf(outcome->detail, sizeof outcome->detail,
		    "the files of '%s' changed while the job ran: register it again",
		    mc_json_string(mc_json_get(changed, "name"), NULL));
	}
	mc_json_free(request);
}

static bool record_end(struct child *child, struct service *service, struct mc_error *err)
{
	int status = child->status;
	struct job_row row;
	struct outcome outcome;

	if (!store_job_get(service->store, child->id, &row, err))
		return false;
	char *folder = state_job_path(service->settings.state, child->id, "folder", err);
	struct child_end end = {.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1,
	    .signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0,
	    .want = child->want,
	    .finished = folder != NULL && folder_is_finished(folder),
	    .out_of_memory = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL &&
			     memory_kills() > child->kills,
	    .error_code = child->error_code,
	    .error_detail = child->error_detail,
	    .last_words = child->last_words,
	    .crashes = row.crashes,
	    .crashes_allowed = (int64_t)service_setting(service, crashes),
	    .restarts = restarts_of(&row)};
	outcome_decide(&end, &outcome);
	if (outcome.to == JOB_SUCCEEDED)
		require_same_inputs(service, &row, &outcome, err);
	state_hide(service->settings.state, child->id, outcome.detail);
	bool ok = folder != NULL && err->code == MC_OK && record(service, &row, &outcome, err);
	free(folder);
	job_row_release(&row);
	return ok;
}

bool child_finish(struct child *child, struct service *service)
{
	struct mc_error err;
	bool first = !child->ended;

	mc_error_init(&err);
	if (first) {
		child_read(child, service);
		/* what cannot be waited for is gone: a crash, as far as we know */
		if (!executor_reap(&child->process, &child->status, &err)) {
			log_error(child->id, "waiting for the job's process", &err);
			child->status = SIGKILL;
			mc_error_init(&err);
		}
		child->ended = true;
	}
	if (record_end(child, service, &err))
		return true;
	if (first)
		log_error(child->id, "recording the end of the job; it is tried again", &err);
	return false;
}

/* What the job's process would have said last. */
static bool complete_progress(
    struct service *service, const struct job_row *row, struct mc_error *err)
{
	const char *text = row->progress != NULL ? row->progress : "{}";
	struct mc_json *progress = mc_json_parse(text, strlen(text), "progress", err);
	const struct mc_json *total = mc_json_get(progress, "layers_total");
	bool ok = progress != NULL;

	if (ok && mc_json_type(total) == MC_JSON_INTEGER)
		ok = mc_json_set(progress, "phase", mc_json_new_string("verify"), err) &&
		     mc_json_set(progress, "layers_done",
			 mc_json_new_integer(mc_json_integer(total)), err) &&
		     mc_json_set(progress, "layer_fraction", mc_json_new_real(0), err) &&
		     mc_json_set(progress, "seconds_left", mc_json_new_real(0), err) &&
		     store_job_progress(service->store, row->id, progress, err);
	mc_json_free(progress);
	return ok;
}

bool child_record_finished(
    struct service *service, const struct job_row *row, bool *ret_was, struct mc_error *err)
{
	struct outcome outcome;
	bool valid = false;
	char *folder = state_job_path(service->settings.state, row->id, "folder", err);
	bool ok = folder != NULL;

	*ret_was = ok && folder_is_finished(folder);
	if (*ret_was) {
		ok = folder_is_valid(folder, &valid, err) && complete_progress(service, row, err);
		struct child_end end = {.exit_code = valid ? 0 : 4,
		    .finished = true,
		    .error_code = "",
		    .error_detail = "",
		    .last_words = ""};
		outcome_decide(&end, &outcome);
		if (ok && outcome.to == JOB_SUCCEEDED)
			require_same_inputs(service, row, &outcome, err);
		ok = ok && record(service, row, &outcome, err);
	}
	free(folder);
	return ok;
}

bool child_folder_is_locked(const struct service *service, const char *id)
{
	struct mc_error err;

	mc_error_init(&err);
	char *folder = state_job_path(service->settings.state, id, "folder", &err);
	int fd = folder == NULL ? -1 : open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool locked = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;

	mc_close(fd);
	free(folder);
	return locked;
}
