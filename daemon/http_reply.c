/*
 * http_reply.c - responses: JSON, text, files with ranges, streams
 */
#include "http_parts.h"

#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "moecal/base64.h"
#include "moecal/file.h"

/* Bytes that a stream is asked for at once, at most. */
#define STREAM_BLOCK 16384

struct http_stream {
	http_stream_fn *read;
	void (*done)(void *ctx);
	void *ctx;
};

static void finish_stream(void *cls)
{
	struct http_stream *stream = cls;
	if (stream->done)
		stream->done(stream->ctx);
	free(stream);
}

static void drop_body(struct http_response *response)
{
	free(response->bytes);
	mc_close(response->fd);
	if (response->stream)
		finish_stream(response->stream);
	response->bytes = NULL;
	response->constant = NULL;
	response->length = 0;
	response->fd = -1;
	response->offset = 0;
	response->stream = NULL;
	response->kind = REPLY_NONE;
	response->status = 0;
}

/* --- life -------------------------------------------------------------------------------------- */

void http_response_init(struct http_response *response, const char *request_id)
{
	*response = (struct http_response){.request_id = request_id, .fd = -1};
}

void http_response_clear(struct http_response *response)
{
	drop_body(response);
	for (size_t i = 0; i < response->fields_count; i++) {
		free(response->fields[i].name);
		free(response->fields[i].value);
	}
	response->fields_count = 0;
	response->failed = false;
}

void http_response_release(struct http_response *response)
{
	http_response_clear(response);
}

unsigned http_response_status(const struct http_response *response)
{
	return response->status;
}

const char *http_response_request(const struct http_response *response)
{
	return response->request_id;
}

/* --- headers ----------------------------------------------------------------------------------- */

static struct http_field *find_field(struct http_response *response, const char *name)
{
	for (size_t i = 0; i < response->fields_count; i++)
		if (strcasecmp(response->fields[i].name, name) == 0)
			return &response->fields[i];
	return NULL;
}

const char *http_response_header(const struct http_response *response, const char *name)
{
	for (size_t i = 0; i < response->fields_count; i++)
		if (strcasecmp(response->fields[i].name, name) == 0)
			return response->fields[i].value;
	return NULL;
}

void http_set_header(struct http_response *response, const char *name, const char *value)
{
	struct http_field *field = find_field(response, name);
	char *copy = strdup(value);
	if (copy && field) {
		free(field->value);
		field->value = copy;
		return;
	}
	char *name_copy = copy && response->fields_count < HTTP_MAX_FIELDS ? strdup(name) : NULL;
	if (!name_copy) {
		free(copy);
		response->failed = true;
		return;
	}
	response->fields[response->fields_count++] = (struct http_field){name_copy, copy};
}

static void remove_field(struct http_response *response, const char *name)
{
	struct http_field *field = find_field(response, name);
	if (!field)
		return;
	free(field->name);
	free(field->value);
	*field = response->fields[--response->fields_count];
}

/* --- replies ----------------------------------------------------------------------------------- */

static void begin_reply(struct http_response *response, unsigned status, const char *type)
{
	drop_body(response);
	response->status = status;
	if (type)
		http_set_header(response, "Content-Type", type);
	else
		remove_field(response, "Content-Type");
}

void http_reply_bytes(struct http_response *response, unsigned status, const char *type,
    char *bytes, size_t length)
{
	begin_reply(response, status, type);
	response->kind = REPLY_BYTES;
	response->bytes = bytes;
	response->length = length;
}

void http_reply_text(struct http_response *response, unsigned status, const char *type,
    struct mc_buf *text)
{
	http_reply_bytes(response, status, type, text->data, text->length);
	text->data = NULL;
	text->length = 0;
	mc_buf_release(text);
}

void http_reply_json(struct http_response *response, unsigned status, struct mc_json *json)
{
	struct mc_error err;
	struct mc_buf text;
	mc_error_init(&err);
	mc_buf_init(&text, SIZE_MAX);
	if (!json)
		mc_fail(&err, MC_NO_MEMORY, "response", "no memory for a JSON document");
	if (json && mc_json_write(json, MC_JSON_COMPACT, &text, &err))
		http_reply_text(response, status, "application/json", &text);
	else
		problem_reply_error(response, &(struct mc_error){.code = MC_INTERNAL,
		    .where = "response", .text = "a JSON document could not be made"});
	mc_buf_release(&text);
	mc_json_free(json);
}

void http_reply_static(struct http_response *response, const char *type, const void *bytes,
    size_t length)
{
	begin_reply(response, 200, type);
	response->kind = REPLY_STATIC;
	response->constant = bytes;
	response->length = length;
}

void http_reply_empty(struct http_response *response, unsigned status)
{
	http_reply_bytes(response, status, NULL, NULL, 0);
}

void http_reply_stream(struct http_response *response, const char *type, http_stream_fn *read,
    void (*done)(void *ctx), void *ctx)
{
	struct http_stream *stream = malloc(sizeof(*stream));
	if (!stream) {
		if (done)
			done(ctx);
		problem_reply(response, PROBLEM_BUSY, "There is no memory for this just now.");
		return;
	}
	begin_reply(response, 200, type);
	*stream = (struct http_stream){read, done, ctx};
	response->kind = REPLY_STREAM;
	response->stream = stream;
	/* proxies that gather bytes before they send them would hold events back */
	http_set_header(response, "X-Accel-Buffering", "no");
}

/* --- files ------------------------------------------------------------------------------------- */

static unsigned hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return (unsigned)(c - '0');
	return (unsigned)((c | 0x20) - 'a') + 10;
}

/* "sha-256=:BASE64:" of 64 hex digits */
static void write_digest(const char *sha256, char out[64])
{
	unsigned char bytes[32];
	char text[MC_BASE64_SIZE(sizeof bytes)];

	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = (unsigned char)(hex_digit(sha256[2 * i]) << 4 | hex_digit(sha256[2 * i + 1]));
	mc_base64_encode(bytes, sizeof bytes, text);
	snprintf(out, 64, "sha-256=:%s:", text);
}

/* What of the file is wanted; a range counts for GET only, and not when If-Range has another tag. */
static enum http_range wanted_range(const struct http_request *request, uint64_t bytes,
    const char *tag, uint64_t *ret_first, uint64_t *ret_last)
{
	const struct http_exchange *exchange = request->connection;
	const char *range = http_header(request, "Range");
	const char *condition = http_header(request, "If-Range");
	if (!range || exchange->head || (condition && strcmp(condition, tag) != 0))
		return RANGE_WHOLE;
	return http_range_parse(range, bytes, ret_first, ret_last);
}

static void reply_outside(struct http_response *response, uint64_t bytes)
{
	char text[64];
	problem_reply(response, PROBLEM_RANGE, "The file has %llu bytes.", (unsigned long long)bytes);
	snprintf(text, sizeof(text), "bytes */%llu", (unsigned long long)bytes);
	http_set_header(response, "Content-Range", text);
}

void http_reply_file(struct http_request *request, struct http_response *response, int fd,
    uint64_t bytes, const char *type, const char *sha256)
{
	char tag[72] = "", text[96];
	uint64_t first = 0, last = bytes - 1;
	if (sha256)
		snprintf(tag, sizeof(tag), "\"%.64s\"", sha256);
	bool same = sha256 && http_none_match(request, tag);
	enum http_range range = wanted_range(request, bytes, tag, &first, &last);
	if (!same && range == RANGE_OUTSIDE) {
		mc_close(fd);
		reply_outside(response, bytes);
		return;
	}
	if (sha256) {
		http_set_header(response, "ETag", tag);
		write_digest(sha256, text);
		http_set_header(response, "Repr-Digest", text);
	}
	if (same) {
		mc_close(fd);
		http_reply_empty(response, 304);
		return;
	}
	begin_reply(response, range == RANGE_PART ? 206 : 200, type);
	response->kind = REPLY_FILE;
	response->fd = fd;
	response->offset = first;
	response->length = bytes == 0 ? 0 : last - first + 1;
	http_set_header(response, "Accept-Ranges", "bytes");
	if (range == RANGE_PART) {
		snprintf(text, sizeof(text), "bytes %llu-%llu/%llu", (unsigned long long)first,
		    (unsigned long long)last, (unsigned long long)bytes);
		http_set_header(response, "Content-Range", text);
	}
}

/* --- for the library --------------------------------------------------------------------------- */

static ssize_t read_stream(void *cls, uint64_t position, char *into, size_t max)
{
	struct http_stream *stream = cls;
	(void)position;
	ssize_t got = stream->read(stream->ctx, into, max);
	/* 0 would be asked again at once, for ever */
	return got > 0 ? got : MHD_CONTENT_READER_END_OF_STREAM;
}

static struct MHD_Response *make_body(struct http_response *response, bool head)
{
	struct MHD_Response *made = NULL;
	switch (response->kind) {
	case REPLY_BYTES:
		if (response->length == 0)
			return MHD_create_response_from_buffer(0, (void *)"", MHD_RESPMEM_PERSISTENT);
		made = MHD_create_response_from_buffer(
		    response->length, response->bytes, MHD_RESPMEM_MUST_FREE);
		if (made)
			response->bytes = NULL;
		return made;
	case REPLY_STATIC:
		/* the library takes it as void * but does not write to what is persistent */
		return MHD_create_response_from_buffer(
		    response->length, (void *)(uintptr_t)response->constant, MHD_RESPMEM_PERSISTENT);
	case REPLY_FILE:
		made = MHD_create_response_from_fd_at_offset64(
		    response->length, response->fd, response->offset);
		if (made)
			response->fd = -1;
		return made;
	case REPLY_STREAM:
		/* after a HEAD the library would still write the end of a chunked body */
		if (head)
			return MHD_create_response_from_buffer(0, (void *)"", MHD_RESPMEM_PERSISTENT);
		made = MHD_create_response_from_callback(
		    MHD_SIZE_UNKNOWN, STREAM_BLOCK, read_stream, response->stream, finish_stream);
		if (made)
			response->stream = NULL;
		return made;
	case REPLY_NONE:
		break;
	}
	return NULL;
}

struct MHD_Response *http_response_make(struct http_response *response, bool head, bool close_after)
{
	struct MHD_Response *made = make_body(response, head);
	if (!made)
		return NULL;
	bool fine = true;
	for (size_t i = 0; i < response->fields_count && fine; i++)
		fine = MHD_add_response_header(made, response->fields[i].name,
			   response->fields[i].value) == MHD_YES;
	fine = fine && MHD_add_response_header(made, "X-Request-Id", response->request_id) == MHD_YES;
	fine = fine &&
	       MHD_add_response_header(made, "X-Content-Type-Options", "nosniff") == MHD_YES;
	if (!http_response_header(response, "Cache-Control"))
		fine = fine && MHD_add_response_header(made, "Cache-Control", "no-store") == MHD_YES;
	if (close_after)
		fine = fine && MHD_add_response_header(made, "Connection", "close") == MHD_YES;
	if (!fine) {
		MHD_destroy_response(made);
		return NULL;
	}
	return made;
}
