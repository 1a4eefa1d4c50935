/*
 * daemon.c - the moecald that a scenario talks to
 */
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "scenario.h"

#include "moecal/file.h"

static void read_port(struct scenario *s, int fd)
{
	char line[256];
	size_t n = 0;
	struct pollfd ready = {.fd = fd, .events = POLLIN};

	while (n + 1 < sizeof line && poll(&ready, 1, 20000) == 1 && read(fd, line + n, 1) == 1 &&
	       line[n] != '\n')
		n++;
	line[n] = '\0';
	const char *colon = strrchr(line, ':');
	if (strncmp(line, "listening on http://", 20) != 0 || colon == NULL)
		die("the daemon did not say where it listens");
	s->port = (int)strtol(colon + 1, NULL, 10);
}

void start_daemon(struct scenario *s, const char *moecald, const char *moecal, char **options)
{
	char *argv[24 + MAX_OPTIONS];
	char data[4096];
	size_t count = 0;
	int out[2];
	posix_spawn_file_actions_t actions;

	snprintf(s->state, sizeof s->state, "/tmp/moecal-http-XXXXXX");
	snprintf(s->work, sizeof s->work, "/tmp/moecal-work-XXXXXX");
	if (mkdtemp(s->state) == NULL || mkdtemp(s->work) == NULL || realpath("tests/data", data) == NULL || pipe(out) != 0)
		die("cannot prepare");
	set_variable(s, "STATE", s->state);
	set_variable(s, "WORK", s->work);
	set_variable(s, "DATA", data);
	const char *const fixed[] = {moecald, "--listen", "127.0.0.1:0", "--state", s->state,
	    "--program", moecal, "--log-level", "error", "--free-percent", "0", "--allow", s->work};
	for (; count < sizeof fixed / sizeof *fixed; count++)
		argv[count] = (char *)fixed[count];
	bool allows = false;
	for (size_t i = 0; options[i] != NULL; i++) {
		argv[count++] = options[i];
		allows = allows || strcmp(options[i], "--allow") == 0;
	}
	if (!allows) {
		argv[count++] = (char *)"--allow";
		argv[count++] = data;
	}
	argv[count] = NULL;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
	posix_spawn_file_actions_addclosefrom_np(&actions, 3);
	if (posix_spawn(&s->daemon, moecald, &actions, NULL, argv, environ) != 0)
		die("cannot start the daemon");
	posix_spawn_file_actions_destroy(&actions);
	close(out[1]);
	read_port(s, out[0]);
	close(out[0]);
	char port[16];
	snprintf(port, sizeof port, "%d", s->port);
	set_variable(s, "PORT", port);
}

void stop_daemon(struct scenario *s)
{
	int status;
	struct mc_error err;

	if (s->connection >= 0)
		close(s->connection);
	s->connection = -1;
	kill(s->daemon, SIGTERM);
	waitpid(s->daemon, &status, 0);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
		fprintf(stderr, "%s: the daemon ended with status %d\n", s->file, status);
		s->failed++;
	}
	mc_error_init(&err);
	if (!mc_file_remove_tree(s->state, &err) || !mc_file_remove_tree(s->work, &err))
		fprintf(stderr, "%s: %s\n", s->state, err.text);
}
