/*
 * job_state.c - see job_state.h
 */
#include "job_state.h"

#include <string.h>

static const char *const state_names[JOB_STATES] = {[JOB_QUEUED] = "queued",
    [JOB_RUNNING] = "running",
    [JOB_CANCELING] = "canceling",
    [JOB_SUCCEEDED] = "succeeded",
    [JOB_FAILED] = "failed",
    [JOB_CANCELED] = "canceled"};

/* allowed[from] is a set of states. Finished ones never change. */
#define MAY(state) (1u << (state))
static const unsigned allowed[JOB_STATES] = {
    [JOB_QUEUED] = MAY(JOB_RUNNING) | MAY(JOB_CANCELED) | MAY(JOB_FAILED),
    [JOB_RUNNING] = MAY(JOB_QUEUED) | MAY(JOB_CANCELING) | MAY(JOB_SUCCEEDED) | MAY(JOB_FAILED),
    [JOB_CANCELING] = MAY(JOB_CANCELED) | MAY(JOB_SUCCEEDED) | MAY(JOB_FAILED)};

const char *job_state_name(enum job_state state)
{
	return state_names[state];
}

bool job_state_parse(const char *name, enum job_state *ret)
{
	for (size_t i = 0; i < JOB_STATES; i++)
		if (strcmp(state_names[i], name) == 0) {
			*ret = (enum job_state)i;
			return true;
		}
	return false;
}

bool job_state_is_final(enum job_state state)
{
	return allowed[state] == 0;
}

bool job_move_is_allowed(enum job_state from, enum job_state to)
{
	return (allowed[from] & MAY(to)) != 0;
}
