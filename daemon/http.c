/*
 * http.c - the server: connections, the life of a request, start and stop
 *
 * libmicrohttpd runs one thread a connection and calls back: the request line is here, the headers
 * are here, a piece of the body is here, all is here, all is over. An exchange lives from the first
 * to the last of these.
 */
#include "http_parts.h"

#include <microhttpd.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "log.h"

#include "moecal/alloc.h"

#define STACK_BYTES ((size_t)256 * 1024)
/* Request line and headers must fit; bodies come in pieces of at most this. */
#define CONNECTION_BYTES ((size_t)64 * 1024)
#define READ_BYTES ((size_t)16 * 1024)
/* A stream's reader may wait 15 s (http.h), and the library counts that as silence. */
#define SILENCE_SECONDS 20
/* What a client still sends after a refusal is thrown away for so long. */
#define DISCARD_MS 10000
#define LINGER_MS 2000
/* Connections beyond the setting, so that probes of health are answered when all others are taken. */
#define RESERVE 8
/* At a stop: a connection that has not asked anything for so long is let go. */
#define QUIET_MS 100

/* --- the life of an exchange ------------------------------------------------------------------- */

static struct seat *seat_of(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info =
	    MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	return info ? info->socket_context : NULL;
}

static void free_exchange(struct http_exchange *x)
{
	http_response_release(&x->response);
	http_body_release(x);
	free(x->target);
	free(x->path);
	free(x->segments);
	free(x);
}

static void make_id(struct http_exchange *x)
{
	struct mc_error err;
	char id[ID_SIZE];
	mc_error_init(&err);
	if (!id_make("req", now_ms(), id, &err)) {
		log_error(NULL, "naming a request", &err);
		snprintf(id, sizeof(id), "req_0");
	}
	snprintf(x->request.id, sizeof(x->request.id), "%.31s", id);
}

/* The request line is here, nothing of it changed yet. */
static void *on_request_line(void *cls, const char *uri, struct MHD_Connection *connection)
{
	const struct http_listener *listener = cls;
	struct http_server *server = listener->server;
	struct seat *seat = seat_of(connection);
	struct http_exchange *x = seat ? calloc(1, sizeof(*x)) : NULL;
	if (!x)
		return NULL;
	x->server = server;
	x->listener = listener;
	x->seat = seat;
	x->mhd = connection;
	x->upload_fd = -1;
	x->method = "OTHER";
	x->began_ms = monotonic_ms();
	make_id(x);
	http_response_init(&x->response, x->request.id);
	x->request.connection = x;
	x->request.principal = x->principal;
	x->request.media_type = x->media_type;
	for (size_t i = 0; i < MAX_PARAMETERS; i++)
		x->request.parameters[i] = "";
	x->target = strdup(uri ? uri : "");
	x->path = x->target ? strndup(x->target, strcspn(x->target, "?")) : NULL;
	x->request.path = x->path;
	if (!x->path) {
		free_exchange(x);
		return NULL;
	}
	seat_enter(server->seats, seat, SEAT_RECEIVING, x->began_ms);
	return x;
}

static const char *known_method(const char *method)
{
	static const char *const known[] = {"GET", "HEAD", "POST", "DELETE"};
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strcmp(method, known[i]) == 0)
			return known[i];
	return "OTHER"; /* a client's word would be a label of metrics */
}

static enum MHD_Result answer(struct http_exchange *x)
{
	struct http_server *server = x->server;
	struct http_response *response = &x->response;
	bool draining = atomic_load(&server->service->draining) || atomic_load(&server->quiesced);
	struct MHD_Response *made = NULL;
	seat_enter(server->seats, x->seat, SEAT_ANSWERING, monotonic_ms());
	if (response->status == 0 || response->failed) {
		log_say(LOG_LEVEL_ERROR, NULL, x->request.id, "%s",
		    response->failed ? "a header of an answer could not be kept"
				     : "a handler gave no answer");
		problem_reply(response, PROBLEM_INTERNAL,
		    "The service's log has the details under this request's id.");
	}
	made = http_response_make(response, x->head, draining || x->broken);
	if (!made) {
		log_say(LOG_LEVEL_ERROR, NULL, x->request.id, "an answer could not be made");
		problem_reply(response, PROBLEM_INTERNAL, "The answer could not be made.");
		made = http_response_make(response, x->head, true);
	}
	if (!made)
		return MHD_NO;
	enum MHD_Result queued = MHD_queue_response(x->mhd, response->status, made);
	MHD_destroy_response(made);
	x->answered = queued == MHD_YES;
	return queued;
}

/* Beyond the limit only probes are answered. */
static bool has_room(struct http_exchange *x)
{
	if (x->request.route->probe || !seats_are_over(x->server->seats))
		return true;
	problem_reply(&x->response, PROBLEM_BUSY, "All connections are taken.");
	x->broken = true;
	return false;
}

static enum MHD_Result begin(struct http_exchange *x, const char *method, const char *version)
{
	x->method = known_method(method);
	x->head = strcmp(method, "HEAD") == 0;
	x->refused = !http_request_begin(x, method, version) || !has_room(x) || !http_body_begin(x);
	if (!x->refused)
		return MHD_YES;
	if (!x->has_body && !x->broken)
		return MHD_YES; /* answered when the request is complete: the connection may stay */
	x->early = true;
	return answer(x);
}

static void add_body(struct http_exchange *x, const char *bytes, size_t length)
{
	int64_t now = monotonic_ms();
	seat_touch(x->server->seats, x->seat, now);
	if (x->refused || http_body_add(x, bytes, length))
		return;
	x->refused = true;
	x->broken = true;
	http_body_release(x);
	seat_hurry(x->server->seats, x->seat, now + DISCARD_MS);
}

static enum MHD_Result finish(struct http_exchange *x)
{
	if (!x->refused && http_body_end(x)) {
		/* from here on it is our time, not the client's */
		seat_enter(x->server->seats, x->seat, SEAT_ANSWERING, monotonic_ms());
		x->request.route->handler(x->server->service, &x->request, &x->response);
	}
	return answer(x);
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url,
    const char *method, const char *version, const char *bytes, size_t *length, void **context)
{
	struct http_exchange *x = *context;
	(void)cls;
	(void)connection;
	(void)url;
	if (!x)
		return MHD_NO;
	if (!x->screened)
		return begin(x, method, version);
	if (*length > 0) {
		add_body(x, bytes, *length);
		*length = 0;
		return MHD_YES;
	}
	return finish(x);
}

/*
 * Closing a socket while bytes wait in it makes the kernel send a reset, and a client that is still
 * sending would see that instead of the refusal. So say that the answer is over and read on a while.
 */
static void linger(const struct http_exchange *x)
{
	char bytes[4096];
	int fd = seat_fd(x->seat);
	int64_t end = monotonic_ms() + LINGER_MS, left;
	shutdown(fd, SHUT_WR);
	while (!atomic_load(&x->server->stopping) && (left = end - monotonic_ms()) > 0) {
		struct pollfd wait = {.fd = fd, .events = POLLIN};
		if (poll(&wait, 1, left < 100 ? (int)left : 100) == 0)
			continue;
		if (recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT) <= 0)
			return;
	}
}

static void log_request(const struct http_exchange *x, unsigned status, int64_t took)
{
	bool wanted = service_setting(x->server->service, log_requests);
	if (wanted)
		log_say(LOG_LEVEL_INFO, NULL, x->request.id, "%s %.512s %u in %lld ms%s%s", x->method,
		    x->path, status, (long long)took, x->principal[0] ? " for " : "", x->principal);
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **context,
    enum MHD_RequestTerminationCode how)
{
	struct http_exchange *x = *context;
	(void)cls;
	(void)connection;
	*context = NULL;
	if (!x)
		return;
	struct http_server *server = x->server;
	struct seat *seat = x->seat;
	struct metrics *metrics = server->service->metrics;
	int64_t took = monotonic_ms() - x->began_ms;
	/* 499: the client left before there was an answer */
	unsigned status = x->answered ? x->response.status : 499;
	if (x->screened) {
		metrics_http(metrics, x->request.route ? x->request.route->pattern : "", x->method, status,
		    (double)took / 1000);
		log_request(x, status, took);
	} else if (how == MHD_REQUEST_TERMINATED_COMPLETED_OK ||
		   how == MHD_REQUEST_TERMINATED_WITH_ERROR) {
		metrics_add(metrics, METRIC_SCREENED, 1); /* the library refused it */
	}
	if (how == MHD_REQUEST_TERMINATED_COMPLETED_OK && (x->early || x->broken))
		linger(x);
	free_exchange(x);
	seat_enter(server->seats, seat, SEAT_WAITING, monotonic_ms());
}

/* --- connections ------------------------------------------------------------------------------- */

static void count_connections(struct http_server *server)
{
	metrics_set(
	    server->service->metrics, METRIC_CONNECTIONS, (double)seats_count(server->seats));
}

static enum MHD_Result on_accept(void *cls, const struct sockaddr *address, socklen_t length)
{
	const struct http_listener *listener = cls;
	(void)address;
	(void)length;
	seats_make_room(listener->server->seats, monotonic_ms());
	return seats_full(listener->server->seats) ? MHD_NO : MHD_YES;
}

static void on_connection(void *cls, struct MHD_Connection *connection, void **socket_context,
    enum MHD_ConnectionNotificationCode what)
{
	struct http_server *server = ((const struct http_listener *)cls)->server;
	if (what == MHD_CONNECTION_NOTIFY_STARTED) {
		int fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
		*socket_context = seats_take(server->seats, fd, monotonic_ms());
		if (!*socket_context) /* another listener was faster */
			shutdown(fd, SHUT_RDWR);
	} else if (*socket_context) {
		/* the library closes the descriptor after this, so no tick can hit one used anew */
		seats_leave(server->seats, *socket_context);
		*socket_context = NULL;
	}
	count_connections(server);
}

/* The library's own words are for debugging, but for those about a machine that is full. */
__attribute__((format(printf, 2, 0))) static void on_log(void *cls, const char *fmt, va_list args)
{
	static const char *const grave[] = {
	    "Hit process", "Error accepting", "Failed to create", "Error allocating"};
	char text[256];
	enum log_level level = LOG_LEVEL_DEBUG;
	(void)cls;
	vsnprintf(text, sizeof(text), fmt, args);
	text[strcspn(text, "\r\n")] = '\0';
	for (size_t i = 0; i < sizeof(grave) / sizeof(grave[0]); i++)
		if (strncmp(text, grave[i], strlen(grave[i])) == 0)
			level = LOG_LEVEL_WARNING;
	log_say(level, NULL, NULL, "http: %s", text);
}

/* --- start and stop ---------------------------------------------------------------------------- */

static bool start_listener(struct http_listener *listener, struct mc_error *err)
{
	struct http_server *server = listener->server;
	const struct settings *settings = &server->service->settings;
	unsigned flags = MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD |
			 MHD_USE_POLL | MHD_USE_ITC | MHD_USE_ERROR_LOG;
	unsigned silence = (unsigned)settings->idle_seconds + SILENCE_SECONDS;
	listener->mhd = MHD_start_daemon(flags, 0, on_accept, listener, on_request, listener,
	    MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL,                 /* first: it hears the others */
	    MHD_OPTION_LISTEN_SOCKET, listener->fd,                   /* */
	    MHD_OPTION_CONNECTION_LIMIT, (unsigned)settings->connections + 4 * RESERVE, /* ours is lower */
	    MHD_OPTION_CONNECTION_TIMEOUT, silence,                   /* for those who do not read */
	    MHD_OPTION_CONNECTION_MEMORY_LIMIT, CONNECTION_BYTES,     /* */
	    MHD_OPTION_CONNECTION_MEMORY_INCREMENT, READ_BYTES,       /* */
	    MHD_OPTION_THREAD_STACK_SIZE, STACK_BYTES,                /* */
	    MHD_OPTION_STRICT_FOR_CLIENT, 0, /* more would answer a missing Host itself, its head twice */
	    MHD_OPTION_URI_LOG_CALLBACK, on_request_line, listener,   /* */
	    MHD_OPTION_NOTIFY_CONNECTION, on_connection, listener,    /* */
	    MHD_OPTION_NOTIFY_COMPLETED, on_completed, listener, MHD_OPTION_END);
	if (listener->mhd)
		return true;
	listener->fd = -1; /* the library closed it */
	return mc_fail(err, MC_IO, listener->address, "the HTTP server does not start");
}

static bool start(struct http_server *server, struct mc_error *err)
{
	struct service *service = server->service;
	const struct settings *settings = &service->settings;
	server->seats = seats_new(settings->connections, RESERVE, err);
	if (!server->seats || !http_uploads_prepare(settings->state, err))
		return false;
	for (size_t i = 0; i < settings->listen.count; i++)
		if (!http_listen_open(&server->listeners, settings->listen.items[i], err))
			return false;
	if (server->listeners.count == 0)
		return mc_fail(err, MC_INVALID, "listen", "there is nothing to listen on");
	/* a name may resolve to what the settings could not see, systemd may pass anything */
	for (size_t i = 0; i < server->listeners.count; i++)
		if (!server->listeners.items[i].is_local && !service->tokens)
			return mc_fail(err, MC_INVALID, server->listeners.items[i].address,
			    "others can reach this address, so it needs a token_file");
	for (size_t i = 0; i < server->listeners.count; i++) {
		server->listeners.items[i].server = server;
		if (!start_listener(&server->listeners.items[i], err))
			return false;
	}
	return true;
}

struct http_server *http_start(struct service *service, struct mc_error *err)
{
	struct http_server *server = mc_alloc(1, sizeof(*server), "HTTP server", err);
	if (!server)
		return NULL;
	server->service = service;
	/* what follows() in http_request.c relies on was read in this version's source */
	server->raw_lines = strcmp(MHD_get_version(), "0.9.75") == 0;
	pthread_mutex_init(&server->parsing, NULL);
	if (start(server, err))
		return server;
	http_stop(server, 0);
	return NULL;
}

const char *http_address(const struct http_server *server, size_t index)
{
	return index < server->listeners.count ? server->listeners.items[index].address : NULL;
}

void http_tick(struct http_server *server)
{
	struct service *service = server->service;
	pthread_rwlock_rdlock(&service->lock);
	struct seat_limits limits = {
	    .idle_ms = (int64_t)service->settings.idle_seconds * 1000,
	    .request_ms = (int64_t)service->settings.request_seconds * 1000,
	    .upload_ms = (int64_t)service->settings.upload_seconds * 1000,
	};
	pthread_rwlock_unlock(&service->lock);
	unsigned cut = seats_cut(server->seats, &limits, monotonic_ms());
	if (cut > 0)
		metrics_add(service->metrics, METRIC_TIMED_OUT, cut);
	/* who wait look up, and those whose client has left give their seat back */
	if (seats_find_gone(server->seats) > 0)
		store_poke(service->store);
}

bool http_client_left(const struct http_request *request)
{
	const struct http_exchange *x = request->connection;
	return seat_is_gone(x->server->seats, x->seat);
}

unsigned http_connections(const struct http_server *server)
{
	return seats_count(server->seats);
}

void http_quiesce(struct http_server *server)
{
	if (atomic_exchange(&server->quiesced, true))
		return;
	for (size_t i = 0; i < server->listeners.count; i++) {
		struct http_listener *listener = &server->listeners.items[i];
		if (!listener->mhd)
			continue;
		/* from here on the descriptor is ours again, to be closed when its thread is gone */
		if (MHD_quiesce_daemon(listener->mhd) < 0)
			listener->fd = -1;
		http_listen_shut(listener);
	}
}

static void wait_for_end(struct http_server *server, unsigned seconds)
{
	int64_t end = monotonic_ms() + (int64_t)seconds * 1000;
	while (seats_count(server->seats) > 0 && monotonic_ms() < end) {
		/* those who wait for an answer get it; those who only keep a connection would keep us */
		seats_dismiss(server->seats, QUIET_MS, monotonic_ms());
		nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
	}
}

void http_stop(struct http_server *server, unsigned seconds)
{
	if (!server)
		return;
	http_quiesce(server);
	if (server->seats)
		wait_for_end(server, seconds);
	atomic_store(&server->stopping, true);
	for (size_t i = 0; i < server->listeners.count; i++) {
		if (server->listeners.items[i].mhd)
			MHD_stop_daemon(server->listeners.items[i].mhd);
		http_listen_close(&server->listeners.items[i]);
	}
	free(server->listeners.items);
	seats_free(server->seats);
	pthread_mutex_destroy(&server->parsing);
	free(server);
}
