/*
 * event.h - events.jsonl: what happened, one JSON object a line, numbered
 */
#ifndef MC_RUN_EVENT_H
#define MC_RUN_EVENT_H

#include "moecal/calibrate.h"

struct mc_events {
	int fd;        /* owned */
	uint64_t next; /* number of the next event, from 1 */
	char *path;    /* owned */
	const struct mc_run_hooks *hooks;
};

/* Goes on behind the last whole line of the file at path, or makes it. */
bool mc_events_open(struct mc_events *events, const char *path, const struct mc_run_hooks *hooks,
    struct mc_error *err) MC_CHECKED;
void mc_events_close(struct mc_events *events);
/* A new event object with "event": name. NULL when out of memory. */
struct mc_json *mc_event_new(const char *name);
/* Adds "seq" and "time", writes the line, tells the hook. The object is given away. */
bool mc_events_say(
    struct mc_events *events, struct mc_json *event, struct mc_error *err) MC_CHECKED;
/* RFC 3339 UTC with milliseconds. */
void mc_time_text(char text[32]);

#endif
