/*
 * env.h - what the library needs from its caller, handed down everywhere
 *
 * The library has no globals, reads no environment, writes no log.
 */
#ifndef MC_ENV_H
#define MC_ENV_H

#include "moecal/arena.h"
#include "moecal/error.h"
#include "moecal/pool.h"
#include "moecal/root.h"

enum mc_log_level { MC_LOG_DEBUG, MC_LOG_INFO, MC_LOG_WARNING };

struct mc_env {
	struct mc_arena *arena;        /* numeric memory of this job; calling thread only */
	struct mc_pool *pool;
	const struct mc_roots *roots;  /* NULL: any path may be opened */
	/* Either may be NULL. log: one plain sentence. canceled: looked at between pieces of work, from
	 * the calling thread and from workers; true makes the work end with CANCELED. */
	void (*log)(void *ctx, enum mc_log_level level, const char *text);
	bool (*canceled)(void *ctx);
	void *hook_ctx;
};

/* printf to env->log; nothing when there is none. */
void mc_env_log(const struct mc_env *env, enum mc_log_level level, const char *fmt, ...)
    MC_PRINTF(3, 4);
/* false with CANCELED when the caller wants to stop. */
bool mc_env_go_on(const struct mc_env *env, struct mc_error *err) MC_CHECKED;

#endif
