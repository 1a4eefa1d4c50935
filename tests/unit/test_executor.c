/*
 * test_executor.c - children get what they are given and nothing else
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "executor.h"
#include "ids.h"

static int ask(const char *script, const char *input, char *out, size_t size)
{
	char *argv[] = {(char *)"/bin/sh", (char *)"-c", (char *)script, NULL};
	struct mc_buf given, said, messages;
	struct mc_error err;
	int code = -1;

	mc_error_init(&err);
	mc_buf_init(&given, 1 << 20);
	mc_buf_init(&said, 1 << 20);
	mc_buf_init(&messages, 256);
	if (input != NULL)
		assert_true(mc_buf_add(&given, input, strlen(input), &err));
	assert_true(executor_ask(
	    argv, input != NULL ? &given : NULL, 30, NULL, NULL, &said, &messages, &code, &err));
	assert_true(said.length < size);
	memcpy(out, mc_buf_text(&said), said.length + 1);
	mc_buf_release(&given);
	mc_buf_release(&said);
	mc_buf_release(&messages);
	return code;
}

static size_t open_descriptors(void)
{
	size_t count = 0;
	for (int fd = 0; fd < 1024; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

/* Descriptors that a careless library left without CLOEXEC must not reach a job either. */
static void test_no_descriptor_leaks(void **state)
{
	char out[4096];
	int pair[2], file = open("/dev/null", O_RDONLY), kept[64];
	(void)state;

	assert_true(file >= 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	for (size_t i = 0; i < 64; i++)
		assert_true((kept[i] = dup(file)) >= 0);
	/* the shell's own glob opens the folder while it reads it: one more name than it has */
	assert_int_equal(ask("for f in /proc/self/fd/*; do readlink $f; done | sort | uniq -c | "
			     "awk '{ print $2 }' | grep -v pipe:",
			     NULL, out, sizeof out),
	    0);
	assert_string_equal(out, "/dev/null\n");
	assert_int_equal(ask("ls /proc/self/fd | sort -n | tail -1", NULL, out, sizeof out), 0);
	assert_true(strtol(out, NULL, 10) <= 3); /* ls itself has one open */
	for (size_t i = 0; i < 64; i++)
		close(kept[i]);
	close(pair[0]);
	close(pair[1]);
	close(file);
}

static void test_we_keep_none_either(void **state)
{
	char out[64];
	(void)state;
	assert_int_equal(ask("echo warm", NULL, out, sizeof out), 0);
	size_t before = open_descriptors();
	for (int i = 0; i < 20; i++)
		assert_int_equal(ask("cat >/dev/null", "text", out, sizeof out), 0);
	assert_int_equal(open_descriptors(), before);
}

static void test_a_program_that_is_not_there(void **state)
{
	char *argv[] = {(char *)"/nowhere/moecal", NULL};
	struct process process;
	struct mc_error err;
	(void)state;
	size_t before = open_descriptors();
	mc_error_init(&err);
	assert_false(executor_start(&process, argv, -1, &err));
	assert_int_equal(err.code, MC_NOT_FOUND);
	assert_non_null(strstr(err.where, "/nowhere/moecal"));
	assert_int_equal(open_descriptors(), before);
}

static void test_environment(void **state)
{
	char out[4096];
	(void)state;
	setenv("MOECAL_TOKEN", "secret", 1);
	setenv("MOECAL_TOKEN_FILE", "/secret", 1);
	setenv("NOTIFY_SOCKET", "/run/notify", 1);
	setenv("LISTEN_FDS", "2", 1);
	setenv("WATCHDOG_USEC", "1", 1);
	setenv("OPENBLAS_NUM_THREADS", "7", 1);
	setenv("KEPT", "yes", 1);
	assert_int_equal(ask("env | grep -E 'TOKEN|NOTIFY|LISTEN|WATCHDOG|OPENBLAS_NUM|KEPT' | sort",
			     NULL, out, sizeof out),
	    0);
	assert_string_equal(out, "KEPT=yes\nOPENBLAS_NUM_THREADS=1\n");
}

/* moecald blocks its signals in every thread; a child that inherited that could not be stopped. */
static void test_signals_are_default(void **state)
{
	char out[256];
	sigset_t all, before;
	(void)state;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	void (*pipe_before)(int) = signal(SIGPIPE, SIG_IGN);
	/* the last eight digits: signals 1 to 32, of which the C library keeps 32 for itself */
	assert_int_equal(ask("sed -nE 's/^Sig(Blk|Ign):\\t.{8}[08]/\\1 /p' /proc/self/status", NULL,
			     out, sizeof out),
	    0);
	assert_string_equal(out, "Blk 0000000\nIgn 0000000\n");
	signal(SIGPIPE, pipe_before);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void test_input_output_and_codes(void **state)
{
	char out[256];
	(void)state;
	assert_int_equal(ask("cat; exit 4", "what is asked\n", out, sizeof out), 4);
	assert_string_equal(out, "what is asked\n");
	assert_int_equal(ask("kill -9 $$", NULL, out, sizeof out), 128 + SIGKILL);
	/* without input there is an end of file, not our own standard input */
	assert_int_equal(ask("wc -c", NULL, out, sizeof out), 0);
	assert_string_equal(out, "0\n");
	/* more messages than are kept do not block the child */
	assert_int_equal(
	    ask("head -c 300000 /dev/zero | tr '\\0' x >&2; echo done", NULL, out, sizeof out), 0);
	assert_string_equal(out, "done\n");
}

static bool always(void *ctx)
{
	(void)ctx;
	return true;
}

static void test_too_slow_and_stopped(void **state)
{
	char *argv[] = {(char *)"/bin/sh", (char *)"-c", (char *)"sleep 60", NULL};
	struct mc_buf out, messages;
	struct mc_error err;
	int code;
	(void)state;
	mc_buf_init(&out, 64);
	mc_buf_init(&messages, 64);
	int64_t began = monotonic_ms();
	mc_error_init(&err);
	assert_false(executor_ask(argv, NULL, 1, NULL, NULL, &out, &messages, &code, &err));
	assert_int_equal(err.code, MC_CANCELED);
	mc_error_init(&err);
	assert_false(executor_ask(argv, NULL, 60, always, NULL, &out, &messages, &code, &err));
	assert_int_equal(err.code, MC_CANCELED);
	assert_true(monotonic_ms() - began < 20000);
	/* an answer that is larger than allowed is an error, not a cut answer */
	argv[2] = (char *)"head -c 1000 /dev/zero";
	mc_error_init(&err);
	assert_false(executor_ask(argv, NULL, 60, NULL, NULL, &out, &messages, &code, &err));
	mc_buf_release(&out);
	mc_buf_release(&messages);
}

static void test_a_group_of_its_own(void **state)
{
	/* a Ctrl-C at the daemon's terminal is the daemon's to pass on */
	char out[64];
	(void)state;
	assert_int_equal(ask("ps -o pgid= -p $$ | tr -d ' '", NULL, out, sizeof out), 0);
	assert_true(strtol(out, NULL, 10) != getpgrp() && strtol(out, NULL, 10) > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_descriptor_leaks),
	    cmocka_unit_test(test_we_keep_none_either),
	    cmocka_unit_test(test_a_program_that_is_not_there), cmocka_unit_test(test_environment),
	    cmocka_unit_test(test_signals_are_default),
	    cmocka_unit_test(test_input_output_and_codes),
	    cmocka_unit_test(test_too_slow_and_stopped), cmocka_unit_test(test_a_group_of_its_own)};
	return cmocka_run_group_tests_name("executor", tests, NULL, NULL);
}
