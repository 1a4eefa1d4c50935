/*
 * test_json.c - what is refused, the order of members, texts that come back, numbers as Python
 * writes
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/fault.h"
#include "moecal/json.h"

static struct mc_json *parse(const char *text)
{
	struct mc_error err;
	struct mc_json *value;

	mc_error_init(&err);
	value = mc_json_parse(text, strlen(text), "spec", &err);
	if (!value)
		print_message("%s: %s\n", text, err.text);
	return value;
}

static void assert_written(const struct mc_json *value, unsigned style, const char *expected)
{
	struct mc_error err;
	struct mc_buf out;

	mc_error_init(&err);
	mc_buf_init(&out, 1000000);
	assert_true(mc_json_write(value, style, &out, &err));
	assert_string_equal(mc_buf_text(&out), expected);
	mc_buf_release(&out);
}

static void test_reading(void **state)
{
	struct mc_json *root = parse(
	    " {\"n\": null, \"t\": true, \"f\": false, \"i\": -9223372036854775808, \"r\": 2.5,"
	    " \"s\": \"a\\u0000b\", \"a\": [1, 2.0, \"x\"], \"o\": {\"k\": 1}} \n");
	size_t length = 0;

	(void)state;
	assert_non_null(root);
	assert_int_equal(mc_json_type(root), MC_JSON_OBJECT);
	assert_int_equal(mc_json_size(root), 8);
	assert_true(mc_json_is_null(mc_json_get(root, "n")));
	assert_true(mc_json_is_null(mc_json_get(root, "absent")));
	assert_null(mc_json_get(root, "absent"));
	assert_true(mc_json_bool(mc_json_get(root, "t")));
	assert_false(mc_json_bool(mc_json_get(root, "f")));
	assert_true(mc_json_integer(mc_json_get(root, "i")) == INT64_MIN);
	assert_true(mc_json_number(mc_json_get(root, "r")) == 2.5);
	assert_memory_equal(mc_json_string(mc_json_get(root, "s"), &length), "a\0b", 4);
	assert_int_equal(length, 3);
	const struct mc_json *array = mc_json_get(root, "a");
	assert_int_equal(mc_json_size(array), 3);
	assert_int_equal(mc_json_type(mc_json_at(array, 0)), MC_JSON_INTEGER);
	assert_int_equal(mc_json_type(mc_json_at(array, 1)), MC_JSON_REAL);
	assert_true(mc_json_number(mc_json_at(array, 0)) == 1.0);
	assert_null(mc_json_at(array, 3));
	assert_null(mc_json_get(array, "k"));
	assert_null(mc_json_at(root, 0));
	assert_int_equal(mc_json_size(mc_json_get(root, "s")), 0);
	assert_string_equal(mc_json_type_name(mc_json_type(mc_json_get(root, "o"))), "object");
	mc_json_free(root);
	mc_json_free(NULL);
	root = parse("7"); /* any value may stand alone */
	assert_int_equal(mc_json_integer(root), 7);
	mc_json_free(root);
}

static void test_refused(void **state)
{
	static const char *const texts[] = {"", " ", "{", "[1,]", "{\"a\":1,}", "{\"a\":1,\"a\":2}",
	    "{\"a\":1,\"\\u0061\":2}", "[1] x", "[1][2]", "9223372036854775808",
	    "-9223372036854775809", "1e999", "NaN", "Infinity", "01", "+1", "1.", ".5", "'a'",
	    "\"a", "\"\xff\"", "\"\xc0\xaf\"", "\"\xed\xa0\x80\"", "\"\\ud800\"", "\"\\x\"",
	    "\"\t\"", "tru", "[1 2]", "{1:2}", "// c\n1", "\xef\xbb\xbf{}"};
	struct mc_error err;

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		mc_error_init(&err);
		struct mc_json *value =
		    mc_json_parse(texts[i], strlen(texts[i]), "spec.json", &err);
		if (value)
			fail_msg("accepted: %s", texts[i]);
		assert_int_equal(err.code, MC_INVALID);
		assert_string_equal(err.where, "spec.json");
	}
	mc_error_init(&err);
	assert_null(mc_json_parse("{\n  \"a\": x}", 11, "spec", &err));
	assert_non_null(strstr(err.text, "line 2, column"));
	/* Only `length` bytes count, and a NUL between them is no end. */
	mc_error_init(&err);
	assert_null(mc_json_parse("1\0", 2, "spec", &err));
	struct mc_json *one = mc_json_parse("12", 1, "spec", &err);
	assert_int_equal(mc_json_integer(one), 1);
	mc_json_free(one);
	mc_error_init(&err);
	assert_null(mc_json_parse(NULL, 0, "spec", &err));
	assert_int_equal(err.code, MC_INVALID);
}

static void test_depth(void **state)
{
	struct mc_error err;
	char text[8001];

	(void)state;
	memset(text, '[', 4000);
	memset(text + 4000, ']', 4000);
	text[8000] = '\0';
	mc_error_init(&err);
	assert_null(mc_json_parse(text, 8000, "deep", &err));
	assert_int_equal(err.code, MC_INVALID);
	/* As deep as may be parsed may be written. */
	size_t depth = 2048;
	mc_error_init(&err);
	struct mc_json *root = mc_json_parse(text + 4000 - depth, 2 * depth, "deep", &err);
	assert_non_null(root);
	struct mc_buf out;
	mc_buf_init(&out, 10000);
	assert_true(mc_json_write(root, MC_JSON_COMPACT, &out, &err));
	assert_int_equal(out.length, 2 * depth);
	/* One level more at a time by hand: refused, and the buffer keeps what it had. */
	for (int i = 0; i < 100; i++) {
		struct mc_json *outer = mc_json_new_array();

		assert_true(mc_json_append(outer, root, &err));
		root = outer;
	}
	assert_false(mc_json_write(root, MC_JSON_COMPACT, &out, &err));
	assert_int_equal(err.code, MC_INVALID);
	assert_int_equal(out.length, 2 * depth);
	assert_int_equal(strlen(out.data), 2 * depth);
	mc_buf_release(&out);
	mc_json_free(root);
}

/* What Python's repr() prints for the same bits, so that files can be compared. */
static void test_reals(void **state)
{
	static const struct {
		double value;
		const char *text;
	} rows[] = {
	    {0x0.0p+0, "0.0"},
	    {-0x0.0p+0, "-0.0"},
	    {0x1.0000000000000p+0, "1.0"},
	    {0x1.3880000000000p+13, "10000.0"},
	    {0x1.0c6f7a0b5ed8dp-20, "1e-06"},
	    {0x1.4f8b588e368f1p-17, "1e-05"},
	    {0x1.a36e2eb1c432dp-14, "0.0001"},
	    {0x1.02e4b6ce5dc68p-13, "0.00012345"},
	    {0x1.999999999999ap-4, "0.1"},
	    {0x1.3333333333333p-2, "0.3"},
	    {0x1.5555555555555p-2, "0.3333333333333333"},
	    {0x1.5555555555555p-1, "0.6666666666666666"},
	    {0x1.e240c9fbe76c9p+16, "123456.789"},
	    {0x1.c6bf526340000p+49, "1000000000000000.0"},
	    {0x1.1c37937e08000p+53, "1e+16"},
	    {0x1.b69b4ba630f35p+56, "1.2345678901234568e+17"},
	    {0x1.0000000000000p+53, "9007199254740992.0"},
	    {0x1.c6bf52633ffffp+49, "999999999999999.9"},
	    {0x1.0f0cf064dd592p+73, "1e+22"},
	    {0x1.b1ae4d6e2ef50p+69, "1e+21"},
	    {0x0.0000000000001p-1022, "5e-324"},
	    {0x1.0000000000000p-1022, "2.2250738585072014e-308"},
	    {0x1.fffffffffffffp+1023, "1.7976931348623157e+308"},
	    {-0x1.4000000000000p+1, "-2.5"},
	    {0x1.249ad2594c37dp+332, "1e+100"},
	    {0x1.0000000000000p-44, "5.684341886080802e-14"},
	    {0x1.fffffe0000000p+127, "3.4028234663852886e+38"},
	    {0x1.3333333333334p-2, "0.30000000000000004"},
	    {0x1.a36371ea531a8p-14, "9.999e-05"},
	    {0x1.dcd6500000000p+29, "1000000000.0"},
	    {0x1.1666666666666p+2, "4.35"},
	    {0x1.5666666666666p+1, "2.675"},
	    {0x1.0000000000000p-14, "6.103515625e-05"},
	    {0x1.c000000000000p+8, "448.0"},
	    {0x0.05c0ab9347ed7p-1022, "5e-310"},
	    {0x0.0000000000bdcp-1022, "1.5e-320"},
	    {-0x1.ad7f29abcaf48p-24, "-1e-07"},
	    {0x1.5ee2a2eb5a5c4p+53, "1.2345678901234568e+16"},
	    {0x1.0624dd2f1a9fcp-10, "0.001"},
	    {0x1.930be0ded288dp-7, "0.0123"},
	};
	uint64_t seed = 88172645463325252u;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct mc_json *real = mc_json_new_real(rows[i].value);

		assert_written(real, MC_JSON_COMPACT, rows[i].text);
		mc_json_free(real);
	}
	/* Any bits come back, still as a real number. */
	for (int i = 0; i < 20000; i++) {
		double value;

		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		memcpy(&value, &seed, sizeof(value));
		if (!isfinite(value))
			continue;
		struct mc_error err;
		struct mc_buf out;
		struct mc_json *real = mc_json_new_real(value);
		mc_error_init(&err);
		mc_buf_init(&out, 100);
		assert_true(mc_json_write(real, MC_JSON_COMPACT, &out, &err));
		struct mc_json *back = mc_json_parse(out.data, out.length, "back", &err);
		assert_int_equal(mc_json_type(back), MC_JSON_REAL);
		double number = mc_json_number(back);
		assert_memory_equal(&number, &value, sizeof(value));
		mc_json_free(back);
		mc_json_free(real);
		mc_buf_release(&out);
	}
	struct mc_json *null = mc_json_new_real(NAN);
	assert_true(mc_json_is_null(null));
	null = mc_json_new_real(-INFINITY);
	assert_written(null, MC_JSON_COMPACT, "null");
}

/* With a decimal comma, where the machine has such a locale. */
static void test_locale(void **state)
{
	static const char *const names[] = {
	    "de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "nl_NL.UTF-8"};
	bool found = false;

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && !found; i++)
		found = setlocale(LC_NUMERIC, names[i]) != NULL;
	if (!found)
		skip();
	struct mc_json *root = parse("[1.5,1e-07,0.1]");
	assert_non_null(root);
	assert_true(mc_json_number(mc_json_at(root, 0)) == 1.5);
	assert_written(root, MC_JSON_COMPACT, "[1.5,1e-07,0.1]");
	mc_json_free(root);
	setlocale(LC_NUMERIC, "C");
}

static void test_order_of_members(void **state)
{
	struct mc_json *root =
	    parse("{\"z\":1,\"a\":{\"y\":[],\"b\":{}},\"m\":[1,2],\"\\u00e4\":0,\"A\":0}");
	struct mc_error err;
	const char *key = NULL;
	const char keys[] = "zam";

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		assert_non_null(mc_json_member(root, i, &key));
		assert_int_equal(key[0], keys[i]);
	}
	assert_null(mc_json_member(root, 5, &key));
	assert_null(mc_json_member(mc_json_get(root, "m"), 0, &key));
	assert_null(mc_json_member(NULL, 0, &key));
	assert_written(root, MC_JSON_COMPACT,
	    "{\"z\":1,\"a\":{\"y\":[],\"b\":{}},\"m\":[1,2],\"\xc3\xa4\":0,\"A\":0}");
	assert_written(root, MC_JSON_SORTED,
	    "{\"A\":0,\"a\":{\"b\":{},\"y\":[]},\"m\":[1,2],\"z\":1,\"\xc3\xa4\":0}");
	assert_written(root, MC_JSON_PRETTY,
	    "{\n  \"z\": 1,\n  \"a\": {\n    \"y\": [],\n    \"b\": {}\n  },\n  \"m\": [\n    1,\n "
	    "   2\n  ],\n"
	    "  \"\xc3\xa4\": 0,\n  \"A\": 0\n}\n");
	/* A replaced value keeps its place; a removed and set one goes to the end. */
	mc_error_init(&err);
	assert_true(mc_json_set(root, "z", mc_json_new_string("new"), &err));
	assert_true(mc_json_remove(root, "a"));
	assert_false(mc_json_remove(root, "a"));
	assert_true(mc_json_remove(root, "m"));
	assert_true(mc_json_remove(root, "A"));
	assert_true(mc_json_set(root, "a", mc_json_new_bool(true), &err));
	assert_written(root, MC_JSON_COMPACT, "{\"z\":\"new\",\"\xc3\xa4\":0,\"a\":true}");
	mc_json_free(root);
}

static void test_walk(void **state)
{
	struct mc_json *root = mc_json_new_object();
	struct mc_error err;
	char name[20];
	int64_t n = 0;

	(void)state;
	mc_error_init(&err);
	for (int i = 0; i < 5000; i++) {
		snprintf(name, sizeof(name), "%d", (i * 7919) % 5000);
		assert_true(mc_json_set(root, name, mc_json_new_integer(i), &err));
	}
	struct mc_json_iter member = mc_json_iter(root);
	while (mc_json_next(&member)) {
		snprintf(name, sizeof(name), "%" PRId64, (n * 7919) % 5000);
		assert_string_equal(member.key, name);
		assert_true(mc_json_integer(member.value) == n);
		n++;
	}
	assert_int_equal(n, 5000);
	assert_false(mc_json_next(&member));
	mc_json_free(root);
	struct mc_json *text = mc_json_new_string("no object");
	member = mc_json_iter(text);
	assert_false(mc_json_next(&member));
	member = mc_json_iter(NULL);
	assert_false(mc_json_next(&member));
	mc_json_free(text);
}

static void test_strings(void **state)
{
	static const char text[] =
	    "[\"a\\\"\\\\/"
	    "\\b\\f\\n\\r\\t\\u0000\\u0001\\u001f\x7f\xc3\xa4\xe2\x80\xa8\xf0\x9f\x98\x80\",\"\"]";
	struct mc_json *root = parse(text), *back;
	struct mc_json *bad = mc_json_new_string("\xff");
	struct mc_error err;

	(void)state;
	assert_written(root, MC_JSON_COMPACT, text);
	back = parse(text);
	assert_true(mc_json_equal(root, back));
	mc_json_free(back);
	assert_null(bad);
	mc_error_init(&err);
	assert_false(mc_json_append(root, bad, &err));
	assert_int_equal(err.code, MC_NO_MEMORY);
	assert_int_equal(mc_json_size(root), 2);
	mc_json_free(root);
	root = mc_json_new_object();
	mc_error_init(&err);
	assert_false(mc_json_set(root, "\xff", mc_json_new_array(), &err)); /* the child is freed */
	assert_int_equal(err.code, MC_INVALID);
	mc_error_init(&err);
	assert_false(mc_json_set(root, "key", NULL, &err));
	assert_int_equal(err.code, MC_NO_MEMORY);
	assert_written(root, MC_JSON_COMPACT, "{}");
	assert_written(root, MC_JSON_PRETTY, "{}\n");
	mc_json_free(root);
}

static void test_copy_and_equal(void **state)
{
	struct mc_json *root = parse("{\"a\":[1,{\"b\":null}],\"c\":1.5}");
	struct mc_json *same = parse("{\"c\":1.5,\"a\":[1,{\"b\":null}]}");
	struct mc_error err;
	struct mc_json *copy;

	(void)state;
	mc_error_init(&err);
	copy = mc_json_copy(root, &err);
	assert_true(mc_json_equal(root, copy));
	assert_true(mc_json_equal(root, same)); /* order does not matter */
	assert_true(mc_json_set(copy, "c", mc_json_new_real(2.5), &err));
	assert_false(mc_json_equal(root, copy));
	assert_true(mc_json_number(mc_json_get(root, "c")) == 1.5);
	assert_false(mc_json_equal(root, NULL));
	mc_json_free(root);
	assert_written(copy, MC_JSON_COMPACT, "{\"a\":[1,{\"b\":null}],\"c\":2.5}");
	mc_json_free(copy);
	mc_json_free(same);
}

static void test_write_keeps_the_maximum(void **state)
{
	struct mc_json *root = parse("{\"name\":[1,2,3,4,5,6,7,8]}");
	struct mc_error err;
	struct mc_buf out;

	(void)state;
	mc_error_init(&err);
	mc_buf_init(&out, 20);
	assert_true(mc_buf_add(&out, "data: ", 6, &err));
	assert_false(mc_json_write(root, MC_JSON_COMPACT, &out, &err));
	assert_int_equal(err.code, MC_INVALID);
	assert_string_equal(mc_buf_text(&out), "data: ");
	mc_error_init(&err);
	assert_false(mc_json_write(NULL, MC_JSON_COMPACT, &out, &err));
	assert_int_equal(err.code, MC_NO_MEMORY);
	mc_buf_release(&out);
	mc_json_free(root);
}

#ifdef MC_FAULTS
/* Each allocation in turn fails: always an error, never a leak (AddressSanitizer looks). */
static void test_faults(void **state)
{
	bool done = false;
	int n = 0;

	(void)state;
	while (!done) {
		struct mc_error err;
		struct mc_buf out;

		mc_error_init(&err);
		mc_buf_init(&out, 10000);
		mc_fault_arm("alloc", ++n);
		struct mc_json *root = mc_json_new_object();
		done = root && mc_json_set(root, "a", mc_json_new_string("text"), &err) &&
		       mc_json_set(root, "b", mc_json_new_array(), &err) &&
		       mc_json_write(root, MC_JSON_SORTED | MC_JSON_PRETTY, &out, &err);
		mc_fault_disarm();
		if (!done && root)
			assert_int_equal(err.code, MC_NO_MEMORY);
		mc_json_free(root);
		mc_buf_release(&out);
		assert_true(n < 100);
	}
	assert_true(n > 5);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_reading),
	    cmocka_unit_test(test_refused),
	    cmocka_unit_test(test_depth),
	    cmocka_unit_test(test_reals),
	    cmocka_unit_test(test_locale),
	    cmocka_unit_test(test_order_of_members),
	    cmocka_unit_test(test_walk),
	    cmocka_unit_test(test_strings),
	    cmocka_unit_test(test_copy_and_equal),
	    cmocka_unit_test(test_write_keeps_the_maximum),
#ifdef MC_FAULTS
	    cmocka_unit_test(test_faults),
#endif
	};

	return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
