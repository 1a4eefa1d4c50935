/*
 * session.c - pool, memory and signals of one run of the program
 */
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#include "cli.h"

#include "moecal/linalg.h"
#include "moecal/plan.h"

/* Only set by the handler, only read by the rest. */
static atomic_int received;

static void on_signal(int number)
{
	atomic_store(&received, number);
}

int session_signal(void)
{
	return atomic_load(&received);
}

void session_catch_signals(void)
{
	struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESETHAND};

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

static bool was_canceled(void *ctx)
{
	(void)ctx;
	return atomic_load(&received) != 0;
}

static void log_line(void *ctx, enum mc_log_level level, const char *text)
{
	const struct session *session = ctx;
	if (level == MC_LOG_WARNING || (level == MC_LOG_INFO && !session->quiet))
		fprintf(stderr, "moecal: %s%s\n", level == MC_LOG_WARNING ? "warning: " : "", text);
}

bool session_open(
    struct session *session, uint64_t threads, uint64_t memory_bytes, struct mc_error *err)
{
	bool quiet = session->quiet;

	*session = (struct session){.quiet = quiet};
	session_catch_signals();
	session->env = (struct mc_env){.arena = &session->arena,
	    .log = log_line,
	    .canceled = was_canceled,
	    .hook_ctx = session};
	session->env.pool = mc_pool_new(
	    threads > 0 ? (unsigned)threads : mc_machine_threads(), err);
	if (session->env.pool != NULL &&
	    mc_arena_init(
		&session->arena, memory_bytes > 0 ? memory_bytes : mc_machine_memory(), err) &&
	    mc_linalg_init(session->env.pool, err))
		return true;
	session_close(session);
	return false;
}

void session_close(struct session *session)
{
	mc_pool_free(session->env.pool);
	session->env.pool = NULL;
	mc_arena_release(&session->arena);
}
