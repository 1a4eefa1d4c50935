/*
 * test_scheme.c - the cases of tests/cases/scheme/, then presets, written configs and data needs
 *
 * What a case looks like is in tests/cases/scheme/README.md.
 */
#include "moecal/scheme.h"

#include <dirent.h>
#include <unistd.h>

#include "golden.h"
#include "moecal/fault.h"

#define CASES "tests/cases/scheme"

static void expect_problems(
    const char *file, const struct mc_json *expected, const struct mc_problems *found)
{
	for (size_t i = 0; i < found->count || i < mc_json_size(expected); i++) {
		const struct mc_json *want = mc_json_at(expected, i);
		const char *pointer = want == NULL
					  ? "nothing"
					  : mc_json_string(mc_json_get(want, "pointer"), NULL);
		const char *text = want == NULL ? ""
						: mc_json_string(mc_json_get(want, "text"), NULL);
		if (i >= found->count)
			fail_msg("%s: lacks %s: %s", file, pointer, text);
		if (strcmp(pointer, found->items[i].pointer) != 0 ||
		    strcmp(text, found->items[i].text) != 0)
			fail_msg("%s: problem %zu is\n%s: %s\nneeded\n%s: %s", file, i,
			    found->items[i].pointer, found->items[i].text, pointer, text);
	}
	assert_int_equal(found->total, mc_json_size(expected));
}

static void same_json(
    const char *file, const char *what, const struct mc_json *want, const struct mc_json *have)
{
	struct mc_buf a, b;
	struct mc_error err;

	if (mc_json_equal(want, have))
		return;
	mc_error_init(&err);
	mc_buf_init(&a, 1u << 20);
	mc_buf_init(&b, 1u << 20);
	assert_true(mc_json_write(want, MC_JSON_SORTED, &a, &err) &&
		    mc_json_write(have, MC_JSON_SORTED, &b, &err));
	fail_msg("%s: %s is\n%s\nneeded\n%s", file, what, mc_buf_text(&b), mc_buf_text(&a));
}

/* Written and read again it is the same. */
static void written_and_read(const char *file, const struct mc_quant_config *config)
{
	struct mc_json *json = mc_json_new_object(), *groups = mc_json_new_object();
	struct mc_quant_config back;
	struct mc_error err;

	mc_error_init(&err);
	for (size_t i = 0; i < config->count; i++)
		assert_true(mc_json_set(groups, config->schemes[i].name,
		    mc_scheme_json(&config->schemes[i], &err), &err));
	assert_true(mc_json_set(json, "config_groups", groups, &err));
	assert_true(mc_json_set(json, "ignore", mc_json_new_null(), &err));
	assert_true(mc_json_set(json, "run_compressed", mc_json_new_bool(true), &err));
	if (!mc_quant_config_read(&back, json, &err))
		fail_msg("%s: %s: %s", file, err.where, err.text);
	assert_int_equal(back.count, config->count);
	for (size_t i = 0; i < config->count; i++) {
		struct mc_json *again = mc_scheme_json(&back.schemes[i], &err);
		same_json(file, "what was read back", mc_json_get(groups, config->schemes[i].name),
		    again);
		mc_json_free(again);
	}
	mc_quant_config_release(&back);
	mc_json_free(json);
}

static void expect_parsed(
    const char *file, const struct mc_json *expected, const struct mc_quant_config *config)
{
	const struct mc_json *groups = mc_json_get(expected, "groups"),
			     *ignore = mc_json_get(expected, "ignore");
	const struct mc_json *unsupported = mc_json_get(expected, "unsupported");
	struct mc_error err;
	bool supported = true;

	mc_error_init(&err);
	assert_int_equal(config->count, mc_json_size(groups));
	for (size_t i = 0; i < config->count; i++) {
		const char *name;
		const struct mc_json *want = mc_json_member(groups, i, &name);
		struct mc_json *have = mc_scheme_json(&config->schemes[i], &err);
		assert_non_null(have);
		assert_string_equal(config->schemes[i].name, name);
		same_json(file, name, want, have);
		mc_json_free(have);
		supported = supported && mc_scheme_require_supported(&config->schemes[i], &err);
	}
	assert_int_equal(config->ignore_count, mc_json_size(ignore));
	for (size_t i = 0; i < config->ignore_count; i++)
		assert_string_equal(config->ignore[i], mc_json_string(mc_json_at(ignore, i), NULL));
	struct mc_error json_err;
	mc_error_init(&json_err);
	struct mc_json *kv = mc_quant_args_json(
	    config->has_kv_cache ? &config->kv_cache : NULL, &json_err);
	same_json(file, "kv_cache_scheme", mc_json_get(expected, "kv_cache_scheme"), kv);
	mc_json_free(kv);
	if (unsupported == NULL && !supported)
		fail_msg("%s: refused: %s", file, err.text);
	if (unsupported != NULL && supported)
		fail_msg("%s: not refused", file);
	if (unsupported != NULL && strstr(err.text, mc_json_string(unsupported, NULL)) == NULL)
		fail_msg("%s: refused with '%s'", file, err.text);
	if (unsupported != NULL)
		assert_int_equal(err.code, MC_UNSUPPORTED);
	written_and_read(file, config);
}

/* --- cases of many rows ------------------------------------------------------------------------
 */

/* The short forms of a row: args of one kind in a group of their own. */
static const struct {
	const char *key, *base;
} kinds[] = {
    {"weights", "/config_groups/g/weights"},
    {"input_activations", "/config_groups/g/input_activations"},
    {"output_activations", "/config_groups/g/output_activations"},
    {"kv_cache_scheme", "/kv_cache_scheme"},
    {"modifier", ""},
};
#define KINDS (sizeof kinds / sizeof *kinds)

static struct mc_json *row_modifier(const struct mc_json *row, size_t kind)
{
	static const char group[] =
	    "{\"config_groups\": {\"g\": {\"targets\": [\"Linear\"], \"weights\": {}}}}";
	struct mc_error err;
	mc_error_init(&err);
	struct mc_json *value = mc_json_copy(mc_json_get(row, kinds[kind].key), &err);

	if (strcmp(kinds[kind].key, "modifier") == 0)
		return value;
	struct mc_json *modifier = kind < 3 ? mc_json_parse(group, sizeof group - 1, "", &err)
					    : mc_json_new_object();
	if (kind == 3) {
		assert_true(mc_json_set(modifier, kinds[kind].key, value, &err));
		return modifier;
	}
	const struct mc_json *g = mc_json_get(mc_json_get(modifier, "config_groups"), "g");
	assert_true(mc_json_set((struct mc_json *)(uintptr_t)g, kinds[kind].key, value, &err));
	return modifier;
}

/* What a row's pointers point into. */
static struct mc_json *parsed_document(const struct mc_quant_config *config)
{
	struct mc_json *json = mc_json_new_object(), *groups = mc_json_new_object(),
		       *ignore = mc_json_new_array();
	struct mc_error err;

	mc_error_init(&err);
	for (size_t i = 0; i < config->count; i++)
		assert_true(mc_json_set(groups, config->schemes[i].name,
		    mc_scheme_json(&config->schemes[i], &err), &err));
	for (size_t i = 0; i < config->ignore_count; i++)
		assert_true(mc_json_append(ignore, mc_json_new_string(config->ignore[i]), &err));
	assert_true(
	    mc_json_set(json, "config_groups", groups, &err) &&
	    mc_json_set(json, "ignore", ignore, &err) &&
	    mc_json_set(json, "kv_cache_scheme",
		mc_quant_args_json(config->has_kv_cache ? &config->kv_cache : NULL, &err), &err) &&
	    mc_json_set(
		json, "needs_data", mc_json_new_bool(mc_quant_config_needs_data(config)), &err));
	return json;
}

static const struct mc_json *at_pointer(const struct mc_json *json, const char *pointer)
{
	char copy[160], *save = NULL;

	snprintf(copy, sizeof copy, "%s", pointer);
	for (char *key = strtok_r(copy, "/", &save); key != NULL; key = strtok_r(NULL, "/", &save))
		json = mc_json_get(json, key);
	return json;
}

/* A row's key is a pointer, or the key of the args that the row is about. */
static const char *row_pointer(char out[160], size_t kind, const char *key)
{
	if (key[0] == '/' || (key[0] == '\0' && kinds[kind].base[0] == '\0'))
		snprintf(out, 160, "%s", key);
	else
		snprintf(out, 160, "%s%s%s", kinds[kind].base, key[0] == '\0' ? "" : "/", key);
	return out;
}

static void expect_refused(
    const char *what, size_t kind, const struct mc_json *refused, const struct mc_problems *found)
{
	char pointer[160];

	for (size_t i = 0; i < found->count; i++) {
		bool listed = false;
		struct mc_json_iter want = mc_json_iter(refused);
		while (mc_json_next(&want))
			listed |= strcmp(row_pointer(pointer, kind, want.key),
				      found->items[i].pointer) == 0 &&
				  strcmp(mc_json_string(want.value, NULL), found->items[i].text) ==
				      0;
		if (!listed)
			fail_msg("%s: not expected: %s: %s", what, found->items[i].pointer,
			    found->items[i].text);
	}
	if (found->total != mc_json_size(refused))
		fail_msg("%s: %zu problems, needed %zu", what, found->total, mc_json_size(refused));
}

static void expect_given(const char *what, size_t kind, const struct mc_json *gives,
    const struct mc_quant_config *config)
{
	struct mc_json *document = parsed_document(config);
	struct mc_json_iter want = mc_json_iter(gives);
	char pointer[160];

	assert_true(mc_json_size(gives) > 0);
	while (mc_json_next(&want)) {
		const struct mc_json *have = at_pointer(
		    document, row_pointer(pointer, kind, want.key));
		if (have == NULL)
			fail_msg("%s: there is no %s", what, pointer);
		same_json(what, pointer, want.value, have);
	}
	mc_json_free(document);
}

static void run_row(const char *file, size_t number, const struct mc_json *row)
{
	struct mc_quant_config config;
	struct mc_problems problems;
	struct mc_error err;
	char what[300];
	size_t kind = 0;

	while (kind < KINDS && mc_json_get(row, kinds[kind].key) == NULL)
		kind++;
	assert_true(kind < KINDS);
	snprintf(what, sizeof what, "%s: row %zu", file, number);
	struct mc_json *modifier = row_modifier(row, kind);
	const struct mc_json *refused = mc_json_get(row, "refused");
	mc_error_init(&err);
	mc_problems_init(&problems);
	if (!mc_quant_config_parse(&config, modifier, "", &problems, &err))
		fail_msg("%s: %s", what, err.text);
	expect_refused(what, kind, refused, &problems);
	if (refused == NULL)
		expect_given(what, kind, mc_json_get(row, "gives"), &config);
	mc_problems_release(&problems);
	mc_quant_config_release(&config);
	mc_json_free(modifier);
}

static size_t run_rows(const char *file, const struct mc_json *rows)
{
	for (size_t i = 0; i < mc_json_size(rows); i++)
		run_row(file, i, mc_json_at(rows, i));
	return mc_json_size(rows);
}

static size_t run_case(const char *file)
{
	char path[512];
	struct mc_quant_config config;
	struct mc_problems problems;
	struct mc_error err;

	snprintf(path, sizeof path, CASES "/%s", file);
	struct mc_json *json = golden_json(path);
	const struct mc_json *expected = mc_json_get(json, "problems");
	if (mc_json_get(json, "rows") != NULL) {
		size_t rows = run_rows(file, mc_json_get(json, "rows"));
		mc_json_free(json);
		return rows;
	}
	mc_error_init(&err);
	mc_problems_init(&problems);
	if (!mc_quant_config_parse(&config, mc_json_get(json, "modifier"), "", &problems, &err))
		fail_msg("%s: %s", file, err.text);
	expect_problems(file, expected, &problems);
	if (expected == NULL)
		expect_parsed(file, json, &config);
	mc_problems_release(&problems);
	mc_quant_config_release(&config);
	mc_json_free(json);
	return 1;
}

static void cases(void **state)
{
	struct dirent **files;
	int count = scandir(CASES, &files, NULL, alphasort);
	size_t ran = 0;

	(void)state;
	assert_true(count > 0);
	for (int i = 0; i < count; i++) {
		const char *ending = strrchr(files[i]->d_name, '.');
		if (ending != NULL && strcmp(ending, ".json") == 0)
			ran += run_case(files[i]->d_name);
		free(files[i]);
	}
	free(files);
	assert_true(ran >= 440);
}

static void presets(void **state)
{
	static const char *const ignore[] = {"lm_head", "re:.*mlp.gate$"};
	static const char *const bad_ignore[] = {"re:("};
	struct mc_quant_config config;
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	assert_true(mc_scheme_is_preset("w4a16"));
	assert_false(mc_scheme_is_preset("W4A"));
	assert_true(mc_quant_config_preset(&config, "Fp8", ignore, 2, &err));
	assert_int_equal(config.count, 1);
	assert_string_equal(config.schemes[0].name, "group_0");
	assert_string_equal(config.schemes[0].targets[0], "Linear");
	assert_string_equal(config.schemes[0].weights.observer, "memoryless_minmax");
	assert_string_equal(config.schemes[0].input.observer, "static_minmax");
	assert_string_equal(config.ignore[1], "re:.*mlp.gate$");
	assert_int_equal(config.schemes[0].format, MC_FORMAT_FLOAT);
	assert_true(mc_quant_config_needs_data(&config));
	mc_quant_config_release(&config);
	assert_true(mc_quant_config_preset(&config, "W4A16", NULL, 0, &err));
	assert_false(mc_quant_config_needs_data(&config));
	mc_quant_config_release(&config);
	assert_false(mc_quant_config_preset(&config, "W9A9", NULL, 0, &err));
	assert_int_equal(err.code, MC_UNSUPPORTED);
	assert_non_null(strstr(err.text, "W"));
	mc_error_init(&err);
	assert_false(mc_quant_config_preset(&config, "W4A16", bad_ignore, 1, &err));
	assert_int_equal(err.code, MC_INVALID);
	assert_string_equal(err.where, "/ignore/0");
}

static void needs_data(void **state)
{
	static const struct {
		const char *modifier;
		bool needs;
	} rows[] = {
	    {"{\"scheme\": \"W8A8\"}", false},
	    {"{\"scheme\": \"NVFP4\"}", true},
	    {"{\"scheme\": \"W4A16\", \"kv_cache_scheme\": {}}", true},
	    {"{\"scheme\": \"W4A16\", \"weight_observer\": \"imatrix_mse\"}", true},
	    {"{\"scheme\": \"W4A16\", \"weight_observer\": \"Imatrix_mse\"}", false},
	    {"{\"scheme\": \"W4A16\", \"weight_observer\": \"mse\"}", false},
	    {"{\"config_groups\": {\"g\": {\"targets\": [], \"weights\": {}, "
	     "\"output_activations\": {}}}}",
		true},
	};

	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct mc_quant_config config;
		struct mc_problems problems;
		struct mc_error err;
		mc_error_init(&err);
		mc_problems_init(&problems);
		struct mc_json *json = mc_json_parse(
		    rows[i].modifier, strlen(rows[i].modifier), "", &err);
		assert_non_null(json);
		assert_true(mc_quant_config_parse(&config, json, "", &problems, &err));
		assert_int_equal(problems.total, 0);
		if (mc_quant_config_needs_data(&config) != rows[i].needs)
			fail_msg("%s", rows[i].modifier);
		mc_quant_config_release(&config);
		mc_problems_release(&problems);
		mc_json_free(json);
	}
}

/* An older checkpoint's: no format a group, no scale_dtype, an ordering that is gone, unknown keys.
 */
static void older_configs(void **state)
{
	static const char text[] =
	    "{\"config_groups\": {\"group_0\": {\"targets\": [\"Linear\"], \"extra\": 1,"
	    "\"weights\": {\"num_bits\": 4, \"type\": \"float\", \"strategy\": \"tensor_group\", "
	    "\"group_size\": 16,"
	    "\"observer\": \"something_old\", \"old\": true, \"observer_kwargs\": null}},"
	    "\"group_1\": {\"targets\": [\"x\"], \"weights\": {\"num_bits\": 4, \"group_size\": "
	    "128,"
	    "\"actorder\": \"group\", \"symmetric\": false}}},"
	    "\"format\": \"naive-quantized\", \"run_compressed\": false, \"kv_cache_scheme\": "
	    "null}";
	static const char bad[] =
	    "{\"config_groups\": {\"g\": {\"targets\": [\"a\"], \"weights\": {\"num_bits\": []}}}}";
	struct mc_quant_config config;
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	struct mc_json *json = mc_json_parse(text, sizeof text - 1, "", &err);
	if (!mc_quant_config_read(&config, json, &err))
		fail_msg("%s: %s", err.where, err.text);
	assert_string_equal(config.schemes[0].weights.scale_dtype, "torch.float8_e4m3fn");
	assert_string_equal(config.schemes[0].weights.observer, "something_old");
	assert_string_equal(config.schemes[1].weights.actorder, "group");
	assert_string_equal(config.schemes[1].weights.zp_dtype, "torch.int8");
	assert_int_equal(config.schemes[1].format, MC_FORMAT_NAIVE);
	mc_quant_config_release(&config);
	mc_json_free(json);
	json = mc_json_parse(bad, sizeof bad - 1, "", &err);
	assert_false(mc_quant_config_read(&config, json, &err));
	assert_int_equal(err.code, MC_CORRUPT);
	assert_string_equal(err.where, "quantization_config/config_groups/g/weights/num_bits");
	mc_json_free(json);
	mc_error_init(&err);
	assert_false(mc_quant_config_read(&config, NULL, &err));
	assert_int_equal(err.code, MC_CORRUPT);
}

/* Reads `text` as a config.json and expects the error, or none when code is MC_OK. */
static void expect_read(
    const char *text, enum mc_code code, const char *where, const char *contains)
{
	struct mc_quant_config config;
	struct mc_error err;

	mc_error_init(&err);
	struct mc_json *json = mc_json_parse(text, strlen(text), "", &err);
	assert_non_null(json);
	bool ok = mc_quant_config_read(&config, mc_quant_config_find(json), &err);
	if (err.code != code || ok != (code == MC_OK))
		fail_msg("%s: %s: %s", text, err.where, err.text);
	if (where != NULL)
		assert_string_equal(err.where, where);
	if (contains != NULL && strstr(err.text, contains) == NULL)
		fail_msg("%s: %s", text, err.text);
	if (ok)
		mc_quant_config_release(&config);
	mc_json_free(json);
}

#define GROUP                                                                                      \
	"\"config_groups\": {\"g\": {\"targets\": [\"Linear\"], \"weights\": {\"num_bits\": 4}}}"

static void configs_of_other_times_and_programs(void **state)
{
	(void)state;
	/* where it may lie */
	expect_read("{\"quantization_config\": {" GROUP "}}", MC_OK, NULL, NULL);
	expect_read("{\"text_config\": {\"quantization_config\": {" GROUP "}}}", MC_OK, NULL, NULL);
	expect_read("{\"compression_config\": {" GROUP "}}", MC_OK, NULL, NULL);
	expect_read("{\"quantization_config\": null, \"compression_config\": {" GROUP "}}", MC_OK,
	    NULL, NULL);
	expect_read("{\"model_type\": \"x\"}", MC_CORRUPT, "quantization_config", "missing");
	/* unknown keys, missing and null ones */
	expect_read("{\"compression_config\": {" GROUP ", \"run_compressed\": true, \"x\": {}, "
		    "\"ignore\": null, \"format\": \"fakequant\", \"sparsity_config\": {}}}",
	    MC_OK, NULL, NULL);
	expect_read(
	    "{\"quantization_config\": {\"config_groups\": {\"g\": {\"targets\": "
	    "[\"Linear\"], \"weights\": {\"group_size\": \"128\", \"dynamic\": null, "
	    "\"actorder\": true, \"observer\": \"old\", \"observer_kwargs\": {\"x\": 1}}}}, "
	    "\"sparsity_config\": {\"format\": \"dense\"}}}",
	    MC_OK, NULL, NULL);
	/* a cache alone */
	expect_read("{\"quantization_config\": {\"config_groups\": {}, \"kv_cache_scheme\": {}}}",
	    MC_OK, NULL, NULL);
	/* refused by name */
	expect_read("{\"quantization_config\": {\"quant_method\": \"gptq\", \"bits\": 4}}",
	    MC_UNSUPPORTED, "quantization_config/quant_method", "is 'gptq'");
	expect_read("{\"quantization_config\": {" GROUP ", \"format\": \"marlin-24\"}}",
	    MC_UNSUPPORTED, "quantization_config/format", "'marlin-24'");
	expect_read("{\"quantization_config\": {\"config_groups\": {\"a/b\": {\"format\": "
		    "\"sparse-bitmask\"}}}}",
	    MC_UNSUPPORTED, "quantization_config/config_groups/a~1b/format", "'sparse-bitmask'");
	expect_read("{\"quantization_config\": {" GROUP ", \"sparsity_config\": {\"format\": "
		    "\"sparse-24-bitmask\"}}}",
	    MC_UNSUPPORTED, "quantization_config/sparsity_config/format", "sparse weights");
	expect_read("{\"quantization_config\": {\"ignore\": []}}", MC_CORRUPT,
	    "quantization_config", "has no config_groups");
}

#ifdef MC_FAULTS
/* Whichever allocation fails: NO_MEMORY, nothing lost, nothing freed twice. */
static void out_of_memory(void **state)
{
	static const char *const files[] = {"mixed-nvfp4-fp8", "scheme-map", "preset-fp8",
	    "kv-fp8-attn-head", "preset-named-group", "bad-patterns"};

	(void)state;
	for (size_t f = 0; f < sizeof files / sizeof files[0]; f++) {
		char path[256];
		snprintf(path, sizeof path, CASES "/%s.json", files[f]);
		struct mc_json *json = golden_json(path);
		bool done = false;
		long n = 1;
		for (; !done && n < 1000; n++) {
			struct mc_quant_config config;
			struct mc_problems problems;
			struct mc_error err;
			mc_error_init(&err);
			mc_problems_init(&problems);
			mc_fault_arm("alloc", n);
			done = mc_quant_config_parse(
			    &config, mc_json_get(json, "modifier"), "", &problems, &err);
			mc_fault_disarm();
			assert_int_equal(err.code, done ? MC_OK : MC_NO_MEMORY);
			/* a list of problems that could not be kept is still counted */
			done = done && problems.count == problems.total;
			mc_quant_config_release(&config);
			mc_problems_release(&problems);
		}
		assert_true(done && n > 2);
		mc_json_free(json);
	}
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(cases),
	    cmocka_unit_test(presets),
	    cmocka_unit_test(needs_data),
	    cmocka_unit_test(older_configs),
	    cmocka_unit_test(configs_of_other_times_and_programs),
#ifdef MC_FAULTS
	    cmocka_unit_test(out_of_memory),
#endif
	};
	return cmocka_run_group_tests_name("scheme", tests, NULL, NULL);
}
