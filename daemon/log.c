/*
 * log.c - messages to the journal with fields, else as lines on stderr
 */
#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define SD_JOURNAL_SUPPRESS_LOCATION /* of all messages it would be this file */
#include <systemd/sd-journal.h>

/* A write to a pipe of no more than 4096 bytes is not mixed with those of others (PIPE_BUF). */
#define LINE_SIZE 4096
#define TEXT_SIZE 3584
#define ID_TEXT_SIZE 128

#define JOURNAL_SOCKET "/run/systemd/journal/socket"

static const struct {
	const char *name;
	int priority; /* of syslog and the journal */
} levels[] = {
    [LOG_LEVEL_ERROR] = {"error", 3},
    [LOG_LEVEL_WARNING] = {"warning", 4},
    [LOG_LEVEL_INFO] = {"info", 6},
    [LOG_LEVEL_DEBUG] = {"debug", 7},
};
#define LEVELS (sizeof(levels) / sizeof(levels[0]))

static atomic_int most_said = LOG_LEVEL_INFO;
static atomic_bool to_journal, to_terminal;

/* --- where to ----------------------------------------------------------------------------------
 */

/* Whether stderr is the stream that the service manager connected to the journal. */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	struct stat status;
	char ours[64];

	if (!stream || fstat(STDERR_FILENO, &status) != 0)
		return false;
	snprintf(ours, sizeof(ours), "%ju:%ju", (uintmax_t)status.st_dev, (uintmax_t)status.st_ino);
	/* without the socket sd-journal would drop what we say and call it done; the stream works
	 */
	return strcmp(stream, ours) == 0 && access(JOURNAL_SOCKET, W_OK) == 0;
}

void log_open(enum log_level most)
{
	int saved = errno;

	atomic_store(&to_journal, stderr_is_journal());
	atomic_store(&to_terminal, isatty(STDERR_FILENO) == 1);
	log_set_level(most);
	errno = saved;
}

void log_set_level(enum log_level most)
{
	atomic_store(&most_said, (int)most);
}

bool log_level_parse(const char *name, enum log_level *ret)
{
	for (size_t i = 0; i < LEVELS; i++)
		if (strcmp(levels[i].name, name) == 0) {
			*ret = (enum log_level)i;
			return true;
		}
	return false;
}

/* --- cleaning ----------------------------------------------------------------------------------
 */

/* Bytes of the UTF-8 character at s if a terminal and a log may be shown it, else 0. The controls
 * of U+0080 to U+009F are as good as ESC to some terminals. */
static size_t shown_length(const unsigned char *s)
{
	static const uint32_t lowest[5] = {0, 0, 0xa0, 0x800, 0x10000};
	size_t length = s[0] < 0x80 ? 1 : s[0] < 0xc0 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;

	if (length == 1)
		return s[0] >= 0x20 && s[0] != 0x7f;
	if (length == 0 || s[0] >= 0xf8)
		return 0;
	uint32_t code = s[0] & (0x7fu >> length);
	for (size_t i = 1; i < length; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (s[i] & 0x3fu);
	}
	return code < lowest[length] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)
		   ? 0
		   : length;
}

/* Line ends and tabs become spaces, other controls and what is not UTF-8 '?'. */
static void clean(char *text)
{
	for (unsigned char *s = (unsigned char *)text; *s != '\0';) {
		size_t length = shown_length(s);

		if (length == 0) {
			*s = *s == '\n' || *s == '\r' || *s == '\t' ? ' ' : '?';
			length = 1;
		}
		s += length;
	}
}

/* --- saying ------------------------------------------------------------------------------------
 */

struct message {
	enum log_level level;
	char text[TEXT_SIZE];
	char job[ID_TEXT_SIZE], request[ID_TEXT_SIZE]; /* "" when there is none */
};

static struct iovec field(const char *name, const char *value, char *text, size_t size)
{
	int length = snprintf(text, size, "%s=%s", name, value);

	return (struct iovec){
	    .iov_base = text, .iov_len = length < (int)size ? (size_t)length : size - 1};
}

static bool send_to_journal(const struct message *message)
{
	char text[TEXT_SIZE + 16], job[ID_TEXT_SIZE + 16], request[ID_TEXT_SIZE + 16], priority[16];
	struct iovec fields[5];
	int count = 0;

	snprintf(priority, sizeof(priority), "PRIORITY=%d", levels[message->level].priority);
	fields[count++] = (struct iovec){.iov_base = priority, .iov_len = strlen(priority)};
	fields[count++] = (struct iovec){
	    .iov_base = (char *)"SYSLOG_IDENTIFIER=moecald", .iov_len = 25};
	fields[count++] = field("MESSAGE", message->text, text, sizeof(text));
	if (message->job[0] != '\0')
		fields[count++] = field("JOB_ID", message->job, job, sizeof(job));
	if (message->request[0] != '\0')
		fields[count++] = field("REQUEST_ID", message->request, request, sizeof(request));
	return sd_journal_sendv(fields, count) == 0;
}

static void write_line(const struct message *message)
{
	char line[LINE_SIZE], priority[8] = "";
	bool job = message->job[0] != '\0', request = message->request[0] != '\0';

	if (!atomic_load(&to_terminal))
		snprintf(priority, sizeof(priority), "<%d>", levels[message->level].priority);
	int length = snprintf(line, sizeof(line), "%s%s%s%s%s%s%s\n", priority, message->text,
	    job || request ? " (" : "", message->job, job && request ? ", " : "", message->request,
	    job || request ? ")" : "");
	/* the line is as long as its parts at most, and they fit */
	for (int done = 0; done < length;) {
		ssize_t n = write(STDERR_FILENO, line + done, (size_t)(length - done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return; /* there is nowhere to complain about it */
		done += (int)n;
	}
}

_Static_assert(TEXT_SIZE + 2 * ID_TEXT_SIZE + 16 <= LINE_SIZE, "a message fits into a line");

static void keep_id(char to[ID_TEXT_SIZE], const char *id)
{
	snprintf(to, ID_TEXT_SIZE, "%s", id ? id : "");
	clean(to);
}

void log_say(enum log_level level, const char *job, const char *request, const char *fmt, ...)
{
	static const char cut[] = "...";
	struct message message = {.level = level};
	int saved = errno;
	va_list args;

	if ((int)level > atomic_load(&most_said))
		return;
	va_start(args, fmt);
	int length = vsnprintf(message.text, sizeof(message.text), fmt, args);
	va_end(args);
	if (length >= (int)sizeof(message.text))
		memcpy(message.text + sizeof(message.text) - sizeof(cut), cut, sizeof(cut));
	clean(message.text);
	keep_id(message.job, job);
	keep_id(message.request, request);
	if (!atomic_load(&to_journal) || !send_to_journal(&message))
		write_line(&message);
	errno = saved;
}

void log_error(const char *job, const char *doing, const struct mc_error *err)
{
	log_say(LOG_LEVEL_ERROR, job, NULL, "%s: %s%s%s", doing, err->where,
	    err->where[0] != '\0' ? ": " : "", err->text);
}
