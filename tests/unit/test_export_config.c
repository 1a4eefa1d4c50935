/*
 * test_export_config.c - quantization_config as the reference writes it, recipe by recipe
 *
 * tests/golden/configs.json: every recipe that the reference was run with on tests/data/qwen3moe-2m
 * and what it wrote to config.json. Nothing is calibrated: which module gets which scheme settles
 * all of it, so recipes that cannot be computed yet are compared too.
 */
#include "golden.h"

#include "../../lib/run/export.h"

static struct mc_json *written_config(const struct mc_json *entry)
{
	const char *name = mc_json_string(mc_json_get(entry, "name"), NULL);
	struct mc_spec spec = {0};
	struct mc_job job = {.spec = &spec};
	struct mc_problems problems;
	struct mc_error err;

	mc_error_init(&err);
	mc_problems_init(&problems);
	assert_true(mc_recipe_parse(
	    &spec.recipe, mc_json_get(entry, "recipe"), "/recipe", &problems, &err));
	if (problems.total > 0)
		fail_msg("%s: %s: %s", name, problems.items[0].pointer, problems.items[0].text);
	if (!mc_model_open(&job.model, NULL, "tests/data/qwen3moe-2m", &err) ||
	    !mc_job_match(&job, &err))
		fail_msg("%s: %s: %s", name, err.where, err.text);
	struct mc_json *config = mc_export_config(&job, &err);
	assert_non_null(config);
	mc_job_close(&job);
	mc_recipe_release(&spec.recipe);
	mc_problems_release(&problems);
	return config;
}

static void expect_same(
    const char *name, const char *what, const struct mc_json *want, const struct mc_json *have)
{
	struct mc_buf a, b;
	struct mc_error err;

	if (want != NULL && have != NULL && mc_json_equal(want, have))
		return;
	mc_error_init(&err);
	mc_buf_init(&a, 1u << 20);
	mc_buf_init(&b, 1u << 20);
	assert_true(want == NULL || mc_json_write(want, MC_JSON_SORTED, &a, &err));
	assert_true(have == NULL || mc_json_write(have, MC_JSON_SORTED, &b, &err));
	fail_msg("%s: %s is\n%s\nneeded\n%s", name, what, mc_buf_text(&b), mc_buf_text(&a));
}

static void every_recipe_writes_the_references_config(void **state)
{
	struct mc_json *cases = golden_json("tests/golden/configs.json");

	(void)state;
	assert_true(mc_json_size(cases) >= 45);
	for (size_t i = 0; i < mc_json_size(cases); i++) {
		const struct mc_json *entry = mc_json_at(cases, i);
		const char *name = mc_json_string(mc_json_get(entry, "name"), NULL);
		struct mc_json *have = written_config(entry);
		expect_same(
		    name, "quantization_config", mc_json_get(entry, "quantization_config"), have);
		mc_json_free(have);
	}
	mc_json_free(cases);
}

/* What the reference wrote is read, and says the same when it is written again. */
static void the_references_configs_are_read(void **state)
{
	struct mc_json *cases = golden_json("tests/golden/configs.json");

	(void)state;
	for (size_t i = 0; i < mc_json_size(cases); i++) {
		const struct mc_json *entry = mc_json_at(cases, i),
				     *written = mc_json_get(entry, "quantization_config"),
				     *groups = mc_json_get(written, "config_groups");
		const char *name = mc_json_string(mc_json_get(entry, "name"), NULL);
		struct mc_quant_config config;
		struct mc_error err;
		mc_error_init(&err);
		if (!mc_quant_config_read(&config, written, &err))
			fail_msg("%s: %s: %s", name, err.where, err.text);
		assert_int_equal(config.count, mc_json_size(groups));
		for (size_t g = 0; g < config.count; g++) {
			struct mc_json *again = mc_scheme_json(&config.schemes[g], &err);
			expect_same(name, config.schemes[g].name,
			    mc_json_get(groups, config.schemes[g].name), again);
			mc_json_free(again);
		}
		assert_int_equal(config.ignore_count, mc_json_size(mc_json_get(written, "ignore")));
		struct mc_json *kv = mc_quant_args_json(
		    config.has_kv_cache ? &config.kv_cache : NULL, &err);
		expect_same(name, "kv_cache_scheme", mc_json_get(written, "kv_cache_scheme"), kv);
		mc_json_free(kv);
		mc_quant_config_release(&config);
	}
	mc_json_free(cases);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(every_recipe_writes_the_references_config),
	    cmocka_unit_test(the_references_configs_are_read),
	};
	return cmocka_run_group_tests_name("export_config", tests, NULL, NULL);
}
