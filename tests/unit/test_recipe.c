/*
 * test_recipe.c - recipes as files: written as YAML, read again; what is passed over
 */
#include "golden.h"

#include "moecal/fault.h"
#include "moecal/recipe.h"

static struct mc_json *yaml(const char *text)
{
	struct mc_error err;

	mc_error_init(&err);
	struct mc_json *json = mc_yaml_parse(text, strlen(text), "t", &err);
	if (json == NULL)
		fail_msg("%s: %s", err.where, err.text);
	return json;
}

static void parse(struct mc_recipe *recipe, const char *text)
{
	struct mc_json *value = mc_json_new_string(text);
	struct mc_problems problems;
	struct mc_error err;

	mc_error_init(&err);
	mc_problems_init(&problems);
	assert_true(mc_recipe_parse(recipe, value, "/recipe", &problems, &err));
	if (problems.total > 0)
		fail_msg("%s: %s", problems.items[0].pointer, problems.items[0].text);
	mc_json_free(value);
}

static void expect_file(const char *text, const char *before, const char *want)
{
	struct mc_recipe recipe;
	struct mc_buf out;
	struct mc_error err;

	mc_error_init(&err);
	mc_buf_init(&out, 1u << 20);
	parse(&recipe, text);
	struct mc_json *lay = before == NULL ? NULL : yaml(before);
	struct mc_json *file = mc_recipe_file(&recipe, lay, &err);
	assert_non_null(file);
	assert_true(mc_yaml_write(file, &out, &err));
	assert_string_equal(mc_buf_text(&out), want);
	/* and it is what it says */
	struct mc_json *again = yaml(mc_buf_text(&out));
	assert_true(mc_json_equal(file, again));
	mc_json_free(again);
	mc_json_free(file);
	mc_json_free(lay);
	mc_buf_release(&out);
	mc_recipe_release(&recipe);
}

static void recipes_are_written_as_the_reference_does(void **state)
{
	(void)state;
	expect_file("W4A16", NULL,
	    "default_stage:\n"
	    "  default_modifiers:\n"
	    "    QuantizationModifier:\n"
	    "      targets: [Linear]\n"
	    "      ignore: [lm_head]\n"
	    "      scheme: W4A16\n");
	expect_file(
	    "quant_stage:\n  mine_modifiers:\n    QuantizationModifier: {scheme: FP8, ignore: "
	    "['re:.*mlp.gate$', 'yes', '1'], kv_cache_scheme: null, start: 0.0, ended_: "
	    "false}\n",
	    NULL,
	    "quant_stage:\n"
	    "  mine_modifiers:\n"
	    "    QuantizationModifier:\n"
	    "      scheme: FP8\n"
	    "      ignore: ['re:.*mlp.gate$', 'yes', '1']\n"
	    "      start: 0.0\n");
	/* of one class and group: the second would replace the first */
	expect_file("a_stage: {x_modifiers: {QuantizationModifier: {scheme: W4A16}}}\n"
		    "b_stage: {x_modifiers: {QuantizationModifier: {scheme: W8A8, targets: q}}}\n",
	    NULL,
	    "b_stage:\n"
	    "  x_modifiers:\n"
	    "    QuantizationModifier: {scheme: W4A16}\n"
	    "  x_1_modifiers:\n"
	    "    QuantizationModifier: {scheme: W8A8, targets: q}\n");
}

static void a_recipe_that_was_there_is_kept(void **state)
{
	(void)state;
	expect_file("a_stage: {x_modifiers: {QuantizationModifier: {scheme: W4A16}}}\n",
	    "b_stage: {y_modifiers: {Old: {c: 1}}}\n",
	    "b_stage:\n"
	    "  y_modifiers:\n"
	    "    Old: {c: 1}\n"
	    "a_stage:\n"
	    "  x_modifiers:\n"
	    "    QuantizationModifier: {scheme: W4A16}\n");
	expect_file("a_stage: {x_modifiers: {QuantizationModifier: {scheme: W4A16}}}\n",
	    "a_stage: {}\n",
	    "a_stage_0: {}\n"
	    "a_stage_1:\n"
	    "  x_modifiers:\n"
	    "    QuantizationModifier: {scheme: W4A16}\n");
}

static void values_survive_yaml(void **state)
{
	static const char text[] =
	    "{\"a\": [1, -2, 1.5, 1e20, 1e-7, 0.1, 100.0, true, false, null], \"b\": {}, \"c\": "
	    "[], "
	    "\"d\": [\"\", \"~\", \"null\", \"0x10\", \"010\", \"1_0\", \"1.5\", \"<<\", \"a: b\", "
	    "\"# c\", \"- d\", \"re:.*[0-9]\", \"two\\nlines\", \"\u00e9\", \"*x\", \"&x\", "
	    "\"!x\", "
	    "\" blank \"], \"yes\": {\"on\": {\"1\": [[1], [\"x\"]]}}}";
	struct mc_error err;
	struct mc_buf out;

	(void)state;
	mc_error_init(&err);
	mc_buf_init(&out, 1u << 20);
	struct mc_json *json = mc_json_parse(text, sizeof text - 1, "", &err);
	assert_non_null(json);
	assert_true(mc_yaml_write(json, &out, &err));
	struct mc_json *again = yaml(mc_buf_text(&out));
	if (!mc_json_equal(json, again))
		fail_msg("%s", mc_buf_text(&out));
	mc_json_free(again);
	mc_json_free(json);
	mc_buf_release(&out);
}

static void several_modifiers_are_one_config(void **state)
{
	struct mc_recipe recipe;

	(void)state;
	parse(&recipe,
	    "quant_stage:\n"
	    "  note: hello\n"
	    "  run_type: oneshot\n"
	    "  a_modifiers:\n"
	    "    QuantizationModifier: {scheme: W4A16, ignore: [lm_head]}\n"
	    "  b_modifiers:\n"
	    "    QuantizationModifier: {config_groups: {g: {targets: [x], weights: {}}}}\n"
	    "comment: 3\n"
	    "version: 1\n");
	assert_string_equal(recipe.name, "W4A16+QuantizationModifier");
	assert_string_equal(recipe.stage, "quant");
	assert_int_equal(recipe.config.count, 2);
	assert_int_equal(recipe.config.parts_count, 2);
	assert_int_equal(recipe.passed_count, 2);
	assert_string_equal(recipe.passed[0], "/recipe/quant_stage/note");
	assert_string_equal(recipe.passed[1], "/recipe/comment");
	mc_recipe_release(&recipe);
}

#ifdef MC_FAULTS
/* Whichever allocation fails: NO_MEMORY or a refusal, nothing lost, nothing freed twice. */
static void out_of_memory(void **state)
{
	static const char text[] = "q_stage:\n"
				   "  x: 1\n"
				   "  a_modifiers: {QuantizationModifier: {scheme: W4A16}}\n"
				   "  b_modifiers: {QuantizationModifier: {scheme: FP8, ignore: "
				   "[a], kv_cache_scheme: {}}}\n";
	struct mc_json *value = mc_json_new_string(text);
	bool done = false;
	long n = 1;

	(void)state;
	for (; !done && n < 2000; n++) {
		struct mc_recipe recipe;
		struct mc_problems problems;
		struct mc_error err;
		mc_error_init(&err);
		mc_problems_init(&problems);
		mc_fault_arm("alloc", n);
		done = mc_recipe_parse(&recipe, value, "/recipe", &problems, &err);
		mc_fault_disarm();
		assert_int_equal(err.code, done ? MC_OK : MC_NO_MEMORY);
		done = done && problems.total == 0;
		mc_recipe_release(&recipe);
		mc_problems_release(&problems);
	}
	assert_true(done && n > 2);
	mc_json_free(value);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(recipes_are_written_as_the_reference_does),
	    cmocka_unit_test(a_recipe_that_was_there_is_kept),
	    cmocka_unit_test(values_survive_yaml),
	    cmocka_unit_test(several_modifiers_are_one_config),
#ifdef MC_FAULTS
	    cmocka_unit_test(out_of_memory),
#endif
	};
	return cmocka_run_group_tests_name("recipe", tests, NULL, NULL);
}
