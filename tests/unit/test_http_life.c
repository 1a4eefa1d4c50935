/*
 * test_http_life.c - how connections live and end: streams, deadlines, limits, listeners, stop
 */
#include "http_world.h"

/* --- streams ----------------------------------------------------------------------------------- */

static bool ended_streams(struct world *world, unsigned count)
{
	for (int i = 0; i < 500; i++) {
		pthread_mutex_lock(&world->lock);
		bool ended = world->ended == count;
		pthread_mutex_unlock(&world->lock);
		if (ended)
			return true;
		sleep_ms(10);
	}
	return false;
}

static void streams_flow_and_end(void **state)
{
	struct world *world = *state;
	assert_int_equal(ask_anew(world, "GET /stream HTTP/1.1\r\n" H "\r\n"), 200);
	assert_string_equal(header(world, "Content-Type"), "text/event-stream");
	assert_string_equal(header(world, "Cache-Control"), "no-store");
	assert_string_equal(header(world, "X-Accel-Buffering"), "no");
	assert_true(world->reply.complete);
	assert_string_equal(world->reply.body, "data: tick\n\ndata: tick\n\ndata: tick\n\n");
	assert_true(ended_streams(world, 1));
	/* the connection goes on */
	assert_true(client_send(&world->client, "HEAD /stream HTTP/1.1\r\n" H "\r\n"));
	client_read_as(&world->client, &world->reply, true);
	assert_int_equal(world->reply.status, 200);
	assert_int_equal(ask(world, "GET /hello HTTP/1.1\r\n" H "\r\n"), 200);
	assert_true(ended_streams(world, 2));
	assert_int_equal(ask(world, "GET /stream?count=0 HTTP/1.1\r\n" H "\r\n"), 200);
	assert_true(world->reply.complete);
	assert_int_equal(world->reply.length, 0);
	/* an old client gets it without chunks */
	assert_true(client_send(&world->client, "GET /stream HTTP/1.0\r\n\r\n"));
	client_read(&world->client, &world->reply);
	assert_int_equal(world->reply.status, 200);
	while (client_fill(&world->client))
		continue;
	assert_string_equal(world->client.bytes, "data: tick\n\ndata: tick\n\ndata: tick\n\n");
}

static void each_block_is_sent_at_once(void **state)
{
	struct world *world = *state;
	dial(world);
	int64_t before = monotonic_ms();
	assert_true(client_send(&world->client, "GET /stream?count=2&pause=2000 HTTP/1.1\r\n" H "\r\n"));
	while (!world->client.have || !strstr(world->client.bytes, "data: tick"))
		assert_true(client_fill(&world->client));
	assert_in_range(monotonic_ms() - before, 2000, 3900);
}

static void a_client_that_leaves_ends_its_stream(void **state)
{
	struct world *world = *state;
	dial(world);
	assert_true(client_send(&world->client, "GET /stream?count=100000 HTTP/1.1\r\n" H "\r\n"));
	while (!world->client.have || !strstr(world->client.bytes, "data: tick"))
		assert_true(client_fill(&world->client));
	client_close(&world->client);
	assert_true(ended_streams(world, 1));
}

/* --- deadlines --------------------------------------------------------------------------------- */

static void set_times(struct world *world, uint64_t request, uint64_t upload, uint64_t idle)
{
	pthread_rwlock_wrlock(&world->service.lock);
	world->service.settings.request_seconds = request;
	world->service.settings.upload_seconds = upload;
	world->service.settings.idle_seconds = idle;
	pthread_rwlock_unlock(&world->service.lock);
}

/* Less than the 30 seconds of the limits that a test does not mean, and enough for a busy machine. */
#define LONG_MS 20000

struct drip {
	const char *start;
	int64_t least; /* milliseconds until the server is to hang up */
	struct client client;
	int64_t took;
};

static bool is_cut(struct drip *drip)
{
	char byte;
	return recv(drip->client.fd, &byte, 1, MSG_DONTWAIT) == 0 ||
	       !client_send(&drip->client, "x");
}

/* All of them send a byte now and then, until the server hangs up. */
static void drip_all(struct world *world, struct drip *drips, size_t count, unsigned every_ms)
{
	size_t left = count;
	int64_t begin = monotonic_ms();
	for (size_t i = 0; i < count; i++) {
		assert_true(client_open(&drips[i].client, http_address(world->service.server, 0)));
		assert_true(client_send(&drips[i].client, drips[i].start));
	}
	while (left > 0 && monotonic_ms() - begin < LONG_MS) {
		http_tick(world->service.server);
		sleep_ms(every_ms);
		for (size_t i = 0; i < count; i++)
			if (drips[i].took == 0 && is_cut(&drips[i])) {
				drips[i].took = monotonic_ms() - begin;
				left--;
			}
	}
	for (size_t i = 0; i < count; i++) {
		assert_in_range(drips[i].took, drips[i].least, LONG_MS);
		client_close(&drips[i].client);
	}
}

#define JSON "Content-Type: application/json\r\n"
#define TEXT "Content-Type: text/plain\r\n"

static void slow_requests_are_cut(void **state)
{
	static struct drip drips[] = {
	    {.start = "GET /hello HTTP/1.1\r\nX-A: ", .least = 900},
	    {.start = "POST /echo HTTP/1.1\r\n" H JSON "Content-Length: 1000\r\n\r\n",
		.least = 900},
	    {.start = "POST /upload HTTP/1.1\r\n" H TEXT "Content-Length: 1000\r\n\r\n",
		.least = 1900},
	};
	struct world *world = *state;
	set_times(world, 1, 2, 30);
	drip_all(world, drips, 3, 20);
	assert_true(metric_is(world, "moecald_http_timed_out_total 3\n"));
	for (int i = 0; i < 500 && uploads(world) > 0; i++)
		sleep_ms(10);
	assert_int_equal(uploads(world), 0);
	/* the time of a request begins with the end of the answer before it */
	dial(world);
	for (int i = 0; i < 3; i++) {
		sleep_ms(400);
		http_tick(world->service.server);
		assert_int_equal(ask(world, "GET /hello HTTP/1.1\r\n" H "\r\n"), 200);
	}
}

static void silent_connections_are_cut(void **state)
{
	struct world *world = *state;
	set_times(world, 30, 30, 1);
	dial(world);
	int64_t begin = monotonic_ms();
	sleep_ms(500);
	http_tick(world->service.server);
	assert_int_equal(ask(world, "GET /hello HTTP/1.1\r\n" H "\r\n"), 200);
	char byte;
	while (recv(world->client.fd, &byte, 1, MSG_DONTWAIT) < 0 && monotonic_ms() - begin < LONG_MS) {
		http_tick(world->service.server);
		sleep_ms(20);
	}
	assert_in_range(monotonic_ms() - begin, 1400, LONG_MS);
	assert_true(metric_is(world, "moecald_http_timed_out_total 0\n"));
	/* silence in the middle of a body */
	static struct drip silent = {
	    .start = "POST /echo HTTP/1.1\r\n" H JSON "Content-Length: 9\r\n\r\n",
	    .least = 900,
	};
	drip_all(world, &silent, 1, 1200);
}

static void let_go(struct world *world)
{
	pthread_mutex_lock(&world->lock);
	world->released = true;
	pthread_cond_broadcast(&world->changed);
	pthread_mutex_unlock(&world->lock);
}

static void waiting_handlers_are_not_cut(void **state)
{
	struct world *world = *state;
	set_times(world, 1, 1, 1);
	dial(world);
	assert_true(client_send(&world->client, "GET /wait HTTP/1.1\r\n" H "\r\n"));
	struct client *other = malloc(sizeof(*other));
	assert_non_null(other);
	assert_true(client_open(other, http_address(world->service.server, 0)));
	assert_true(client_send(other, "GET /stream?count=2&pause=1200 HTTP/1.1\r\n" H "\r\n"));
	for (int i = 0; i < 20; i++) {
		sleep_ms(100);
		http_tick(world->service.server);
	}
	let_go(world);
	client_read(&world->client, &world->reply);
	assert_int_equal(world->reply.status, 200);
	client_read(other, &world->reply);
	assert_int_equal(world->reply.status, 200);
	assert_true(world->reply.complete);
	client_close(other);
	free(other);
}

/* --- limits ------------------------------------------------------------------------------------ */

static int make_with_limit(void **state)
{
	if (world_make(state))
		return 1;
	struct world *world = *state;
	world->listen[1] = strdup("127.0.0.1:0");
	world->service.settings.listen.count = 2;
	world->service.settings.connections = 6;
	world_start(world);
	return 0;
}

static void wait_for_connections(struct world *world, unsigned count)
{
	for (int i = 0; i < 500 && http_connections(world->service.server) != count; i++)
		sleep_ms(10);
	assert_int_equal(http_connections(world->service.server), count);
}

/* Two listeners, one limit. With all connections in work others are told to come again, but probes are
 * answered: nobody who is slow keeps a doctor out. */
static void connections_are_limited(void **state)
{
	struct world *world = *state;
	struct client *clients = calloc(6, sizeof(*clients));
	char value[512];
	assert_non_null(clients);
	assert_null(http_address(world->service.server, 2));
	for (unsigned i = 0; i < 6; i++) {
		assert_true(client_open(&clients[i], http_address(world->service.server, i % 2)));
		assert_true(client_send(&clients[i], "GET /wait HTTP/1.1\r\n" H "\r\n"));
		wait_for_connections(world, i + 1);
	}
	assert_true(metric_is(world, "moecald_http_connections 6\n"));
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(ask_anew(world, "GET /hello HTTP/1.1\r\n" H "\r\n"), 503);
		assert_non_null(reply_header(&world->reply, "Retry-After", value));
		assert_int_equal(ask_anew(world, "GET /probe HTTP/1.1\r\n" H "\r\n"), 200);
	}
	let_go(world);
	for (unsigned i = 0; i < 6; i++) {
		client_read(&clients[i], &world->reply);
		assert_int_equal(world->reply.status, 200);
	}
	client_close(&world->client);
	for (unsigned i = 0; i < 6; i++)
		client_close(&clients[i]);
	wait_for_connections(world, 0);
	free(clients);
}

/* Once the crowd has sat for a while every probe is answered: five in a row are. */
static void require_probes(struct world *world)
{
	int64_t begin = monotonic_ms();
	for (int row = 0; row < 5;) {
		row = ask_anew(world, "GET /probe HTTP/1.1\r\n" H "\r\n") == 200 ? row + 1 : 0;
		if (row == 0)
			sleep_ms(200);
		assert_true(monotonic_ms() - begin < LONG_MS);
	}
}

/* Those who only hold a connection make room for those who ask. */
static void the_idle_make_room(void **state)
{
	struct world *world = *state;
	struct client *clients = calloc(30, sizeof(*clients));
	assert_non_null(clients);
	for (unsigned i = 0; i < 6; i++)
		assert_true(client_open(&clients[i], http_address(world->service.server, i % 2)));
	wait_for_connections(world, 6);
	sleep_ms(150);
	assert_int_equal(ask_anew(world, "GET /hello HTTP/1.1\r\n" H "\r\n"), 200);
	assert_true(client_at_end(&clients[0])); /* the longest */
	/* a crowd of silent ones does not keep a probe out either */
	for (unsigned i = 6; i < 30; i++)
		assert_true(client_open(&clients[i], http_address(world->service.server, i % 2)));
	require_probes(world);
	client_close(&world->client);
	for (unsigned i = 0; i < 30; i++)
		client_close(&clients[i]);
	wait_for_connections(world, 0);
	free(clients);
}

/* Half a request, a byte now and then: the reserve is not for sitting in. */
static void the_slow_make_room(void **state)
{
	struct world *world = *state;
	struct client *clients = calloc(20, sizeof(*clients));
	assert_non_null(clients);
	for (unsigned i = 0; i < 20; i++)
		if (client_open(&clients[i], http_address(world->service.server, i % 2)))
			(void)client_send(&clients[i], "GET /hello HTTP/1.1\r\n");
	require_probes(world);
	client_close(&world->client);
	for (unsigned i = 0; i < 20; i++)
		client_close(&clients[i]);
	wait_for_connections(world, 0);
	free(clients);
}

/* --- stop -------------------------------------------------------------------------------------- */

#define WAITERS 30

static void everyone_who_waits_is_answered(void **state)
{
	struct world *world = *state;
	struct client *clients = calloc(WAITERS + 1, sizeof(*clients));
	char address[128];
	assert_non_null(clients);
	snprintf(address, sizeof(address), "%s", http_address(world->service.server, 0));
	for (unsigned i = 0; i < WAITERS; i++) {
		assert_true(client_open(&clients[i], address));
		assert_true(client_send(&clients[i], "GET /wait HTTP/1.1\r\n" H "\r\n"));
	}
	assert_true(client_open(&clients[WAITERS], address)); /* asks nothing */
	assert_int_equal(ask_anew(world, "GET /hello HTTP/1.1\r\n" H "\r\n"), 200);
	pthread_mutex_lock(&world->lock);
	while (world->waiting < WAITERS)
		pthread_cond_wait(&world->changed, &world->lock);
	pthread_mutex_unlock(&world->lock);

	http_quiesce(world->service.server);
	struct client late;
	assert_false(client_open(&late, address));
	/* who keeps a connection is still answered, and told to leave */
	assert_int_equal(ask(world, "GET /hello HTTP/1.1\r\n" H "\r\n"), 200);
	assert_string_equal(header(world, "Connection"), "close");
	assert_true(client_at_end(&world->client));
	let_go(world);
	int64_t begin = monotonic_ms();
	http_stop(world->service.server, 5);
	world->service.server = NULL;
	assert_true(monotonic_ms() - begin < 4900);
	for (unsigned i = 0; i < WAITERS; i++) {
		client_read(&clients[i], &world->reply);
		assert_int_equal(world->reply.status, 200);
		assert_string_equal(world->reply.body, "hello");
		assert_string_equal(header(world, "Connection"), "close");
		assert_true(client_at_end(&clients[i]));
		client_close(&clients[i]);
	}
	assert_true(client_at_end(&clients[WAITERS]));
	client_close(&clients[WAITERS]);
	free(clients);
}

static void a_draining_service_says_close(void **state)
{
	struct world *world = *state;
	atomic_store(&world->service.draining, true);
	assert_int_equal(ask_anew(world, "GET /hello HTTP/1.1\r\n" H "\r\n"), 200);
	assert_string_equal(header(world, "Connection"), "close");
}

static unsigned open_descriptors(void)
{
	unsigned count = 0;
	DIR *dir = opendir("/proc/self/fd");
	assert_non_null(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

static void nothing_is_left_open(void **state)
{
	struct world *world = *state;
	unsigned before = open_descriptors();
	for (int round = 0; round < 3; round++) {
		world_start(world);
		assert_int_equal(ask_anew(world, "GET /file HTTP/1.1\r\n" H "\r\n"), 200);
		assert_int_equal(
		    ask(world, "GET /file HTTP/1.1\r\n" H "Range: bytes=90-\r\n\r\n"), 416);
		assert_int_equal(ask(world, "GET /file HTTP/1.1\r\n" H "If-None-Match: *\r\n\r\n"), 304);
		assert_int_equal(ask(world, "GET /stream HTTP/1.1\r\n" H "\r\n"), 200);
		assert_int_equal(ask_anew(world, "GET /hello HTTP/1.1\r\n\r\n"), 400);
		/* one leaves in the middle of an upload, one in the middle of a stream */
		dial(world);
		assert_true(client_send(&world->client, "POST /upload HTTP/1.1\r\n" H
							"Content-Type: text/plain\r\nContent-Length: 10000\r\n\r\nsome"));
		sleep_ms(50);
		dial(world);
		assert_true(
		    client_send(&world->client, "GET /stream?count=100000&pause=1 HTTP/1.1\r\n" H "\r\n"));
		sleep_ms(50);
		world_stop(world);
		assert_int_equal(uploads(world), 0);
		assert_int_equal(world->streams, world->ended);
		assert_int_equal(open_descriptors(), before);
	}
}

/* --- listeners --------------------------------------------------------------------------------- */

static bool start_fails(struct world *world, const char *listen, const char *text)
{
	struct mc_error err;
	mc_error_init(&err);
	free(world->listen[0]);
	world->listen[0] = strdup(listen);
	world->service.server = http_start(&world->service, &err);
	if (world->service.server)
		return false;
	if (!strstr(err.text, text))
		print_error("%s: %s\n", err.where, err.text);
	return strstr(err.text, text) != NULL;
}

static void unix_sockets_are_listened_on(void **state)
{
	struct world *world = *state;
	struct stat status;
	char listen[160], path[128];
	snprintf(path, sizeof(path), "%s/socket", world->folder);
	snprintf(listen, sizeof(listen), "unix:%s", path);
	free(world->listen[0]);
	world->listen[0] = strdup(listen);
	world_start(world);
	assert_string_equal(http_address(world->service.server, 0), listen);
	assert_int_equal(lstat(path, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0660);
	assert_int_equal(ask_anew(world, "GET /hello HTTP/1.1\r\nHost: any.name\r\n\r\n"), 200);
	/* another server does not take it away */
	struct http_server *first = world->service.server;
	assert_true(start_fails(world, listen, "in use"));
	world->service.server = first;
	assert_int_equal(ask_anew(world, "GET /hello HTTP/1.1\r\n" H "\r\n"), 200);
	world_stop(world);
	assert_int_equal(lstat(path, &status), -1);
	/* what a crash left is replaced, what is no socket is not */
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	snprintf(address.sun_path, sizeof(address.sun_path), "%.107s", path);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	close(fd);
	world_start(world);
	assert_int_equal(ask_anew(world, "GET /hello HTTP/1.1\r\n" H "\r\n"), 200);
	world_stop(world);
	snprintf(listen, sizeof(listen), "unix:%s/file", world->folder);
	assert_true(start_fails(world, listen, "not a socket"));
	snprintf(path, sizeof(path), "%s/file", world->folder);
	assert_true(mc_file_exists(path));
}

static void wrong_listeners_are_refused(void **state)
{
	struct world *world = *state;
	unsigned before = open_descriptors();
	char listen[256];
	assert_true(start_fails(world, "127.0.0.1", "HOST:PORT"));
	assert_true(start_fails(world, "127.0.0.1:http", "HOST:PORT"));
	assert_true(start_fails(world, "systemd", "no sockets were passed"));
	snprintf(listen, sizeof(listen), "unix:/tmp/%0200d", 0);
	assert_true(start_fails(world, listen, "107 bytes"));
	assert_true(start_fails(world, "unix:/nowhere/at/all/socket", "cannot be listened on"));
	/* others could reach it */
	assert_true(start_fails(world, "0.0.0.0:0", "token_file"));
	assert_true(start_fails(world, "*:0", "token_file"));
	world->service.settings.listen.count = 0;
	assert_true(start_fails(world, "", "nothing to listen on"));
	world->service.settings.listen.count = 1;
	assert_int_equal(open_descriptors(), before);
}

static void a_taken_port_is_an_error(void **state)
{
	struct world *world = *state;
	world_start(world);
	struct http_server *first = world->service.server;
	char listen[128];
	snprintf(listen, sizeof(listen), "127.0.0.1%s", strrchr(http_address(first, 0), ':'));
	bool failed = start_fails(world, listen, "Address already in use");
	world->service.server = first;
	assert_true(failed);
	/* and the same port again after a stop, though a connection lingers in the kernel */
	assert_int_equal(ask_anew(world, "GET /hello HTTP/1.1\r\n" H "Connection: close\r\n\r\n"), 200);
	world_stop(world);
	world_start(world);
}

int main(void)
{
#define T(name, setup) cmocka_unit_test_setup_teardown(name, setup, world_end)
	const struct CMUnitTest tests[] = {
	    T(streams_flow_and_end, world_start_it),
	    T(each_block_is_sent_at_once, world_start_it),
	    T(a_client_that_leaves_ends_its_stream, world_start_it),
	    T(slow_requests_are_cut, world_start_it),
	    T(silent_connections_are_cut, world_start_it),
	    T(waiting_handlers_are_not_cut, world_start_it),
	    T(connections_are_limited, make_with_limit),
	    T(the_idle_make_room, make_with_limit),
	    T(the_slow_make_room, make_with_limit),
	    T(everyone_who_waits_is_answered, world_start_it),
	    T(a_draining_service_says_close, world_start_it),
	    T(nothing_is_left_open, world_make),
	    T(unix_sockets_are_listened_on, world_make),
	    T(wrong_listeners_are_refused, world_make),
	    T(a_taken_port_is_an_error, world_make),
	};
	return cmocka_run_group_tests_name("http_life", tests, NULL, NULL);
}
