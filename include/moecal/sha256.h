/*
 * sha256.h - digests of files and bytes (libcrypto)
 */
#ifndef MC_SHA256_H
#define MC_SHA256_H

#include <stddef.h>
#include <stdint.h>

#include "moecal/error.h"

#define MC_SHA256_HEX 65 /* 64 hex digits and NUL */

struct mc_sha256; /* a running digest */

struct mc_sha256 *mc_sha256_new(struct mc_error *err) MC_CHECKED;
void mc_sha256_free(struct mc_sha256 *digest);
bool mc_sha256_add(struct mc_sha256 *digest, const void *bytes, size_t length, struct mc_error *err)
    MC_CHECKED;
bool mc_sha256_hex(struct mc_sha256 *digest, char ret_hex[MC_SHA256_HEX], struct mc_error *err)
    MC_CHECKED;
/* One call for bytes, one for an open file read from its start. */
bool mc_sha256_bytes(const void *bytes, size_t length, char ret_hex[MC_SHA256_HEX],
    struct mc_error *err) MC_CHECKED;
bool mc_sha256_fd(int fd, const char *where, char ret_hex[MC_SHA256_HEX], uint64_t *ret_bytes,
    struct mc_error *err) MC_CHECKED;

#endif
