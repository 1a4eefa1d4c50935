/*
 * sha256.c - digests of files and bytes; the only file that knows libcrypto
 */
#include "moecal/sha256.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"
#include "moecal/file.h"

#define DIGEST_BYTES 32
#define PIECE_BYTES                                                                                \
	((size_t)1 << 18) /* read at a time; stays in the cache between read and digest */

struct mc_sha256 {
	EVP_MD_CTX *context;
	EVP_MD_CTX *finished; /* a copy is finished, so that the digest can go on */
};

struct mc_sha256 *mc_sha256_new(struct mc_error *err)
{
	struct mc_sha256 *digest = mc_alloc(1, sizeof(*digest), "a digest", err);

	if (!digest)
		return NULL;
	digest->context = EVP_MD_CTX_new();
	digest->finished = EVP_MD_CTX_new();
	if (!digest->context || !digest->finished) {
		mc_fail(err, MC_NO_MEMORY, "", "no memory for a digest");
	} else if (EVP_DigestInit_ex(digest->context, EVP_sha256(), NULL) != 1) {
		mc_fail(err, MC_INTERNAL, "", "libcrypto refuses to make a SHA-256 digest");
	} else {
		return digest;
	}
	mc_sha256_free(digest);
	return NULL;
}

void mc_sha256_free(struct mc_sha256 *digest)
{
	if (!digest)
		return;
	EVP_MD_CTX_free(digest->context);
	EVP_MD_CTX_free(digest->finished);
	free(digest);
}

bool mc_sha256_add(struct mc_sha256 *digest, const void *bytes, size_t length, struct mc_error *err)
{
	if (EVP_DigestUpdate(digest->context, bytes, length) != 1)
		return mc_fail(
		    err, MC_INTERNAL, "", "libcrypto failed to digest %zu bytes", length);
	return true;
}

bool mc_sha256_hex(struct mc_sha256 *digest, char ret_hex[MC_SHA256_HEX], struct mc_error *err)
{
	static const char digits[] = "0123456789abcdef";
	unsigned char bytes[EVP_MAX_MD_SIZE];
	unsigned length = 0;

	if (EVP_MD_CTX_copy_ex(digest->finished, digest->context) != 1 ||
	    EVP_DigestFinal_ex(digest->finished, bytes, &length) != 1 || length != DIGEST_BYTES)
		return mc_fail(err, MC_INTERNAL, "", "libcrypto failed to finish a SHA-256 digest");
	for (size_t i = 0; i < DIGEST_BYTES; i++) {
		ret_hex[2 * i] = digits[bytes[i] >> 4];
		ret_hex[2 * i + 1] = digits[bytes[i] & 15];
	}
	ret_hex[MC_SHA256_HEX - 1] = '\0';
	return true;
}

bool mc_sha256_bytes(
    const void *bytes, size_t length, char ret_hex[MC_SHA256_HEX], struct mc_error *err)
{
	struct mc_sha256 *digest = mc_sha256_new(err);
	bool ok = digest && mc_sha256_add(digest, bytes, length, err) &&
		  mc_sha256_hex(digest, ret_hex, err);

	mc_sha256_free(digest);
	return ok;
}

bool mc_sha256_fd(int fd, const char *where, char ret_hex[MC_SHA256_HEX], uint64_t *ret_bytes,
    struct mc_error *err)
{
	struct mc_sha256 *digest = mc_sha256_new(err);
	unsigned char *piece = digest ? mc_alloc(PIECE_BYTES, 1, "reading a file", err) : NULL;
	uint64_t size = 0, done = 0;
	bool ok = piece && mc_file_size(fd, where, &size, err);

	while (ok && done < size) {
		size_t length = size - done < PIECE_BYTES ? (size_t)(size - done) : PIECE_BYTES;

		ok = mc_file_read_at(fd, piece, length, done, where, err) &&
		     mc_sha256_add(digest, piece, length, err);
		done += length;
	}
	ok = ok && mc_sha256_hex(digest, ret_hex, err);
	if (ok && ret_bytes)
		*ret_bytes = size;
	free(piece);
	mc_sha256_free(digest);
	return ok;
}
