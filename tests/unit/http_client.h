/*
 * http_client.h - a client of raw sockets, for tests that send what no library would
 */
#ifndef HTTP_CLIENT_H
#define HTTP_CLIENT_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

struct client {
	int fd;
	char bytes[262144]; /* read and not yet used */
	size_t have;
};

struct reply {
	int status; /* 0: the connection ended before an answer */
	char head[8192];
	char body[262144];
	size_t length;
	bool complete; /* the body came to its end */
};

/* address as http_address tells it. */
static inline bool client_open(struct client *client, const char *address)
{
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_un local;
	} to;
	socklen_t length;
	memset(&to, 0, sizeof(to));
	client->have = 0;
	client->bytes[0] = '\0';
	if (strncmp(address, "unix:", 5) == 0) {
		to.local.sun_family = AF_UNIX;
		snprintf(to.local.sun_path, sizeof(to.local.sun_path), "%.107s", address + 5);
		length = sizeof(to.local);
	} else {
		to.v4.sin_family = AF_INET;
		to.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		to.v4.sin_port = htons((unsigned short)strtoul(strrchr(address, ':') + 1, NULL, 10));
		length = sizeof(to.v4);
	}
	client->fd = socket(to.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct timeval limit = {.tv_sec = 15};
	setsockopt(client->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(client->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (connect(client->fd, &to.any, length) == 0)
		return true;
	close(client->fd);
	client->fd = -1;
	return false;
}

static inline void client_close(struct client *client)
{
	if (client->fd >= 0)
		close(client->fd);
	client->fd = -1;
}

static inline bool client_send_bytes(struct client *client, const void *bytes, size_t length)
{
	const char *at = bytes;
	while (length > 0) {
		ssize_t sent = send(client->fd, at, length, MSG_NOSIGNAL);
		if (sent <= 0)
			return false;
		at += sent;
		length -= (size_t)sent;
	}
	return true;
}

static inline bool client_send(struct client *client, const char *text)
{
	return client_send_bytes(client, text, strlen(text));
}

/* More bytes; false at the end of the connection, on an error, or after 15 s of silence. */
static inline bool client_fill(struct client *client)
{
	if (client->have >= sizeof(client->bytes) - 1)
		return false;
	ssize_t got = recv(
	    client->fd, client->bytes + client->have, sizeof(client->bytes) - 1 - client->have, 0);
	if (got <= 0)
		return false;
	client->have += (size_t)got;
	client->bytes[client->have] = '\0';
	return true;
}

static inline void client_use(struct client *client, size_t length)
{
	memmove(client->bytes, client->bytes + length, client->have - length);
	client->have -= length;
	client->bytes[client->have] = '\0';
}

/* true when the server closed without another byte. */
static inline bool client_at_end(struct client *client)
{
	return client->have == 0 && !client_fill(client) && client->have == 0;
}

/* Value of a header into `out`; NULL when absent. */
static inline const char *reply_header(const struct reply *reply, const char *name, char out[512])
{
	size_t length = strlen(name);
	for (const char *line = strstr(reply->head, "\r\n"); line; line = strstr(line, "\r\n")) {
		line += 2;
		if (strncasecmp(line, name, length) != 0 || line[length] != ':')
			continue;
		const char *value = line + length + 1 + strspn(line + length + 1, " ");
		snprintf(out, 512, "%.*s", (int)strcspn(value, "\r"), value);
		return out;
	}
	return NULL;
}

static inline bool client_take(struct client *client, struct reply *reply, size_t length)
{
	while (client->have < length)
		if (!client_fill(client))
			return false;
	memcpy(reply->body + reply->length, client->bytes, length);
	reply->length += length;
	client_use(client, length);
	return true;
}

static inline bool client_read_chunks(struct client *client, struct reply *reply)
{
	for (;;) {
		char *end;
		while ((end = client->have ? strstr(client->bytes, "\r\n") : NULL) == NULL)
			if (!client_fill(client))
				return false;
		size_t size = strtoul(client->bytes, NULL, 16);
		client_use(client, (size_t)(end - client->bytes) + 2);
		if (!client_take(client, reply, size))
			return false;
		while (client->have < 2)
			if (!client_fill(client))
				return false;
		client_use(client, 2);
		if (size == 0)
			return true;
	}
}

/* One answer; 100 Continue is one too. head: it answers a HEAD. */
static inline void client_read_as(struct client *client, struct reply *reply, bool head)
{
	char value[512], *end;
	memset(reply, 0, sizeof(*reply));
	while ((end = client->have ? strstr(client->bytes, "\r\n\r\n") : NULL) == NULL)
		if (!client_fill(client))
			return;
	size_t length = (size_t)(end - client->bytes) + 4;
	if (length >= sizeof(reply->head))
		return;
	memcpy(reply->head, client->bytes, length);
	client_use(client, length);
	reply->status = (int)strtol(reply->head + 9, NULL, 10);
	if (head || reply->status < 200 || reply->status == 204 || reply->status == 304)
		reply->complete = true;
	else if (reply_header(reply, "Content-Length", value))
		reply->complete = client_take(client, reply, strtoul(value, NULL, 10));
	else if (reply_header(reply, "Transfer-Encoding", value))
		reply->complete = client_read_chunks(client, reply);
	reply->body[reply->length] = '\0';
}

static inline void client_read(struct client *client, struct reply *reply)
{
	client_read_as(client, reply, false);
}

#endif
