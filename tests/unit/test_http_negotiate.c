/*
 * test_http_negotiate.c - Accept, If-None-Match, Range and UTF-8 without a server; the seat table
 */
#include "http_parts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static void accept_weighs_types(void **state)
{
	static const struct {
		const char *accept, *type;
		unsigned quality;
	} cases[] = {
	    {"text/html", "text/html", 1000},
	    {"TEXT/HTML", "text/html", 1000},
	    {"text/html", "text/plain", 0},
	    {"text/*", "text/plain", 1000},
	    {"text/*;q=0.5", "text/plain", 500},
	    {"*/*;q=0.125", "a/b", 125},
	    {"text/html;q=0, */*", "text/html", 0},
	    {"*/*;q=0.1, text/html;q=0.9", "text/html", 900},
	    {"text/html;level=1;q=0.3", "text/html", 300},
	    {"text/html ; q=0.3", "text/html", 300},
	    {"text/html;q=1.000", "text/html", 1000},
	    {"text/html;q=0", "text/html", 0},
	    {"text/html;q=0.12345", "text/html", 123},
	    {"a/b,,text/event-stream", "text/event-stream", 1000},
	    {"text/plain", "text/plain; version=0.0.4", 1000},
	    {"texts/*", "text/plain", 0},
	    {"tex*/*", "text/plain", 0},
	    {"", "text/plain", 0},
	};
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(
		    http_accept_quality(cases[i].accept, cases[i].type), cases[i].quality);
}

static void tags_are_compared_weakly(void **state)
{
	(void)state;
	assert_true(http_tag_matches("\"v7\"", "\"v7\""));
	assert_true(http_tag_matches("W/\"v7\"", "\"v7\""));
	assert_true(http_tag_matches("\"v6\", W/\"a,b\" ,\"v7\"", "\"v7\""));
	assert_true(http_tag_matches(" * ", "\"v7\""));
	assert_false(http_tag_matches("\"v70\"", "\"v7\""));
	assert_false(http_tag_matches("v7", "\"v7\""));
	assert_false(http_tag_matches("\"v7", "\"v7\""));
	assert_false(http_tag_matches("\"a\\\"v7\"", "\"v7\""));
	assert_false(http_tag_matches("", "\"v7\""));
}

static void ranges_are_parsed(void **state)
{
	static const struct {
		const char *value;
		uint64_t bytes;
		enum http_range kind;
		uint64_t first, last;
	} cases[] = {
	    {"bytes=0-0", 10, RANGE_PART, 0, 0},
	    {"bytes=2-5", 10, RANGE_PART, 2, 5},
	    {"Bytes=2-5", 10, RANGE_PART, 2, 5},
	    {"bytes=2-", 10, RANGE_PART, 2, 9},
	    {"bytes=2-99", 10, RANGE_PART, 2, 9},
	    {"bytes=2-99999999999999999999999", 10, RANGE_PART, 2, 9},
	    {"bytes=-3", 10, RANGE_PART, 7, 9},
	    {"bytes=-30", 10, RANGE_PART, 0, 9},
	    {"bytes=-0", 10, RANGE_OUTSIDE, 0, 0},
	    {"bytes=10-", 10, RANGE_OUTSIDE, 0, 0},
	    {"bytes=18446744073709551615-", 10, RANGE_OUTSIDE, 0, 0},
	    {"bytes=99999999999999999999999-", 10, RANGE_OUTSIDE, 0, 0},
	    {"bytes=0-", 0, RANGE_OUTSIDE, 0, 0},
	    {"bytes=-1", 0, RANGE_OUTSIDE, 0, 0},
	    {"bytes=5-2", 10, RANGE_WHOLE, 0, 0},
	    {"bytes=0-1,4-5", 10, RANGE_WHOLE, 0, 0},
	    {"bytes=-", 10, RANGE_WHOLE, 0, 0},
	    {"bytes=", 10, RANGE_WHOLE, 0, 0},
	    {"bytes=a-b", 10, RANGE_WHOLE, 0, 0},
	    {"bytes=1-2x", 10, RANGE_WHOLE, 0, 0},
	    {"bytes=1", 10, RANGE_WHOLE, 0, 0},
	    {"lines=1-2", 10, RANGE_WHOLE, 0, 0},
	    {"", 10, RANGE_WHOLE, 0, 0},
	};
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t first = 0, last = 0;
		assert_int_equal(http_range_parse(cases[i].value, cases[i].bytes, &first, &last),
		    cases[i].kind);
		if (cases[i].kind != RANGE_PART)
			continue;
		assert_int_equal(first, cases[i].first);
		assert_int_equal(last, cases[i].last);
	}
}

static void utf8_is_checked(void **state)
{
	static const char *const bad[] = {"\x80", "\xc0\x80", "\xc3", "\xe0\x80\x80", "\xed\xa0\x80",
	    "\xf0\x80\x80\x80", "\xf4\x90\x80\x80", "\xff", "a\xe2\x82"};
	(void)state;
	assert_true(http_is_utf8("", 0));
	assert_true(http_is_utf8("a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80z", 11));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(http_is_utf8(bad[i], strlen(bad[i])));
}

static bool is_shut(int fd)
{
	char byte;
	return recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 0;
}

static void seats_know_who_is_late(void **state)
{
	const struct seat_limits limits = {.idle_ms = 100, .request_ms = 300, .upload_ms = 900};
	struct mc_error err;
	int pairs[4][2];
	(void)state;
	mc_error_init(&err);
	struct seats *seats = seats_new(3, 0, &err);
	assert_non_null(seats);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pairs[i]), 0);
	struct seat *idle = seats_take(seats, pairs[0][0], 1000);
	struct seat *drip = seats_take(seats, pairs[1][0], 1000);
	struct seat *busy = seats_take(seats, pairs[2][0], 1000);
	assert_null(seats_take(seats, pairs[3][0], 1000));
	assert_true(seats_full(seats));
	seat_enter(seats, drip, SEAT_RECEIVING, 1010);
	seat_enter(seats, busy, SEAT_ANSWERING, 1010);

	assert_int_equal(seats_cut(seats, &limits, 1099), 0);
	assert_false(is_shut(pairs[0][1]));
	assert_int_equal(seats_cut(seats, &limits, 1100), 0); /* not in the middle of a request */
	assert_true(is_shut(pairs[0][1]));
	seats_leave(seats, idle);
	assert_int_equal(seats_count(seats), 2);

	for (int64_t now = 1100; now < 1300; now += 50) {
		seat_touch(seats, drip, now);
		assert_int_equal(seats_cut(seats, &limits, now), 0);
	}
	assert_int_equal(seats_cut(seats, &limits, 1300), 1);
	assert_int_equal(seats_cut(seats, &limits, 1300), 0); /* once */
	assert_true(is_shut(pairs[1][1]));
	assert_int_equal(seats_cut(seats, &limits, 100000), 0);
	assert_false(is_shut(pairs[2][1]));

	/* after an answer the time begins anew; an upload has longer, until it is refused */
	seat_enter(seats, busy, SEAT_WAITING, 2000);
	seat_enter(seats, busy, SEAT_RECEIVING, 2010);
	seat_upload(seats, busy);
	seat_touch(seats, busy, 2500);
	assert_int_equal(seats_cut(seats, &limits, 2510), 0);
	seat_hurry(seats, busy, 2550);
	assert_int_equal(seats_cut(seats, &limits, 2549), 0);
	assert_int_equal(seats_cut(seats, &limits, 2550), 1);
	assert_true(is_shut(pairs[2][1]));
	for (size_t i = 0; i < 4; i++) {
		close(pairs[i][0]);
		close(pairs[i][1]);
	}
	seats_free(seats);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(accept_weighs_types),
	    cmocka_unit_test(tags_are_compared_weakly),
	    cmocka_unit_test(ranges_are_parsed),
	    cmocka_unit_test(utf8_is_checked),
	    cmocka_unit_test(seats_know_who_is_late),
	};
	return cmocka_run_group_tests_name("http_negotiate", tests, NULL, NULL);
}
