/*
 * test_error.c - recording failures: first cause, cut texts, UTF-8, errno codes
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "moecal/error.h"

static void test_first_cause_wins(void **state)
{
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	assert_int_equal(err.code, MC_OK);
	assert_false(mc_fail(&err, MC_CORRUPT, "a.safetensors", "ends at %d", 7));
	assert_false(mc_fail(&err, MC_IO, "b", "second"));
	assert_false(mc_fail_errno(&err, ENOSPC, "c", "third"));
	assert_int_equal(err.code, MC_CORRUPT);
	assert_string_equal(err.where, "a.safetensors");
	assert_string_equal(err.text, "ends at 7");
	mc_error_init(&err);
	assert_int_equal(err.code, MC_OK);
	assert_string_equal(err.where, "");
	assert_string_equal(err.text, "");
}

static void test_errno_codes(void **state)
{
	static const struct {
		int value;
		enum mc_code code;
	} rows[] = {{ENOSPC, MC_NO_SPACE}, {EDQUOT, MC_NO_SPACE}, {ENOENT, MC_NOT_FOUND},
	    {ENOMEM, MC_NO_MEMORY}, {EIO, MC_IO}, {EACCES, MC_IO}, {99999, MC_IO}};
	struct mc_error err;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		mc_error_init(&err);
		assert_false(mc_fail_errno(&err, rows[i].value, "f", "cannot be read"));
		assert_int_equal(err.code, rows[i].code);
	}
	mc_error_init(&err);
	mc_fail_errno(&err, ENOSPC, "f", "cannot be written after %d bytes", 3);
	assert_string_equal(err.text, "cannot be written after 3 bytes: No space left on device");
	mc_error_init(&err);
	mc_fail_errno(&err, 99999, "f", "x");
	assert_string_equal(err.text, "x: error number 99999");
}

static void test_long_texts_are_cut(void **state)
{
	struct mc_error err;
	char longer[1000];

	(void)state;
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	mc_error_init(&err);
	mc_fail(&err, MC_INVALID, longer, "%s", longer);
	assert_int_equal(strlen(err.where), sizeof(err.where) - 1);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
	/* The reason of the system survives a long sentence. */
	mc_error_init(&err);
	mc_fail_errno(&err, EIO, "", "%s", longer);
	assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
	assert_non_null(strstr(err.text, "xx: Input/output error"));
}

static void test_text_is_always_utf8(void **state)
{
	static const struct {
		const char *in, *out;
	} rows[] = {
	    {"plain", "plain"},
	    {"\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80", "\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80"},
	    {"a\xff"
	     "b",
		"a?b"},
	    {"\xc3", "?"},                     /* cut sequence */
	    {"\xc0\xaf", "??"},                /* overlong */
	    {"\xed\xa0\x80", "???"},           /* surrogate */
	    {"\xf4\x90\x80\x80", "????"},      /* past U+10FFFF */
	    {"\xf8\x88\x80\x80\x80", "?????"}, /* five bytes */
	};
	struct mc_error err;
	char longer[1000];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		mc_error_init(&err);
		mc_fail(&err, MC_INVALID, rows[i].in, "%s", rows[i].in);
		assert_string_equal(err.where, rows[i].out);
		assert_string_equal(err.text, rows[i].out);
	}
	/* A cut inside a character: 191 bytes of room, 3 bytes each. */
	for (size_t i = 0; i < sizeof(longer) - 1; i++)
		longer[i] = "\xe2\x82\xac"[i % 3];
	longer[sizeof(longer) - 1] = '\0';
	mc_error_init(&err);
	mc_fail(&err, MC_INVALID, longer, "x");
	assert_int_equal(strlen(err.where), 191);
	assert_string_equal(err.where + 189, "??");
	assert_memory_equal(err.where + 186, "\xe2\x82\xac", 3);
}

static void test_code_names(void **state)
{
	(void)state;
	assert_string_equal(mc_code_name(MC_OK), "ok");
	assert_string_equal(mc_code_name(MC_NOT_FOUND), "not-found");
	assert_string_equal(mc_code_name(MC_INTERNAL), "internal");
	assert_string_equal(mc_code_name((enum mc_code)1000), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_first_cause_wins),
	    cmocka_unit_test(test_errno_codes),
	    cmocka_unit_test(test_long_texts_are_cut),
	    cmocka_unit_test(test_text_is_always_utf8),
	    cmocka_unit_test(test_code_names),
	};

	return cmocka_run_group_tests_name("error", tests, NULL, NULL);
}
