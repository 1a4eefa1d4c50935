/*
 * http_world.h - a server with routes of its own for the tests of http
 */
#ifndef HTTP_WORLD_H
#define HTTP_WORLD_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

#include "http_client.h"
#include "service.h"

#include "moecal/file.h"

struct world {
	struct service service; /* first: handlers get its address */
	char folder[64];
	char *listen[4];
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool released;     /* /wait goes on */
	unsigned waiting;  /* handlers of /wait */
	unsigned streams, ended; /* opened and done */
	struct client client;
	struct reply reply;
};

static inline void sleep_ms(unsigned ms)
{
	struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
	nanosleep(&time, NULL);
}

static inline struct world *world_of(struct service *service)
{
	return (struct world *)service;
}

/* --- handlers ---------------------------------------------------------------------------------- */

static void get_hello(struct service *service, struct http_request *request,
    struct http_response *response)
{
	(void)service;
	(void)request;
	http_reply_static(response, "text/plain", "hello", 5);
}

static void post_echo(struct service *service, struct http_request *request,
    struct http_response *response)
{
	struct mc_error err;
	struct mc_json *copy = NULL;
	(void)service;
	mc_error_init(&err);
	if (request->json)
		copy = mc_json_copy(request->json, &err);
	else
		copy = mc_json_new_string("no body");
	http_set_header(response, "Cache-Control", "no-cache");
	http_reply_json(response, 201, copy);
}

static void post_upload(struct service *service, struct http_request *request,
    struct http_response *response)
{
	struct mc_error err;
	struct mc_json *answer = mc_json_new_object();
	struct stat status = {.st_size = -1};
	char kept[128];
	mc_error_init(&err);
	stat(request->upload_path, &status);
	bool made = mc_json_set(answer, "bytes", mc_json_new_integer((int64_t)request->upload_bytes), &err) &&
		    mc_json_set(answer, "size", mc_json_new_integer(status.st_size), &err) &&
		    mc_json_set(answer, "sha256", mc_json_new_string(request->upload_sha256), &err) &&
		    mc_json_set(answer, "type", mc_json_new_string(request->media_type), &err) &&
		    mc_json_set(answer, "json", mc_json_new_bool(request->json != NULL), &err);
	assert_true(made);
	if (http_query(request, "keep")) {
		snprintf(kept, sizeof(kept), "%s/kept", service->settings.state);
		assert_int_equal(rename(request->upload_path, kept), 0);
		request->upload_path[0] = '\0';
	}
	http_reply_json(response, 201, answer);
}

static void get_item(struct service *service, struct http_request *request,
    struct http_response *response)
{
	struct mc_error err;
	struct mc_buf text;
	const char *note = http_query(request, "note");
	(void)service;
	mc_error_init(&err);
	mc_buf_init(&text, 10000);
	assert_true(mc_buf_addf(&text, &err, "%s|%s|%s|%s", request->path, request->parameters[0],
	    request->parameters[1], note ? note : "(none)"));
	http_reply_text(response, 200, "text/plain", &text);
}

static void get_query(struct service *service, struct http_request *request,
    struct http_response *response)
{
	uint64_t limit;
	char text[32];
	(void)service;
	if (!http_query_count(request, "limit", 1, 200, 50, &limit, response))
		return;
	snprintf(text, sizeof(text), "%llu", (unsigned long long)limit);
	http_set_header(response, "X-Limit", text);
	http_reply_empty(response, 204);
}

static void get_wait(struct service *service, struct http_request *request,
    struct http_response *response)
{
	struct world *world = world_of(service);
	pthread_mutex_lock(&world->lock);
	world->waiting++;
	pthread_cond_broadcast(&world->changed);
	while (!world->released)
		pthread_cond_wait(&world->changed, &world->lock);
	pthread_mutex_unlock(&world->lock);
	get_hello(service, request, response);
}

#define FILE_TEXT "0123456789abcdefghij"
#define FILE_SHA256 "eb1a67ac7f62fdd5f51c6e3c1fa5ef0ff4fd90b46c1d8d0d3b0a8ab6ad1a4b56"

static void get_file(struct service *service, struct http_request *request,
    struct http_response *response)
{
	char path[128];
	const char *bytes = http_query(request, "bytes");
	snprintf(path, sizeof(path), "%s/file", service->settings.state);
	http_set_header(response, "Cache-Control", "immutable");
	http_reply_file(request, response, open(path, O_RDONLY | O_CLOEXEC),
	    bytes ? strtoull(bytes, NULL, 10) : strlen(FILE_TEXT), "application/x-test",
	    http_query(request, "plain") ? NULL : FILE_SHA256);
}

struct ticks {
	struct world *world;
	unsigned left, pause_ms;
};

static ssize_t read_tick(void *ctx, char *into, size_t max)
{
	struct ticks *ticks = ctx;
	(void)max;
	if (ticks->left == 0)
		return -1;
	sleep_ms(ticks->pause_ms);
	ticks->left--;
	memcpy(into, "data: tick\n\n", 12);
	return 12;
}

static void end_ticks(void *ctx)
{
	struct ticks *ticks = ctx;
	pthread_mutex_lock(&ticks->world->lock);
	ticks->world->ended++;
	pthread_mutex_unlock(&ticks->world->lock);
	free(ticks);
}

static void get_stream(struct service *service, struct http_request *request,
    struct http_response *response)
{
	struct ticks *ticks = malloc(sizeof(*ticks));
	uint64_t count = 3, pause = 20;
	assert_non_null(ticks);
	assert_true(http_query_count(request, "count", 0, 100000, 3, &count, response));
	assert_true(http_query_count(request, "pause", 0, 10000, 20, &pause, response));
	*ticks = (struct ticks){world_of(service), (unsigned)count, (unsigned)pause};
	pthread_mutex_lock(&ticks->world->lock);
	ticks->world->streams++;
	pthread_mutex_unlock(&ticks->world->lock);
	http_reply_stream(response, "text/event-stream", read_tick, end_ticks, ticks);
}

static void get_nothing(struct service *service, struct http_request *request,
    struct http_response *response)
{
	(void)service;
	(void)request;
	(void)response;
}

static void get_whoami(struct service *service, struct http_request *request,
    struct http_response *response)
{
	struct mc_error err;
	struct mc_buf text;
	(void)service;
	mc_error_init(&err);
	mc_buf_init(&text, 100);
	assert_true(mc_buf_addf(&text, &err, "%s %d", request->principal, (int)request->scope));
	http_reply_text(response, 200, "text/plain", &text);
}

static const char *const query_limits[] = {"limit", "cursor", NULL};
static const char *const query_any[] = {"a", "b", "keep", "note", "bytes", "plain", "count", "pause", NULL};
const struct route routes[] = {
    {HTTP_GET, "/probe", SCOPE_NONE, BODY_NONE, get_hello, .probe = true},
    {HTTP_GET, "/hello", SCOPE_NONE, BODY_NONE, get_hello, .query = query_any},
    {HTTP_POST, "/echo", SCOPE_NONE, BODY_JSON, post_echo, .query = query_any},
    {HTTP_POST, "/upload", SCOPE_NONE, BODY_UPLOAD, post_upload, .query = query_any},
    {HTTP_GET, "/items/{id}/files/{path...}", SCOPE_NONE, BODY_NONE, get_item, .query = query_any},
    {HTTP_DELETE, "/items/{id}", SCOPE_NONE, BODY_NONE, get_item, .query = query_any},
    {HTTP_GET, "/query", SCOPE_NONE, BODY_NONE, get_query, .query = query_limits},
    {HTTP_GET, "/wait", SCOPE_NONE, BODY_NONE, get_wait, .query = query_any},
    {HTTP_GET, "/file", SCOPE_NONE, BODY_NONE, get_file, .query = query_any},
    {HTTP_GET, "/stream", SCOPE_NONE, BODY_NONE, get_stream, .query = query_any},
    {HTTP_GET, "/nothing", SCOPE_NONE, BODY_NONE, get_nothing, .query = query_any},
    {HTTP_GET, "/read", SCOPE_READ, BODY_NONE, get_whoami, .query = query_any},
    {HTTP_POST, "/submit", SCOPE_SUBMIT, BODY_NONE, get_whoami, .query = query_any},
    {HTTP_POST, "/admin", SCOPE_ADMIN, BODY_NONE, get_whoami, .query = query_any},
    {0},
};

/* --- life -------------------------------------------------------------------------------------- */

static inline int world_make(void **state)
{
	struct mc_error err;
	char path[128];
	struct world *world = calloc(1, sizeof(*world));
	mc_error_init(&err);
	strcpy(world->folder, "/tmp/moecal-http-XXXXXX");
	if (!mkdtemp(world->folder))
		return 1;
	pthread_rwlock_init(&world->service.lock, NULL);
	pthread_mutex_init(&world->lock, NULL);
	pthread_cond_init(&world->changed, NULL);
	world->service.metrics = metrics_new(&err);
	world->listen[0] = strdup("127.0.0.1:0");
	world->service.settings = (struct settings){
	    .listen = {1, world->listen},
	    .state = world->folder,
	    .connections = 64,
	    .body_bytes = 1024,
	    .upload_bytes = 100000,
	    .request_seconds = 30,
	    .upload_seconds = 60,
	    .idle_seconds = 10,
	};
	snprintf(path, sizeof(path), "%s/file", world->folder);
	world->client.fd = -1;
	*state = world;
	return mc_file_write_durable(path, FILE_TEXT, strlen(FILE_TEXT), &err) ? 0 : 1;
}

static inline void world_start(struct world *world)
{
	struct mc_error err;
	mc_error_init(&err);
	world->service.server = http_start(&world->service, &err);
	if (!world->service.server)
		fail_msg("%s: %s", err.where, err.text);
}

static inline void world_stop(struct world *world)
{
	client_close(&world->client);
	http_stop(world->service.server, 5);
	world->service.server = NULL;
}

static inline int world_start_it(void **state)
{
	int failed = world_make(state);
	if (!failed)
		world_start(*state);
	return failed;
}

static inline int world_end(void **state)
{
	struct world *world = *state;
	struct mc_error err;
	mc_error_init(&err);
	client_close(&world->client);
	http_stop(world->service.server, 5);
	tokens_free(world->service.tokens);
	metrics_free(world->service.metrics);
	bool removed = mc_file_remove_tree(world->folder, &err);
	for (size_t i = 0; i < 4; i++)
		free(world->listen[i]);
	pthread_rwlock_destroy(&world->service.lock);
	pthread_mutex_destroy(&world->lock);
	pthread_cond_destroy(&world->changed);
	free(world);
	return removed ? 0 : 1;
}

/* --- talking ----------------------------------------------------------------------------------- */

/* A new connection in place of the one before. */
static inline void dial(struct world *world)
{
	client_close(&world->client);
	assert_true(client_open(&world->client, http_address(world->service.server, 0)));
}

/* Sends text, reads one answer, returns its status. */
static inline int ask(struct world *world, const char *text)
{
	assert_true(client_send(&world->client, text));
	client_read(&world->client, &world->reply);
	return world->reply.status;
}

/* The same on a new connection. */
static inline int ask_anew(struct world *world, const char *text)
{
	dial(world);
	return ask(world, text);
}

static inline const char *header(struct world *world, const char *name)
{
	static char value[512];
	return reply_header(&world->reply, name, value) ? value : "(absent)";
}

static inline bool body_has(const struct world *world, const char *text)
{
	return strstr(world->reply.body, text) != NULL;
}

/* Files in the folder of uploads. */
static inline unsigned uploads(const struct world *world)
{
	char path[128];
	unsigned count = 0;
	snprintf(path, sizeof(path), "%s/uploads", world->folder);
	DIR *dir = opendir(path);
	assert_non_null(dir);
	for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
		count += entry->d_name[0] != '.';
	closedir(dir);
	return count;
}

static inline bool metric_is(struct world *world, const char *line)
{
	struct mc_error err;
	struct mc_buf text;
	mc_error_init(&err);
	mc_buf_init(&text, 1 << 20);
	assert_true(metrics_render(world->service.metrics, &text, &err));
	bool found = strstr(mc_buf_text(&text), line) != NULL;
	mc_buf_release(&text);
	return found;
}

#define H "Host: localhost\r\n"

#endif
