/*
 * executor_local.c - children on this machine, by posix_spawn
 *
 * Never fork: OpenBLAS and others install handlers that may wait for ever in the child.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "executor.h"
#include "ids.h"

#include "moecal/alloc.h"
#include "moecal/file.h"

#define PIPE_CHUNK 16384

/* --- environment -------------------------------------------------------------------------------
 */

/* What the service manager told us is not the child's business; neither are tokens. */
static bool is_ours(const char *variable)
{
	static const char *const names[] = {"NOTIFY_SOCKET=", "WATCHDOG_", "LISTEN_",
	    "JOURNAL_STREAM=", "CREDENTIALS_DIRECTORY=", "INVOCATION_ID=", "MOECAL_TOKEN",
	    "OPENBLAS_NUM_THREADS="};

	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (strncmp(variable, names[i], strlen(names[i])) == 0)
			return true;
	return false;
}

static char **child_environment(struct mc_error *err)
{
	size_t count = 0, kept = 0;

	while (environ[count] != NULL)
		count++;
	char **list = mc_alloc(count + 2, sizeof *list, "environment", err);
	if (list == NULL)
		return NULL;
	for (size_t i = 0; i < count; i++)
		if (!is_ours(environ[i]))
			list[kept++] = environ[i];
	list[kept++] = (char *)"OPENBLAS_NUM_THREADS=1";
	list[kept] = NULL;
	return list;
}

/* --- starting ----------------------------------------------------------------------------------
 */

static int spawn(
    pid_t *pid, char *const argv[], char *const environment[], int input, int out, int messages)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none, all;
	int code;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attributes);
	if (input >= 0)
		posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
	else
		posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(&actions, messages, STDERR_FILENO);
	posix_spawn_file_actions_addclosefrom_np(&actions, 3);
	posix_spawnattr_setflags(
	    &attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setpgroup(&attributes, 0);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setsigdefault(&attributes, &all);
	code = posix_spawn(pid, argv[0], &actions, &attributes, argv, environment);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	return code;
}

bool executor_start(struct process *process, char *const argv[], int input, struct mc_error *err)
{
	int out[2] = {-1, -1}, messages[2] = {-1, -1}, code = 0;
	char **environment = child_environment(err);

	*process = (struct process){.pidfd = -1, .out = -1, .err = -1};
	if (environment == NULL)
		return false;
	if (pipe2(out, O_CLOEXEC) != 0 || pipe2(messages, O_CLOEXEC) != 0)
		code = errno;
	if (code == 0)
		code = spawn(&process->pid, argv, environment, input, out[1], messages[1]);
	free(environment);
	mc_close(out[1]);
	mc_close(messages[1]);
	if (code != 0) {
		mc_close(out[0]);
		mc_close(messages[0]);
		return mc_fail_errno(err, code, argv[0], "cannot be started");
	}
	process->out = out[0];
	process->err = messages[0];
	fcntl(out[0], F_SETFL, O_NONBLOCK);
	fcntl(messages[0], F_SETFL, O_NONBLOCK);
	process->pidfd = (int)syscall(SYS_pidfd_open, process->pid, 0);
	if (process->pidfd >= 0)
		return true;
	code = errno;
	kill(process->pid, SIGKILL);
	int status;
	struct mc_error ignored;
	mc_error_init(&ignored);
	if (!executor_reap(process, &status, &ignored))
		return mc_fail(err, ignored.code, ignored.where, "%s", ignored.text);
	return mc_fail_errno(err, code, argv[0], "cannot be watched");
}

bool executor_reap(struct process *process, int *ret_status, struct mc_error *err)
{
	pid_t pid;

	do
		pid = waitpid(process->pid, ret_status, 0);
	while (pid < 0 && errno == EINTR);
	int code = errno;
	mc_close(process->pidfd);
	mc_close(process->out);
	mc_close(process->err);
	process->pidfd = process->out = process->err = -1;
	return pid >= 0 || mc_fail_errno(err, code, "child", "cannot be waited for");
}

/* --- asking ------------------------------------------------------------------------------------
 */

/* A file without a name that holds the bytes, at its start. */
static bool make_input(const struct mc_buf *input, int *ret_fd, struct mc_error *err)
{
	*ret_fd = -1;
	if (input == NULL)
		return true;
	*ret_fd = memfd_create("request", MFD_CLOEXEC);
	if (*ret_fd < 0)
		return mc_fail_errno(err, errno, "request", "cannot be handed on");
	if (mc_file_write(*ret_fd, mc_buf_text(input), input->length, "request", err) &&
	    (lseek(*ret_fd, 0, SEEK_SET) == 0 ||
		mc_fail_errno(err, errno, "request", "cannot rewind")))
		return true;
	close(*ret_fd);
	*ret_fd = -1;
	return false;
}

/* What is there now; closes at the end. `lossy`: what does not fit is dropped. */
static bool drain(int *fd, struct mc_buf *into, bool lossy, struct mc_error *err)
{
	char chunk[PIPE_CHUNK];
	ssize_t n;

	while (*fd >= 0 && (n = read(*fd, chunk, sizeof chunk)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ||
			       mc_fail_errno(err, errno, "child", "cannot be read");
		size_t room = into->maximum - into->length;
		if (!mc_buf_add(into, chunk, lossy && (size_t)n > room ? room : (size_t)n, err))
			return false;
	}
	mc_close(*fd);
	*fd = -1;
	return true;
}

static bool collect(struct process *process, int64_t until, bool (*stop)(void *ctx), void *stop_ctx,
    struct mc_buf *out, struct mc_buf *messages, struct mc_error *err)
{
	while (process->out >= 0 || process->err >= 0) {
		struct pollfd fds[] = {
		    {.fd = process->out, .events = POLLIN}, {.fd = process->err, .events = POLLIN}};
		if (monotonic_ms() > until)
			return mc_fail(err, MC_CANCELED, "request", "took longer than allowed");
		if (stop != NULL && stop(stop_ctx))
			return mc_fail(err, MC_CANCELED, "request", "the service is stopping");
		if (poll(fds, 2, 200) < 0 && errno != EINTR)
			return mc_fail_errno(err, errno, "child", "cannot be waited for");
		if (!drain(&process->out, out, false, err) ||
		    !drain(&process->err, messages, true, err))
			return false;
	}
	return true;
}

bool executor_ask(char *const argv[], const struct mc_buf *input, unsigned seconds,
    bool (*stop)(void *ctx), void *stop_ctx, struct mc_buf *out, struct mc_buf *messages,
    int *ret_exit, struct mc_error *err)
{
	struct process process;
	int fd, status;

	if (!make_input(input, &fd, err))
		return false;
	bool ok = executor_start(&process, argv, fd, err);
	mc_close(fd);
	if (!ok)
		return false;
	ok = collect(
	    &process, monotonic_ms() + (int64_t)seconds * 1000, stop, stop_ctx, out, messages, err);
	if (!ok)
		kill(process.pid, SIGKILL);
	if (!executor_reap(&process, &status, err))
		return false;
	*ret_exit = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
	return ok;
}
