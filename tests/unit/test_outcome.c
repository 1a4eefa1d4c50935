/*
 * test_outcome.c - every way a child can end, and what becomes of its job
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "outcome.h"

struct row {
	const char *name;
	struct child_end end;
	enum job_state to;
	const char *reason; /* or NULL */
	bool crash, artifacts, start_over, waits;
};

#define WORDS .error_detail = "why", .last_words = "", .crashes_allowed = 3
static const struct row rows[] = {
    {"done", {.exit_code = 0, .finished = true, .error_code = "", WORDS}, .to = JOB_SUCCEEDED,
	.reason = NULL, .artifacts = true},
    {"done although canceled",
	{.exit_code = 0, .finished = true, .want = WANT_CANCEL, .error_code = "", WORDS},
	.to = JOB_SUCCEEDED, .reason = NULL, .artifacts = true},
    {"says done, has nothing", {.exit_code = 0, .error_code = "", WORDS}, .to = JOB_QUEUED,
	.reason = "crashed", .crash = true},
    {"verdict", {.exit_code = 4, .finished = true, .error_code = "", WORDS}, .to = JOB_FAILED,
	.reason = "verdict-failed", .artifacts = true},
    {"refused", {.exit_code = 2, .error_code = "unsupported", WORDS}, .to = JOB_FAILED,
	.reason = "unsupported"},
    {"failed", {.exit_code = 1, .error_code = "corrupt", WORDS}, .to = JOB_FAILED,
	.reason = "corrupt"},
    {"failed without a word", {.exit_code = 1, .error_code = "", WORDS}, .to = JOB_QUEUED,
	.reason = "crashed", .crash = true},
    {"disk full", {.exit_code = 1, .error_code = "no-space", WORDS}, .to = JOB_QUEUED,
	.reason = "no-space", .waits = true},
    {"folder of another program", {.exit_code = 2, .error_code = "conflict", WORDS},
	.to = JOB_QUEUED, .reason = "started-over", .start_over = true},
    {"again", {.exit_code = 2, .error_code = "conflict", .restarts = 1, WORDS}, .to = JOB_FAILED,
	.reason = "conflict"},
    {"stopped", {.exit_code = 75, .want = WANT_STOP, .error_code = "canceled", WORDS},
	.to = JOB_QUEUED, .reason = NULL},
    {"killed at the stop",
	{.exit_code = -1, .signal = SIGKILL, .want = WANT_STOP, .error_code = "", WORDS},
	.to = JOB_QUEUED, .reason = NULL},
    {"canceled", {.exit_code = 75, .want = WANT_CANCEL, .error_code = "canceled", WORDS},
	.to = JOB_CANCELED, .reason = NULL},
    {"late", {.exit_code = 75, .want = WANT_DEADLINE, .error_code = "canceled", WORDS},
	.to = JOB_FAILED, .reason = "deadline-exceeded"},
    {"stopped by somebody", {.exit_code = 75, .error_code = "canceled", WORDS},
	.to = JOB_QUEUED,
	.reason = "crashed",
	.crash = true,
	.waits = true},
    {"interrupted by somebody", {.exit_code = 130, .error_code = "canceled", WORDS},
	.to = JOB_QUEUED,
	.reason = "crashed",
	.crash = true,
	.waits = true},
    {"stopped by somebody again and again",
	{.exit_code = 75, .crashes = 2, .error_code = "canceled", WORDS},
	.to = JOB_FAILED,
	.reason = "crashed-repeatedly",
	.crash = true},
    {"segmentation fault", {.exit_code = -1, .signal = SIGSEGV, .error_code = "", WORDS},
	.to = JOB_QUEUED, .reason = "crashed", .crash = true},
    {"third crash", {.exit_code = -1, .signal = SIGABRT, .crashes = 2, .error_code = "", WORDS},
	.to = JOB_FAILED, .reason = "crashed-repeatedly", .crash = true},
    {"memory", {.exit_code = -1, .signal = SIGKILL, .out_of_memory = true, .error_code = "", WORDS},
	.to = JOB_QUEUED, .reason = "killed-by-memory", .crash = true},
    {"memory for the third time",
	{.exit_code = -1,
	    .signal = SIGKILL,
	    .out_of_memory = true,
	    .crashes = 2,
	    .error_code = "",
	    WORDS},
	.to = JOB_FAILED, .reason = "killed-by-memory", .crash = true},
};

static void test_outcomes(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		const struct row *row = &rows[i];
		struct outcome got;

		outcome_decide(&row->end, &got);
		if (got.to != row->to || got.crash != row->crash ||
		    got.artifacts != row->artifacts || got.start_over != row->start_over ||
		    (got.delay_ms > 0) != row->waits)
			fail_msg("%s: state %s, crash %d, artifacts %d, over %d, delay %lld",
			    row->name, job_state_name(got.to), got.crash, got.artifacts,
			    got.start_over, (long long)got.delay_ms);
		if (row->reason == NULL)
			assert_null(got.reason);
		else
			assert_string_equal(got.reason, row->reason);
		/* all of them are moves that a running job may make, or a canceling one */
		assert_true(job_move_is_allowed(JOB_RUNNING, got.to) || got.to == JOB_CANCELED);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_outcomes)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
