/*
 * test_diff.c - two jobs compared: the same, other text, another recipe, another model, unfinished
 */
#include "quantized_folder.h"

#include <math.h>

#include "moecal/diff.h"
#include "moecal/ops.h"

static char scratch[] = "/tmp/moecal-test-diff-XXXXXX";
static struct lab lab;

static const char *place(const char *name)
{
	static char paths[8][QF_PATH];
	static unsigned next;
	char *p = paths[next++ % 8];

	snprintf(p, QF_PATH, "%s/%s", scratch, name);
	return p;
}

static const char *job(const char *name, const char *text, const char *recipe, const char *more)
{
	const char *folder = place(name);
	char all[QF_PATH + 128];

	snprintf(
	    all, sizeof all, ", \"dataset\": \"%s\", \"max_seq_length\": 48%s", place(text), more);
	if (!mc_file_exists(folder))
		qf_run(QF_MODEL, recipe, all, folder, 2);
	return folder;
}

/* The document; `within` as it must be. */
static struct mc_json *compare(const char *a, const char *b, double threshold, bool within)
{
	struct mc_json *document;
	struct mc_error err;
	bool have;

	mc_error_init(&err);
	toy_require(mc_diff(a, b, threshold, &lab.env, &document, &have, &err), &err);
	assert_int_equal(have, within);
	assert_int_equal(mc_arena_mark(lab.env.arena), 0);
	return document;
}

static double largest(const struct mc_json *document, const char *what)
{
	const struct mc_json *value = mc_json_get(mc_json_get(document, "largest"), what);

	assert_non_null(value);
	return mc_json_is_null(value) ? NAN : mc_json_number(value);
}

static bool says(const struct mc_json *document, const char *key)
{
	const struct mc_json *list = mc_json_get(document, "differences");

	for (size_t i = 0; i < mc_json_size(list); i++)
		if (strcmp(mc_json_string(mc_json_get(mc_json_at(list, i), "key"), NULL), key) == 0)
			return true;
	return false;
}

static size_t count_of(const struct mc_json *document, const char *key, const char *inner)
{
	const struct mc_json *list = mc_json_get(document, key);

	return mc_json_size(inner == NULL ? list : mc_json_get(list, inner));
}

/* Largest first, and no number outside of what it can be. */
static void require_order(const struct mc_json *list, const char *key)
{
	double last = INFINITY;

	assert_true(mc_json_size(list) > 0);
	for (size_t i = 0; i < mc_json_size(list); i++) {
		double value = mc_json_number(mc_json_get(mc_json_at(list, i), key));
		assert_true(value >= 0 && value <= last && value <= 2);
		last = value;
	}
}

/* --- tests ------------------------------------------------------------------------------------ */

static void test_the_same(void **state)
{
	const char *a = job("a", "prose.jsonl", "\"FP8\"", ""),
		   *again = job("again", "prose.jsonl", "\"FP8\"", "");
	(void)state;
	struct mc_json *d = compare(a, again, 0, true);

	assert_int_equal(count_of(d, "differences", NULL), 0);
	for (int i = 0; i < MC_DRIFT_COUNT; i++)
		assert_true(largest(d, mc_drift_name((enum mc_drift)i)) == 0);
	assert_true(mc_json_bool(mc_json_get(d, "within")));
	assert_int_equal(count_of(d, "layers", NULL), 4);
	assert_int_equal(count_of(d, "experts", NULL), 4 * 8);
	assert_int_equal(count_of(d, "coverage", NULL), 4 * 8);
	assert_int_equal(count_of(d, "inputs", NULL), 112);
	assert_int_equal(count_of(d, "scales", NULL), 2 * 112);
	mc_json_free(d);
}

/* The numbers of one expert, taken from the other documents of the two jobs. */
static void check_by_hand(const struct mc_json *d, const char *a, const char *b)
{
	const struct mc_json *first = mc_json_at(mc_json_get(d, "scales"), 0);
	const char *name = mc_json_string(mc_json_get(first, "name"), NULL);
	const char *folders[] = {a, b};
	float scale[2];

	for (size_t i = 0; i < 2; i++) {
		struct mc_checkpoint checkpoint;
		struct mc_error err;
		uint16_t bits;
		mc_error_init(&err);
		char model[QF_PATH + 16];
		snprintf(model, sizeof model, "%s/model", folders[i]);
		toy_require(mc_checkpoint_open(&checkpoint, NULL, model, &err), &err);
		const struct mc_ckpt_tensor *t = mc_checkpoint_find(&checkpoint, name);
		assert_non_null(t);
		toy_require(mc_checkpoint_read(&checkpoint, t, 0, 2, &bits, &err), &err);
		mc_widen(MC_BF16, &bits, &scale[i], 1);
		mc_checkpoint_close(&checkpoint);
	}
	double relative = fabs((double)scale[0] - scale[1]) / fmax(scale[0], scale[1]);
	assert_true(fabs(relative - mc_json_number(mc_json_get(first, "relative"))) < 1e-12);
	assert_true(relative == largest(d, "scales"));
}

static void test_other_text(void **state)
{
	const char *a = job("a", "prose.jsonl", "\"FP8\"", ""),
		   *b = job("b", "code.jsonl", "\"FP8\"", "");
	(void)state;
	struct mc_json *d = compare(a, b, -1, true);

	assert_true(says(d, "dataset.0.path") && says(d, "data.0.sha256") && !says(d, "model"));
	assert_true(mc_json_is_null(mc_json_get(d, "within")));
	assert_true(largest(d, "coverage") > 0.05 && largest(d, "coverage") <= 1);
	assert_true(largest(d, "inputs") > 0.05);
	assert_true(largest(d, "scales") > 0.05);
	assert_true(largest(d, "error") == 0); /* weights do not depend on text */
	require_order(mc_json_get(d, "coverage"), "difference");
	require_order(mc_json_get(d, "inputs"), "relative");
	require_order(mc_json_get(d, "scales"), "relative");
	require_order(mc_json_get(d, "layers"), "largest");
	require_order(mc_json_get(d, "experts"), "largest");
	check_by_hand(d, a, b);
	double most = fmax(
	    fmax(largest(d, "coverage"), largest(d, "inputs")), largest(d, "scales"));
	mc_json_free(d);
	mc_json_free(compare(a, b, most, true));
	mc_json_free(compare(a, b, nextafter(most, 0), false));
	/* from the other side it is as far */
	d = compare(b, a, -1, true);
	assert_true(
	    fmax(fmax(largest(d, "coverage"), largest(d, "inputs")), largest(d, "scales")) == most);
	mc_json_free(d);
}

static void test_other_recipe(void **state)
{
	const char *a = job("a", "prose.jsonl", "\"FP8\"", ""),
		   *w4 = job("w4", "prose.jsonl", "\"W4A16\"", ""),
		   *mx = job("mx", "prose.jsonl", "\"MXFP8A16\"", ""),
		   *asym = job("asym", "prose.jsonl", "\"W4A16_ASYM\"", ", \"seed\": 5");
	(void)state;
	struct mc_json *d = compare(a, w4, 5, false);

	assert_true(says(d, "recipe.QuantizationModifier.scheme"));
	assert_true(largest(d, "coverage") == 0 && largest(d, "inputs") == 0);
	assert_true(largest(d, "error") > 0.1);
	assert_int_equal(count_of(d, "unlike", NULL), 112); /* scales of another shape */
	assert_true(isnan(largest(d, "scales")));
	assert_int_equal(count_of(d, "only_a", "parameters"), 112); /* input_scale */
	assert_int_equal(count_of(d, "only_a", "modules"), 0);
	mc_json_free(d);
	d = compare(w4, asym, -1, true);
	assert_true(says(d, "seed"));
	assert_int_equal(count_of(d, "only_b", "parameters"), 112); /* zero points */
	assert_true(largest(d, "scales") > 0);
	mc_json_free(d);
	d = compare(mx, mx, 0, true); /* exponents */
	assert_int_equal(count_of(d, "scales", NULL), 112);
	mc_json_free(d);
}

/* Fewer linears are quantized, and in other layers nothing is compared. */
static void test_other_modules_and_models(void **state)
{
	const char *a = job("a", "prose.jsonl", "\"FP8\"", "");
	char folder[QF_PATH], other[QF_PATH], more[QF_PATH + 32];
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);
	struct mc_error err;
	(void)state;

	const char *experts = job("experts", "prose.jsonl",
	    "{\"targets\": [\"re:.*experts.*\"], \"scheme\": \"FP8\"}", "");
	struct mc_json *d = compare(a, experts, 1, false);
	/* linears that keep their weights are watched all the same */
	assert_int_equal(count_of(d, "only_a", "modules"), 0);
	assert_int_equal(count_of(d, "only_a", "parameters"), 32);
	assert_true(largest(d, "scales") == 0);
	mc_json_free(d);

	mc_error_init(&err);
	snprintf(folder, sizeof folder, "%s", place("toy"));
	snprintf(other, sizeof other, "%s", place("toy-job"));
	toy_require(mc_file_make_folders(folder, &err), &err);
	toy_require(mc_toy_write(&toy, folder, &err), &err);
	snprintf(more, sizeof more, ", \"dataset\": \"%s\"", place("ids.jsonl"));
	qf_run(folder, "\"FP8\"", more, other, 1);
	d = compare(a, other, -1, true);
	assert_true(says(d, "model") && says(d, "model sha256"));
	assert_int_equal(count_of(d, "only_a", "layers"), 2);
	assert_true(count_of(d, "only_a", "modules") > 40);
	assert_int_equal(count_of(d, "only_b", "modules"), 0);
	mc_json_free(d);
}

/* Without text, and in work: what there is is compared. */
static void test_what_is_not_whole(void **state)
{
	const char *a = job("a", "prose.jsonl", "\"FP8_DYNAMIC\"", "");
	char unfinished[QF_PATH], path[QF_PATH + 64];
	struct mc_error err;
	(void)state;

	mc_error_init(&err);
	snprintf(unfinished, sizeof unfinished, "%s", place("no-text"));
	qf_run(QF_MODEL, "\"FP8_DYNAMIC\"", "", unfinished, 2);
	struct mc_json *d = compare(a, unfinished, -1, true);
	assert_true(isnan(largest(d, "inputs")));
	assert_true(says(d, "dataset"));
	mc_json_free(d);
	static const char *const gone[] = {"manifest.json", "quantization.safetensors"};
	for (size_t i = 0; i < 2; i++) {
		snprintf(path, sizeof path, "%s/%s", unfinished, gone[i]);
		assert_int_equal(remove(path), 0);
	}
	d = compare(a, unfinished, 1, false);
	assert_false(mc_json_bool(mc_json_get(mc_json_get(d, "b"), "finished")));
	assert_int_equal(count_of(d, "scales", NULL), 0);
	mc_json_free(d);
}

static void refuse(const char *a, const char *b, enum mc_code code, const char *where)
{
	struct mc_json *document;
	struct mc_error err;
	bool within;

	mc_error_init(&err);
	assert_false(mc_diff(a, b, -1, &lab.env, &document, &within, &err));
	assert_null(document);
	if (err.code != code || strstr(err.where, where) == NULL)
		fail_msg("%s: %s: %s", mc_code_name(err.code), err.where, err.text);
}

static void test_refused(void **state)
{
	const char *a = job("a", "prose.jsonl", "\"FP8\"", "");
	struct mc_error err;
	(void)state;

	refuse(a, QF_MODEL, MC_INVALID, QF_MODEL);
	refuse("/nowhere", a, MC_INVALID, "/nowhere");
	const char *broken = place("broken");
	mc_error_init(&err);
	toy_require(mc_file_make_folders(broken, &err), &err);
	qf_write_text(broken, "calibration.db",
	    "no database, and longer than the hundred bytes that "
	    "a header of one has: hence these many more words");
	refuse(a, broken, MC_INVALID, broken); /* no spec.json */
	qf_write_text(broken, "spec.json", "{");
	refuse(a, broken, MC_INVALID, "spec.json");
	qf_write_text(broken, "spec.json", "[]");
	refuse(a, broken, MC_CORRUPT, "calibration.db");
}

static void test_relative_differences(void **state)
{
	float a[] = {1, 0, -2, 4, INFINITY, NAN, 3}, b[] = {1, 0, 2, 3, INFINITY, NAN, 3};
	double most, sum;
	(void)state;

	assert_int_equal(mc_relative_differences(a, b, 4, &most, &sum), 2);
	assert_true(most == 2 && sum == 2.25);
	assert_int_equal(mc_relative_differences(a + 4, b + 4, 1, &most, &sum), 0);
	assert_int_equal(mc_relative_differences(a + 5, b + 5, 1, &most, &sum), 1);
	assert_true(isinf(most));
	assert_int_equal(mc_relative_differences(a, b, 0, &most, &sum), 0);
	assert_true(most == 0 && sum == 0);
	assert_int_equal(mc_count_unlike(a, b, 4, 7), 2);
	assert_int_equal(mc_count_unlike("abcdefgh", "abXdefgh", 2, 4), 1);
}

static int set_up(void **state)
{
	(void)state;
	assert_non_null(mkdtemp(scratch));
	lab_open(&lab, 1);
	qf_write_text(scratch, "prose.jsonl",
	    "{\"text\": \"The road went on over the hill and down to the sea where boats lay.\"}\n"
	    "{\"text\": \"In the morning she walked to the village, for there was no bread.\"}\n");
	qf_write_text(scratch, "code.jsonl",
	    "{\"text\": \"def f(x):\\n    return [i ** 2 for i in range(x)]  # 1 + 17\"}\n"
	    "{\"text\": \"static int n = 0x7f; if (n != 3) { puts(); }\"}\n");
	qf_write_text(scratch, "ids.jsonl", "{\"input_ids\": [1, 2, 3, 4, 5]}\n");
	return 0;
}

static int tear_down(void **state)
{
	struct mc_error err;
	(void)state;

	mc_error_init(&err);
	lab_close(&lab);
	return mc_file_remove_tree(scratch, &err) ? 0 : 1;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_the_same),
	    cmocka_unit_test(test_other_text),
	    cmocka_unit_test(test_other_recipe),
	    cmocka_unit_test(test_other_modules_and_models),
	    cmocka_unit_test(test_what_is_not_whole),
	    cmocka_unit_test(test_refused),
	    cmocka_unit_test(test_relative_differences),
	};
	return cmocka_run_group_tests_name("diff", tests, set_up, tear_down);
}
