/*
 * executor.h - how child processes are started
 *
 * `local` is posix_spawn on this machine. A batch scheduler would be another file behind the same
 * three calls.
 */
#ifndef MOECALD_EXECUTOR_H
#define MOECALD_EXECUTOR_H

#include <sys/types.h>

#include "moecal/buf.h"

struct process {
	pid_t pid;
	int pidfd;    /* readable when the process has ended */
	int out, err; /* what it prints; non-blocking; -1 when closed */
};

/*
 * Starts argv[0] with standard input from `input` (a descriptor that stays the caller's; -1: nothing
 * to read), its output and messages in pipes. The child has no other descriptor of ours, default
 * signals, a process group of its own, and one BLAS thread (its pool is the parallelism). It ends
 * when we do: argv should hold --parent with our process id. Errors: NOT_FOUND, NO_MEMORY, IO.
 */
bool executor_start(struct process *process, char *const argv[], int input, struct mc_error *err)
    MC_CHECKED;
/* Waits for the end and closes everything. *ret_status as waitpid gives it. */
bool executor_reap(struct process *process, int *ret_status, struct mc_error *err) MC_CHECKED;

/*
 * Runs argv to its end with `input` (bytes; NULL: none) on standard input: all that it printed goes to `out`
 * and `messages` (of which more than their maximum is dropped for messages, an error for out).
 * Killed after `seconds`, and when *stop becomes true: CANCELED. ret_exit: the exit code; 128 + N
 * when killed by signal N.
 */
bool executor_ask(char *const argv[], const struct mc_buf *input, unsigned seconds,
    bool (*stop)(void *ctx), void *stop_ctx, struct mc_buf *out, struct mc_buf *messages, int *ret_exit,
    struct mc_error *err) MC_CHECKED;

#endif
