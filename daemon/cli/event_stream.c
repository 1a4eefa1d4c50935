/*
 * event_stream.c - server-sent events out of the pieces in which they arrive
 */
#include "client.h"

#include <stdlib.h>
#include <string.h>

#define MAX_EVENT ((size_t)16 << 20)

void event_stream_init(struct event_stream *stream)
{
	*stream = (struct event_stream){0};
	mc_buf_init(&stream->line, MAX_EVENT);
	mc_buf_init(&stream->data, MAX_EVENT);
}

void event_stream_release(struct event_stream *stream)
{
	mc_buf_release(&stream->line);
	mc_buf_release(&stream->data);
}

static void begin_event(struct event_stream *stream)
{
	mc_buf_clear(&stream->data);
	stream->type[0] = '\0';
	stream->id[0] = '\0';
}

void event_stream_restart(struct event_stream *stream)
{
	mc_buf_clear(&stream->line);
	begin_event(stream);
	stream->after_return = false;
}

/* An empty line: what was read is an event, if it has data. */
static bool end_event(struct event_stream *stream, struct mc_error *err)
{
	size_t length = stream->data.length;
	bool ok = true;

	/* each line of data ends with a line feed, the last one's is not part of it */
	if (length > 0)
		ok = stream->event(
		    stream->ctx, stream->type, mc_buf_text(&stream->data), length - 1, err);
	if (ok && stream->id[0] != '\0')
		memcpy(stream->last_id, stream->id, sizeof stream->last_id);
	begin_event(stream);
	return ok;
}

/* Only ids of this service, numbers, are worth keeping: one goes back in a header. */
static void take_id(struct event_stream *stream, const char *value)
{
	size_t length = strspn(value, "0123456789");

	if (length > 0 && length < sizeof stream->id && value[length] == '\0')
		memcpy(stream->id, value, length + 1);
}

static bool end_line(struct event_stream *stream, struct mc_error *err)
{
	const char *line = mc_buf_text(&stream->line), *colon = strchr(line, ':');
	size_t name = colon != NULL ? (size_t)(colon - line) : strlen(line);
	const char *value = colon == NULL ? "" : colon[1] == ' ' ? colon + 2 : colon + 1;
	bool ok = true;

	if (line[0] == '\0')
		ok = end_event(stream, err);
	else if (name == 4 && memcmp(line, "data", 4) == 0)
		ok = mc_buf_addf(&stream->data, err, "%s\n", value);
	else if (name == 5 && memcmp(line, "event", 5) == 0)
		snprintf(stream->type, sizeof stream->type, "%s", value);
	else if (name == 2 && memcmp(line, "id", 2) == 0)
		take_id(stream, value);
	else if (name == 5 && memcmp(line, "retry", 5) == 0)
		stream->retry_ms = strtoll(value, NULL, 10);
	mc_buf_clear(&stream->line);
	return ok;
}

bool event_stream_add(
    struct event_stream *stream, const char *bytes, size_t length, struct mc_error *err)
{
	while (length > 0) {
		size_t plain = 0;
		if (stream->after_return && *bytes == '\n') {
			bytes++;
			length--;
		}
		stream->after_return = false;
		while (plain < length && bytes[plain] != '\n' && bytes[plain] != '\r')
			plain++;
		if (!mc_buf_add(&stream->line, bytes, plain, err))
			return false;
		if (plain == length)
			return true;
		stream->after_return = bytes[plain] == '\r';
		if (!end_line(stream, err))
			return false;
		bytes += plain + 1;
		length -= plain + 1;
	}
	return true;
}
