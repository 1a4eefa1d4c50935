/*
 * test_match.c - targets and ignore: the reference's results on a small MoE, then single rules
 */
#include "moecal/match.h"

#include <unistd.h>

#include "golden.h"

#define EXPERTS 8

struct model {
	size_t count;
	struct mc_match_module modules[160];
	char names[160][64];
};

static void MC_PRINTF(4, 5)
    add(struct model *model, const char *class_name, bool quantizable, const char *fmt, ...)
{
	char *name = model->names[model->count];
	va_list args;

	va_start(args, fmt);
	vsnprintf(name, sizeof model->names[0], fmt, args);
	va_end(args);
	model->modules[model->count++] = (struct mc_match_module){
	    .name = name, .class_name = class_name, .quantizable = quantizable};
}

/* The modules that matching.json lists, and those around them. */
static void make_model(struct model *model)
{
	static const char *const attention[] = {"q_proj", "k_proj", "v_proj", "o_proj"};
	static const char *const expert[] = {"up_proj", "gate_proj", "down_proj"};

	model->count = 0;
	add(model, "Embedding", true, "model.embed_tokens");
	for (int l = 0; l < 2; l++) {
		add(model, "Qwen3MoeDecoderLayer", false, "model.layers.%d", l);
		add(model, "Qwen3MoeAttention", false, "model.layers.%d.self_attn", l);
		for (size_t i = 0; i < 4; i++)
			add(model, "Linear", true, "model.layers.%d.self_attn.%s", l, attention[i]);
		add(model, "Qwen3MoeSparseMoeBlock", false, "model.layers.%d.mlp", l);
		add(model, "Qwen3MoeTopKRouter", false, "model.layers.%d.mlp.gate", l);
		for (int e = 0; e < (l == 0 ? EXPERTS : 1); e++)
			for (size_t i = 0; i < 3; i++)
				add(model, "Linear", true, "model.layers.%d.mlp.experts.%d.%s", l,
				    e, expert[i]);
	}
	add(model, "Linear", true, "lm_head");
}

struct config {
	struct mc_quant_config config;
	struct mc_scheme schemes[4];
	char *lists[5][8];
};

static void strings(char **list, size_t *count, const struct mc_json *from)
{
	*count = mc_json_size(from);
	assert_true(*count <= 8);
	for (size_t i = 0; i < *count; i++)
		list[i] = (char *)mc_json_string(mc_json_at(from, i), NULL);
}

/* One group a number of bits, in the order of the file. */
static void make_config(struct config *c, const struct mc_json *entry)
{
	const struct mc_json *targets = mc_json_get(entry, "targets");
	const char *bits;

	*c = (struct config){
	    .config = {
		.count = mc_json_size(targets), .schemes = c->schemes, .ignore = c->lists[4]}};
	assert_true(c->config.count <= 4);
	for (size_t i = 0; i < c->config.count; i++) {
		strings(
		    c->lists[i], &c->schemes[i].targets_count, mc_json_member(targets, i, &bits));
		c->schemes[i].targets = c->lists[i];
		c->schemes[i].weights.num_bits = (unsigned)strtoul(bits, NULL, 10);
	}
	strings(c->lists[4], &c->config.ignore_count, mc_json_get(entry, "ignore"));
}

static void count_unmatched(void *ctx, const char *target)
{
	(void)target;
	++*(size_t *)ctx;
}

static void matching_is_the_references(void **state)
{
	struct mc_json *json = golden_json("tests/golden/matching.json");
	const struct mc_json *list = mc_json_get(json, "cases");
	static struct model model;

	(void)state;
	make_model(&model);
	assert_true(mc_json_size(list) >= 15);
	for (size_t i = 0; i < mc_json_size(list); i++) {
		const struct mc_json *entry = mc_json_at(list, i),
				     *matched = mc_json_get(entry, "matched");
		size_t scheme[160], unmatched = 0, found = 0;
		struct config c;
		struct mc_error err;
		mc_error_init(&err);
		make_config(&c, entry);
		if (!mc_match_schemes(&c.config, model.modules, model.count, scheme,
			count_unmatched, &unmatched, &err))
			fail_msg("case %zu: %s", i, err.text);
		for (size_t m = 0; m < model.count; m++) {
			const struct mc_json *want = mc_json_get(matched, model.names[m]);
			unsigned bits = scheme[m] == MC_NO_SCHEME
					    ? 0
					    : c.schemes[scheme[m]].weights.num_bits;
			if (bits != (want == NULL ? 0 : mc_json_integer(want)))
				fail_msg("case %zu: %s has %u bits", i, model.names[m], bits);
			found += bits != 0;
		}
		assert_int_equal(found, mc_json_size(matched));
		/* a target without a module is told, also where the reference stops with an error
		 */
		if (found == 0 && c.config.ignore_count == 0)
			assert_int_equal(unmatched, 1);
	}
	mc_json_free(json);
}

struct told {
	size_t count;
	const char *targets[8];
};

static void tell(void *ctx, const char *target)
{
	struct told *told = ctx;
	told->targets[told->count++] = target;
}

static void unmatched_targets_are_told_once(void **state)
{
	static char *targets[] = {(char *)"Conv", (char *)"re:.*up$", (char *)"up", (char *)"Conv",
	    (char *)"Module"},
		    *ignore[] = {(char *)"up"};
	struct mc_scheme scheme = {.targets = targets, .targets_count = 5};
	struct mc_quant_config config = {
	    .count = 1, .schemes = &scheme, .ignore = ignore, .ignore_count = 1};
	const struct mc_match_module modules[] = {
	    {"a", "Linear", true, false}, {"up", NULL, true, false}, {"c", "Conv", false, false}};
	struct told told = {0};
	struct mc_error err;
	size_t result[3];

	(void)state;
	mc_error_init(&err);
	assert_true(mc_match_schemes(&config, modules, 3, result, tell, &told, &err));
	assert_int_equal(
	    told.count, 1); /* "up" matched, although it is ignored; no Conv can be quantized */
	assert_string_equal(told.targets[0], "Conv");
	assert_int_equal(result[0], 0);
	assert_true(result[1] == MC_NO_SCHEME && result[2] == MC_NO_SCHEME);
	assert_true(mc_match_schemes(&config, modules, 3, result, NULL, NULL, &err));
	config.count = 0;
	assert_true(mc_match_schemes(&config, modules, 3, result, tell, &told, &err));
	assert_true(result[0] == MC_NO_SCHEME);
}

static void any_of_a_list(void **state)
{
	static char *patterns[] = {
	    (char *)"lm_head", (char *)"re:model\\.layers\\.[02]\\.", (char *)"Embedding"};
	static const struct {
		struct mc_match_module module;
		bool matches;
	} rows[] = {
	    {{"lm_head", "Linear", true, false}, true},
	    {{"lm_head.x", "Linear", true, false}, false},
	    {{"model.layers.0.mlp", "Linear", true, false}, true},
	    {{"model.layers.1.mlp", "Linear", true, false}, false},
	    {{"x.model.layers.0.", "Linear", true, false}, false},
	    {{"model.layers.0.\xff\xfe", "Linear", true, false}, true},
	    {{"e", "Embedding", true, false}, true},
	    {{"re:model\\.layers\\.[02]\\.", "Linear", true, false}, false},
	};
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		bool matched;
		assert_true(mc_match_any(patterns, 3, &rows[i].module, &matched, &err));
		assert_int_equal(matched, rows[i].matches);
	}
}

static void bad_patterns_are_named(void **state)
{
	static char *bad[] = {(char *)"re:a(b"}, *slow[] = {(char *)"re:(a+)+(a+)+(a+)+(a+)+$"};
	const struct mc_match_module module = {
	    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", "Linear", true, false};
	struct mc_error err;
	bool matched;

	(void)state;
	mc_error_init(&err);
	assert_true(mc_match_check("a(b", &err));
	assert_true(mc_match_check("re:.*", &err));
	assert_false(mc_match_check("re:a(b", &err));
	assert_int_equal(err.code, MC_INVALID);
	assert_non_null(strstr(err.text, "'re:a(b' is not a valid pattern"));
	mc_error_init(&err);
	assert_false(mc_match_any(bad, 1, &module, &matched, &err));
	assert_int_equal(err.code, MC_INVALID);
	mc_error_init(&err);
	assert_false(mc_match_any(slow, 1, &module, &matched, &err));
	assert_int_equal(err.code, MC_INVALID);
	assert_non_null(strstr(err.text, "takes too long"));
}

/* --- tests/cases/match: rules of targets, ignore, several modifiers and attention
 * ----------------- */

static struct mc_match_module *case_modules(const struct mc_json *list)
{
	struct mc_match_module *modules = calloc(mc_json_size(list) + 1, sizeof *modules);

	assert_non_null(modules);
	for (size_t i = 0; i < mc_json_size(list); i++) {
		const struct mc_json *m = mc_json_at(list, i);
		const char *kind = mc_json_string(mc_json_at(m, 2), NULL);
		modules[i] = (struct mc_match_module){
		    .name = mc_json_string(mc_json_at(m, 0), NULL),
		    .class_name = mc_json_string(mc_json_at(m, 1), NULL),
		    .quantizable = strcmp(kind, "quantizable") == 0,
		    .attention = strcmp(kind, "attention") == 0,
		};
	}
	return modules;
}

static void parse_modifiers(
    struct mc_quant_config *config, const struct mc_json *modifiers, const char *rule)
{
	struct mc_problems problems;
	struct mc_error err;

	mc_error_init(&err);
	mc_problems_init(&problems);
	for (size_t i = 0; i < mc_json_size(modifiers); i++) {
		struct mc_quant_config next;
		assert_true(mc_quant_config_parse(
		    i == 0 ? config : &next, mc_json_at(modifiers, i), "", &problems, &err));
		if (problems.total > 0)
			fail_msg("%s: %s", rule, problems.items[0].text);
		if (i > 0)
			assert_true(mc_quant_config_append(config, &next, &err));
	}
	mc_problems_release(&problems);
}

static unsigned bits_of(const struct mc_quant_config *config, size_t scheme)
{
	const struct mc_scheme *s = scheme == MC_NO_SCHEME ? NULL : &config->schemes[scheme];

	return s == NULL        ? 0
	       : s->has_weights ? s->weights.num_bits
	       : s->has_input   ? s->input.num_bits
				: 0;
}

static void match_row(
    const struct mc_json *row, const struct mc_match_module *modules, size_t count)
{
	const struct mc_json *gives = mc_json_get(row, "gives");
	const char *rule = mc_json_string(mc_json_get(row, "rule"), NULL);
	size_t scheme[64], found = 0;
	struct mc_quant_config config;
	struct mc_error err;

	mc_error_init(&err);
	assert_true(count <= 64);
	parse_modifiers(&config, mc_json_get(row, "modifiers"), rule);
	if (!mc_match_schemes(&config, modules, count, scheme, NULL, NULL, &err))
		fail_msg("%s: %s", rule, err.text);
	for (size_t i = 0; i < count; i++) {
		const struct mc_json *want = mc_json_get(gives, modules[i].name);
		unsigned bits = bits_of(&config, scheme[i]);
		if (bits != (want == NULL ? 0 : mc_json_integer(want)))
			fail_msg("%s: %s has %u bits", rule, modules[i].name, bits);
		found += bits > 0;
	}
	if (found != mc_json_size(gives))
		fail_msg("%s: a module of 'gives' is not there", rule);
	mc_quant_config_release(&config);
}

static void rules_are_the_references(void **state)
{
	struct mc_json *json = golden_json("tests/cases/match/rules.json");
	const struct mc_json *rows = mc_json_get(json, "rows"),
			     *list = mc_json_get(json, "modules");
	struct mc_match_module *modules = case_modules(list);

	(void)state;
	assert_true(mc_json_size(rows) >= 30);
	for (size_t i = 0; i < mc_json_size(rows); i++)
		match_row(mc_json_at(rows, i), modules, mc_json_size(list));
	free(modules);
	mc_json_free(json);
}

/* Groups of later modifiers get names that are free; the last cache scheme stays. */
static void modifiers_are_appended(void **state)
{
	static const char text[] =
	    "[{\"scheme\": {\"W4A16\": \"a\", \"W8A16\": \"b\"}, \"ignore\": [\"x\"]},"
	    "{\"scheme\": \"W8A8\", \"ignore\": [\"y\", \"z\"], \"kv_cache_scheme\": {}},"
	    "{\"config_groups\": {\"mine\": {\"targets\": [\"c\"]}, \"group_1\": {\"targets\": "
	    "[]}}},"
	    "{\"config_groups\": {\"mine\": {\"targets\": [\"c\"]}}}]";
	static const char *const names[] = {
	    "group_0", "group_1", "group_2", "mine", "group_3", "mine_1"};
	struct mc_quant_config config;
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	struct mc_json *json = mc_json_parse(text, sizeof text - 1, "", &err);
	parse_modifiers(&config, json, "append");
	assert_int_equal(config.count, 6);
	for (size_t i = 0; i < 6; i++)
		assert_string_equal(config.schemes[i].name, names[i]);
	assert_int_equal(config.parts_count, 4);
	assert_int_equal(config.parts[0].schemes, 2);
	assert_int_equal(config.parts[1].ignore, 2);
	assert_int_equal(config.parts[3].schemes, 1);
	assert_int_equal(config.ignore_count, 3);
	assert_string_equal(config.ignore[2], "z");
	assert_true(config.has_kv_cache);
	mc_quant_config_release(&config);
	mc_json_free(json);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(matching_is_the_references),
	    cmocka_unit_test(unmatched_targets_are_told_once),
	    cmocka_unit_test(rules_are_the_references),
	    cmocka_unit_test(modifiers_are_appended),
	    cmocka_unit_test(any_of_a_list),
	    cmocka_unit_test(bad_patterns_are_named),
	};
	return cmocka_run_group_tests_name("match", tests, NULL, NULL);
}
