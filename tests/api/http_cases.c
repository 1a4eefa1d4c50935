/*
 * http_cases.c - scenarios over HTTP against a real moecald
 *
 * usage: http_cases MOECALD MOECAL FILE.http...
 *
 * One daemon a file, on a port of its own, with a state folder of its own. A file holds exchanges:
 *
 *	daemon: --queued-jobs 2         options of the daemon; before the first exchange
 *	tokens: ann submit ann-secret-token-0001    a line of the token file, with its token in the
 *clear
 *	== what this shows
 *	> GET /v1/jobs HTTP/1.1         sent with CRLF; ">" alone is the empty line
 *	> Content-Length: @             @: the length of the body below
 *	>|raw \r\n \0 \x80 bytes        sent as they are, escapes taken out
 *	< 200                           the status
 *	< ETag: *                       a header: this value, * any, !Name: absent
 *	< {"jobs": []}                  the body has at least this: "*" any value but null, "~text"
 *a string that holds text, arrays have the same length < "text"                        (a string)
 *the body holds this text < closed                        the connection is closed after the answer
 *	< silent                        it is closed without an answer
 *	set JOB /id                     $JOB is that part of the body in all later lines
 *
 *	! COMMAND                       a shell command, which must succeed
 *
 * $STATE, $DATA, $PORT and $WORK, a folder that the daemon may read, are set. Consecutive exchanges use one connection until it is closed.
 */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "scenario.h"

#include "moecal/sha256.h"

/* --- small -------------------------------------------------------------------------------------
 */

void complain(struct scenario *s, const char *fmt, ...)
{
	va_list args;

	fprintf(stderr, "%s:%zu: %s: ", s->file, s->line, s->title);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fprintf(stderr, "\n");
	s->complained = true;
}

_Noreturn void die(const char *what)
{
	fprintf(stderr, "http_cases: %s\n", what);
	exit(2);
}

void add(struct mc_buf *buf, const void *bytes, size_t length)
{
	struct mc_error err;

	mc_error_init(&err);
	if (!mc_buf_add(buf, bytes, length, &err))
		die(err.text);
}

void set_variable(struct scenario *s, const char *name, const char *value)
{
	size_t i = 0;

	while (i < s->variables_count && strcmp(s->variables[i].name, name) != 0)
		i++;
	if (i == MAX_VARIABLES)
		die("too many variables");
	if (i == s->variables_count)
		s->variables_count++;
	snprintf(s->variables[i].name, sizeof s->variables[i].name, "%s", name);
	snprintf(s->variables[i].value, sizeof s->variables[i].value, "%s", value);
}

/* $NAME to its value; a $ without a known name stays. */
static void substitute(const struct scenario *s, const char *line, char *out, size_t size)
{
	size_t n = 0;

	while (*line != '\0' && n + 1 < size) {
		size_t i = 0, length = 0;
		if (*line == '$') {
			while (isupper((unsigned char)line[1 + length]) || line[1 + length] == '_')
				length++;
			while (i < s->variables_count &&
			       (strlen(s->variables[i].name) != length ||
				   strncmp(s->variables[i].name, line + 1, length) != 0))
				i++;
		}
		if (*line == '$' && length > 0 && i < s->variables_count) {
			int put = snprintf(out + n, size - n, "%s", s->variables[i].value);
			n += (size_t)put < size - n ? (size_t)put : size - n - 1;
			line += 1 + length;
		} else {
			out[n++] = *line++;
		}
	}
	out[n] = '\0';
}

void show(const struct mc_json *json, char *text, size_t size)
{
	struct mc_buf buf;
	struct mc_error err;

	mc_error_init(&err);
	mc_buf_init(&buf, 1 << 24);
	if (json == NULL || !mc_json_write(json, MC_JSON_COMPACT, &buf, &err))
		snprintf(text, size, "nothing");
	else
		snprintf(text, size, "%s", mc_buf_text(&buf));
	mc_buf_release(&buf);
}

/* --- an exchange -------------------------------------------------------------------------------
 */

/* "Content-Length: @" becomes the length of what stands after the empty line. */
static void fill_length(struct scenario *s)
{
	char *at = s->sent.length > 0 ? strstr(s->sent.data, "Content-Length: @\r\n") : NULL;
	char *body = s->sent.length > 0 ? strstr(s->sent.data, "\r\n\r\n") : NULL;
	struct mc_buf filled;
	char number[24];

	if (at == NULL || body == NULL)
		return;
	mc_buf_init(&filled, s->sent.maximum);
	size_t before = (size_t)(at - s->sent.data) + 16;
	add(&filled, s->sent.data, before);
	snprintf(number, sizeof number, "%zu", s->sent.length - (size_t)(body - s->sent.data) - 4);
	add(&filled, number, strlen(number));
	add(&filled, s->sent.data + before + 1, s->sent.length - before - 1);
	mc_buf_release(&s->sent);
	s->sent = filled;
}

static void run_exchange(struct scenario *s)
{
	if (s->title[0] == '\0' || s->sent.length == 0)
		return;
	s->complained = false;
	fill_length(s);
	open_connection(s);
	if (send(s->connection, s->sent.data, s->sent.length, MSG_NOSIGNAL) < 0 && errno != EPIPE &&
	    errno != ECONNRESET)
		complain(s, "sending: %s", strerror(errno));
	read_answer(s);
	compare(s);
	const char *connection = s->answered ? header(s, "Connection") : "close";
	if (connection != NULL && strcasecmp(connection, "close") == 0) {
		close(s->connection);
		s->connection = -1;
	}
	s->passed += !s->complained;
	s->failed += s->complained;
	mc_buf_clear(&s->sent);
	s->expected_count = 0;
}

/* --- reading a file ----------------------------------------------------------------------------
 */

static void add_escaped(struct mc_buf *buf, const char *text)
{
	for (; *text != '\0'; text++) {
		char byte = *text;
		if (byte == '\\' && text[1] != '\0') {
			text++;
			if (*text == 'x' && isxdigit((unsigned char)text[1]) && text[2] != '\0') {
				char hex[3] = {text[1], text[2], '\0'};
				byte = (char)strtoul(hex, NULL, 16);
				text += 2;
			} else {
				byte = *text == 'r'   ? '\r'
				       : *text == 'n' ? '\n'
				       : *text == 't' ? '\t'
				       : *text == '0' ? '\0'
						      : *text;
			}
		}
		add(buf, &byte, 1);
	}
}

/* A request line; in the body lines are joined by LF, in the head they end with CRLF. */
static void add_sent(struct scenario *s, const char *line)
{
	bool in_body = s->sent.length > 0 && strstr(s->sent.data, "\r\n\r\n") != NULL;
	bool first = in_body && memcmp(s->sent.data + s->sent.length - 4, "\r\n\r\n", 4) == 0;

	if (line[0] == '|') {
		add_escaped(&s->sent, line + 1);
		return;
	}
	if (line[0] == ' ')
		line++;
	if (in_body && !first)
		add(&s->sent, "\n", 1);
	add(&s->sent, line, strlen(line));
	if (!in_body)
		add(&s->sent, "\r\n", 2);
}

static void capture(struct scenario *s, const char *text)
{
	char name[32], pointer[128], value[4096];
	struct mc_error err;

	mc_error_init(&err);
	if (sscanf(text, "%31s %127s", name, pointer) != 2)
		die("set NAME /pointer");
	run_exchange(s);
	if (pointer[0] == '@') { /* a header */
		const char *found = s->answered ? header(s, pointer + 1) : NULL;
		set_variable(s, name, found != NULL ? found : "");
		return;
	}
	struct mc_json *root = mc_json_parse(mc_buf_text(&s->body), s->body.length, "answer", &err);
	const struct mc_json *at = root;
	char *rest = pointer + 1, *part;
	while (at != NULL && (part = strsep(&rest, "/")) != NULL)
		at = mc_json_type(at) == MC_JSON_ARRAY ? mc_json_at(at, strtoul(part, NULL, 10))
						       : mc_json_get(at, part);
	if (at == NULL)
		complain(s, "%s is not in the answer", text);
	if (at != NULL && mc_json_type(at) == MC_JSON_STRING)
		snprintf(value, sizeof value, "%s", mc_json_string(at, NULL));
	else
		show(at, value, sizeof value);
	set_variable(s, name, value);
	mc_json_free(root);
}

static void complain_of_command(struct scenario *s, const char *command)
{
	complain(s, "the command failed: %s", command);
	s->failed++;
}

static void read_line(struct scenario *s, const char *raw)
{
	char line[LINE_SIZE];

	substitute(s, raw, line, sizeof line);
	if (strncmp(line, "== ", 3) == 0) {
		run_exchange(s);
		snprintf(s->title, sizeof s->title, "%.150s", line + 3);
	} else if (line[0] == '>') {
		if (s->expected_count > 0)
			run_exchange(s);
		add_sent(s, line + 1);
	} else if (strncmp(line, "< ", 2) == 0) {
		if (s->expected_count == MAX_EXPECTED)
			die("too many expected lines");
		snprintf(s->expected[s->expected_count++], sizeof s->expected[0], "%s", line + 2);
	} else if (strncmp(line, "set ", 4) == 0) {
		capture(s, line + 4);
	} else if (strncmp(line, "! ", 2) == 0) {
		run_exchange(s);
		if (system(line + 2) != 0)
			complain_of_command(s, line + 2);
	} else if (line[0] != '\0' && line[0] != '#') {
		fprintf(stderr, "%s:%zu: cannot read '%s'\n", s->file, s->line, line);
		exit(2);
	}
}

/* The token file from "tokens:" lines; its path is an option of the daemon. */
static void write_token(FILE *tokens, const char *line)
{
	char name[64], scope[16], token[128], hex[MC_SHA256_HEX];
	struct mc_error err;

	mc_error_init(&err);
	if (sscanf(line, "%63s %15s %127s", name, scope, token) != 3 ||
	    !mc_sha256_bytes(token, strlen(token), hex, &err))
		die("tokens: NAME SCOPE TOKEN");
	fprintf(tokens, "%s %s %s\n", name, scope, hex);
}

/* Options from the "daemon:" and "tokens:" lines at the top. */
static size_t read_options(FILE *file, char **options, char *token_path)
{
	char line[LINE_SIZE];
	size_t count = 0;
	FILE *tokens = NULL;

	while (fgets(line, sizeof line, file) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, "daemon:", 7) == 0) {
			char *rest = line + 7, *word;
			while ((word = strsep(&rest, " ")) != NULL && count + 3 < MAX_OPTIONS)
				if (word[0] != '\0')
					options[count++] = strdup(word);
		} else if (strncmp(line, "tokens:", 7) == 0) {
			if (tokens == NULL) {
				int fd = mkstemp(token_path);
				tokens = fd < 0 ? NULL : fdopen(fd, "w");
				if (tokens == NULL)
					die("cannot write the token file");
				options[count++] = strdup("--token-file");
				options[count++] = strdup(token_path);
			}
			write_token(tokens, line + 7);
		}
	}
	if (tokens != NULL)
		fclose(tokens);
	options[count] = NULL;
	rewind(file);
	return count;
}

static void run_file(
    const char *path, const char *moecald, const char *moecal, unsigned *passed, unsigned *failed)
{
	static struct scenario s;
	char *options[MAX_OPTIONS + 1], token_path[] = "/tmp/moecal-tokens-XXXXXX";
	char line[LINE_SIZE];
	FILE *file = fopen(path, "re");

	if (file == NULL)
		die(path);
	s = (struct scenario){.file = path, .connection = -1};
	mc_buf_init(&s.sent, (size_t)64 << 20);
	mc_buf_init(&s.head, (size_t)64 << 20);
	mc_buf_init(&s.body, (size_t)64 << 20);
	size_t count = read_options(file, options, token_path);
	start_daemon(&s, moecald, moecal, options);
	while (fgets(line, sizeof line, file) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		s.line++;
		if (strncmp(line, "daemon:", 7) != 0 && strncmp(line, "tokens:", 7) != 0)
			read_line(&s, line);
	}
	run_exchange(&s);
	stop_daemon(&s);
	unlink(token_path);
	for (size_t i = 0; i < count; i++)
		free(options[i]);
	fclose(file);
	mc_buf_release(&s.sent);
	mc_buf_release(&s.head);
	mc_buf_release(&s.body);
	printf("%-44s %3u passed, %u failed\n", path, s.passed, s.failed);
	*passed += s.passed;
	*failed += s.failed;
}

int main(int argc, char **argv)
{
	unsigned passed = 0, failed = 0;

	if (argc < 4)
		die("usage: http_cases MOECALD MOECAL FILE.http...");
	for (int i = 3; i < argc; i++)
		run_file(argv[i], argv[1], argv[2], &passed, &failed);
	printf("%u passed, %u failed\n", passed, failed);
	return failed > 0;
}
