/*
 * env.c - talking to the caller through its hooks
 */
#include "moecal/env.h"

#include <stdarg.h>
#include <stdio.h>

void mc_env_log(const struct mc_env *env, enum mc_log_level level, const char *fmt, ...)
{
	char text[1024]; /* one sentence; a longer one is cut */
	va_list args;

	if (!env->log)
		return;
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	env->log(env->hook_ctx, level, text);
}

bool mc_env_go_on(const struct mc_env *env, struct mc_error *err)
{
	if (env->canceled && env->canceled(env->hook_ctx))
		return mc_fail(err, MC_CANCELED, "", "stopped as asked");
	return true;
}
