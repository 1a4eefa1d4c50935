/*
 * watch.c - a job followed to its end by its events
 *
 * The stream goes on behind the last event that arrived, so nothing is told twice or lost when the
 * connection breaks or the service is started anew.
 */
#include "client.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#define MOST_BACKOFF_S 30

struct watch {
	struct client *client;
	const char *id;
	bool json;
	struct progress_display display;
	struct mc_progress progress;
	char phase[16];        /* what progress.phase points to */
	double layers_seconds; /* of the layers told of */
	double end_seconds; /* progress.seconds at the end, as last foreseen; negative: not known */
	int64_t starved;
	struct event_stream stream;
	bool any;                  /* an event came over this connection */
	bool is_lost;              /* it was said that the service is away */
	int64_t heard_at;          /* when the service was last heard of */
	char state[16], code[64];  /* newest state; code of its reason */
	char detail[512];
};

bool job_state_is_finished(const char *state)
{
	return strcmp(state, "succeeded") == 0 || strcmp(state, "failed") == 0 ||
	       strcmp(state, "canceled") == 0;
}

int job_exit_code(const char *state, const char *reason_code)
{
	if (strcmp(state, "succeeded") == 0)
		return EXIT_DONE;
	return strcmp(reason_code, "verdict-failed") == 0 ? EXIT_VERDICT : EXIT_JOB_FAILED;
}

/* --- what an event says to people --------------------------------------------------------------- */

static void say(const struct watch *w, const char *text, const char *more)
{
	progress_clear(&w->display);
	fprintf(stderr, "%s: ", w->id);
	print_plain(stderr, text);
	if (more[0] != '\0') {
		fprintf(stderr, ": ");
		print_plain(stderr, more);
	}
	putc('\n', stderr);
}

static void take_state(struct watch *w, const char *state, const struct mc_json *reason)
{
	snprintf(w->state, sizeof w->state, "%s", state);
	snprintf(w->code, sizeof w->code, "%s", member_text(reason, "code"));
	snprintf(w->detail, sizeof w->detail, "%s", member_text(reason, "detail"));
}

static void tell_state(struct watch *w, const struct mc_json *data)
{
	char text[64];
	int64_t attempt = member_integer(data, "attempt");

	if (job_state_is_finished(w->state))
		return; /* the end is told by conclude */
	if (strcmp(w->state, "running") == 0 && attempt > 1)
		snprintf(text, sizeof text, "running, attempt %lld", (long long)attempt);
	else
		snprintf(text, sizeof text, "%s", w->state);
	say(w, text, w->detail);
}

static void begin_layers(struct watch *w, const struct mc_json *data, bool resumed)
{
	char text[64];

	w->progress.layers_done = (size_t)member_integer(data, "layers_done");
	w->progress.layers_total = (size_t)member_integer(data, "layers_total");
	w->display.layers_said = w->progress.layers_done;
	w->display.phase_said[0] = '\0';
	w->layers_seconds = 0;
	if (!resumed)
		w->starved = 0;
	if (resumed && w->progress.layers_done > 0) {
		snprintf(text, sizeof text, "goes on behind layer %zu of %zu",
		    w->progress.layers_done, w->progress.layers_total);
		say(w, text, "");
	}
}

static void take_phase(struct watch *w, const char *phase)
{
	snprintf(w->phase, sizeof w->phase, "%s", phase);
	for (char *p = w->phase; *p != '\0'; p++)
		*p = *p < ' ' || *p > '~' ? '?' : *p;
}

static void take_progress(struct watch *w, const struct mc_json *data)
{
	const struct mc_json *left = mc_json_get(data, "seconds_left");

	take_phase(w, member_text(data, "phase"));
	w->progress.layers_done = (size_t)member_integer(data, "layers_done");
	w->progress.layers_total = (size_t)member_integer(data, "layers_total");
	w->progress.layer_fraction = member_number(data, "layer_fraction");
	w->progress.seconds = member_number(data, "seconds");
	w->progress.seconds_left =
	    mc_json_is_null(left) ? -1 : member_number(data, "seconds_left");
	w->end_seconds = mc_json_is_null(left) ? -1
					       : w->progress.seconds + w->progress.seconds_left;
	/* lines are a line a layer, and one for each other phase */
	if (w->display.terminal || strcmp(w->phase, "calibrate") != 0)
		progress_show(&w->display, &w->progress);
}

static void take_layer(struct watch *w, const struct mc_json *data)
{
	take_phase(w, "calibrate");
	w->progress.layers_done = (size_t)member_integer(data, "layers_done");
	w->progress.layers_total = (size_t)member_integer(data, "layers_total");
	w->progress.layer_fraction = 0;
	w->layers_seconds += member_number(data, "seconds");
	if (w->progress.seconds < w->layers_seconds)
		w->progress.seconds = w->layers_seconds;
	if (w->end_seconds >= 0)
		w->progress.seconds_left = w->end_seconds > w->progress.seconds
					       ? w->end_seconds - w->progress.seconds
					       : 0;
	w->starved += (int64_t)mc_json_size(mc_json_get(data, "starved"));
	if (mc_json_get(data, "experts_max") != NULL)
		snprintf(w->display.coverage, sizeof w->display.coverage,
		    "experts %lld..%lld tokens, %lld starved",
		    (long long)member_integer(data, "experts_min"),
		    (long long)member_integer(data, "experts_max"), (long long)w->starved);
	progress_show(&w->display, &w->progress);
}

static void tell(struct watch *w, const char *type, const struct mc_json *data)
{
	if (strcmp(type, "state") == 0)
		tell_state(w, data);
	else if (strcmp(type, "started") == 0 || strcmp(type, "resumed") == 0)
		begin_layers(w, data, type[0] == 'r');
	else if (strcmp(type, "layer") == 0)
		take_layer(w, data);
	else if (strcmp(type, "progress") == 0)
		take_progress(w, data);
	else if (strcmp(type, "warning") == 0)
		say(w, "warning", member_text(data, "text"));
}

static bool on_event(
    void *ctx, const char *type, const char *text, size_t length, struct mc_error *err)
{
	struct watch *w = ctx;
	struct mc_error cause;

	mc_error_init(&cause);
	struct mc_json *event = mc_json_parse(text, length, "event", &cause);
	const struct mc_json *data = mc_json_get(event, "data");
	if (event == NULL)
		return mc_fail(err, MC_CORRUPT, "an event of the service", "%s", cause.text);
	w->any = true;
	w->is_lost = false;
	if (strcmp(type, "state") == 0)
		take_state(w, member_text(data, "state"), mc_json_get(data, "reason"));
	if (w->json)
		print_json_line(event);
	else
		tell(w, type, data);
	mc_json_free(event);
	/* nobody reads what is told */
	return !ferror(stdout) || mc_fail(err, MC_IO, "standard output", "cannot be written");
}

/* --- one connection ----------------------------------------------------------------------------- */

static bool on_bytes(void *ctx, int status, const char *bytes, size_t length, struct mc_error *err)
{
	struct watch *w = ctx;

	(void)status;
	w->heard_at = client_clock_s();
	return event_stream_add(&w->stream, bytes, length, err);
}

static void follow(struct watch *w, struct client_answer *answer)
{
	char path[160], last[64];
	struct client_request request = {.path = path,
	    .accept = "text/event-stream",
	    .header = {w->stream.last_id[0] != '\0' ? last : NULL},
	    .sink = on_bytes,
	    .ctx = w};

	snprintf(path, sizeof path, "/v1/jobs/%s/events", w->id);
	snprintf(last, sizeof last, "Last-Event-ID: %s", w->stream.last_id);
	event_stream_restart(&w->stream);
	w->any = false;
	client_send(w->client, &request, answer);
}

/* The job itself, when its events cannot be had. */
static void look(struct watch *w, struct client_answer *answer)
{
	char path[160];
	struct client_request request = {.path = path};

	snprintf(path, sizeof path, "/v1/jobs/%s", w->id);
	if (client_send(w->client, &request, answer) != CLIENT_DONE)
		return;
	w->heard_at = client_clock_s();
	take_state(w, member_text(answer->json, "state"), mc_json_get(answer->json, "reason"));
	const struct mc_json *progress = mc_json_get(answer->json, "progress");
	if (!w->json && mc_json_type(progress) == MC_JSON_OBJECT)
		take_progress(w, progress);
}

/* Whether another try may do better. */
static bool is_passing(const struct client_answer *answer)
{
	return answer->outcome == CLIENT_DONE || answer->outcome == CLIENT_UNREACHABLE ||
	       (answer->outcome == CLIENT_REFUSED &&
		   (answer->status == 429 || answer->status > 500));
}

/* --- the end ------------------------------------------------------------------------------------ */

static void print_results(struct watch *w)
{
	char path[160];
	struct client_request request = {.path = path};
	struct client_answer answer;

	snprintf(path, sizeof path, "/v1/jobs/%s/verdict", w->id);
	if (client_do(w->client, &request, false, &answer) != EXIT_DONE)
		return;
	print_verdict(answer.json);
	if (mc_json_type(mc_json_get(answer.json, "experts")) == MC_JSON_OBJECT)
		print_coverage(mc_json_get(answer.json, "experts"), false);
	client_answer_release(&answer);
	fprintf(stderr, "moecal fetch %s -o DIR gets its files\n", w->id);
}

static int conclude(struct watch *w)
{
	int code = job_exit_code(w->state, w->code);
	char text[128];

	if (w->json)
		return code;
	snprintf(text, sizeof text, "%s%s%s", w->state, w->code[0] != '\0' ? ", " : "", w->code);
	say(w, text, w->detail);
	if (code == EXIT_DONE || code == EXIT_VERDICT)
		print_results(w);
	return code;
}

/* Nobody waits any more; the job does not mind. */
static int leave(struct watch *w, const struct client_answer *answer)
{
	int code = answer->outcome == CLIENT_STOPPED
		       ? session_signal() == SIGTERM ? EXIT_REQUEUE : EXIT_INTERRUPTED
		       : EXIT_DONE;

	progress_clear(&w->display);
	if (code == EXIT_DONE)
		code = client_report(w->client, answer, w->json);
	if (answer->outcome != CLIENT_REFUSED)
		fprintf(stderr,
		    "moecal: the job goes on in the service; moecal watch %s follows it again, "
		    "moecal cancel %s ends it\n",
		    w->id, w->id);
	return code;
}

/* Once for each time that it is away. */
static void tell_lost(struct watch *w, const struct client_answer *answer, int64_t retry_for_s)
{
	if (answer->outcome != CLIENT_UNREACHABLE || w->any || w->is_lost)
		return;
	w->is_lost = true;
	progress_clear(&w->display);
	fprintf(stderr, "moecal: ");
	print_plain(stderr, answer->err.where);
	fprintf(stderr, ": ");
	print_plain(stderr, answer->err.text);
	fprintf(stderr, "; trying again for %lld s\n", (long long)retry_for_s);
}

static int watch(struct watch *w, int64_t retry_for_s, bool ever)
{
	int64_t pause_s = 1;

	for (;;) {
		struct client_answer answer;
		follow(w, &answer);
		if (job_state_is_finished(w->state)) {
			client_answer_release(&answer);
			return conclude(w);
		}
		ever = ever || answer.outcome == CLIENT_DONE || w->any;
		if (w->any)
			pause_s = 1;
		else if (is_passing(&answer) && answer.outcome != CLIENT_UNREACHABLE) {
			/* no seat for one more who watches, or nothing left to be told */
			client_answer_release(&answer);
			look(w, &answer);
			ever = ever || answer.outcome == CLIENT_DONE;
			if (job_state_is_finished(w->state)) {
				client_answer_release(&answer);
				return conclude(w);
			}
		}
		bool given_up = client_clock_s() - w->heard_at > retry_for_s;
		if (!is_passing(&answer) || (!ever && answer.outcome == CLIENT_UNREACHABLE) ||
		    (given_up && answer.outcome != CLIENT_DONE)) {
			int code = leave(w, &answer);
			client_answer_release(&answer);
			return code;
		}
		tell_lost(w, &answer, retry_for_s);
		client_answer_release(&answer);
		if (!client_pause(pause_s)) {
			answer.outcome = CLIENT_STOPPED;
			return leave(w, &answer);
		}
		pause_s = 2 * pause_s < MOST_BACKOFF_S ? 2 * pause_s : MOST_BACKOFF_S;
	}
}

int watch_job(struct client *client, const char *id, bool json, int64_t retry_for_s, bool known)
{
	struct watch w = {.client = client, .id = id, .json = json, .heard_at = client_clock_s()};

	w.display.terminal = !json && isatty(STDERR_FILENO) == 1;
	w.progress.phase = w.phase;
	w.progress.seconds_left = -1;
	w.end_seconds = -1;
	event_stream_init(&w.stream);
	w.stream.event = on_event;
	w.stream.ctx = &w;
	int code = watch(&w, retry_for_s, known);
	event_stream_release(&w.stream);
	return code;
}
