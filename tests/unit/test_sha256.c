/*
 * test_sha256.c - known digests, pieces, files
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "moecal/sha256.h"

/* FIPS 180-2 examples */
static const char *const abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
static const char *const nothing =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
static const char *const million =
    "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

static void test_bytes(void **state)
{
	char hex[MC_SHA256_HEX];
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	assert_true(mc_sha256_bytes("abc", 3, hex, &err));
	assert_string_equal(hex, abc);
	assert_true(mc_sha256_bytes("", 0, hex, &err));
	assert_string_equal(hex, nothing);
}

static void test_pieces_and_going_on(void **state)
{
	char hex[MC_SHA256_HEX], piece[1000];
	struct mc_sha256 *digest;
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	memset(piece, 'a', sizeof(piece));
	digest = mc_sha256_new(&err);
	assert_non_null(digest);
	assert_true(mc_sha256_hex(digest, hex, &err));
	assert_string_equal(hex, nothing);
	for (int i = 0; i < 1000; i++)
		assert_true(mc_sha256_add(digest, piece, sizeof(piece), &err));
	for (int i = 0; i < 2; i++) {
		assert_true(mc_sha256_hex(digest, hex, &err));
		assert_string_equal(hex, million);
	}
	assert_true(mc_sha256_add(digest, "b", 1, &err));
	assert_true(mc_sha256_hex(digest, hex, &err));
	assert_string_not_equal(hex, million);
	mc_sha256_free(digest);
	mc_sha256_free(NULL);
}

static void test_file(void **state)
{
	char hex[MC_SHA256_HEX], piece[1000];
	struct mc_error err;
	uint64_t bytes = 0;
	FILE *file = tmpfile();

	(void)state;
	assert_non_null(file);
	memset(piece, 'a', sizeof(piece));
	for (int i = 0; i < 1000; i++)
		assert_int_equal(fwrite(piece, 1, sizeof(piece), file), sizeof(piece));
	assert_int_equal(fflush(file), 0); /* its position is now the end, which must not matter */
	mc_error_init(&err);
	assert_true(mc_sha256_fd(fileno(file), "f", hex, &bytes, &err));
	assert_string_equal(hex, million);
	assert_int_equal(bytes, 1000000);
	fclose(file);
	assert_false(mc_sha256_fd(-1, "f", hex, &bytes, &err));
	assert_int_equal(err.code, MC_IO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_bytes),
	    cmocka_unit_test(test_pieces_and_going_on),
	    cmocka_unit_test(test_file),
	};

	return cmocka_run_group_tests_name("sha256", tests, NULL, NULL);
}
