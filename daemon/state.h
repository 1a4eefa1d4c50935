/*
 * state.h - the state folder: what lies where
 *
 *	moecald.db (-wal, -shm), lock
 *	uploads/REQUEST.part             bodies that are coming in
 *	datasets/ID.KIND                 uploaded datasets
 *	jobs/ID/request.json             what the child is asked
 *	jobs/ID/log                      what it said on standard error
 *	jobs/ID/folder/                  the job folder (docs/JOB-FOLDER.md)
 *	trash/                           what is being deleted
 *	backup/
 */
#ifndef MOECALD_STATE_H
#define MOECALD_STATE_H

#include <stdint.h>

#include "moecal/error.h"

/* Makes the folder (mode 0700) and those in it. */
bool state_prepare(const char *state, struct mc_error *err) MC_CHECKED;
/* Empties uploads/ and trash/; only for who holds the lock of the store: they may be another's. */
bool state_sweep(const char *state, struct mc_error *err) MC_CHECKED;
/* STATE/jobs/ID or STATE/jobs/ID/NAME; owned. */
char *state_job_path(const char *state, const char *id, const char *name, struct mc_error *err) MC_CHECKED;
/* Removes what belongs to a job whose row is gone: renamed to trash/ first, then deleted. */
bool state_remove_job(const char *state, const char *id, struct mc_error *err) MC_CHECKED;
/* Whether `percent` of the disk is free; *ret_free in bytes. */
bool state_has_space(const char *state, uint64_t percent, uint64_t *ret_free);
/* text with every "STATE/jobs/ID/folder/" and "STATE/" taken out, so that no answer tells where we
 * live; in place. */
void state_hide(const char *state, const char *id, char *text);

#endif
