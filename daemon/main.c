/*
 * main.c - moecald: start, signals, stop
 *
 * Start: settings, state folder, store (checked, migrated), recovery, runner, listeners; then READY.
 * Stop: no new connections, runner saves, those who wait are answered, store closed.
 */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <time.h>
#include <unistd.h>

#include "executor.h"
#include "recovery.h"
#include "service.h"
#include "state.h"

#include "moecal/alloc.h"
#include "moecal/file.h"

enum { EXIT_STOPPED = 0, EXIT_FAILED = 1, EXIT_CONFIG = 2 };

#define TICK_MS 1000
#define DRAIN_SECONDS 5
#define STALE_MS 20000 /* a runner that did not move for so long is not working */

/* --- start ------------------------------------------------------------------------------------- */

/* $STATE_DIRECTORY of the unit, else where such things lie. Owned. */
static char *default_state(struct mc_error *err)
{
	const char *given = getenv("STATE_DIRECTORY"), *home = getenv("HOME");

	if (given != NULL && given[0] == '/')
		return mc_format(err, "%.*s", (int)strcspn(given, ":"), given);
	if (geteuid() == 0 || home == NULL)
		return mc_strdup("/var/lib/moecald", err);
	return mc_format(err, "%s/.local/state/moecald", home);
}

/* A path that does not depend on where we are or on links. */
static bool make_real(char **path, struct mc_error *err)
{
	char *real = realpath(*path, NULL);

	if (real == NULL)
		return mc_fail_errno(err, errno, *path, "cannot be found");
	free(*path);
	*path = real;
	return true;
}

/* moecal lies beside moecald unless the settings say otherwise. */
static bool find_program(struct service *service, struct mc_error *err)
{
	char self[PATH_MAX] = "";

	if (service->settings.program != NULL) {
		service->program = mc_strdup(service->settings.program, err);
	} else {
		ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
		char *slash = n > 0 ? strrchr(self, '/') : NULL;
		service->program = slash == NULL ? NULL
						 : mc_format(err, "%.*s/moecal",
						       (int)(slash - self), self);
	}
	if (service->program == NULL)
		return mc_fail(err, MC_IO, "moecald", "does not know where it lies");
	return access(service->program, X_OK) == 0 ||
	       mc_fail_errno(err, errno, service->program,
		   "is the program that runs jobs, and cannot be run (setting 'program')");
}

/* What moecal says about itself is what every job will run with; this also shows that it runs. */
static bool ask_version(struct service *service, struct mc_error *err)
{
	char *argv[] = {service->program, (char *)"version", (char *)"--json", NULL};
	struct mc_buf out, messages;
	int code = 0;

	mc_buf_init(&out, 1 << 16);
	mc_buf_init(&messages, 4096);
	bool ok = executor_ask(argv, NULL, 30, NULL, NULL, &out, &messages, &code, err) &&
		  (code == 0 || mc_fail(err, MC_INTERNAL, service->program, "%s",
				    messages.length > 0 ? mc_buf_text(&messages) : "does not run"));
	if (ok)
		service->version = mc_json_parse(out.data, out.length, "version", err);
	mc_buf_release(&out);
	mc_buf_release(&messages);
	if (!ok || service->version == NULL ||
	    !mc_json_set(service->version, "api", mc_json_new_string("v1"), err))
		return false;
	const struct mc_json *kernel = mc_json_get(service->version, "kernel");
	metrics_set_build(service->metrics, MC_VERSION,
	    mc_json_type(kernel) == MC_JSON_STRING ? mc_json_string(kernel, NULL) : "");
	return true;
}

static bool open_roots(struct service *service, struct mc_error *err)
{
	bool ok;

	service->roots = mc_roots_new(err);
	ok = service->roots != NULL;
	for (size_t i = 0; ok && i < service->settings.allow.count; i++)
		ok = make_real(&service->settings.allow.items[i], err) &&
		     mc_roots_add(service->roots, service->settings.allow.items[i], err);
	return ok;
}

static bool start(struct service *service, struct mc_error *err)
{
	struct settings *settings = &service->settings;

	pthread_rwlock_init(&service->lock, NULL);
	sem_init(&service->inspectors, 0, (unsigned)settings->inspectors);
	service->metrics = metrics_new(err);
	if (service->metrics == NULL || !find_program(service, err) || !ask_version(service, err) ||
	    !open_roots(service, err) || !state_prepare(settings->state, err) ||
	    !make_real(&settings->state, err))
		return false;
	if (settings->token_file != NULL &&
	    (service->tokens = tokens_read(settings->token_file, err)) == NULL)
		return false;
	sd_notify(0, "STATUS=Opening the database\nEXTEND_TIMEOUT_USEC=600000000");
	service->store = store_open(settings->state, service->metrics, err);
	if (service->store == NULL || !state_sweep(settings->state, err) || !recover(service, err))
		return false;
	service->runner = runner_start(service, err);
	if (service->runner == NULL)
		return false;
	service->server = http_start(service, err);
	return service->server != NULL;
}

static void say_ready(const struct service *service)
{
	for (size_t i = 0; http_address(service->server, i) != NULL; i++) {
		printf("listening on %s\n", http_address(service->server, i));
		log_say(LOG_LEVEL_INFO, NULL, NULL, "listening on %s", http_address(service->server, i));
	}
	fflush(stdout);
	sd_notify(0, "READY=1\nSTATUS=Ready");
}

/* --- stop -------------------------------------------------------------------------------------- */

static void stop(struct service *service)
{
	sd_notify(0, "STOPPING=1\nSTATUS=Running jobs save their work");
	log_say(LOG_LEVEL_INFO, NULL, NULL, "stopping");
	atomic_store(&service->draining, true);
	if (service->server != NULL)
		http_quiesce(service->server);
	runner_stop(service->runner, (unsigned)service->settings.stop_seconds);
	if (service->store != NULL)
		store_wake_all(service->store);
	if (service->server != NULL)
		http_stop(service->server, DRAIN_SECONDS);
	runner_free(service->runner);
	store_close(service->store);
	log_say(LOG_LEVEL_INFO, NULL, NULL, "stopped");
}

static void release(struct service *service)
{
	tokens_free(service->tokens);
	mc_roots_free(service->roots);
	metrics_free(service->metrics);
	mc_json_free(service->version);
	free(service->program);
	settings_release(&service->settings);
	sem_destroy(&service->inspectors);
	pthread_rwlock_destroy(&service->lock);
}

/* --- reload ------------------------------------------------------------------------------------ */

/* All or nothing: a broken file changes nothing. */
static void reload(struct service *service, int argc, char **argv)
{
	struct settings fresh;
	struct tokens *tokens = NULL;
	enum settings_action action;
	enum log_level level = LOG_LEVEL_INFO;
	char restart[256];
	struct mc_error err;

	mc_error_init(&err);
	sd_notify(0, "RELOADING=1");
	bool ok = settings_read(&fresh, argc, argv, service->settings.state, &action, &err) &&
		  log_level_parse(fresh.log_level, &level) &&
		  (fresh.token_file == NULL ||
		      (tokens = tokens_read(fresh.token_file, &err)) != NULL);
	/* without tokens an open listener would be open to all: that needs the checks of a start */
	if (ok && tokens == NULL && service->tokens != NULL)
		ok = mc_fail(&err, MC_INVALID, "token_file", "cannot be taken away without a restart");
	if (ok) {
		pthread_rwlock_wrlock(&service->lock);
		settings_reload(&service->settings, &fresh, restart);
		struct tokens *old = service->tokens;
		service->tokens = tokens;
		pthread_rwlock_unlock(&service->lock);
		tokens_free(old);
		log_set_level(level);
		log_say(LOG_LEVEL_INFO, NULL, NULL, "settings read again%s%s",
		    restart[0] != '\0' ? "; these need a restart: " : "", restart);
		runner_wake(service->runner);
	} else {
		log_error(NULL, "reading the settings again; all stay as they were", &err);
		tokens_free(tokens);
	}
	settings_release(&fresh);
	sd_notify(0, "READY=1");
}

/* --- the loop ---------------------------------------------------------------------------------- */

static void tell_status(struct service *service)
{
	struct store_counts counts;
	struct mc_error err;

	mc_error_init(&err);
	if (!store_counts(service->store, &counts, &err))
		return;
	sd_notifyf(0, "STATUS=%llu running, %llu queued",
	    (unsigned long long)(counts.jobs[JOB_RUNNING] + counts.jobs[JOB_CANCELING]),
	    (unsigned long long)counts.jobs[JOB_QUEUED]);
	/* a petted watchdog means "working": runner and store were seen at work just now */
	if (runner_idle_ms(service->runner) < STALE_MS && !store_is_failed(service->store))
		sd_notify(0, "WATCHDOG=1");
}

static void serve(struct service *service, const sigset_t *signals, int argc, char **argv)
{
	struct timespec tick = {.tv_sec = TICK_MS / 1000, .tv_nsec = TICK_MS % 1000 * 1000000};
	unsigned ticks = 0;

	for (;;) {
		int number = sigtimedwait(signals, NULL, &tick);
		if (number == SIGTERM || number == SIGINT)
			return;
		if (number == SIGHUP)
			reload(service, argc, argv);
		http_tick(service->server);
		if (ticks++ % 5 == 0)
			tell_status(service);
	}
}

static int run(struct service *service, int argc, char **argv)
{
	struct mc_error err;
	enum log_level level = LOG_LEVEL_INFO;
	sigset_t signals;

	/* before any thread is made, so that all of them leave signals to this one */
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	mc_error_init(&err);
	if (log_level_parse(service->settings.log_level, &level))
		log_open(level);
	bool ok = start(service, &err);
	if (ok) {
		say_ready(service);
		serve(service, &signals, argc, argv);
	} else {
		log_error(NULL, "starting", &err);
	}
	stop(service);
	release(service);
	return ok ? EXIT_STOPPED : err.code == MC_INVALID ? EXIT_CONFIG : EXIT_FAILED;
}

static int make_token(const struct settings *settings)
{
	char token[64], line[256];
	struct mc_error err;

	mc_error_init(&err);
	if (!token_make(settings->token_name, settings->token_scope, token, line, &err)) {
		fprintf(stderr, "moecald: %s: %s\n", err.where, err.text);
		return EXIT_CONFIG;
	}
	printf("token: %s\nline for the token file: %s\n", token, line);
	return EXIT_STOPPED;
}

int main(int argc, char **argv)
{
	struct service service = {0};
	enum settings_action action;
	int code = EXIT_STOPPED;
	struct mc_error err;

	mc_error_init(&err);
	char *state = default_state(&err);
	if (state == NULL || !settings_read(&service.settings, argc, argv, state, &action, &err)) {
		fprintf(stderr, "moecald: %s: %s\n", err.where, err.text);
		fprintf(stderr, "try: moecald --help\n");
		free(state);
		return EXIT_CONFIG;
	}
	free(state);
	switch (action) {
	case SETTINGS_SERVE:
		return run(&service, argc, argv);
	case SETTINGS_PRINT:
		settings_print(&service.settings, stdout);
		break;
	case SETTINGS_CHECK:
		printf("the settings are valid\n");
		break;
	case SETTINGS_HELP:
		settings_help(stdout);
		break;
	case SETTINGS_VERSION:
		printf("moecald %s\n", MC_VERSION);
		break;
	case SETTINGS_MAKE_TOKEN:
		code = make_token(&service.settings);
		break;
	}
	settings_release(&service.settings);
	return code;
}
