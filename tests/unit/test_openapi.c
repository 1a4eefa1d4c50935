/*
 * test_openapi.c - docs/openapi.json and docs/API.md against the tables of the daemon
 *
 * A route, a problem or a key of the job spec that is added without its description fails here, and
 * so does a description of what is not there.
 */
#include "http.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "openapi_document.h"

#define GUIDE "docs/API.md"
#define PREFIX "urn:moecal:problem:"

static const struct {
	unsigned status;
	const char *name, *title;
} problems[] = {
#define X(id, number, text, headline) {number, text, headline},
    PROBLEMS(X)
#undef X
};

static const char *const methods[] = {"get", "post", "delete"};

/* --- every operation ------------------------------------------------------------------- */

typedef bool check_fn(const struct mc_json *document, const char *path, const char *method,
    const struct mc_json *operation);

static bool each_operation(const struct mc_json *document, check_fn *check)
{
	struct mc_json_iter path = mc_json_iter(mc_json_get(document, "paths"));
	bool ok = true;

	while (mc_json_next(&path)) {
		struct mc_json_iter operation = mc_json_iter(path.value);
		while (mc_json_next(&operation))
			if (!check(document, path.key, operation.key, operation.value)) {
				print_error("    in %s %s\n", operation.key, path.key);
				ok = false;
			}
	}
	return ok;
}

static bool is_missing(bool there, const char *what)
{
	if (!there)
		print_error("no %s\n", what);
	return !there;
}

/* --- routes ---------------------------------------------------------------------------- */

/* "/a/{path...}" as the document writes it. */
static void write_template(const char *pattern, char ret[256])
{
	size_t length = 0;

	for (; *pattern != '\0' && length < 255; pattern++) {
		if (strncmp(pattern, "...}", 4) == 0)
			pattern += 3;
		ret[length++] = *pattern;
	}
	ret[length] = '\0';
}

static const struct route *find_route(const char *path, const char *method)
{
	char template[256];

	for (const struct route *route = routes; route->pattern != NULL; route++) {
		write_template(route->pattern, template);
		if (strcmp(template, path) == 0 && strcmp(methods[route->method], method) == 0)
			return route;
	}
	return NULL;
}

static bool body_fits(const struct mc_json *operation, enum http_body body)
{
	static const char *const uploads[] = {
	    "application/x-ndjson", "text/plain", "application/octet-stream"};
	const struct mc_json *request = mc_json_get(operation, "requestBody"),
			     *content = mc_json_get(request, "content");
	bool upload = body == BODY_UPLOAD;
	bool ok = body == BODY_NONE ? request == NULL
				    : mc_json_get(content, "application/json") != NULL &&
					  mc_json_size(content) == (upload ? 4 : 1);

	for (size_t i = 0; ok && upload && i < 3; i++)
		ok = mc_json_get(content, uploads[i]) != NULL;
	return !is_missing(ok, "request body of the route's media types");
}

/* "security": [] exactly where nobody needs a token. */
static bool scope_fits(const struct mc_json *operation, enum scope scope)
{
	const struct mc_json *security = mc_json_get(operation, "security");
	bool open = security != NULL && mc_json_size(security) == 0;
	bool ok = strcmp(text_of(operation, "x-scope"), scope_name(scope)) == 0 &&
		  open == (scope == SCOPE_NONE);

	if (!ok)
		print_error("the scope is not '%s'\n", scope_name(scope));
	return ok;
}

static bool is_route(const struct mc_json *document, const char *path, const char *method,
    const struct mc_json *operation)
{
	const struct route *route = find_route(path, method);

	(void)document;
	return !is_missing(route != NULL, "such route") && body_fits(operation, route->body) &&
	       scope_fits(operation, route->scope);
}

static void routes_are_paths(void **state)
{
	const struct mc_json *paths = mc_json_get(*state, "paths");
	bool ok = each_operation(*state, is_route);
	size_t count = 0;

	for (const struct route *route = routes; route->pattern != NULL; route++) {
		char template[256];
		write_template(route->pattern, template);
		count++;
		if (mc_json_get(mc_json_get(paths, template), methods[route->method]) != NULL)
			continue;
		print_error("%s has no %s %s\n", DOCUMENT, methods[route->method], template);
		ok = false;
	}
	assert_true(count > 20);
	assert_true(ok);
}

/* --- parameters ------------------------------------------------------------------------ */

static bool has_path_parameter(const struct mc_json *document, const struct mc_json *operation,
    const char *name, size_t length)
{
	const struct mc_json *list = mc_json_get(operation, "parameters");

	for (size_t i = 0; i < mc_json_size(list); i++) {
		const struct mc_json *one = resolved(document, mc_json_at(list, i));
		const char *found = text_of(one, "name");
		if (strcmp(text_of(one, "in"), "path") == 0 && strlen(found) == length &&
		    strncmp(found, name, length) == 0)
			return mc_json_get(one, "required") != NULL &&
			       mc_json_bool(mc_json_get(one, "required"));
	}
	return false;
}

static bool has_its_parameters(const struct mc_json *document, const char *path, const char *method,
    const struct mc_json *operation)
{
	const struct mc_json *list = mc_json_get(operation, "parameters");
	bool ok = true;

	(void)method;
	for (const char *at = strchr(path, '{'); ok && at != NULL; at = strchr(at + 1, '{')) {
		size_t length = strcspn(at + 1, "}");
		ok = has_path_parameter(document, operation, at + 1, length);
		if (!ok)
			print_error("the parameter %.*s is not described\n", (int)length, at + 1);
	}
	for (size_t i = 0; ok && i < mc_json_size(list); i++) {
		const struct mc_json *one = resolved(document, mc_json_at(list, i));
		ok = text_of(one, "description")[0] != '\0' && mc_json_get(one, "schema") != NULL;
		if (!ok)
			print_error("the parameter %s has no description or no schema\n",
			    text_of(one, "name"));
	}
	return ok;
}

static void parameters_are_described(void **state)
{
	assert_true(each_operation(*state, has_its_parameters));
}

/* --- answers --------------------------------------------------------------------------- */

static bool has_example(const struct mc_json *answer)
{
	struct mc_json_iter media = mc_json_iter(mc_json_get(answer, "content"));

	while (mc_json_next(&media))
		if (mc_json_get(media.value, "example") != NULL ||
		    mc_json_size(mc_json_get(media.value, "examples")) > 0)
			return true;
	return false;
}

static bool answer_fits(
    const struct mc_json *document, const char *status, const struct mc_json *answer)
{
	const struct mc_json *whole = resolved(document, answer),
			     *content = mc_json_get(whole, "content");
	bool ok = text_of(whole, "description")[0] != '\0' &&
		  mc_json_get(mc_json_get(whole, "headers"), "X-Request-Id") != NULL;

	/* a 503 may also be a document that says why */
	if (status[0] == '4' || strcmp(status, "500") == 0)
		ok = ok && mc_json_get(content, "application/problem+json") != NULL;
	if (strcmp(status, "200") == 0 || strcmp(status, "201") == 0)
		ok = ok && has_example(whole);
	if (strcmp(status, "204") == 0 || strcmp(status, "304") == 0)
		ok = ok && content == NULL;
	if (!ok)
		print_error("the answer %s is not complete\n", status);
	return ok;
}

static bool is_complete(const struct mc_json *document, const char *path, const char *method,
    const struct mc_json *operation)
{
	struct mc_json_iter answer = mc_json_iter(mc_json_get(operation, "responses"));
	size_t successes = 0, refusals = 0;
	bool ok = !is_missing(text_of(operation, "summary")[0] != '\0', "summary") &&
		  !is_missing(text_of(operation, "operationId")[0] != '\0', "operationId") &&
		  !is_missing(mc_json_size(mc_json_get(operation, "tags")) == 1, "tag");

	(void)method;
	(void)path;
	while (ok && mc_json_next(&answer)) {
		successes += answer.key[0] == '2';
		refusals += answer.key[0] == '4';
		ok = answer_fits(document, answer.key, answer.value);
	}
	return ok && !is_missing(successes > 0, "success") && !is_missing(refusals > 0, "refusal");
}

static void operations_are_complete(void **state)
{
	assert_true(each_operation(*state, is_complete));
}

static void operation_ids_are_unique(void **state)
{
	const char *seen[256];
	size_t count = 0;
	struct mc_json_iter path = mc_json_iter(mc_json_get(*state, "paths"));

	while (mc_json_next(&path)) {
		struct mc_json_iter operation = mc_json_iter(path.value);
		while (mc_json_next(&operation)) {
			const char *id = text_of(operation.value, "operationId");
			for (size_t i = 0; i < count; i++)
				assert_string_not_equal(seen[i], id);
			assert_true(count < 256);
			seen[count++] = id;
		}
	}
	assert_true(count > 20);
}

/* --- references ------------------------------------------------------------------------ */

static size_t broken_references(
    const struct mc_json *document, const struct mc_json *value, size_t *count)
{
	struct mc_json_iter member = mc_json_iter(value);
	size_t broken = 0;

	if (mc_json_type(value) == MC_JSON_ARRAY)
		for (size_t i = 0; i < mc_json_size(value); i++)
			broken += broken_references(document, mc_json_at(value, i), count);
	while (mc_json_next(&member)) {
		if (strcmp(member.key, "$ref") != 0) {
			broken += broken_references(document, member.value, count);
			continue;
		}
		++*count;
		if (follow(document, mc_json_string(member.value, NULL)) != NULL)
			continue;
		print_error("%s leads nowhere\n", mc_json_string(member.value, NULL));
		broken++;
	}
	return broken;
}

static void references_resolve(void **state)
{
	size_t count = 0;

	assert_int_equal(broken_references(*state, *state, &count), 0);
	assert_true(count > 100);
	assert_null(follow(*state, "#/components/schemas/Nothing"));
	assert_non_null(follow(*state, "#/paths/~1v1~1jobs~1{id}/get"));
}

/* --- problems -------------------------------------------------------------------------- */

static size_t find_problem(const char *type)
{
	size_t i = 0;

	if (strncmp(type, PREFIX, strlen(PREFIX)) != 0)
		return PROBLEM_COUNT;
	while (i < PROBLEM_COUNT && strcmp(problems[i].name, type + strlen(PREFIX)) != 0)
		i++;
	return i;
}

static void problems_are_the_enum(void **state)
{
	const struct mc_json *properties = mc_json_get(
	    component(*state, "schemas", "Problem"), "properties");
	const struct mc_json *list = mc_json_get(mc_json_get(properties, "type"), "enum");
	bool seen[PROBLEM_COUNT] = {false};

	for (size_t i = 0; i < mc_json_size(list); i++) {
		size_t row = find_problem(mc_json_string(mc_json_at(list, i), NULL));
		if (row == PROBLEM_COUNT)
			print_error(
			    "%s is no problem\n", mc_json_string(mc_json_at(list, i), NULL));
		assert_true(row < PROBLEM_COUNT && !seen[row]);
		seen[row] = true;
	}
	for (size_t i = 0; i < PROBLEM_COUNT; i++) {
		if (!seen[i])
			print_error("%s is not in the enum of Problem.type\n", problems[i].name);
		assert_true(seen[i]);
	}
}

/* Each row has an example under the answer of its status, and no example says anything else. */
static void problems_have_examples(void **state)
{
	struct mc_json_iter answer = mc_json_iter(
	    mc_json_get(mc_json_get(*state, "components"), "responses"));
	bool seen[PROBLEM_COUNT] = {false}, ok = true;

	while (mc_json_next(&answer)) {
		const struct mc_json *media = mc_json_get(
		    mc_json_get(answer.value, "content"), "application/problem+json");
		struct mc_json_iter example = mc_json_iter(mc_json_get(media, "examples"));
		while (mc_json_next(&example)) {
			const struct mc_json *value = mc_json_get(example.value, "value");
			size_t row = find_problem(text_of(value, "type"));
			assert_true(row < PROBLEM_COUNT);
			seen[row] = true;
			if (strcmp(example.key, problems[row].name) == 0 &&
			    mc_json_integer(mc_json_get(value, "status")) == problems[row].status &&
			    strcmp(text_of(value, "title"), problems[row].title) == 0)
				continue;
			print_error("the example %s of %s is not as the table has it\n",
			    example.key, answer.key);
			ok = false;
		}
	}
	for (size_t i = 0; i < PROBLEM_COUNT; i++)
		if (!seen[i]) {
			print_error("%s has no example\n", problems[i].name);
			ok = false;
		}
	assert_true(ok);
}

/* The row of a heading "### `NAME` (STATUS)"; PROBLEM_COUNT when the line is none. */
static size_t problem_of_heading(const char *line)
{
	char wanted[96];

	for (size_t i = 0; i < PROBLEM_COUNT; i++) {
		int length = snprintf(
		    wanted, sizeof wanted, "### `%s` (%u)\n", problems[i].name, problems[i].status);
		if (strncmp(line, wanted, (size_t)length) == 0)
			return i;
	}
	return PROBLEM_COUNT;
}

static void problems_are_headings(void **state)
{
	struct mc_buf guide;
	bool seen[PROBLEM_COUNT] = {false}, ok = true;

	(void)state;
	read_text(GUIDE, &guide);
	for (const char *line = mc_buf_text(&guide); line != NULL;) {
		size_t row = problem_of_heading(line);
		if (strncmp(line, "### `", 5) == 0 && (row == PROBLEM_COUNT || seen[row])) {
			print_error("%s: '%.*s' is no problem with its status, or comes twice\n",
			    GUIDE, (int)strcspn(line, "\n"), line);
			ok = false;
		}
		if (row < PROBLEM_COUNT)
			seen[row] = true;
		line = strchr(line, '\n');
		line = line != NULL ? line + 1 : NULL;
	}
	for (size_t i = 0; i < PROBLEM_COUNT; i++)
		if (!seen[i]) {
			print_error("%s has no heading '### `%s` (%u)'\n", GUIDE, problems[i].name,
			    problems[i].status);
			ok = false;
		}
	mc_buf_release(&guide);
	assert_true(ok);
}

/* Every route has a heading "### METHOD /path" in the guide, and every such heading is a route. */
static void routes_are_headings(void **state)
{
	static const char *const upper[] = {"GET", "POST", "DELETE"};
	struct mc_buf guide;
	char heading[288], template[256];
	size_t headings = 0, count = 0;
	bool ok = true;

	(void)state;
	read_text(GUIDE, &guide);
	for (const struct route *route = routes; route->pattern != NULL; route++) {
		write_template(route->pattern, template);
		snprintf(heading, sizeof heading, "\n### %s %s\n", upper[route->method], template);
		count++;
		if (strstr(mc_buf_text(&guide), heading) == NULL) {
			print_error("%s has no heading '%.*s'\n", GUIDE, (int)strlen(heading) - 2,
			    heading + 1);
			ok = false;
		}
	}
	for (const char *at = mc_buf_text(&guide); (at = strstr(at, "\n### ")) != NULL; at += 5)
		for (size_t i = 0; i < 3; i++)
			headings += strncmp(at + 5, upper[i], strlen(upper[i])) == 0;
	mc_buf_release(&guide);
	assert_true(ok);
	assert_int_equal(headings, count);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(routes_are_paths),
	    cmocka_unit_test(routes_are_headings),
	    cmocka_unit_test(parameters_are_described),
	    cmocka_unit_test(operations_are_complete),
	    cmocka_unit_test(operation_ids_are_unique),
	    cmocka_unit_test(references_resolve),
	    cmocka_unit_test(problems_are_the_enum),
	    cmocka_unit_test(problems_have_examples),
	    cmocka_unit_test(problems_are_headings),
	};
	return cmocka_run_group_tests(tests, read_document, free_document);
}
