/*
 * test_router.c - paths against patterns
 */
#include "router.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void handler(struct service *service, struct http_request *request,
    struct http_response *response)
{
	(void)service;
	(void)request;
	(void)response;
}

static const struct route table[] = {
    {HTTP_GET, "/", SCOPE_NONE, BODY_NONE, handler, .query = NULL},
    {HTTP_GET, "/v1/jobs", SCOPE_READ, BODY_NONE, handler, .query = NULL},
    {HTTP_POST, "/v1/jobs", SCOPE_SUBMIT, BODY_JSON, handler, .query = NULL},
    {HTTP_GET, "/v1/jobs/newest", SCOPE_READ, BODY_NONE, handler, .query = NULL},
    {HTTP_GET, "/v1/jobs/{id}", SCOPE_READ, BODY_NONE, handler, .query = NULL},
    {HTTP_DELETE, "/v1/jobs/{id}", SCOPE_SUBMIT, BODY_NONE, handler, .query = NULL},
    {HTTP_GET, "/v1/jobs/{id}/artifacts", SCOPE_READ, BODY_NONE, handler, .query = NULL},
    {HTTP_GET, "/v1/jobs/{id}/artifacts/{path...}", SCOPE_READ, BODY_NONE, handler, .query = NULL},
    {HTTP_POST, "/v1/jobs/{id}/cancel", SCOPE_SUBMIT, BODY_NONE, handler, .query = NULL},
    {0},
};

static bool same(struct router_span span, const char *text)
{
	return span.length == strlen(text) && memcmp(span.start, text, span.length) == 0;
}

static void finds_the_row(void **state)
{
	static const struct {
		const char *method, *path;
		int row; /* -1: no such path, -2: not with this method */
		const char *first, *second;
	} cases[] = {
	    {"GET", "/", 0, NULL, NULL},
	    {"HEAD", "/", 0, NULL, NULL},
	    {"GET", "/v1/jobs", 1, NULL, NULL},
	    {"POST", "/v1/jobs", 2, NULL, NULL},
	    {"HEAD", "/v1/jobs", 1, NULL, NULL},
	    {"PUT", "/v1/jobs", -2, NULL, NULL},
	    {"get", "/v1/jobs", -2, NULL, NULL},
	    {"GET", "/v1/jobs/", -1, NULL, NULL},
	    {"GET", "/v1/job", -1, NULL, NULL},
	    {"GET", "/v1/jobsx", -1, NULL, NULL},
	    {"GET", "", -1, NULL, NULL},
	    {"GET", "/v1/jobs/newest", 3, NULL, NULL},
	    {"DELETE", "/v1/jobs/newest", 5, "newest", NULL},
	    {"GET", "/v1/jobs/job_A.b-9", 4, "job_A.b-9", NULL},
	    {"POST", "/v1/jobs/job_1", -2, NULL, NULL},
	    {"GET", "/v1/jobs/.", -1, NULL, NULL},
	    {"GET", "/v1/jobs/..", -1, NULL, NULL},
	    {"GET", "/v1/jobs/...", 4, "...", NULL},
	    {"GET", "/v1/jobs/a~b", -1, NULL, NULL},
	    {"GET", "/v1/jobs/a/artifacts", 6, "a", NULL},
	    {"GET", "/v1/jobs/a/artifacts/", -1, NULL, NULL},
	    {"GET", "/v1/jobs/a/artifacts/m/c.json", 7, "a", "m/c.json"},
	    {"GET", "/v1/jobs/a/artifacts/m//c", -1, NULL, NULL},
	    {"GET", "/v1/jobs/a/artifacts/m/", -1, NULL, NULL},
	    {"GET", "/v1/jobs/a/artifacts/../../b", -1, NULL, NULL},
	    {"GET", "/v1/jobs/a/artifacts/m/..", -1, NULL, NULL},
	    {"GET", "/v1/jobs/a/cancel", -2, NULL, NULL},
	    {"POST", "/v1/jobs//cancel", -1, NULL, NULL},
	    {"POST", "/v1/jobs/a/cancel", 8, "a", NULL},
	};
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct router_found found;
		enum router_outcome outcome =
		    router_find(table, cases[i].method, cases[i].path, &found);
		if (cases[i].row < 0) {
			assert_int_equal(
			    outcome, cases[i].row == -1 ? ROUTER_NO_PATH : ROUTER_NO_METHOD);
			assert_null(found.route);
			continue;
		}
		assert_int_equal(outcome, ROUTER_FOUND);
		assert_ptr_equal(found.route, &table[cases[i].row]);
		assert_int_equal(found.count, !!cases[i].first + !!cases[i].second);
		if (cases[i].first)
			assert_true(same(found.parameters[0], cases[i].first));
		if (cases[i].second)
			assert_true(same(found.parameters[1], cases[i].second));
	}
}

static void names_the_methods_of_a_path(void **state)
{
	struct router_found found;
	(void)state;
	router_find(table, "PATCH", "/v1/jobs", &found);
	assert_string_equal(found.allow, "GET, HEAD, POST");
	router_find(table, "PATCH", "/v1/jobs/a", &found);
	assert_string_equal(found.allow, "GET, HEAD, DELETE");
	router_find(table, "GET", "/v1/jobs/a/cancel", &found);
	assert_string_equal(found.allow, "POST");
	router_find(table, "GET", "/v2", &found);
	assert_string_equal(found.allow, "");
}

static void a_pattern_with_too_many_parameters_fits_nothing(void **state)
{
	struct router_span spans[MAX_PARAMETERS];
	size_t count;
	(void)state;
	assert_true(router_match("/{a}/{b}", "/1/2", spans, &count));
	assert_int_equal(count, 2);
	assert_false(router_match("/{a}/{b}/{c}", "/1/2/3", spans, &count));
	assert_false(router_match("/{a", "/1", spans, &count));
}

static void methods_have_names(void **state)
{
	(void)state;
	assert_string_equal(http_method_name(HTTP_GET), "GET");
	assert_string_equal(http_method_name(HTTP_POST), "POST");
	assert_string_equal(http_method_name(HTTP_DELETE), "DELETE");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(finds_the_row),
	    cmocka_unit_test(names_the_methods_of_a_path),
	    cmocka_unit_test(a_pattern_with_too_many_parameters_fits_nothing),
	    cmocka_unit_test(methods_have_names),
	};
	return cmocka_run_group_tests_name("router", tests, NULL, NULL);
}
