/*
 * test_log.c - lines on stderr: levels, fields, what is replaced, threads
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"

/* What is written to stderr goes into a pipe until the end of the test. */
struct catcher {
	int kept, from;
	char text[65536];
};

static void redirect(struct catcher *catcher)
{
	int ends[2];

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	fcntl(ends[1], F_SETPIPE_SZ, sizeof(catcher->text));
	catcher->kept = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	assert_true(catcher->kept >= 0);
	assert_int_equal(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
	close(ends[1]);
	catcher->from = ends[0];
}

/* stderr is itself again; returns what was written. */
static const char *caught(struct catcher *catcher)
{
	size_t length = 0;
	ssize_t n;

	dup2(catcher->kept, STDERR_FILENO);
	close(catcher->kept);
	while ((n = read(
		    catcher->from, catcher->text + length, sizeof(catcher->text) - 1 - length)) > 0)
		length += (size_t)n;
	close(catcher->from);
	catcher->text[length] = '\0';
	return catcher->text;
}

static int setup(void **state)
{
	unsetenv("JOURNAL_STREAM");
	*state = calloc(1, sizeof(struct catcher));
	return *state ? 0 : -1;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

static void test_level_names(void **state)
{
	static const struct {
		const char *name;
		enum log_level level;
	} rows[] = {{"error", LOG_LEVEL_ERROR}, {"warning", LOG_LEVEL_WARNING},
	    {"info", LOG_LEVEL_INFO}, {"debug", LOG_LEVEL_DEBUG}};
	static const char *const wrong[] = {"", "Info", "warn", "err", "debug ", "6"};
	enum log_level level;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		level = LOG_LEVEL_INFO;
		assert_true(log_level_parse(rows[i].name, &level));
		assert_int_equal(level, rows[i].level);
	}
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_false(log_level_parse(wrong[i], &level));
}

static void test_lines_have_priority_and_ids(void **state)
{
	redirect(*state);
	log_open(LOG_LEVEL_DEBUG);
	log_say(LOG_LEVEL_ERROR, NULL, NULL, "%s is %d", "one", 1);
	log_say(LOG_LEVEL_WARNING, "job_1", NULL, "two");
	log_say(LOG_LEVEL_INFO, NULL, "req_2", "three");
	log_say(LOG_LEVEL_DEBUG, "job_1", "req_2", "four");
	assert_string_equal(caught(*state), "<3>one is 1\n"
					    "<4>two (job_1)\n"
					    "<6>three (req_2)\n"
					    "<7>four (job_1, req_2)\n");
}

static void test_levels_above_are_not_said(void **state)
{
	static const char *const lines[] = {
	    "<3>a\n", "<3>a\n<4>b\n", "<3>a\n<4>b\n<6>c\n", "<3>a\n<4>b\n<6>c\n<7>d\n"};

	for (int most = LOG_LEVEL_ERROR; most <= LOG_LEVEL_DEBUG; most++) {
		redirect(*state);
		log_open(LOG_LEVEL_DEBUG);
		log_set_level((enum log_level)most);
		log_say(LOG_LEVEL_ERROR, NULL, NULL, "a");
		log_say(LOG_LEVEL_WARNING, NULL, NULL, "b");
		log_say(LOG_LEVEL_INFO, NULL, NULL, "c");
		log_say(LOG_LEVEL_DEBUG, NULL, NULL, "d");
		assert_string_equal(caught(*state), lines[most]);
	}
}

static void test_errors_name_the_thing(void **state)
{
	struct mc_error err;

	redirect(*state);
	log_open(LOG_LEVEL_INFO);
	mc_error_init(&err);
	assert_false(mc_fail(&err, MC_CORRUPT, "a.safetensors", "ends at byte %d", 7));
	log_error("job_1", "starting the job", &err);
	mc_error_init(&err);
	assert_false(mc_fail(&err, MC_NO_MEMORY, "", "no memory"));
	log_error(NULL, "starting", &err);
	assert_string_equal(caught(*state),
	    "<3>starting the job: a.safetensors: ends at byte 7 (job_1)\n"
	    "<3>starting: no memory\n");
}

/* Nobody who sends a name can write lines of his own into the log, or to a terminal. */
static void test_controls_are_replaced(void **state)
{
	static const struct {
		const char *text, *line;
	} rows[] = {
	    {"a\nb\r\n<0>c\td", "a b  <0>c d"},
	    {"\x1b[31mred\x7f\x01", "?[31mred??"},
	    {"gr\xc3\xbc\xc3\x9f \xe6\xbc\xa2 \xf0\x9f\x98\x80",
		"gr\xc3\xbc\xc3\x9f \xe6\xbc\xa2 \xf0\x9f\x98\x80"},
	    {"\xc2\x9b"
	     "31m",
		"??31m"}, /* ESC [ as one character */
	    {"\xc2\xa0", "\xc2\xa0"},
	    {"\xff|\xc3|\xe6\xbc|\xc0\xaf|\xed\xa0\x80|\xf4\x90\x80\x80|\xf8\x88\x80\x80\x80",
		"?|?|??|??|???|????|?????"},
	};
	char expected[256];

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		redirect(*state);
		log_open(LOG_LEVEL_INFO);
		log_say(LOG_LEVEL_INFO, rows[i].text, rows[i].text, "%s", rows[i].text);
		snprintf(expected, sizeof(expected), "<6>%s (%s, %s)\n", rows[i].line, rows[i].line,
		    rows[i].line);
		assert_string_equal(caught(*state), expected);
	}
}

static void test_long_texts_are_cut(void **state)
{
	char *text = malloc(100001);

	assert_non_null(text);
	memset(text, 'x', 100000);
	text[100000] = '\0';
	redirect(*state);
	log_open(LOG_LEVEL_INFO);
	log_say(LOG_LEVEL_INFO, text, text, "%s", text);
	const char *line = caught(*state);
	size_t length = strlen(line);
	assert_true(length > 1000 && length <= 4096);
	assert_ptr_equal(strchr(line, '\n'), line + length - 1);
	assert_non_null(strstr(line, "x... (xx"));
	free(text);
}

static void *say_many(void *unused)
{
	(void)unused;
	for (int i = 0; i < 100; i++)
		log_say(LOG_LEVEL_INFO, "job_1", "req_2", "%s",
		    "a line that must stay in one piece while others say the same");
	return NULL;
}

static void test_threads_do_not_mix_lines(void **state)
{
	static const char line[] =
	    "<6>a line that must stay in one piece while others say the same (job_1, req_2)\n";
	pthread_t threads[4];
	size_t count = 0;

	redirect(*state);
	log_open(LOG_LEVEL_INFO);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, say_many, NULL), 0);
	for (size_t i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	for (const char *at = caught(*state); *at != '\0'; at += sizeof(line) - 1) {
		assert_memory_equal(at, line, sizeof(line) - 1);
		count++;
	}
	assert_int_equal(count, 400);
}

static void test_errno_stays(void **state)
{
	redirect(*state);
	errno = EXDEV;
	log_open(LOG_LEVEL_INFO);
	assert_int_equal(errno, EXDEV);
	/* nobody takes what is written: it is lost, and nothing else happens */
	int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
	assert_true(full >= 0);
	dup2(full, STDERR_FILENO);
	close(full);
	errno = EXDEV;
	log_say(LOG_LEVEL_ERROR, NULL, NULL, "lost");
	assert_int_equal(errno, EXDEV);
	assert_string_equal(caught(*state), "");
}

/* $JOURNAL_STREAM of somebody whose stderr we do not have: a pipe was put in its place. */
static void test_another_stream_is_not_the_journal(void **state)
{
	struct stat status;
	char stream[64];

	redirect(*state);
	assert_int_equal(fstat(STDERR_FILENO, &status), 0);
	snprintf(stream, sizeof(stream), "%ju:%ju", (uintmax_t)status.st_dev,
	    (uintmax_t)status.st_ino + 1);
	setenv("JOURNAL_STREAM", stream, 1);
	log_open(LOG_LEVEL_INFO);
	log_say(LOG_LEVEL_INFO, NULL, NULL, "here");
	unsetenv("JOURNAL_STREAM");
	assert_string_equal(caught(*state), "<6>here\n");
}

/* The stream is the journal's, but there is no journal to send fields to: the line must not be
 * lost. */
static void test_journal_without_a_socket(void **state)
{
	struct stat status;
	char stream[64];

	if (access("/run/systemd/journal/socket", F_OK) == 0)
		skip(); /* it would be sent there */
	redirect(*state);
	assert_int_equal(fstat(STDERR_FILENO, &status), 0);
	snprintf(
	    stream, sizeof(stream), "%ju:%ju", (uintmax_t)status.st_dev, (uintmax_t)status.st_ino);
	setenv("JOURNAL_STREAM", stream, 1);
	log_open(LOG_LEVEL_INFO);
	log_say(LOG_LEVEL_INFO, "job_1", NULL, "here");
	unsetenv("JOURNAL_STREAM");
	assert_string_equal(caught(*state), "<6>here (job_1)\n");
}

static void test_no_priority_on_a_terminal(void **state)
{
	struct catcher *catcher = *state;
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
	char name[128], line[256];

	if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0 ||
	    ptsname_r(master, name, sizeof(name)) != 0)
		skip();
	int terminal = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	assert_true(terminal >= 0);
	redirect(catcher);
	dup2(terminal, STDERR_FILENO);
	close(terminal);
	log_open(LOG_LEVEL_INFO);
	log_say(LOG_LEVEL_WARNING, "job_1", NULL, "look");
	ssize_t n = read(master, line, sizeof(line) - 1);
	caught(catcher);
	close(master);
	log_open(LOG_LEVEL_INFO);
	assert_true(n > 0);
	line[n] = '\0';
	assert_string_equal(line, "look (job_1)\r\n");
}

#define EACH(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    EACH(test_level_names),
	    EACH(test_lines_have_priority_and_ids),
	    EACH(test_levels_above_are_not_said),
	    EACH(test_errors_name_the_thing),
	    EACH(test_controls_are_replaced),
	    EACH(test_long_texts_are_cut),
	    EACH(test_threads_do_not_mix_lines),
	    EACH(test_errno_stays),
	    EACH(test_another_stream_is_not_the_journal),
	    EACH(test_journal_without_a_socket),
	    EACH(test_no_priority_on_a_terminal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
