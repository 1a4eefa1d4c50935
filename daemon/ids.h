/*
 * ids.h - names of resources, cursors of lists, times
 */
#ifndef MOECALD_IDS_H
#define MOECALD_IDS_H

#include <stdint.h>

#include "moecal/error.h"

#define ID_SIZE 65      /* names are at most 64 characters */
#define CURSOR_MAX_KEY 512 /* with its NUL */
#define TIME_SIZE 32

/* [a-z0-9][a-z0-9._-]{0,63} */
bool id_is_valid(const char *id);
/* "PREFIX_" and 26 characters of lower-case Crockford base 32: 48 bits of milliseconds, 80 random
 * bits; ids made later sort later. Errors: IO when the kernel gives no random bytes. */
bool id_make(const char *prefix, int64_t now_ms, char ret_id[ID_SIZE], struct mc_error *err) MC_CHECKED;

int64_t now_ms(void);           /* UTC */
int64_t monotonic_ms(void);     /* for durations and deadlines */
const char *time_text(int64_t ms, char text[TIME_SIZE]); /* 2026-01-31T12:00:00.123Z; returns text */

/*
 * A cursor is base64url of "1:KEY:HASH" where HASH (16 hex digits) stands for the list and its
 * filter, so that a cursor used with another filter is noticed. key may hold any bytes but NUL, fewer
 * than CURSOR_MAX_KEY.
 */
bool cursor_make(const char *key, const char *filter, char ret_cursor[], size_t size, struct mc_error *err) MC_CHECKED;
/* INVALID when it is not ours or belongs to another filter. */
bool cursor_parse(const char *cursor, const char *filter, char ret_key[], size_t size, struct mc_error *err) MC_CHECKED;

#endif
