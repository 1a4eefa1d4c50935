/*
 * outcome.h - how a child ended, and what that means for its job
 *
 * Pure: everything that is known goes in, one decision comes out.
 */
#ifndef MOECALD_OUTCOME_H
#define MOECALD_OUTCOME_H

#include <stdint.h>

#include "store.h"

/* Why the runner asked a child to end; the strongest reason so far. */
enum want { WANT_NOTHING, WANT_STOP, WANT_DEADLINE, WANT_CANCEL };

struct child_end {
	int exit_code;           /* -1: ended by a signal */
	int signal;
	enum want want;
	bool finished;           /* the job folder is complete: it has its manifest and no resume/ */
	bool out_of_memory;      /* the kernel killed something of ours for memory meanwhile */
	const char *error_code;  /* of the child's "failed" event: "corrupt", ...; "" when none */
	const char *error_detail;
	const char *last_words;  /* last line on standard error; "" when none */
	int64_t crashes;         /* before this end */
	int64_t crashes_allowed;
	int64_t restarts;        /* how often the folder was thrown away already */
};
struct outcome {
	enum job_state to;     /* of a running job; a canceling one that does not succeed is canceled */
	bool crash;            /* count one */
	bool artifacts;        /* there are results to record */
	bool start_over;       /* throw the job folder away first: it belongs to another program or input */
	int64_t delay_ms;      /* before it may start again */
	const char *reason;    /* static code or error_code; NULL: none */
	char detail[640];
};
void outcome_decide(const struct child_end *end, struct outcome *ret);

#endif
