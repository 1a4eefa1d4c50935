/*
 * job_state.h - the states of a job and the moves between them
 */
#ifndef MOECALD_JOB_STATE_H
#define MOECALD_JOB_STATE_H

#include "moecal/error.h"

enum job_state { JOB_QUEUED, JOB_RUNNING, JOB_CANCELING, JOB_SUCCEEDED, JOB_FAILED, JOB_CANCELED, JOB_STATES };
const char *job_state_name(enum job_state state);
bool job_state_parse(const char *name, enum job_state *ret) MC_CHECKED;
bool job_state_is_final(enum job_state state);
/* The one table of allowed moves. */
bool job_move_is_allowed(enum job_state from, enum job_state to);

#endif
