/*
 * test_screen.c - requests, hosts and origins that pass the screen, and those that do not
 */
#include "screen.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define HOST                                                                                       \
	{                                                                                          \
		"Host", "localhost"                                                                \
	}

struct row {
	const char *rule, *version, *uri;
	struct screen_header headers[4];
	const char *where, *text; /* NULL: accepted; text: a part of the sentence */
};

static void screens(const struct row *row)
{
	struct mc_error err;
	size_t count = 0;
	mc_error_init(&err);
	while (count < COUNT(row->headers) && row->headers[count].name)
		count++;
	bool fine = screen_request(row->version, row->uri, row->headers, count, &err);
	if (fine != !row->where)
		fail_msg("%s: %s %s", row->rule, fine ? "accepted" : "refused:", err.text);
	if (fine) {
		assert_int_equal(err.code, MC_OK);
		return;
	}
	assert_int_equal(err.code, MC_INVALID);
	if (strcmp(err.where, row->where) != 0 || !strstr(err.text, row->text))
		fail_msg("%s: %s: %s", row->rule, err.where, err.text);
	for (const char *at = err.text; *at != '\0'; at++)
		if (*at < ' ' || *at > '~')
			fail_msg(
			    "%s: the byte 0x%02x in the sentence", row->rule, (unsigned char)*at);
}

/* --- the request line ---------------------------------------------------------------------- */

static void request_lines(void **state)
{
	static const struct row rows[] = {
	    {"1.1", "HTTP/1.1", "/", {HOST}, NULL, NULL},
	    {"1.0", "HTTP/1.0", "/", {HOST}, NULL, NULL},
	    {"2.0", "HTTP/2.0", "/", {HOST}, "request", "'HTTP/2.0'; HTTP/1.1 or"},
	    {"1.2", "HTTP/1.2", "/", {HOST}, "request", "'HTTP/1.2'"},
	    {"no version", "", "/", {HOST}, "request", "version is ''"},
	    {"small version", "http/1.1", "/", {HOST}, "request", "'http/1.1'"},
	    {"more version", "HTTP/1.1 \x1b[2J", "/", {HOST}, "request", "'HTTP/1.1 ?[2J'"},

	    {"a path", "HTTP/1.1", "/v1/jobs/a_B-9.x~/c", {HOST}, NULL, NULL},
	    {"slash at the end", "HTTP/1.1", "/v1/jobs/", {HOST}, NULL, NULL},
	    {"dots in parts", "HTTP/1.1", "/.a/..b/.../c./d..", {HOST}, NULL, NULL},
	    {"no slash", "HTTP/1.1", "v1", {HOST}, "request", "'v1'; it must begin with '/'"},
	    {"empty", "HTTP/1.1", "", {HOST}, "request", "begin with '/'"},
	    {"query alone", "HTTP/1.1", "?a=b", {HOST}, "request", "begin with '/'"},
	    {"star", "HTTP/1.1", "*", {HOST}, "request", "'*'; it must"},
	    {"proxy", "HTTP/1.1", "http://a/", {HOST}, "request", "'http://a/'; it must"},
	    {"two slashes", "HTTP/1.1", "/v1//jobs", {HOST}, "request", "'//'"},
	    {"two at the start", "HTTP/1.1", "//a", {HOST}, "request", "'//'"},
	    {"two at the end", "HTTP/1.1", "/a//", {HOST}, "request", "'//'"},
	    {"two before ?", "HTTP/1.1", "/a//?b", {HOST}, "request", "'//'"},
	    {"dot", "HTTP/1.1", "/v1/./jobs", {HOST}, "request", "part '.'"},
	    {"dots", "HTTP/1.1", "/v1/../jobs", {HOST}, "request", "part '..'"},
	    {"dot first", "HTTP/1.1", "/./a", {HOST}, "request", "part '.'"},
	    {"dot at the end", "HTTP/1.1", "/a/.", {HOST}, "request", "part '.'"},
	    {"dots at the end", "HTTP/1.1", "/a/..", {HOST}, "request", "part '..'"},
	    {"dots before ?", "HTTP/1.1", "/a/..?b", {HOST}, "request", "part '..'"},
	    {"escape", "HTTP/1.1", "/a%41", {HOST}, "request", "path holds '%'"},
	    {"NUL", "HTTP/1.1", "/healthz%00", {HOST}, "request", "path holds '%'"},
	    {"colon", "HTTP/1.1", "/a:b", {HOST}, "request", "path holds ':'"},
	    {"star in the path", "HTTP/1.1", "/a*", {HOST}, "request", "path holds '*'"},
	    {"space", "HTTP/1.1", "/a b", {HOST}, "request", "path holds the byte 0x20"},
	    {"escape sequence", "HTTP/1.1", "/\x1b[2J", {HOST}, "request",
		"path holds the byte 0x1b"},
	    {"umlaut", "HTTP/1.1", "/\xc3\xa4", {HOST}, "request", "path holds the byte 0xc3"},

	    {"a query", "HTTP/1.1", "/a?b=c,d&e=f+g%20h", {HOST}, NULL, NULL},
	    {"empty query", "HTTP/1.1", "/a?", {HOST}, NULL, NULL},
	    {"parts in the query", "HTTP/1.1", "/a?b=//../.", {HOST}, NULL, NULL},
	    {"? in the query", "HTTP/1.1", "/a?b?c", {HOST}, NULL, NULL},
	    {": and *", "HTTP/1.1", "/a?t=12:30&p=*", {HOST}, NULL, NULL},
	    {"hex", "HTTP/1.1", "/a?b=%01%10%c3%A4%fF", {HOST}, NULL, NULL},
	    {"no hex", "HTTP/1.1", "/a?b=%g0", {HOST}, "request", "without two hex"},
	    {"one digit", "HTTP/1.1", "/a?b=%4", {HOST}, "request", "without two hex"},
	    {"one digit and more", "HTTP/1.1", "/a?b=%4&c", {HOST}, "request", "without two hex"},
	    {"no digit", "HTTP/1.1", "/a?b=%", {HOST}, "request", "without two hex"},
	    {"two %", "HTTP/1.1", "/a?b=%%00", {HOST}, "request", "without two hex"},
	    {"NUL in the query", "HTTP/1.1", "/a?b=%41%00", {HOST}, "request", "holds %00"},
	    {"fragment", "HTTP/1.1", "/a?b#c", {HOST}, "request", "query holds '#'"},
	    {"newline", "HTTP/1.1", "/a?b\n", {HOST}, "request", "query holds the byte 0x0a"},
	};
	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		screens(&rows[i]);
}

static void bytes_of_the_target(void **state)
{
	static const char words[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
	const struct screen_header host = HOST;
	struct mc_error err;
	(void)state;
	for (int byte = 1; byte < 256; byte++) {
		char path[] = "/ax", query[] = "/a?x";
		bool word = strchr(words, byte) != NULL;
		path[2] = query[3] = (char)byte;
		mc_error_init(&err);
		assert_int_equal(screen_request("HTTP/1.1", path, &host, 1, &err),
		    word || strchr("/_.~?=&,+-", byte) != NULL);
		mc_error_init(&err);
		assert_int_equal(screen_request("HTTP/1.1", query, &host, 1, &err),
		    word || strchr("/_.~?=&,+-:*", byte) != NULL);
	}
}

static void length_of_the_target(void **state)
{
	static char uri[SCREEN_MAX_URI + 2];
	struct row row = {"longest", "HTTP/1.1", uri, {HOST}, NULL, NULL};
	(void)state;
	memset(uri, 'a', sizeof(uri) - 1);
	uri[0] = '/';
	uri[SCREEN_MAX_URI] = '\0';
	screens(&row);
	uri[SCREEN_MAX_URI] = 'a';
	row.where = "request";
	row.text = "more than 4096 bytes";
	screens(&row);
}

/* --- headers ------------------------------------------------------------------------------- */

#define ROW(rule, ...)                                                                             \
	{                                                                                          \
		rule, "HTTP/1.1", "/", {__VA_ARGS__}, NULL, NULL                                   \
	}
#define BAD(rule, where, text, ...)                                                                \
	{                                                                                          \
		rule, "HTTP/1.1", "/", {__VA_ARGS__}, where, text                                  \
	}

static void header_lines(void **state)
{
	static const struct row rows[] = {
	    ROW("any case", {"hOST", "a"}),
	    BAD("no Host", "Host", "Host is missing; HTTP/1.1", {"Accept", "*/*"}),
	    BAD("two Hosts", "Host", "Host is there more than once", HOST, HOST),
	    BAD("in another case", "Host", "more than once", HOST, {"host", "b"}),
	    {"1.0 without Host", "HTTP/1.0", "/", {{"Accept", "*/*"}}, NULL, NULL},
	    {"1.0, two Hosts", "HTTP/1.0", "/", {HOST, HOST}, "Host", "more than once"},

	    ROW("length", HOST, {"Content-Length", "0123456789"}),
	    ROW("small letters", HOST, {"content-length", "4"}),
	    BAD("sign", "Content-Length", "is '+4'; digits", HOST, {"Content-Length", "+4"}),
	    BAD("minus", "Content-Length", "is '-4'; digits", HOST, {"content-LENGTH", "-4"}),
	    BAD("empty", "Content-Length", "is ''; digits", HOST, {"Content-Length", ""}),
	    BAD("list", "Content-Length", "is '4, 4'", HOST, {"Content-Length", "4, 4"}),
	    BAD("hex", "Content-Length", "is '0x4'", HOST, {"Content-Length", "0x4"}),
	    BAD("space", "Content-Length", "is '4 '", HOST, {"Content-Length", "4 "}),
	    BAD("tab", "Content-Length", "is '4?'", HOST, {"Content-Length", "4\t"}),
	    BAD("digits of others", "Content-Length", "is '?\?'", HOST,
		{"Content-Length", "\xd9\xa4"}),
	    BAD("two", "Content-Length", "more than once", HOST, {"Content-Length", "4"},
		{"content-length", "4"}),

	    ROW("coding", HOST, {"Transfer-Encoding", "chunked"}),
	    BAD("capital", "Transfer-Encoding", "is 'Chunked'; only 'chunked'", HOST,
		{"Transfer-Encoding", "Chunked"}),
	    BAD("another", "Transfer-Encoding", "is 'gzip, chunked'", HOST,
		{"Transfer-Encoding", "gzip, chunked"}),
	    BAD("trailing", "Transfer-Encoding", "is 'chunked '", HOST,
		{"Transfer-Encoding", "chunked "}),
	    BAD("identity", "Transfer-Encoding", "is 'identity'", HOST,
		{"Transfer-Encoding", "identity"}),
	    BAD("empty coding", "Transfer-Encoding", "is ''", HOST, {"Transfer-Encoding", ""}),
	    BAD("two codings", "Transfer-Encoding", "more than once", HOST,
		{"Transfer-Encoding", "chunked"}, {"Transfer-encoding", "chunked"}),
	    BAD("both", "Content-Length", "and Transfer-Encoding are both there", HOST,
		{"Content-Length", "4"}, {"Transfer-Encoding", "chunked"}),
	    BAD("both turned", "Content-Length", "and Transfer-Encoding are both there",
		{"transfer-encoding", "chunked"}, {"content-length", "4"}, HOST),

	    ROW("expectation", HOST, {"Expect", "100-continue"}),
	    ROW("in capitals", HOST, {"Expect", "100-Continue"}),
	    BAD("another", "Expect", "is 'a-miracle'; only '100-continue'", HOST,
		{"Expect", "a-miracle"}),
	    BAD("more", "Expect", "is '100-continue, x'", HOST, {"Expect", "100-continue, x"}),
	    BAD("empty", "Expect", "is ''", HOST, {"Expect", ""}),

	    BAD("no name", "request", "Header 2 has no name", HOST, {"", "a"}),
	    BAD("space behind", "request", "name of header 1 holds the byte 0x20", {"Host ", "a"}),
	    BAD("space before", "request", "name of header 2 holds the byte 0x20", HOST,
		{" X", "a"}),
	    BAD("folded", "request", "name of header 2 holds the byte 0x09", HOST, {"X-A\t2", "1"}),
	    BAD("colon", "request", "name of header 2 holds ':'", HOST, {"X:A", "1"}),
	    ROW("empty value", HOST, {"X-A", ""}),
	    ROW("tab in a value", HOST, {"X-A", "a\tb"}),
	    ROW("umlaut in a value", HOST, {"X-A", "\xc3\xa4\xff"}),
	    BAD("newline", "X-A", "X-A holds the byte 0x0a", HOST, {"X-A", "a\nb"}),
	    BAD("delete", "X-A", "X-A holds the byte 0x7f", HOST, {"X-A", "\x7f"}),
	};
	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		screens(&rows[i]);
}

static void bytes_of_headers(void **state)
{
	static const char separators[] = "()<>@,;:\\\"/[]?={} ";
	struct mc_error err;
	(void)state;
	for (int byte = 1; byte < 256; byte++) {
		char text[] = "Xx";
		const struct screen_header name[] = {HOST, {text, ""}},
					   value[] = {HOST, {"X", text}};
		bool control = byte < 32 || byte == 127;
		text[1] = (char)byte;
		mc_error_init(&err);
		assert_int_equal(screen_request("HTTP/1.1", "/", name, 2, &err),
		    !control && byte < 128 && !strchr(separators, byte));
		mc_error_init(&err);
		assert_int_equal(
		    screen_request("HTTP/1.1", "/", value, 2, &err), !control || byte == '\t');
	}
}

static void some_headers_come_once(void **state)
{
	static const struct {
		const char *name, *small, *value;
	} once[] = {
	    {"Content-Type", "content-type", "text/plain"},
	    {"Authorization", "authorization", "Bearer a"},
	    {"Accept", "accept", "*/*"},
	    {"If-None-Match", "if-none-match", "\"v1\""},
	    {"Range", "range", "bytes=0-1"},
	    {"Idempotency-Key", "idempotency-key", "k"},
	    {"Last-Event-ID", "last-event-id", "3"},
	    {"Origin", "origin", "http://localhost"},
	    {"Expect", "expect", "100-continue"},
	};
	static const struct row others = ROW("any other", HOST, {"X-A", "1"}, {"x-a", "1"});
	(void)state;
	for (size_t i = 0; i < COUNT(once); i++) {
		struct row row = ROW(once[i].name, HOST, {once[i].name, once[i].value});
		screens(&row);
		row.headers[2] = (struct screen_header){once[i].small, once[i].value};
		row.where = once[i].name;
		row.text = "is there more than once";
		screens(&row);
		assert_int_equal(strncasecmp(row.where, once[i].small, 64), 0);
	}
	screens(&others);
}

static void number_of_headers(void **state)
{
	struct screen_header headers[SCREEN_MAX_HEADERS + 1] = {HOST};
	struct mc_error err;
	(void)state;
	for (size_t i = 1; i < COUNT(headers); i++)
		headers[i] = (struct screen_header){"X-A", "1"};
	mc_error_init(&err);
	assert_true(screen_request("HTTP/1.1", "/", headers, SCREEN_MAX_HEADERS, &err));
	assert_false(screen_request("HTTP/1.1", "/", headers, SCREEN_MAX_HEADERS + 1, &err));
	assert_string_equal(err.where, "request");
	assert_non_null(strstr(err.text, "more than 64 headers"));
	mc_error_init(&err);
	assert_true(screen_request("HTTP/1.0", "/", NULL, 0, &err));
}

static void long_words_are_cut(void **state)
{
	static char word[10000];
	const struct screen_header length[] = {HOST, {"Content-Length", word}};
	const struct screen_header name[] = {HOST, {word, "\n"}};
	struct mc_error err;
	(void)state;
	memset(word, 'a', sizeof(word) - 1);
	mc_error_init(&err);
	assert_false(screen_request("HTTP/1.1", "/", length, 2, &err));
	assert_non_null(strstr(err.text, "aaa'; digits are needed and nothing else."));
	mc_error_init(&err);
	assert_false(screen_request("HTTP/1.1", "/", name, 2, &err));
	assert_non_null(strstr(err.text, "a holds the byte 0x0a; a value has no"));
	mc_error_init(&err);
	assert_false(screen_request(word, "/", name, 1, &err));
	assert_non_null(strstr(err.text, "aaa'; HTTP/1.1 or"));
}

/* --- hosts and origins --------------------------------------------------------------------- */

static void hosts(void **state)
{
	static char named[] = "Calib.Example", with_port[] = "gpu-7:8460", six[] = "[fd00::7]:80",
		    four[] = "10.0.0.7", odd[] = "a b", none[] = "";
	static char *const allowed[] = {named, with_port, six, four, odd, none};
	static const struct {
		const char *host;
		bool alone, with; /* without and with the list */
	} rows[] = {
	    {"localhost", true, true},
	    {"LocalHost", true, true},
	    {"localhost:8460", true, true},
	    {"localhost:1", true, true},
	    {"localhost:65535", true, true},
	    {"a.localhost", true, true},
	    {"a.b-c_d.LOCALHOST:80", true, true},
	    {"127.0.0.1", true, true},
	    {"127.0.0.1:8460", true, true},
	    {"127.255.3.9", true, true},
	    {"[::1]", true, true},
	    {"[::1]:8460", true, true},
	    {"[0:0:0:0:0:0:0:1]", true, true},

	    {"calib.example", false, true},
	    {"CALIB.example:9", false, true},
	    {"gpu-7", false, true},
	    {"GPU-7:1234", false, true},
	    {"[fd00::7]", false, true},
	    {"[FD00:0::7]:8460", false, true},
	    {"10.0.0.7:8460", false, true},

	    {"evil.example", false, false},
	    {"evilcalib.example", false, false},
	    {"calib.example.evil", false, false},
	    {"calib.exampl", false, false},
	    {"evillocalhost", false, false},
	    {"localhost.evil", false, false},
	    {".localhost", false, false},
	    {"a..localhost", false, false},
	    {"localhost.", false, false},
	    {"127.0.0.1.evil", false, false},
	    {"127.1", false, false},
	    {"127.0.0.256", false, false},
	    {"0177.0.0.1", false, false},
	    {"0127.0.0.1", false, false},
	    {"127.0.0.01", false, false},
	    {"0x7f.0.0.1", false, false},
	    {"2130706433", false, false},
	    {"128.0.0.1", false, false},
	    {"0.0.0.0", false, false},
	    {"10.0.0.8", false, false},
	    {"::1", false, false},
	    {"[::1", false, false},
	    {"[]", false, false},
	    {"[", false, false},
	    {"[::2]", false, false},
	    {"[::]", false, false},
	    {"[::1%lo]", false, false},
	    {"[::1]x", false, false},
	    {"[::ffff:127.0.0.1]", false, false},
	    {"[127.0.0.1]", false, false},
	    {"[localhost]", false, false},
	    {"[fd00::7", false, false},
	    {"[1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb]", false, false},

	    {"", false, false},
	    {":80", false, false},
	    {"localhost:", false, false},
	    {"localhost:0", false, false},
	    {"localhost:65536", false, false},
	    {"localhost:4294967376", false, false},
	    {"localhost:+80", false, false},
	    {"localhost:80a", false, false},
	    {"localhost:80:80", false, false},
	    {"calib.example:http", false, false},
	    {"[::1]:", false, false},
	    {"[::1]:x", false, false},
	    {" localhost", false, false},
	    {"localhost ", false, false},
	    {"localhost, evil", false, false},
	    {"user@localhost", false, false},
	    {"localhost/", false, false},
	    {"localhost\\", false, false},
	    {"http://localhost", false, false},
	    {"loc\xc3\xa4lhost", false, false},
	    {"a b", false, false},
	};
	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++) {
		if (screen_host(rows[i].host, NULL, 0) != rows[i].alone)
			fail_msg("without a list: '%s'", rows[i].host);
		if (screen_host(rows[i].host, allowed, COUNT(allowed)) != rows[i].with)
			fail_msg("with a list: '%s'", rows[i].host);
	}
	assert_false(screen_host(NULL, allowed, COUNT(allowed)));
}

static void origins(void **state)
{
	static const struct {
		const char *origin, *host;
		bool same;
	} rows[] = {
	    {"http://localhost:8460", "localhost:8460", true},
	    {"http://LOCALHOST:8460", "localhost:8460", true},
	    {"http://a.example", "A.example", true},
	    {"https://a.example", "a.example", true},
	    {"HTTPS://a.example", "a.example", true},
	    {"http://a.example", "a.example:80", true},
	    {"http://a.example:80", "a.example", true},
	    {"https://a.example", "a.example:443", true},
	    {"https://a.example:443", "a.example", true},
	    {"http://[::1]:8460", "[::1]:8460", true},
	    {"http://[::1]", "[0::1]", true},
	    {"http://127.0.0.1:8460", "127.0.0.1:8460", true},

	    {"http://b.example", "a.example", false},
	    {"http://a.example", "a.example.evil", false},
	    {"http://a.example.evil", "a.example", false},
	    {"http://localhost:8461", "localhost:8460", false},
	    {"http://localhost", "localhost:8460", false},
	    {"http://localhost:8460", "localhost", false},
	    {"http://a.example", "a.example:443", false},
	    {"https://a.example", "a.example:80", false},
	    {"http://a.example:443", "a.example", false},
	    {"https://a.example:80", "a.example", false},
	    {"http://127.0.0.1:8460", "localhost:8460", false},
	    {"http://[::1]:8460", "localhost:8460", false},
	    {"http://localhost", "[::1]", false},

	    {"null", "null", false},
	    {"", "", false},
	    {"", "localhost", false},
	    {"http://", "localhost", false},
	    {"http://", "", false},
	    {"localhost", "localhost", false},
	    {"//localhost", "localhost", false},
	    {"http:localhost", "localhost", false},
	    {"ftp://localhost", "localhost", false},
	    {"file://localhost", "localhost", false},
	    {"http://localhost/", "localhost", false},
	    {"http://localhost?", "localhost", false},
	    {"http://localhost:", "localhost", false},
	    {"http://localhost:x", "localhost:x", false},
	    {"http://user@localhost", "localhost", false},
	    {"http://localhost@evil", "localhost", false},
	    {"http://localhost http://evil", "localhost", false},
	    {" http://localhost", "localhost", false},
	    {"http://a b", "a b", false},
	    {"http://localhost", "", false},
	    {"http://localhost", "localhost:", false},
	};
	(void)state;
	for (size_t i = 0; i < COUNT(rows); i++)
		if (screen_origin(rows[i].origin, rows[i].host) != rows[i].same)
			fail_msg("'%s' to '%s'", rows[i].origin, rows[i].host);
	assert_false(screen_origin(NULL, "localhost"));
	assert_false(screen_origin("http://localhost", NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(request_lines),
	    cmocka_unit_test(bytes_of_the_target),
	    cmocka_unit_test(length_of_the_target),
	    cmocka_unit_test(header_lines),
	    cmocka_unit_test(bytes_of_headers),
	    cmocka_unit_test(some_headers_come_once),
	    cmocka_unit_test(number_of_headers),
	    cmocka_unit_test(long_words_are_cut),
	    cmocka_unit_test(hosts),
	    cmocka_unit_test(origins),
	};
	return cmocka_run_group_tests_name("screen", tests, NULL, NULL);
}
