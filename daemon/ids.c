/*
 * ids.c - names of resources, cursors of lists, times
 */
#include "ids.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "moecal/base64.h"
#include "moecal/sha256.h"

#define RANDOM_BYTES 10 /* 80 bits */

/* --- names -------------------------------------------------------------------------------------- */

static bool is_letter_or_digit(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

bool id_is_valid(const char *id)
{
	size_t length = strnlen(id, ID_SIZE);

	if (length == 0 || length >= ID_SIZE || !is_letter_or_digit(id[0]))
		return false;
	for (size_t i = 1; i < length; i++)
		if (!is_letter_or_digit(id[i]) && id[i] != '.' && id[i] != '_' && id[i] != '-')
			return false;
	return true;
}

bool id_make(const char *prefix, int64_t now, char ret_id[ID_SIZE], struct mc_error *err)
{
	/* Crockford's alphabet leaves out i, l, o and u, and keeps the order of numbers in text */
	static const char letters[] = "0123456789abcdefghjkmnpqrstvwxyz";
	unsigned char bytes[16];
	size_t length = (size_t)snprintf(ret_id, ID_SIZE, "%s_", prefix);

	mc_assert(length + 26 < ID_SIZE && now >= 0);
	for (size_t i = 0; i < 6; i++)
		bytes[i] = (unsigned char)((uint64_t)now >> (40 - 8 * i));
	/* so few bytes come whole or not at all */
	if (getrandom(bytes + 6, RANDOM_BYTES, 0) != RANDOM_BYTES)
		return mc_fail_errno(err, errno, "", "the system gives no random bytes");
	/* 128 bits are 26 digits of five bits with two zero bits before them */
	unsigned bits = 0, have = 2;
	for (size_t i = 0; i < sizeof bytes; i++) {
		bits = bits << 8 | bytes[i];
		for (have += 8; have >= 5; have -= 5)
			ret_id[length++] = letters[bits >> (have - 5) & 31];
	}
	ret_id[length] = '\0';
	return true;
}

/* --- times -------------------------------------------------------------------------------------- */

static int64_t clock_ms(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t now_ms(void)
{
	return clock_ms(CLOCK_REALTIME);
}

int64_t monotonic_ms(void)
{
	return clock_ms(CLOCK_MONOTONIC);
}

const char *time_text(int64_t ms, char text[TIME_SIZE])
{
	time_t seconds = (time_t)(ms / 1000);
	struct tm at;

	if (ms < 0 || gmtime_r(&seconds, &at) == NULL || at.tm_year > 9999 - 1900) {
		snprintf(text, TIME_SIZE, "1970-01-01T00:00:00.000Z");
		return text;
	}
	/* unsigned char, so that the compiler sees how few digits there are */
	snprintf(text, TIME_SIZE, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ",
	    (unsigned)(at.tm_year + 1900) % 10000, (unsigned char)(at.tm_mon + 1),
	    (unsigned char)at.tm_mday, (unsigned char)at.tm_hour, (unsigned char)at.tm_min,
	    (unsigned char)at.tm_sec, (unsigned)(ms % 1000));
	return text;
}

/* --- cursors ------------------------------------------------------------------------------------ */

#define HASH_DIGITS 16

static bool filter_hash(const char *filter, char ret_hash[HASH_DIGITS + 1], struct mc_error *err)
{
	char hex[MC_SHA256_HEX];

	if (!mc_sha256_bytes(filter, strlen(filter), hex, err))
		return false;
	memcpy(ret_hash, hex, HASH_DIGITS);
	ret_hash[HASH_DIGITS] = '\0';
	return true;
}

bool cursor_make(const char *key, const char *filter, char ret_cursor[], size_t size, struct mc_error *err)
{
	char hash[HASH_DIGITS + 1], plain[CURSOR_MAX_KEY + 32], text[MC_BASE64_SIZE(sizeof plain)];

	if (strlen(key) >= CURSOR_MAX_KEY)
		return mc_fail(err, MC_INTERNAL, "cursor", "a key of %zu bytes", strlen(key));
	if (!filter_hash(filter, hash, err))
		return false;
	size_t length = (size_t)snprintf(plain, sizeof plain, "1:%s:%s", key, hash);
	mc_base64url_encode(plain, length, text);
	mc_assert(strlen(text) < size);
	memcpy(ret_cursor, text, strlen(text) + 1);
	return true;
}

bool cursor_parse(const char *cursor, const char *filter, char ret_key[], size_t size, struct mc_error *err)
{
	char hash[HASH_DIGITS + 1], plain[CURSOR_MAX_KEY + 32];
	size_t length;

	if (!filter_hash(filter, hash, err))
		return false;
	if (!mc_base64url_decode(cursor, plain, sizeof plain - 1, &length) ||
	    length < HASH_DIGITS + 3 || memchr(plain, '\0', length) != NULL ||
	    memcmp(plain, "1:", 2) != 0 || plain[length - HASH_DIGITS - 1] != ':')
		return mc_fail(err, MC_INVALID, "cursor", "this is not a cursor of this service");
	if (memcmp(plain + length - HASH_DIGITS, hash, HASH_DIGITS) != 0)
		return mc_fail(err, MC_INVALID, "cursor",
		    "this cursor belongs to another list or another filter");
	length -= HASH_DIGITS + 3; /* of the key */
	if (length >= size)
		return mc_fail(err, MC_INVALID, "cursor", "this is not a cursor of this service");
	memcpy(ret_key, plain + 2, length);
	ret_key[length] = '\0';
	return true;
}
