/*
 * log.h - one call, two renderings: fields in the journal, "<priority>text" lines on stderr
 *
 * The journal is used when stderr is connected to it ($JOURNAL_STREAM names its device and inode).
 * MESSAGE is for people; JOB_ID and REQUEST_ID are the fields to select by:
 * journalctl -u moecald JOB_ID=job_...
 */
#ifndef MOECALD_LOG_H
#define MOECALD_LOG_H

#include "moecal/error.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

void log_open(enum log_level most);
/* Any thread, any time. */
void log_set_level(enum log_level most);
/* false when the name is none of debug, info, warning, error. */
bool log_level_parse(const char *name, enum log_level *ret) MC_CHECKED;
/* job and request may be NULL. Control characters in the text are replaced: what users send may be
 * in it. On stderr: "<6>text (job_..., req_...)" with the priority only when not a terminal. */
void log_say(enum log_level level, const char *job, const char *request, const char *fmt, ...)
    MC_PRINTF(4, 5);
/* "where: text" of an error. */
void log_error(const char *job, const char *doing, const struct mc_error *err);

#endif
