/*
 * buf.h - a growing byte string with a maximum of its own
 */
#ifndef MC_BUF_H
#define MC_BUF_H

#include <stddef.h>

#include "moecal/error.h"

struct mc_buf {
	char *data;    /* always NUL-terminated once something was added; owned */
	size_t length; /* without the NUL */
	size_t capacity;
	size_t maximum; /* bytes; adding more fails */
};

void mc_buf_init(struct mc_buf *buf, size_t maximum);
void mc_buf_release(struct mc_buf *buf);
void mc_buf_clear(struct mc_buf *buf);
/* Errors: INVALID past the maximum, NO_MEMORY. The buffer keeps what it had. */
bool mc_buf_add(struct mc_buf *buf, const void *bytes, size_t length, struct mc_error *err) MC_CHECKED;
bool mc_buf_addf(struct mc_buf *buf, struct mc_error *err, const char *fmt, ...)
    MC_PRINTF(3, 4) MC_CHECKED;
/* "" when empty; borrowed until the next change. */
const char *mc_buf_text(const struct mc_buf *buf);

#endif
