/*
 * test_ids.c - names, cursors and times of the daemon, and the base64 that cursors are made of
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "ids.h"

#include "moecal/base64.h"

/* --- base64 ------------------------------------------------------------------------------------- */

static void test_base64_vectors(void **state)
{
	/* RFC 4648 section 10, and bytes that need the last two letters of each alphabet */
	static const struct {
		const char *bytes, *standard, *url;
	} rows[] = {{"", "", ""}, {"f", "Zg==", "Zg"}, {"fo", "Zm8=", "Zm8"},
	    {"foo", "Zm9v", "Zm9v"}, {"foob", "Zm9vYg==", "Zm9vYg"},
	    {"fooba", "Zm9vYmE=", "Zm9vYmE"}, {"foobar", "Zm9vYmFy", "Zm9vYmFy"},
	    {"\xfb\xff\xbf", "+/+/", "-_-_"}};
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		char text[32], back[32];
		size_t length = strlen(rows[i].bytes), got = 99;
		mc_base64_encode(rows[i].bytes, length, text);
		assert_string_equal(text, rows[i].standard);
		mc_base64url_encode(rows[i].bytes, length, text);
		assert_string_equal(text, rows[i].url);
		assert_true(mc_base64url_decode(text, back, sizeof back, &got));
		assert_int_equal(got, length);
		assert_memory_equal(back, rows[i].bytes, length);
		/* exactly as much room as is needed, and one byte less */
		assert_true(mc_base64url_decode(text, back, length, &got));
		if (length > 0)
			assert_false(mc_base64url_decode(text, back, length - 1, &got));
	}
}

static void test_base64url_refuses(void **state)
{
	static const char *const texts[] = {
	    "Z", "Zm9vY", "Zg==", "Zm 8", "Zm8\n", "+/+/", "Zh", "Zm9", "\xc3\xa9"};
	char back[32];
	size_t got;
	(void)state;
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		assert_false(mc_base64url_decode(texts[i], back, sizeof back, &got));
}

/* --- names -------------------------------------------------------------------------------------- */

static void test_valid_ids(void **state)
{
	static const char *const good[] = {"a", "0", "a.b-c_d", "job_01jx",
	    "a234567890123456789012345678901234567890123456789012345678901234"};
	static const char *const bad[] = {"", "A", ".a", "-a", "_a", "a/b", "a b", "a\n", "\xc3\xa9",
	    "a2345678901234567890123456789012345678901234567890123456789012345", "aB"};
	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++)
		assert_true(id_is_valid(good[i]));
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		assert_false(id_is_valid(bad[i]));
}

static void test_made_ids(void **state)
{
	char earlier[ID_SIZE], later[ID_SIZE], same[ID_SIZE];
	struct mc_error err;
	(void)state;
	mc_error_init(&err);
	assert_true(id_make("job", 1767225600000, earlier, &err));
	assert_true(id_make("job", 1767225600001, later, &err));
	assert_true(id_make("job", 1767225600000, same, &err));
	assert_true(id_is_valid(earlier));
	assert_int_equal(strlen(earlier), 4 + 26);
	assert_memory_equal(earlier, "job_", 4);
	assert_true(strcmp(earlier, later) < 0);
	assert_string_not_equal(earlier, same);
	/* 48 bits of 1767225600000 behind two zero bits: its first nine digits, computed apart */
	assert_memory_equal(earlier + 4, "01kdvdna0", 9);
	/* the largest time still has 26 digits */
	assert_true(id_make("job", INT64_C(0xffffffffffff), later, &err));
	assert_memory_equal(later + 4, "7zzzzzzzz", 9);
}

/* --- times -------------------------------------------------------------------------------------- */

static void test_times(void **state)
{
	char text[TIME_SIZE];
	(void)state;
	assert_string_equal(time_text(0, text), "1970-01-01T00:00:00.000Z");
	assert_string_equal(time_text(1767225600123, text), "2026-01-01T00:00:00.123Z");
	assert_string_equal(time_text(951782400007, text), "2000-02-29T00:00:00.007Z");
	assert_string_equal(time_text(253402300799999, text), "9999-12-31T23:59:59.999Z");
	/* what RFC 3339 cannot say */
	assert_string_equal(time_text(253402300800000, text), "1970-01-01T00:00:00.000Z");
	assert_string_equal(time_text(-1, text), "1970-01-01T00:00:00.000Z");
	assert_true(now_ms() > 1767225600000);
	int64_t began = monotonic_ms();
	assert_true(monotonic_ms() >= began);
}

/* --- cursors ------------------------------------------------------------------------------------ */

static void test_cursors_come_back(void **state)
{
	static const char *const keys[] = {
	    "1", "9223372036854775807", "model/a:b:c", "", "\xc3\xa9 \"\n\t"};
	char cursor[1024], key[CURSOR_MAX_KEY];
	struct mc_error err;
	(void)state;
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
		mc_error_init(&err);
		assert_true(cursor_make(keys[i], "jobs 3 a", cursor, sizeof cursor, &err));
		assert_int_equal(strspn(cursor, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
						"0123456789-_"),
		    strlen(cursor));
		assert_true(cursor_parse(cursor, "jobs 3 a", key, sizeof key, &err));
		assert_string_equal(key, keys[i]);
	}
}

static void test_longest_key(void **state)
{
	char long_key[CURSOR_MAX_KEY + 1], cursor[1024], key[CURSOR_MAX_KEY];
	struct mc_error err;
	(void)state;
	mc_error_init(&err);
	memset(long_key, 'x', sizeof long_key);
	long_key[CURSOR_MAX_KEY - 1] = '\0';
	assert_true(cursor_make(long_key, "f", cursor, sizeof cursor, &err));
	assert_true(cursor_parse(cursor, "f", key, sizeof key, &err));
	assert_string_equal(key, long_key);
	assert_false(cursor_parse(cursor, "f", key, 16, &err)); /* no room: refused, not cut */
	mc_error_init(&err);
	long_key[CURSOR_MAX_KEY - 1] = 'x';
	long_key[CURSOR_MAX_KEY] = '\0';
	assert_false(cursor_make(long_key, "f", cursor, sizeof cursor, &err));
	assert_int_equal(err.code, MC_INTERNAL);
}

static void test_foreign_cursors(void **state)
{
	char cursor[1024], key[CURSOR_MAX_KEY], text[1024];
	struct mc_error err;
	(void)state;
	mc_error_init(&err);
	assert_true(cursor_make("17", "jobs 0 ", cursor, sizeof cursor, &err));
	assert_false(cursor_parse(cursor, "jobs 1 ", key, sizeof key, &err));
	assert_int_equal(err.code, MC_INVALID);
	assert_non_null(strstr(err.text, "another"));
	/* every cut and every changed letter is noticed */
	size_t length = strlen(cursor);
	for (size_t i = 0; i < length; i++) {
		mc_error_init(&err);
		memcpy(text, cursor, length + 1);
		text[i] = '\0';
		assert_false(cursor_parse(text, "jobs 0 ", key, sizeof key, &err));
		memcpy(text, cursor, length + 1);
		text[i] = '!';
		mc_error_init(&err);
		assert_false(cursor_parse(text, "jobs 0 ", key, sizeof key, &err));
		assert_int_equal(err.code, MC_INVALID);
	}
	memset(text, 'A', sizeof text - 1);
	text[sizeof text - 1] = '\0';
	assert_false(cursor_parse(text, "jobs 0 ", key, sizeof key, &err));
	assert_false(cursor_parse("", "jobs 0 ", key, sizeof key, &err));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_base64_vectors),
	    cmocka_unit_test(test_base64url_refuses), cmocka_unit_test(test_valid_ids),
	    cmocka_unit_test(test_made_ids), cmocka_unit_test(test_times),
	    cmocka_unit_test(test_cursors_come_back), cmocka_unit_test(test_longest_key),
	    cmocka_unit_test(test_foreign_cursors)};
	return cmocka_run_group_tests_name("ids", tests, NULL, NULL);
}
