/*
 * child.h - one running job: its process, what it says, how it ends
 */
#ifndef MOECALD_CHILD_H
#define MOECALD_CHILD_H

#include "executor.h"
#include "outcome.h"
#include "service.h"

struct child {
	char id[ID_SIZE];
	struct process process;
	struct mc_buf line;  /* an event that is not complete yet */
	int log;             /* jobs/ID/log */
	uint64_t logged;
	uint64_t memory;     /* planned */
	int64_t started_ms;  /* of the job, not of this attempt */
	int64_t deadline;    /* now_ms() past which it is late; 0: none */
	enum want want;
	int64_t asked;       /* monotonic: when it was asked to end; 0: not yet */
	uint64_t kills;      /* of the kernel for memory, before it started */
	char error_code[32], error_detail[704], last_words[256];
	struct mc_json *progress; /* newest; owned */
	double starved;           /* experts, so far */
	bool ended;               /* waited for, with this status; its end is perhaps not recorded yet */
	int status;
};

/* Writes request.json and starts `moecal run`. The row must be in state running. */
bool child_start(struct child *child, struct service *service, const struct job_row *row, struct mc_error *err)
    MC_CHECKED;
/* A child that ended before it began, with err as its reason: its end is recorded like any other. */
void child_start_failed(struct child *child, struct service *service, const struct job_row *row,
    const struct mc_error *err);
/* Reads what is there: events go to the store, messages to the log. */
void child_read(struct child *child, struct service *service);
/* SIGTERM; a stronger reason replaces a weaker one. */
void child_ask(struct child *child, enum want want);
void child_kill(struct child *child);
/* The process has ended: reads the rest, records the outcome. Returns false when the store cannot
 * record it now: then call it again later. */
bool child_finish(struct child *child, struct service *service);
void child_release(struct child *child);

/* Records a job whose folder is complete already (the service died before it could say so). */
bool child_record_finished(struct service *service, const struct job_row *row, bool *ret_was, struct mc_error *err)
    MC_CHECKED;
/* Whether another process still works in the job's folder (a child that outlived its service). */
bool child_folder_is_locked(const struct service *service, const char *id);

#endif
