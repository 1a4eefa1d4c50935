/*
 * test_openapi_spec.c - bodies of requests in docs/openapi.json against the reader of job specs
 *
 * Keys, defaults, bounds and choices that the document names are those that specs are read with.
 */
#include "moecal/spec.h"

#include <stdint.h>

#include "openapi_document.h"

static const struct mc_json *spec_properties(const struct mc_json *document)
{
	return mc_json_get(component(document, "schemas", "JobRequest"), "properties");
}

static void requests_are_closed(void **state)
{
	static const char *const names[] = {
	    "ModelRequest", "DatasetRequest", "JobRequest", "DatasetSource"};

	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		const struct mc_json *more = mc_json_get(
		    component(*state, "schemas", names[i]), "additionalProperties");
		if (more == NULL || mc_json_type(more) != MC_JSON_BOOL || mc_json_bool(more))
			print_error("%s takes unknown keys\n", names[i]);
		assert_true(
		    more != NULL && mc_json_type(more) == MC_JSON_BOOL && !mc_json_bool(more));
	}
}

static void spec_keys_are_properties(void **state)
{
	static const char *const queue[] = {"priority", "deadline_seconds", "keep_seconds"};
	const struct mc_json *properties = spec_properties(*state);
	size_t count = 3;

	for (size_t i = 0; i < 3; i++)
		assert_non_null(mc_json_get(properties, queue[i]));
	for (size_t i = 0; mc_spec_key(i) != NULL; i++, count++) {
		if (mc_json_get(properties, mc_spec_key(i)) == NULL)
			print_error("JobRequest has no %s\n", mc_spec_key(i));
		assert_non_null(mc_json_get(properties, mc_spec_key(i)));
	}
	assert_int_equal(mc_json_size(properties), count);
}

/* A spec with one key set to `value` (taken over); NULL: none. Whether there is a problem at that
 * key. */
static bool is_refused(const char *key, struct mc_json *value, struct mc_json **ret_filled)
{
	static const char base[] = "{\"model\": \"m\", \"dataset\": \"d\", \"recipe\": \"W4A16\"}";
	struct mc_problems found;
	struct mc_spec spec;
	struct mc_error err;
	char pointer[160];
	bool refused = false;

	mc_error_init(&err);
	mc_problems_init(&found);
	struct mc_json *json = mc_json_parse(base, strlen(base), "spec", &err);
	assert_non_null(json);
	if (value != NULL)
		assert_true(mc_json_set(json, key, value, &err));
	assert_true(mc_spec_parse(&spec, json, &found, &err));
	mc_pointer_join(pointer, "", key);
	for (size_t i = 0; i < found.count; i++)
		refused = refused || strcmp(found.items[i].pointer, pointer) == 0;
	if (ret_filled != NULL) {
		assert_int_equal(found.total, 0);
		*ret_filled = mc_spec_json(&spec, &err);
		assert_non_null(*ret_filled);
	}
	mc_spec_release(&spec);
	mc_problems_release(&found);
	mc_json_free(json);
	return refused;
}

static void spec_defaults_are_true(void **state)
{
	struct mc_json_iter property = mc_json_iter(spec_properties(*state));
	struct mc_json *filled;
	size_t compared = 0;

	is_refused("", NULL, &filled);
	while (mc_json_next(&property)) {
		const struct mc_json *wanted = mc_json_get(property.value, "default"),
				     *found = mc_json_get(filled, property.key);
		/* what the key is filled with is not the default but what it stands for */
		if (wanted == NULL || found == NULL || strcmp(property.key, "dataset") == 0 ||
		    strcmp(property.key, "compute") == 0)
			continue;
		if (!mc_json_equal(wanted, found))
			print_error("the default of %s is another one\n", property.key);
		assert_true(mc_json_equal(wanted, found));
		compared++;
	}
	mc_json_free(filled);
	assert_true(compared >= 15);
}

static size_t check_bounds(const char *key, const struct mc_json *schema)
{
	const struct mc_json *least = mc_json_get(schema, "minimum"),
			     *most = mc_json_get(schema, "maximum");
	bool ok = true;

	if (least == NULL || most == NULL)
		return 0;
	int64_t low = mc_json_integer(least), high = mc_json_integer(most);
	ok = !is_refused(key, mc_json_new_integer(low), NULL) &&
	     !is_refused(key, mc_json_new_integer(high), NULL) &&
	     is_refused(key, mc_json_new_integer(low - 1), NULL) &&
	     (high == INT64_MAX || is_refused(key, mc_json_new_integer(high + 1), NULL));
	if (!ok)
		print_error("the bounds of %s are other ones\n", key);
	assert_true(ok);
	return 1;
}

static size_t check_choices(const char *key, const struct mc_json *schema)
{
	const struct mc_json *list = mc_json_get(schema, "enum");
	struct mc_error err;

	mc_error_init(&err);
	for (size_t i = 0; i < mc_json_size(list); i++) {
		bool refused = is_refused(key, mc_json_copy(mc_json_at(list, i), &err), NULL);
		if (refused)
			print_error("%s does not take '%s'\n", key,
			    mc_json_string(mc_json_at(list, i), NULL));
		assert_false(refused);
	}
	if (list != NULL)
		assert_true(is_refused(key, mc_json_new_string("none of them"), NULL));
	return list != NULL;
}

static void spec_bounds_are_true(void **state)
{
	struct mc_json_iter property = mc_json_iter(spec_properties(*state));
	size_t bounds = 0, choices = 0;

	while (mc_json_next(&property)) {
		/* keys of the queue are not the library's */
		bool of_spec = false;
		for (size_t i = 0; mc_spec_key(i) != NULL; i++)
			of_spec = of_spec || strcmp(mc_spec_key(i), property.key) == 0;
		if (!of_spec)
			continue;
		bounds += check_bounds(property.key, property.value);
		choices += check_choices(property.key, property.value);
	}
	assert_true(bounds >= 5);
	assert_true(choices >= 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(requests_are_closed),
	    cmocka_unit_test(spec_keys_are_properties),
	    cmocka_unit_test(spec_defaults_are_true),
	    cmocka_unit_test(spec_bounds_are_true),
	};
	return cmocka_run_group_tests(tests, read_document, free_document);
}
