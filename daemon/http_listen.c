/*
 * http_listen.c - the sockets that requests come in by: TCP, Unix, or passed by systemd
 */
#include "http_parts.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "moecal/alloc.h"
#include "moecal/file.h"

#define BACKLOG 128

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	struct sockaddr_un local;
	struct sockaddr_storage storage;
};

static struct http_listener *append(struct http_listeners *listeners, struct mc_error *err)
{
	if (!mc_grow((void **)&listeners->items, &listeners->capacity, listeners->count + 1,
		sizeof(*listeners->items), "listeners", err))
		return NULL;
	struct http_listener *listener = &listeners->items[listeners->count++];
	*listener = (struct http_listener){.fd = -1};
	return listener;
}

static bool is_loopback(const union address *address)
{
	if (address->any.sa_family == AF_INET)
		return ntohl(address->v4.sin_addr.s_addr) >> 24 == 127;
	if (IN6_IS_ADDR_V4MAPPED(&address->v6.sin6_addr))
		return address->v6.sin6_addr.s6_addr[12] == 127;
	return IN6_IS_ADDR_LOOPBACK(&address->v6.sin6_addr);
}

/* What kind of socket the listener's fd is, and its address in the user's words. */
static bool describe(struct http_listener *listener, struct mc_error *err)
{
	union address address;
	socklen_t length = sizeof(address);
	char host[INET6_ADDRSTRLEN] = "";
	memset(&address, 0, sizeof(address));
	if (getsockname(listener->fd, &address.any, &length) != 0)
		return mc_fail_errno(err, errno, "listen", "the address of a socket cannot be read");
	if (address.any.sa_family == AF_UNIX) {
		/* an abstract name begins with a NUL, shown as '@' */
		const char *path = address.local.sun_path;
		bool abstract = path[0] == '\0';
		snprintf(listener->address, sizeof(listener->address), "unix:%s%.107s",
		    abstract ? "@" : "", abstract ? path + 1 : path);
		listener->is_local = true;
		return true;
	}
	if (address.any.sa_family != AF_INET && address.any.sa_family != AF_INET6)
		return mc_fail(err, MC_UNSUPPORTED, "listen",
		    "a socket of address family %d; TCP and Unix sockets can be listened on",
		    address.any.sa_family);
	bool six = address.any.sa_family == AF_INET6;
	inet_ntop(address.any.sa_family,
	    six ? (const void *)&address.v6.sin6_addr : (const void *)&address.v4.sin_addr, host,
	    sizeof(host));
	snprintf(listener->address, sizeof(listener->address), "http://%s%s%s:%u", six ? "[" : "",
	    host, six ? "]" : "", ntohs(six ? address.v6.sin6_port : address.v4.sin_port));
	listener->is_tcp = true;
	listener->is_local = is_loopback(&address);
	return true;
}

/* --- TCP --------------------------------------------------------------------------------------- */

/* "HOST:PORT", "[::1]:PORT", "*:PORT" into host (NULL: all addresses) and port. */
static bool split(const char *spec, char host[256], const char **ret_host, const char **ret_port,
    struct mc_error *err)
{
	const char *colon = strrchr(spec, ':');
	const char *start = spec;
	size_t length = colon ? (size_t)(colon - spec) : 0;
	if (!colon || colon[1] == '\0' || strspn(colon + 1, "0123456789") != strlen(colon + 1) ||
	    length >= 256)
		return mc_fail(
		    err, MC_INVALID, spec, "is not HOST:PORT, unix:PATH or systemd");
	if (length >= 2 && start[0] == '[' && start[length - 1] == ']') {
		start++;
		length -= 2;
	}
	memcpy(host, start, length);
	host[length] = '\0';
	*ret_host = length == 0 || strcmp(host, "*") == 0 ? NULL : host;
	*ret_port = colon + 1;
	return true;
}

static int open_one(const struct addrinfo *info)
{
	int on = 1;
	int fd = socket(info->ai_family, info->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK,
	    info->ai_protocol);
	if (fd < 0)
		return -1;
	/* a restart must not wait for connections of the process before to be forgotten */
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
	    bind(fd, info->ai_addr, info->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
		return fd;
	int saved = errno;
	close(fd);
	errno = saved;
	return -1;
}

static bool open_tcp(struct http_listeners *listeners, const char *spec, struct mc_error *err)
{
	char buffer[256];
	const char *host = NULL, *port = NULL;
	struct addrinfo hints = {.ai_family = AF_UNSPEC,
	    .ai_socktype = SOCK_STREAM,
	    .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
	struct addrinfo *infos = NULL;
	if (!split(spec, buffer, &host, &port, err))
		return false;
	int failure = getaddrinfo(host, port, &hints, &infos);
	if (failure != 0)
		return mc_fail(err, MC_INVALID, spec, "the host is not known: %s", gai_strerror(failure));
	struct http_listener *listener = append(listeners, err);
	for (const struct addrinfo *at = infos; listener && at && listener->fd < 0; at = at->ai_next)
		listener->fd = open_one(at);
	int saved = errno;
	freeaddrinfo(infos);
	if (!listener)
		return false;
	if (listener->fd < 0)
		return mc_fail_errno(err, saved, spec, "cannot be listened on");
	return describe(listener, err);
}

/* --- Unix -------------------------------------------------------------------------------------- */

/* Removes a socket file that nobody listens on any more; leaves everything else alone. */
static bool remove_stale(const struct sockaddr_un *address, struct mc_error *err)
{
	struct stat status;
	const char *path = address->sun_path;
	if (lstat(path, &status) != 0)
		return errno == ENOENT ||
		       mc_fail_errno(err, errno, path, "cannot be looked at");
	if (!S_ISSOCK(status.st_mode))
		return mc_fail(err, MC_CONFLICT, path, "exists and is not a socket");
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return mc_fail_errno(err, errno, path, "a socket cannot be made");
	bool refused = connect(fd, (const struct sockaddr *)address, sizeof(*address)) != 0 &&
		       errno == ECONNREFUSED;
	close(fd);
	if (!refused)
		return mc_fail(err, MC_CONFLICT, path, "is in use: another process listens on it");
	if (unlink(path) != 0 && errno != ENOENT)
		return mc_fail_errno(err, errno, path, "a stale socket cannot be removed");
	return true;
}

static bool bind_unix(struct http_listener *listener, const struct sockaddr_un *address,
    struct mc_error *err)
{
	struct stat status;
	const char *path = address->sun_path;
	/* before bind the mode is a bound for the file's, so it is at no time wider than this */
	if (fchmod(listener->fd, 0660) != 0 ||
	    bind(listener->fd, (const struct sockaddr *)address, sizeof(*address)) != 0)
		return mc_fail_errno(err, errno, path, "cannot be listened on");
	memcpy(listener->path, path, sizeof(listener->path));
	if (lstat(path, &status) == 0) {
		listener->device = status.st_dev;
		listener->inode = status.st_ino;
	}
	/* the umask took from it */
	if (chmod(path, 0660) != 0 || listen(listener->fd, BACKLOG) != 0)
		return mc_fail_errno(err, errno, path, "cannot be listened on");
	return describe(listener, err);
}

static bool open_unix(struct http_listeners *listeners, const char *path, struct mc_error *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t length = strlen(path);
	if (length == 0 || length >= sizeof(address.sun_path))
		return mc_fail(err, MC_INVALID, path,
		    "the path of a Unix socket has 1 to %zu bytes, this one %zu",
		    sizeof(address.sun_path) - 1, length);
	memcpy(address.sun_path, path, length + 1);
	if (!remove_stale(&address, err))
		return false;
	struct http_listener *listener = append(listeners, err);
	if (!listener)
		return false;
	listener->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (listener->fd < 0)
		return mc_fail_errno(err, errno, path, "a socket cannot be made");
	return bind_unix(listener, &address, err);
}

/* --- systemd ----------------------------------------------------------------------------------- */

static bool take_passed(struct http_listeners *listeners, struct mc_error *err)
{
	/* 0: the environment stays, other threads may be reading it; LISTEN_PID keeps children off */
	int count = sd_listen_fds(0);
	if (count < 0)
		return mc_fail_errno(err, -count, "systemd", "the passed sockets cannot be read");
	if (count == 0)
		return mc_fail(err, MC_INVALID, "systemd",
		    "no sockets were passed; start the service by its socket unit");
	for (int i = 0; i < count; i++) {
		int fd = SD_LISTEN_FDS_START + i;
		if (sd_is_socket(fd, AF_UNSPEC, SOCK_STREAM, 1) <= 0)
			return mc_fail(err, MC_INVALID, "systemd",
			    "descriptor %d is not a stream socket that listens", fd);
		struct http_listener *listener = append(listeners, err);
		if (!listener)
			return false;
		listener->fd = fd;
		listener->passed = true;
		if (!describe(listener, err))
			return false;
	}
	return true;
}

/* --- all --------------------------------------------------------------------------------------- */

bool http_listen_open(struct http_listeners *listeners, const char *spec, struct mc_error *err)
{
	if (strcmp(spec, "systemd") == 0)
		return take_passed(listeners, err);
	if (strncmp(spec, "unix:", 5) == 0)
		return open_unix(listeners, spec + 5, err);
	return open_tcp(listeners, spec, err);
}

void http_listen_shut(struct http_listener *listener)
{
	/* systemd holds a passed socket open for the next process: those who connect meanwhile wait */
	if (!listener->passed && listener->fd >= 0)
		shutdown(listener->fd, SHUT_RDWR);
}

void http_listen_close(struct http_listener *listener)
{
	struct stat status;
	mc_close(listener->fd);
	listener->fd = -1;
	/* a later process may have put its own in the same place */
	if (listener->path[0] != '\0' && lstat(listener->path, &status) == 0 &&
	    status.st_dev == listener->device && status.st_ino == listener->inode)
		unlink(listener->path);
	listener->path[0] = '\0';
}
