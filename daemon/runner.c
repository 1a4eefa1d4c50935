/*
 * runner.c - see runner.h
 *
 * The thread owns all children. It wakes for their pipes and ends, for runner_wake, and once a
 * second for deadlines, retention and its heartbeat.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "child.h"
#include "inputs.h"
#include "state.h"

#include "moecal/alloc.h"
#include "moecal/file.h"
#include "moecal/plan.h"

#define MAX_CHILDREN 64
#define KILL_AFTER_MS 30000 /* a child that was asked to end and does not */
#define SWEEP_EVERY_MS 1000

struct runner {
	struct service *service;
	pthread_t thread;
	int wake;
	atomic_bool stopping;
	atomic_llong stop_at; /* monotonic ms: when those that still run are killed */
	atomic_llong beat;
	atomic_ullong granted, budget;
	atomic_uint running;
	struct child children[MAX_CHILDREN];
	size_t count;
	int64_t swept;
};

/* --- claiming ----------------------------------------------------------------------------------
 */

static uint64_t granted(const struct runner *runner)
{
	uint64_t sum = 0;
	for (size_t i = 0; i < runner->count; i++)
		sum += runner->children[i].memory;
	return sum;
}

/* A queued job whose inputs changed; one that was canceled meanwhile is no longer queued. False when
 * it cannot be recorded. */
static bool fail_job(struct runner *runner, const char *id, const char *name, struct mc_error *err)
{
	char detail[256];
	struct job_change change = {.to = JOB_FAILED,
	    .reason_code = "files-changed",
	    .reason_detail = detail,
	    .now_ms = now_ms()};

	snprintf(detail, sizeof detail,
	    "the files of '%s' are not the ones that were registered: register it again", name);
	if (!store_job_move(runner->service->store, id, JOB_QUEUED, &change, err))
		return false;
	log_say(LOG_LEVEL_WARNING, id, NULL, "not started: files-changed: %s", detail);
	metrics_job_finished(
	    runner->service->metrics, job_state_name(JOB_FAILED), change.reason_code);
	return true;
}

/* *ret_name: the input whose files changed, owned; NULL: none. */
static bool look_at_inputs(
    struct runner *runner, const struct job_row *row, char **ret_name, struct mc_error *err)
{
	*ret_name = NULL;
	struct mc_json *request = mc_json_parse(row->request, strlen(row->request), "request", err);
	const struct mc_json *changed =
	    inputs_first_changed(runner->service->roots, mc_json_get(request, "inputs"));
	if (changed != NULL)
		*ret_name = mc_strdup(mc_json_string(mc_json_get(changed, "name"), NULL), err);
	bool ok = request != NULL && (changed == NULL || *ret_name != NULL);
	mc_json_free(request);
	return ok;
}

static bool move_to_running(struct runner *runner, struct job_row *row, struct mc_error *err)
{
	struct job_change change = {.to = JOB_RUNNING, .now_ms = now_ms(), .attempt = true};

	if (row->reason != NULL && strstr(row->reason, "\"started-over\"") != NULL) {
		/* kept while it runs, so that it happens once only */
		change.reason_code = "started-over";
		change.reason_detail =
		    "the work of an earlier program or of other inputs was dropped";
	}
	if (!store_job_move(runner->service->store, row->id, JOB_QUEUED, &change, err))
		return false;
	row->state = JOB_RUNNING;
	row->attempt++;
	if (row->started_ms == 0)
		row->started_ms = change.now_ms;
	return true;
}

/* From here on the job is running: whatever happens, its end is recorded like a child's. */
static bool start(struct runner *runner, struct job_row *row, struct mc_error *err)
{
	struct service *service = runner->service;
	struct child *child = &runner->children[runner->count];
	bool was = false;

	if (!move_to_running(runner, row, err))
		return false;
	if (child_record_finished(service, row, &was, err)) {
		if (was)
			return true;
		if (child_start(child, service, row, err)) {
			runner->count++;
			metrics_add(service->metrics, METRIC_STARTS, 1);
			log_say(LOG_LEVEL_INFO, row->id, NULL, "running: attempt %lld, process %ld",
			    (long long)row->attempt, (long)child->process.pid);
			return true;
		}
	}
	log_error(row->id, "the job cannot be started", err);
	child_start_failed(child, service, row, err);
	runner->count++;
	return true;
}

/* Whether the job may start beside those that run. Strictly in order: a large job is not overtaken
 * for ever by small ones. */
static bool fits(struct runner *runner, const struct job_row *row)
{
	uint64_t used = granted(runner), budget = atomic_load(&runner->budget), bytes;

	if (runner->count > 0 && used + (uint64_t)row->memory_bytes > budget)
		return false;
	if (!state_has_space(runner->service->settings.state,
		service_setting(runner->service, free_percent), &bytes))
		return false;
	return !child_folder_is_locked(runner->service, row->id);
}

/* False when the store does not take what became of it: then nothing more is claimed now. */
static bool claim_job(struct runner *runner, struct job_row *row, struct mc_error *err)
{
	char *changed;
	bool ok = look_at_inputs(runner, row, &changed, err) &&
		  (changed != NULL ? fail_job(runner, row->id, changed, err) : start(runner, row, err));

	free(changed);
	if (ok || err->code == MC_CONFLICT) /* canceled this moment */
		return true;
	log_error(row->id, "starting the job", err);
	return false;
}

static void claim(struct runner *runner)
{
	uint64_t most = service_setting(runner->service, jobs);

	while (!atomic_load(&runner->stopping) && runner->count < most &&
	       runner->count < MAX_CHILDREN) {
		struct job_row row;
		struct mc_error err;
		mc_error_init(&err);
		if (!store_job_next(runner->service->store, now_ms(), &row, &err)) {
			if (err.code != MC_NOT_FOUND)
				log_error(NULL, "the queue", &err);
			return;
		}
		bool go = fits(runner, &row) && claim_job(runner, &row, &err);
		job_row_release(&row);
		if (!go)
			return;
	}
}

/* --- watching ----------------------------------------------------------------------------------
 */

static void check_child(struct runner *runner, struct child *child)
{
	struct mc_error err;
	struct job_row row;
	int64_t now = monotonic_ms();

	mc_error_init(&err);
	if (child->ended)
		return;
	if (store_job_get(runner->service->store, child->id, &row, &err)) {
		if (row.state == JOB_CANCELING)
			child_ask(child, WANT_CANCEL);
		job_row_release(&row);
	}
	if (child->deadline > 0 && now_ms() > child->deadline)
		child_ask(child, WANT_DEADLINE);
	if (atomic_load(&runner->stopping))
		child_ask(child, WANT_STOP);
	if (child->asked != 0 &&
	    (now > child->asked + KILL_AFTER_MS ||
		(atomic_load(&runner->stopping) && now > atomic_load(&runner->stop_at))))
		child_kill(child);
}

static void remove_child(struct runner *runner, size_t index)
{
	child_release(&runner->children[index]);
	runner->count--;
	if (index != runner->count)
		runner->children[index] = runner->children[runner->count];
	runner->children[runner->count] = (struct child){0};
}

/* Its place is free when its end is recorded, or nobody can record it any more: the next start does. */
static void finish_child(struct runner *runner, size_t index)
{
	struct service *service = runner->service;

	if (child_finish(&runner->children[index], service) ||
	    atomic_load(&runner->stopping) || store_is_failed(service->store))
		remove_child(runner, index);
}

static void wait_for_news(struct runner *runner)
{
	struct pollfd fds[1 + 3 * MAX_CHILDREN];
	nfds_t count = 0;
	uint64_t drained;

	fds[count++] = (struct pollfd){.fd = runner->wake, .events = POLLIN};
	for (size_t i = 0; i < runner->count; i++) {
		const struct process *p = &runner->children[i].process;
		fds[count++] = (struct pollfd){.fd = p->out, .events = POLLIN};
		fds[count++] = (struct pollfd){.fd = p->err, .events = POLLIN};
		fds[count++] = (struct pollfd){.fd = p->pidfd, .events = POLLIN};
	}
	if (poll(fds, count, 1000) < 0)
		return;
	if ((fds[0].revents & POLLIN) != 0 &&
	    read(runner->wake, &drained, sizeof drained) != sizeof drained)
		log_say(LOG_LEVEL_DEBUG, NULL, NULL, "the runner was woken for nothing");
	for (size_t i = runner->count; i-- > 0;) {
		const struct pollfd *own = &fds[1 + 3 * i];
		if ((own[0].revents | own[1].revents) != 0)
			child_read(&runner->children[i], runner->service);
		if (own[2].revents != 0 || runner->children[i].ended)
			finish_child(runner, i);
	}
}

/* --- retention ---------------------------------------------------------------------------------
 */

static void sweep(struct runner *runner)
{
	char id[ID_SIZE];
	struct mc_error err;

	if (monotonic_ms() < runner->swept + SWEEP_EVERY_MS)
		return;
	runner->swept = monotonic_ms();
	for (int i = 0; i < 100; i++) {
		mc_error_init(&err);
		if (!store_job_expired(runner->service->store, now_ms(), id, &err))
			break;
		if (!store_job_delete(runner->service->store, id, &err) ||
		    !state_remove_job(runner->service->settings.state, id, &err))
			break;
		log_say(LOG_LEVEL_INFO, id, NULL, "deleted: its time was over");
		mc_error_init(&err);
	}
	if (err.code != MC_OK && err.code != MC_NOT_FOUND)
		log_error(NULL, "deleting old jobs", &err);
}

/* --- the thread --------------------------------------------------------------------------------
 */

static void look_at_memory(struct runner *runner)
{
	uint64_t given = service_setting(runner->service, memory_bytes);

	/* what is free changes with what we run ourselves, so it is looked at when nothing runs */
	if (given > 0)
		atomic_store(&runner->budget, given);
	else if (runner->count == 0 && atomic_load(&runner->budget) == 0)
		atomic_store(&runner->budget, mc_machine_memory());
}

static void *run(void *ctx)
{
	struct runner *runner = ctx;

	while (!atomic_load(&runner->stopping) || runner->count > 0) {
		atomic_store(&runner->beat, monotonic_ms());
		look_at_memory(runner);
		claim(runner);
		atomic_store(&runner->granted, granted(runner));
		atomic_store(&runner->running, (unsigned)runner->count);
		wait_for_news(runner);
		for (size_t i = 0; i < runner->count; i++)
			check_child(runner, &runner->children[i]);
		sweep(runner);
	}
	return NULL;
}

struct runner *runner_start(struct service *service, struct mc_error *err)
{
	struct runner *runner = mc_alloc(1, sizeof *runner, "runner", err);

	if (runner == NULL)
		return NULL;
	runner->service = service;
	runner->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	atomic_store(&runner->beat, monotonic_ms());
	look_at_memory(runner);
	int code = runner->wake < 0 ? errno : pthread_create(&runner->thread, NULL, run, runner);
	if (code == 0)
		return runner;
	(void)mc_fail_errno(err, code, "runner", "cannot be started");
	mc_close(runner->wake);
	free(runner);
	return NULL;
}

void runner_wake(struct runner *runner)
{
	uint64_t one = 1;

	/* full means that it is awake already */
	if (runner != NULL && write(runner->wake, &one, sizeof one) != sizeof one &&
	    errno != EAGAIN)
		log_say(LOG_LEVEL_ERROR, NULL, NULL, "the runner cannot be woken");
}

void runner_stop(struct runner *runner, unsigned seconds)
{
	if (runner == NULL)
		return;
	atomic_store(&runner->stop_at, monotonic_ms() + (int64_t)seconds * 1000);
	atomic_store(&runner->stopping, true);
	runner_wake(runner);
	pthread_join(runner->thread, NULL);
}

void runner_free(struct runner *runner)
{
	if (runner == NULL)
		return;
	close(runner->wake);
	free(runner);
}

int64_t runner_idle_ms(const struct runner *runner)
{
	return monotonic_ms() - atomic_load(&runner->beat);
}

void runner_memory(
    const struct runner *runner, uint64_t *ret_granted, uint64_t *ret_budget, unsigned *ret_running)
{
	*ret_granted = atomic_load(&runner->granted);
	*ret_budget = atomic_load(&runner->budget);
	*ret_running = atomic_load(&runner->running);
}
