/*
 * test_spec.c - the job spec: case files, defaults, the canonical form
 *
 * A case is tests/cases/spec/NAME.json: {"spec": any, "errors": [{"pointer", "contains"}]} lists
 * exactly the problems that parsing must report; {"spec": {...}, "canonical": {...}} lists members
 * of the canonical form.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"
#include "moecal/file.h"
#include "moecal/root.h"
#include "moecal/spec.h"

#define CASES "tests/cases/spec"

static struct mc_json *read_case(const char *name)
{
	struct mc_error err;
	struct mc_buf text;
	char path[512];
	int fd;

	mc_error_init(&err);
	mc_buf_init(&text, 1 << 20);
	snprintf(path, sizeof path, CASES "/%s", name);
	assert_true(mc_root_open(NULL, path, &fd, &err));
	assert_true(mc_file_read_all(fd, path, &text, &err));
	mc_close(fd);
	struct mc_json *json = mc_json_parse(mc_buf_text(&text), text.length, path, &err);
	if (json == NULL)
		print_error("%s: %s\n", path, err.text);
	assert_non_null(json);
	mc_buf_release(&text);
	return json;
}

static bool has_problem(
    const struct mc_problems *problems, const char *pointer, const char *contains)
{
	for (size_t i = 0; i < problems->count; i++)
		if (strcmp(problems->items[i].pointer, pointer) == 0 &&
		    strstr(problems->items[i].text, contains) != NULL)
			return true;
	return false;
}

static bool errors_as_listed(
    const char *name, const struct mc_json *errors, const struct mc_problems *problems)
{
	bool ok = problems->total == mc_json_size(errors);

	for (size_t i = 0; i < mc_json_size(errors); i++) {
		const struct mc_json *e = mc_json_at(errors, i);
		if (!has_problem(problems, mc_json_string(mc_json_get(e, "pointer"), NULL),
			mc_json_string(mc_json_get(e, "contains"), NULL))) {
			print_error("%s: no problem at '%s' with '%s'\n", name,
			    mc_json_string(mc_json_get(e, "pointer"), NULL),
			    mc_json_string(mc_json_get(e, "contains"), NULL));
			ok = false;
		}
	}
	for (size_t i = 0; !ok && i < problems->count; i++)
		print_error("%s: found %s: %s\n", name, problems->items[i].pointer,
		    problems->items[i].text);
	return ok;
}

static bool canonical_as_listed(
    const char *name, const struct mc_spec *spec, const struct mc_json *members)
{
	struct mc_error err;
	bool ok = true;

	mc_error_init(&err);
	struct mc_json *json = mc_spec_json(spec, &err);
	assert_non_null(json);
	for (size_t i = 0; i < mc_json_size(members); i++) {
		const char *key;
		const struct mc_json *value = mc_json_member(members, i, &key);
		if (mc_json_get(json, key) == NULL ||
		    !mc_json_equal(mc_json_get(json, key), value)) {
			print_error("%s: canonical member '%s' differs\n", name, key);
			ok = false;
		}
	}
	/* reading the canonical form again gives the same canonical form */
	struct mc_spec again;
	struct mc_problems problems;
	mc_problems_init(&problems);
	assert_true(mc_spec_parse(&again, json, &problems, &err));
	assert_int_equal(problems.total, 0);
	struct mc_json *twice = mc_spec_json(&again, &err);
	assert_non_null(twice);
	assert_true(mc_json_equal(json, twice));
	mc_json_free(twice);
	mc_json_free(json);
	mc_spec_release(&again);
	mc_problems_release(&problems);
	return ok;
}

static bool run_case(const char *name)
{
	struct mc_json *json = read_case(name);
	struct mc_spec spec;
	struct mc_problems problems;
	struct mc_error err;
	bool ok = true;

	mc_error_init(&err);
	mc_problems_init(&problems);
	assert_true(mc_spec_parse(&spec, mc_json_get(json, "spec"), &problems, &err));
	const struct mc_json *errors = mc_json_get(json, "errors");
	struct mc_json *none = mc_json_new_array();
	ok = errors_as_listed(name, errors != NULL ? errors : none, &problems);
	if (ok && mc_json_get(json, "canonical") != NULL)
		ok = canonical_as_listed(name, &spec, mc_json_get(json, "canonical"));
	mc_json_free(none);
	mc_spec_release(&spec);
	mc_problems_release(&problems);
	mc_json_free(json);
	return ok;
}

static void test_cases(void **state)
{
	(void)state;
	DIR *dir = opendir(CASES);
	size_t count = 0, failed = 0;
	const struct dirent *entry;

	assert_non_null(dir);
	while ((entry = readdir(dir)) != NULL) {
		if (strstr(entry->d_name, ".json") == NULL)
			continue;
		count++;
		failed += !run_case(entry->d_name);
	}
	closedir(dir);
	assert_true(count >= 20);
	assert_int_equal(failed, 0);
}

static void test_every_key_has_a_name(void **state)
{
	(void)state;
	size_t count = 0;
	while (mc_spec_key(count) != NULL)
		count++;
	assert_int_equal(count, 22);
	assert_string_equal(mc_spec_key(0), "model");
}

static void test_yaml_types(void **state)
{
	(void)state;
	static const char text[] = "a: 1\nb: 0x10\nc: 1.5\nd: 1e3\ne: ~\nf: yes\ng: 'yes'\nh: [1, "
				   "two]\ni: {j: -3}\nk: 1.0e+2\n";
	static const char want[] = "{\"a\":1,\"b\":16,\"c\":1.5,\"d\":\"1e3\",\"e\":null,\"f\":"
				   "true,\"g\":\"yes\",\"h\":[1,\"two\"],"
				   "\"i\":{\"j\":-3},\"k\":100.0}";
	struct mc_error err;

	mc_error_init(&err);
	struct mc_json *json = mc_yaml_parse(text, sizeof text - 1, "t", &err),
		       *expect = mc_json_parse(want, sizeof want - 1, "w", &err);
	assert_non_null(json);
	assert_non_null(expect);
	assert_true(mc_json_equal(json, expect));
	mc_json_free(json);
	mc_json_free(expect);
}

static void test_yaml_refusals(void **state)
{
	(void)state;
	static const struct {
		const char *text, *contains;
		enum mc_code code;
	} cases[] = {{"a: &x 1\nb: *y\n", "names no value", MC_INVALID},
	    {"a: &x [*x]\n", "names no value", MC_INVALID},
	    {"a: &x 1\n*x : 2\n", "plain word", MC_INVALID},
	    {"a: {<<: 1}\n", "<< needs a mapping", MC_INVALID},
	    {"a: !!python/object/apply:compressed_tensors.X [a, b]\n", "tags", MC_UNSUPPORTED},
	    {"a: !!python/object/apply:os.system [ls]\n", "tags", MC_UNSUPPORTED},
	    {"a: !!map {}\n", "tags", MC_UNSUPPORTED}, {"a: 1\na: 2\n", "given before", MC_INVALID},
	    {"a: [1\n", "line", MC_INVALID}, {"", "empty", MC_INVALID},
	    {"a: !!python/object 1\n", "tags", MC_UNSUPPORTED},
	    {"a: 1\n---\nb: 2\n", "second document", MC_INVALID},
	    {"? [1]\n: 2\n", "plain word", MC_INVALID}};

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct mc_error err;
		mc_error_init(&err);
		assert_null(mc_yaml_parse(cases[i].text, strlen(cases[i].text), "t", &err));
		assert_int_equal(err.code, cases[i].code);
		assert_non_null(strstr(err.text, cases[i].contains));
	}
	char deep[400];
	struct mc_error err;
	mc_error_init(&err);
	static const char bomb[] = "a: &a [1,1,1,1,1,1,1,1,1]\n"
				   "b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
				   "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
				   "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
				   "e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\n"
				   "f: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
	assert_null(mc_yaml_parse(bomb, sizeof bomb - 1, "t", &err));
	assert_non_null(strstr(err.text, "too many values"));
	mc_error_init(&err);
	memset(deep, '[', 200);
	memset(deep + 200, ']', 200);
	struct mc_json *json = mc_yaml_parse(deep, 400, "t", &err);
	mc_json_free(json); /* JSON: its own depth limit is higher */
	mc_error_init(&err);
	for (size_t i = 0; i < 100; i++)
		memcpy(deep + 2 * i, "- ", 2);
	assert_null(mc_yaml_parse(deep, 200, "t", &err));
	assert_non_null(strstr(err.text, "deeply"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases),
	    cmocka_unit_test(test_every_key_has_a_name), cmocka_unit_test(test_yaml_types),
	    cmocka_unit_test(test_yaml_refusals)};
	return cmocka_run_group_tests_name("spec", tests, NULL, NULL);
}
