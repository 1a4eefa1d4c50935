/*
 * outcome.c - see outcome.h
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "outcome.h"

/* Exit codes of moecal run (docs/man/moecal.1). */
enum {
	RUN_DONE = 0,
	RUN_FAILED = 1,
	RUN_REFUSED = 2,
	RUN_VERDICT = 4,
	RUN_SAVED = 75,
	RUN_INTERRUPTED = 130
};

#define DISK_DELAY_MS 60000
#define LOCK_DELAY_MS 500

static void requeue(struct outcome *ret, int64_t delay_ms)
{
	ret->to = JOB_QUEUED;
	ret->delay_ms = delay_ms;
}

static void fail(struct outcome *ret, const char *reason, const char *detail)
{
	ret->to = JOB_FAILED;
	ret->reason = reason;
	snprintf(ret->detail, sizeof ret->detail, "%s", detail);
}

/* Ended although nobody asked: a crash. The next start goes on from the last finished layer, unless
 * it happens again and again. */
static void crash(const struct child_end *end, struct outcome *ret)
{
	const char *code = end->out_of_memory ? "killed-by-memory" : "crashed";

	ret->crash = true;
	if (end->crashes + 1 >= end->crashes_allowed) {
		ret->to = JOB_FAILED;
		ret->reason = end->out_of_memory ? code : "crashed-repeatedly";
	} else {
		requeue(ret, 0);
		ret->reason = code;
	}
	if (end->exit_code < 0)
		snprintf(ret->detail, sizeof ret->detail,
		    "the process was ended by signal %d (%s)%s%s", end->signal,
		    strsignal(end->signal), end->last_words[0] != '\0' ? "; it last said: " : "",
		    end->last_words);
	else
		snprintf(ret->detail, sizeof ret->detail, "the process ended with code %d%s%s",
		    end->exit_code,
		    end->last_words[0] != '\0' ? "; it last said: " : " and no word",
		    end->last_words);
}

/* It said why it will not or cannot. */
static void explained(const struct child_end *end, struct outcome *ret)
{
	bool conflict = strcmp(end->error_code, "conflict") == 0;

	if (strcmp(end->error_code, "no-space") == 0) {
		requeue(ret, DISK_DELAY_MS);
		ret->reason = "no-space";
		snprintf(ret->detail, sizeof ret->detail, "%s", end->error_detail);
	} else if (conflict && end->restarts == 0) {
		/* what an older program or other inputs left there is of no use */
		requeue(ret, 0);
		ret->start_over = true;
		ret->reason = "started-over";
		snprintf(ret->detail, sizeof ret->detail, "%s", end->error_detail);
	} else {
		fail(ret, end->error_code, end->error_detail);
	}
}

static void asked(const struct child_end *end, struct outcome *ret)
{
	switch (end->want) {
	case WANT_CANCEL:
		ret->to = JOB_CANCELED;
		break;
	case WANT_DEADLINE:
		fail(ret, "deadline-exceeded", "the job was not finished by its deadline");
		break;
	case WANT_STOP:
	case WANT_NOTHING:
		requeue(ret, 0);
		break;
	}
}

void outcome_decide(const struct child_end *end, struct outcome *ret)
{
	*ret = (struct outcome){.to = JOB_QUEUED};
	if (end->exit_code == RUN_DONE && end->finished) {
		ret->to = JOB_SUCCEEDED;
		ret->artifacts = true;
	} else if (end->exit_code == RUN_VERDICT && end->finished) {
		fail(ret, "verdict-failed",
		    "the checkpoint did not pass its checks; see the verdict");
		ret->artifacts = true;
	} else if (end->want != WANT_NOTHING) {
		asked(end, ret); /* however it ended, we wanted it to */
	} else if (end->exit_code == RUN_SAVED || end->exit_code == RUN_INTERRUPTED) {
		/* somebody else asked: once is fine, but not again and again for ever */
		crash(end, ret);
		if (ret->to == JOB_QUEUED)
			ret->delay_ms = LOCK_DELAY_MS;
	} else if ((end->exit_code == RUN_FAILED || end->exit_code == RUN_REFUSED) &&
		   end->error_code[0] != '\0') {
		explained(end, ret);
	} else {
		crash(end, ret);
	}
}
