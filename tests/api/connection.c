/*
 * connection.c - bytes of a scenario's connection become answers
 */
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "scenario.h"

#define ANSWER_MS 90000

bool is_closed(int fd)
{
	char byte;
	struct pollfd ready = {.fd = fd, .events = POLLIN};

	return poll(&ready, 1, 5000) == 1 && recv(fd, &byte, 1, MSG_PEEK) <= 0;
}

void open_connection(struct scenario *s)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)s->port)};
	char byte;

	if (s->connection >= 0 && recv(s->connection, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0) {
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
const char *header(struct scenario *s, const char *name)
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

void read_answer(struct scenario *s)
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
	s->status = (unsigned)strtoul(s->head.data + 9, NULL, 10);
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
