/*
 * http_cases.c - scenarios over HTTP against a real moecald
 *
 * usage: http_cases MOECALD MOECAL FILE.http...
 *
 * One daemon a file, on a port of its own, with a state folder of its own. A file holds exchanges:
 *
 *	daemon: --queued-jobs 2         options of the daemon; before the first exchange
 *	tokens: ann submit ann-secret-token-0001    a line of the token file, with its token in the clear
 *	== what this shows
 *	> GET /v1/jobs HTTP/1.1         sent with CRLF; ">" alone is the empty line
 *	> Content-Length: @             @: the length of the body below
 *	>|raw \r\n \0 \x80 bytes        sent as they are, escapes taken out
 *	< 200                           the status
 *	< ETag: *                       a header: this value, * any, !Name: absent
 *	< {"jobs": []}                  the body has at least this: "*" any value but null, "~text" a string
 *	                                that holds text, arrays have the same length
 *	< "text"                        (a string) the body holds this text
 *	< closed                        the connection is closed after the answer
 *	< silent                        it is closed without an answer
 *	set JOB /id                     $JOB is that part of the body in all later lines
 *
 * $STATE, $DATA and $PORT are set. Consecutive exchanges use one connection until it is closed.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "moecal/alloc.h"
#include "moecal/buf.h"
#include "moecal/file.h"
#include "moecal/json.h"
#include "moecal/sha256.h"

#define MAX_VARIABLES 32
#define MAX_EXPECTED 32
#define MAX_OPTIONS 32
#define ANSWER_MS 90000

struct variable {
	char name[32], value[4096];
};

struct scenario {
	const char *file;
	struct variable variables[MAX_VARIABLES];
	size_t variables_count;
	char state[64];
	pid_t daemon;
	int port, connection;
	/* the exchange in work */
	char title[160];
	size_t line;
	struct mc_buf sent;
	char expected[MAX_EXPECTED][2048];
	size_t expected_count;
	bool answered;
	unsigned status;
	struct mc_buf head, body;
	unsigned passed, failed;
};

static void complain(struct scenario *s, const char *fmt, ...) MC_PRINTF(2, 3);

/* --- small ------------------------------------------------------------------------------------- */

#include <stdarg.h>

static bool exchange_failed;

static void complain(struct scenario *s, const char *fmt, ...)
{
	va_list args;

	fprintf(stderr, "%s:%zu: %s: ", s->file, s->line, s->title);
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
	fprintf(stderr, "\n");
	exchange_failed = true;
}

static void die(const char *what)
{
	fprintf(stderr, "http_cases: %s\n", what);
	exit(2);
}

static void add(struct mc_buf *buf, const void *bytes, size_t length)
{
	struct mc_error err;

	mc_error_init(&err);
	if (!mc_buf_add(buf, bytes, length, &err))
		die(err.text);
}

static void set_variable(struct scenario *s, const char *name, const char *value)
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

/* --- the daemon -------------------------------------------------------------------------------- */

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
	s->port = atoi(colon + 1);
}

static void start_daemon(struct scenario *s, const char *moecald, const char *moecal, char **options)
{
	char *argv[24 + MAX_OPTIONS];
	char data[4096];
	size_t count = 0;
	int out[2];
	posix_spawn_file_actions_t actions;

	snprintf(s->state, sizeof s->state, "/tmp/moecal-http-XXXXXX");
	if (mkdtemp(s->state) == NULL || realpath("tests/data", data) == NULL || pipe(out) != 0)
		die("cannot prepare");
	set_variable(s, "STATE", s->state);
	set_variable(s, "DATA", data);
	const char *const fixed[] = {moecald, "--listen", "127.0.0.1:0", "--state", s->state,
	    "--program", moecal, "--log-level", "error", "--free-percent", "0"};
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

static void stop_daemon(struct scenario *s)
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
	if (!mc_file_remove_tree(s->state, &err))
		fprintf(stderr, "%s: %s\n", s->state, err.text);
}

/* --- talking ----------------------------------------------------------------------------------- */

static bool is_closed(int fd)
{
	char byte;
	struct pollfd ready = {.fd = fd, .events = POLLIN};

	return poll(&ready, 1, 5000) == 1 && recv(fd, &byte, 1, MSG_PEEK) <= 0;
}

static void open_connection(struct scenario *s)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)s->port)};
	char byte;

	if (s->connection >= 0 &&
	    recv(s->connection, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0) {
		close(s->connection);
		s->connection = -1;
	}
	if (s->connection >= 0)
		return;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	s->connection = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(s->connection, (struct sockaddr *)&address, sizeof address) != 0)
		die("cannot connect to the daemon");
}

/* More bytes of the answer; false at its end or after a while without any. */
static bool receive(struct scenario *s, struct mc_buf *into)
{
	char chunk[65536];
	struct pollfd ready = {.fd = s->connection, .events = POLLIN};

	if (poll(&ready, 1, ANSWER_MS) != 1)
		return false;
	ssize_t n = recv(s->connection, chunk, sizeof chunk, 0);
	if (n <= 0)
		return false;
	add(into, chunk, (size_t)n);
	return true;
}

/* Value of a header of the answer; NULL when absent. */
static const char *header(struct scenario *s, const char *name)
{
	static char value[4096];
	size_t length = strlen(name);

	for (const char *line = strstr(mc_buf_text(&s->head), "\r\n"); line != NULL;
	     line = strstr(line, "\r\n")) {
		line += 2;
		if (strncasecmp(line, name, length) != 0 || line[length] != ':')
			continue;
		line += length + 1 + strspn(line + length + 1, " ");
		snprintf(value, sizeof value, "%.*s", (int)strcspn(line, "\r"), line);
		return value;
	}
	return NULL;
}

/* Chunks of a chunked body, in place. */
static void unchunk(struct mc_buf *body)
{
	size_t from = 0, to = 0;

	while (from < body->length) {
		char *end;
		size_t length = strtoul(body->data + from, &end, 16);
		from = (size_t)(end - body->data) + 2;
		if (length == 0 || from + length > body->length)
			break;
		memmove(body->data + to, body->data + from, length);
		to += length;
		from += length + 2;
	}
	body->length = to;
	if (body->data != NULL)
		body->data[to] = '\0';
}

static void read_answer(struct scenario *s)
{
	const char *end = NULL;

	mc_buf_clear(&s->head);
	mc_buf_clear(&s->body);
	s->answered = false;
	while ((end = s->head.length > 0 ? strstr(s->head.data, "\r\n\r\n") : NULL) == NULL)
		if (!receive(s, &s->head))
			return;
	size_t head = (size_t)(end - s->head.data) + 4;
	add(&s->body, s->head.data + head, s->head.length - head);
	s->head.length = head;
	s->head.data[head] = '\0';
	s->answered = true;
	s->status = (unsigned)atoi(s->head.data + 9);
	const char *length = header(s, "Content-Length"), *coding = header(s, "Transfer-Encoding");
	bool no_body = s->status == 204 || s->status == 304 ||
		       strncmp(mc_buf_text(&s->sent), "HEAD ", 5) == 0;
	if (no_body)
		return;
	if (length != NULL) {
		size_t total = strtoul(length, NULL, 10);
		while (s->body.length < total && receive(s, &s->body))
			;
		if (s->body.length != total)
			complain(s, "the body has %zu bytes of %zu", s->body.length, total);
	} else {
		while ((coding == NULL || s->body.length < 5 ||
			   memcmp(s->body.data + s->body.length - 5, "0\r\n\r\n", 5) != 0) &&
		       receive(s, &s->body))
			;
		if (coding != NULL)
			unchunk(&s->body);
	}
}

/* --- comparing --------------------------------------------------------------------------------- */

static void show(struct scenario *s, const struct mc_json *json, char *text, size_t size)
{
	struct mc_buf buf;
	struct mc_error err;

	(void)s;
	mc_error_init(&err);
	mc_buf_init(&buf, 1 << 24);
	if (json == NULL || !mc_json_write(json, MC_JSON_COMPACT, &buf, &err))
		snprintf(text, size, "nothing");
	else
		snprintf(text, size, "%s", mc_buf_text(&buf));
	mc_buf_release(&buf);
}

static bool holds(const struct mc_json *got, const struct mc_json *wanted);

static bool object_holds(const struct mc_json *got, const struct mc_json *wanted)
{
	struct mc_json_iter member = mc_json_iter(wanted);

	while (mc_json_next(&member))
		if (!holds(mc_json_get(got, member.key), member.value))
			return false;
	return true;
}

static bool holds(const struct mc_json *got, const struct mc_json *wanted)
{
	enum mc_json_type type = mc_json_type(wanted);

	if (got == NULL)
		return false;
	if (type == MC_JSON_STRING) {
		const char *text = mc_json_string(wanted, NULL);
		if (strcmp(text, "*") == 0)
			return !mc_json_is_null(got);
		if (text[0] == '~')
			return mc_json_type(got) == MC_JSON_STRING &&
			       strstr(mc_json_string(got, NULL), text + 1) != NULL;
	}
	if (mc_json_type(got) != type)
		return false;
	if (type == MC_JSON_OBJECT)
		return object_holds(got, wanted);
	if (type != MC_JSON_ARRAY)
		return mc_json_equal(got, wanted);
	if (mc_json_size(got) != mc_json_size(wanted))
		return false;
	for (size_t i = 0; i < mc_json_size(wanted); i++)
		if (!holds(mc_json_at(got, i), mc_json_at(wanted, i)))
			return false;
	return true;
}

static void compare_json(struct scenario *s, const char *text)
{
	char found[700];
	struct mc_error err;

	mc_error_init(&err);
	struct mc_json *wanted = mc_json_parse(text, strlen(text), "expected", &err);
	if (wanted == NULL) {
		complain(s, "the expected JSON: %s", err.text);
		return;
	}
	mc_error_init(&err);
	struct mc_json *got = s->body.length == 0
				  ? NULL
				  : mc_json_parse(s->body.data, s->body.length, "answer", &err);
	show(s, got, found, sizeof found);
	if (!holds(got, wanted))
		complain(s, "expected %.300s, the answer is %.600s", text, found);
	mc_json_free(wanted);
	mc_json_free(got);
}

static void compare_header(struct scenario *s, char *line)
{
	char *colon = strchr(line, ':');

	if (line[0] == '!') {
		if (header(s, line + 1) != NULL)
			complain(s, "the header %s should not be there", line + 1);
		return;
	}
	*colon = '\0';
	const char *wanted = colon + 1 + strspn(colon + 1, " "), *got = header(s, line);
	if (got == NULL)
		complain(s, "the header %s is missing", line);
	else if (wanted[0] == '~' ? strstr(got, wanted + 1) == NULL
				  : strcmp(wanted, "*") != 0 && strcmp(wanted, got) != 0)
		complain(s, "%s is '%s', expected '%s'", line, got, wanted);
}

static void compare(struct scenario *s)
{
	char json[sizeof s->expected] = "";

	for (size_t i = 0; i < s->expected_count; i++) {
		char *line = s->expected[i];
		if (strcmp(line, "silent") == 0) {
			if (s->answered)
				complain(s, "expected no answer, got %u", s->status);
		} else if (!s->answered) {
			complain(s, "there was no answer");
			return;
		} else if (isdigit((unsigned char)line[0]) && json[0] == '\0') {
			if ((unsigned)atoi(line) != s->status)
				complain(s, "status %u, expected %s; %.600s", s->status, line,
				    mc_buf_text(&s->body));
		} else if (strcmp(line, "closed") == 0) {
			if (!is_closed(s->connection))
				complain(s, "the connection is still open");
		} else if (line[0] == '"' && json[0] == '\0') {
			line[strlen(line) - 1] = '\0';
			if (strstr(mc_buf_text(&s->body), line + 1) == NULL)
				complain(s, "'%s' is not in the body: %.600s", line + 1,
				    mc_buf_text(&s->body));
		} else if (line[0] == '{' || line[0] == '[' || json[0] != '\0') {
			strcat(strcat(json, line), "\n");
		} else {
			compare_header(s, line);
		}
	}
	if (json[0] != '\0' && s->answered)
		compare_json(s, json);
}

/* --- an exchange ------------------------------------------------------------------------------- */

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
	snprintf(number, sizeof number, "%zu",
	    s->sent.length - (size_t)(body - s->sent.data) - 4);
	add(&filled, number, strlen(number));
	add(&filled, s->sent.data + before + 1, s->sent.length - before - 1);
	mc_buf_release(&s->sent);
	s->sent = filled;
}

static void run_exchange(struct scenario *s)
{
	if (s->title[0] == '\0' || s->sent.length == 0)
		return;
	exchange_failed = false;
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
	s->passed += !exchange_failed;
	s->failed += exchange_failed;
	mc_buf_clear(&s->sent);
	s->expected_count = 0;
}

/* --- reading a file ---------------------------------------------------------------------------- */

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
		show(s, at, value, sizeof value);
	set_variable(s, name, value);
	mc_json_free(root);
}

static void read_line(struct scenario *s, const char *raw)
{
	char line[8192];

	substitute(s, raw, line, sizeof line);
	if (strncmp(line, "== ", 3) == 0) {
		run_exchange(s);
		snprintf(s->title, sizeof s->title, "%s", line + 3);
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
	char line[8192];
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

static void run_file(const char *path, const char *moecald, const char *moecal, unsigned *passed,
    unsigned *failed)
{
	static struct scenario s;
	char *options[MAX_OPTIONS + 1], token_path[] = "/tmp/moecal-tokens-XXXXXX";
	char line[8192];
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
