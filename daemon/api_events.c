/*
 * api_events.c - /v1/jobs/{id}/events: one page, or a stream of server-sent events
 *
 * Both come from the same rows, so a stream goes on where it was cut, also after a restart: the id of
 * an event is its row's number.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"

#include "moecal/alloc.h"

#define KEEP_ALIVE_MS 15000
#define EVENTS_AT_ONCE 64
#define MAX_BLOCK ((size_t)8 << 20)

/* --- pages ------------------------------------------------------------------------------------- */

static void reply_page(struct service *service, const struct job_row *job, const struct page *page,
    const char *type, const struct http_request *request, struct http_response *response)
{
	struct mc_error err;
	char next[24] = "";

	mc_error_init(&err);
	/* one more tells whether there is a next page */
	struct mc_json *events = store_events(
	    service->store, job->seq, atoll(page->key), type, page->limit + 1, &err);
	if (events == NULL) {
		api_reply_error(response, &err);
		return;
	}
	struct mc_json *list = mc_json_new_array();
	bool ok = list != NULL;
	for (size_t i = 0; ok && i < mc_json_size(events) && i < page->limit; i++)
		ok = mc_json_append(list, mc_json_copy(mc_json_at(events, i), &err), &err);
	if (ok && mc_json_size(events) > page->limit)
		snprintf(next, sizeof next, "%lld",
		    (long long)mc_json_integer(
			mc_json_get(mc_json_at(events, page->limit - 1), "id")));
	mc_json_free(events);
	if (ok) {
		page_reply(page, request, response, "events", list, next);
	} else {
		mc_json_free(list);
		api_reply_error(response, &err);
	}
}

/* --- streams ----------------------------------------------------------------------------------- */

struct stream {
	struct service *service;
	const struct http_request *request; /* lives as long as the answer */
	char id[ID_SIZE];
	int64_t job_seq, last;
	char type[32];      /* only these; "" all */
	struct mc_buf block; /* what is to be sent */
	size_t sent;
	bool finished;      /* the last event is in the block */
};

static bool append(struct stream *stream, const struct mc_json *event, struct mc_error *err)
{
	stream->last = mc_json_integer(mc_json_get(event, "id"));
	return mc_buf_addf(&stream->block, err, "id: %lld\nevent: %s\ndata: ", (long long)stream->last,
		   mc_json_string(mc_json_get(event, "type"), NULL)) &&
	       mc_json_write(event, MC_JSON_COMPACT, &stream->block, err) &&
	       mc_buf_add(&stream->block, "\n\n", 2, err);
}

/* Events after the last one into the block; notes when the job is finished and all is told. */
static bool look(struct stream *stream, struct mc_error *err)
{
	struct job_row row;

	/* the state before the events: a final one then has its event among them */
	if (!store_job_get(stream->service->store, stream->id, &row, err))
		return false;
	bool final = job_state_is_final(row.state);
	job_row_release(&row);
	struct mc_json *events = store_events(stream->service->store, stream->job_seq, stream->last,
	    stream->type[0] != '\0' ? stream->type : NULL, EVENTS_AT_ONCE, err);
	if (events == NULL)
		return false;
	size_t count = mc_json_size(events);
	bool ok = true;
	for (size_t i = 0; ok && i < count; i++)
		ok = append(stream, mc_json_at(events, i), err);
	mc_json_free(events);
	stream->finished = final && count < EVENTS_AT_ONCE;
	return ok;
}

static ssize_t stream_read(void *ctx, char *into, size_t max)
{
	struct stream *stream = ctx;
	struct store *store = stream->service->store;
	int64_t until = monotonic_ms() + KEEP_ALIVE_MS;
	struct mc_error err;

	mc_error_init(&err);
	while (stream->sent == stream->block.length) {
		mc_buf_clear(&stream->block);
		stream->sent = 0;
		if (stream->finished || atomic_load(&stream->service->draining) ||
		    http_client_left(stream->request))
			return -1;
		uint64_t generation = store_generation(store);
		if (!look(stream, &err))
			return -1; /* deleted, or the store failed */
		if (stream->block.length > 0 || stream->finished)
			continue;
		store_wait(store, generation, until);
		/* this is also how a client that went away is noticed */
		if (monotonic_ms() >= until && !mc_buf_add(&stream->block, ": keep-alive\n\n", 14, &err))
			return -1;
	}
	size_t left = stream->block.length - stream->sent, n = left < max ? left : max;
	memcpy(into, stream->block.data + stream->sent, n);
	stream->sent += n;
	return (ssize_t)n;
}

static void stream_done(void *ctx)
{
	struct stream *stream = ctx;

	watcher_leave(stream->service);
	mc_buf_release(&stream->block);
	free(stream);
}

static bool last_event_id(
    const struct http_request *request, int64_t *ret, struct http_response *response)
{
	const char *text = http_header(request, "Last-Event-ID");
	char *end;

	*ret = 0;
	if (text == NULL || text[0] == '\0')
		return true;
	*ret = strtoll(text, &end, 10);
	if (*end == '\0' && *ret >= 0)
		return true;
	problem_reply(response, PROBLEM_HEADER, "Last-Event-ID must be the id of an event");
	return false;
}

static void reply_stream(struct service *service, const struct job_row *job, const char *type,
    const struct http_request *request, struct http_response *response)
{
	struct mc_error err;
	int64_t last;

	if (!last_event_id(request, &last, response))
		return;
	if (!watcher_take(service)) {
		problem_reply(response, PROBLEM_BUSY, "too many watch already; poll the page");
		return;
	}
	mc_error_init(&err);
	struct stream *stream = mc_alloc(1, sizeof *stream, "stream", &err);
	if (stream == NULL) {
		watcher_leave(service);
		problem_reply_error(response, &err);
		return;
	}
	stream->service = service;
	stream->request = request;
	stream->job_seq = job->seq;
	stream->last = last;
	snprintf(stream->id, sizeof stream->id, "%s", job->id);
	snprintf(stream->type, sizeof stream->type, "%s", type != NULL ? type : "");
	mc_buf_init(&stream->block, MAX_BLOCK);
	if (!mc_buf_add(&stream->block, "retry: 2000\n\n", 13, &err)) {
		stream_done(stream);
		problem_reply_error(response, &err);
		return;
	}
	http_reply_stream(response, "text/event-stream", stream_read, stream_done, stream);
	http_set_header(response, "Cache-Control", "no-store");
	http_set_header(response, "X-Accel-Buffering", "no");
}

void job_events(
    struct service *service, struct http_request *request, struct http_response *response)
{
	static const char *const types[] = {"application/json", "text/event-stream", NULL};
	const char *type = http_query(request, "type");
	int chosen = http_accept(request, types);
	struct page page;
	struct job_row job;

	if (chosen < 0) {
		problem_reply(response, PROBLEM_ACCEPT,
		    "events come as application/json or text/event-stream");
		return;
	}
	if (!api_job(service, request, &job, response))
		return;
	if (chosen == 1)
		reply_stream(service, &job, type, request, response);
	else if (page_read(&page, request, response, "events %s %s", job.id, type != NULL ? type : ""))
		reply_page(service, &job, &page, type, request, response);
	job_row_release(&job);
}
