/*
 * base64.h - bytes as text (libcrypto)
 *
 * Standard: RFC 4648 section 4, with padding. URL: section 5, '-' and '_', without padding.
 */
#ifndef MC_BASE64_H
#define MC_BASE64_H

#include <stdbool.h>
#include <stddef.h>

/* Characters of the encoding of `length` bytes, with padding and NUL. */
#define MC_BASE64_SIZE(length) (((length) + 2) / 3 * 4 + 1)

/* text must hold MC_BASE64_SIZE(length) in both cases. */
void mc_base64_encode(const void *bytes, size_t length, char text[]);
void mc_base64url_encode(const void *bytes, size_t length, char text[]);
/* false when text has other characters, stray bits in its last one, or more than `size` bytes. */
bool mc_base64url_decode(const char *text, void *ret_bytes, size_t size, size_t *ret_length);

#endif
