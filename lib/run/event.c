/*
 * event.c - see event.h
 */
#include "event.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "moecal/alloc.h"
#include "moecal/file.h"

#define MAX_EVENT_BYTES ((size_t)1 << 20)
#define MAX_EVENTS_BYTES ((size_t)256 << 20)

void mc_time_text(char text[32])
{
	struct timespec now;
	struct tm utc;
	char date[24];

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc);
	snprintf(text, 32, "%.19s.%03uZ", date, (unsigned)(now.tv_nsec / 1000000) % 1000u);
}

/* Counts whole lines and cuts off a torn last one. */
static bool find_end(struct mc_events *events, struct mc_error *err)
{
	struct mc_buf text;
	size_t end = 0;

	mc_buf_init(&text, MAX_EVENTS_BYTES);
	bool ok = mc_file_read_all(events->fd, events->path, &text, err);
	for (size_t i = 0; ok && i < text.length; i++)
		if (text.data[i] == '\n') {
			end = i + 1;
			events->next++;
		}
	mc_buf_release(&text);
	if (ok && (ftruncate(events->fd, (off_t)end) != 0 || lseek(events->fd, 0, SEEK_END) < 0))
		return mc_fail_errno(err, errno, events->path, "cannot go on in the event file");
	return ok;
}

bool mc_events_open(struct mc_events *events, const char *path, const struct mc_run_hooks *hooks,
    struct mc_error *err)
{
	*events = (struct mc_events){.fd = -1, .next = 1, .hooks = hooks};
	events->path = mc_strdup(path, err);
	if (events->path == NULL)
		return false;
	events->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
	if (events->fd < 0) {
		(void)mc_fail_errno(err, errno, path, "cannot open the event file");
		mc_events_close(events);
		return false;
	}
	if (find_end(events, err))
		return true;
	mc_events_close(events);
	return false;
}

void mc_events_close(struct mc_events *events)
{
	if (events->fd >= 0)
		close(events->fd);
	free(events->path);
	*events = (struct mc_events){.fd = -1};
}

struct mc_json *mc_event_new(const char *name)
{
	struct mc_error err;
	struct mc_json *event = mc_json_new_object();

	mc_error_init(&err);
	if (event != NULL && mc_json_set(event, "event", mc_json_new_string(name), &err))
		return event;
	mc_json_free(event);
	return NULL;
}

bool mc_events_say(struct mc_events *events, struct mc_json *event, struct mc_error *err)
{
	char time[32];
	struct mc_buf line;

	if (event == NULL)
		return mc_fail(err, MC_NO_MEMORY, events->path, "no memory for an event");
	mc_time_text(time);
	mc_buf_init(&line, MAX_EVENT_BYTES);
	bool ok = mc_json_set(event, "seq", mc_json_new_integer((int64_t)events->next), err) &&
		  mc_json_set(event, "time", mc_json_new_string(time), err) &&
		  mc_json_write(event, MC_JSON_COMPACT, &line, err) &&
		  mc_buf_add(&line, "\n", 1, err) &&
		  mc_file_write(events->fd, line.data, line.length, events->path, err);
	if (ok) {
		events->next++;
		if (events->hooks != NULL && events->hooks->event != NULL)
			events->hooks->event(events->hooks->ctx, event);
	}
	mc_buf_release(&line);
	mc_json_free(event);
	return ok;
}
