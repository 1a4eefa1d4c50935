/*
 * test_derive.c - derived jobs against fresh ones of the same spec, byte by byte; stops; refusals
 */
#include "job_world.h"

#include <sqlite3.h>

#include "reference/toy.h"

#define STATIC_INT8(observer)                                                                      \
	"{\"config_groups\": {\"a\": {\"targets\": [\"Linear\"], \"weights\": {\"num_bits\": 8, "  \
	"\"strategy\": \"channel\"}, \"input_activations\": {\"num_bits\": 8, \"symmetric\": "     \
	"false, \"strategy\": \"tensor\", \"dynamic\": false, \"observer\": \"" observer           \
	"\"}}}, \"ignore\": [\"lm_head\"]}"
#define KV(strategy, observer)                                                                     \
	"{\"kv_cache_scheme\": {\"num_bits\": 8, \"type\": \"float\", \"strategy\": \"" strategy   \
	"\", \"dynamic\": false, \"symmetric\": true, \"observer\": \"" observer "\"}, "           \
	"\"scheme\": \"FP8\", \"targets\": [\"Linear\"], \"ignore\": [\"lm_head\"]}"
#define MIXED                                                                                      \
	"{\"config_groups\": {\"a\": {\"targets\": [\"re:.*self_attn.*proj$\"], \"weights\": "     \
	"{\"num_bits\": 8, \"type\": \"float\", \"strategy\": \"tensor\"}, "                       \
	"\"input_activations\": {\"num_bits\": 8, \"type\": \"float\", \"strategy\": \"tensor\", " \
	"\"dynamic\": false}}, \"b\": {\"targets\": [\"re:.*experts.*\"], \"weights\": "           \
	"{\"num_bits\": 4, \"strategy\": \"group\", \"group_size\": 32}}}, \"ignore\": "           \
	"[\"lm_head\"]}"
#define ATTENTION                                                                                  \
	"{\"config_groups\": {\"a\": {\"targets\": [\"re:.*self_attn$\"], \"input_activations\": " \
	"{\"num_bits\": 8, \"type\": \"float\", \"strategy\": \"attn_head\", \"dynamic\": false, " \
	"\"symmetric\": true}}}}"

static const char *const recipes[] = {"\"W4A16\"", "\"W8A8\"", STATIC_INT8("static_minmax"),
    STATIC_INT8("minmax"), STATIC_INT8("memoryless_minmax"), "\"FP8\"", "\"NVFP4\"", "\"MXFP4\"",
    KV("tensor", "minmax"), KV("attn_head", "static_minmax"), MIXED, ATTENTION,
    "{\"scheme\": \"W4A16\", \"weight_observer\": \"mse\", \"ignore\": [\"lm_head\"]}"};
#define RECIPES (sizeof recipes / sizeof *recipes)

static const char *changes(const char *recipe)
{
	static char text[2048];
	snprintf(text, sizeof text, "{\"recipe\": %s}", recipe);
	return text;
}

static void require_derived(const char *from, const char *recipe, const char *out, unsigned workers)
{
	struct control control = {0};
	struct mc_run_result result;
	struct mc_error err;

	mc_error_init(&err);
	if (!run_job_from(from, changes(recipe), out, workers, &control, &result, &err))
		print_error("%s: %s\n", err.where, err.text);
	assert_int_equal(err.code, MC_OK);
	assert_true(result.valid);
}

static void require_refusal(
    const char *from, const char *recipe, enum mc_code code, const char *where, const char *text)
{
	struct control control = {0};
	struct mc_run_result result;
	struct mc_error err;
	char out[128];

	snprintf(out, sizeof out, "%s/refused", scratch);
	mc_error_init(&err);
	assert_false(run_job_from(from, changes(recipe), out, 1, &control, &result, &err));
	if (err.code != code || strstr(err.where, where) == NULL || strstr(err.text, text) == NULL)
		print_error("%d %s: %s\n", err.code, err.where, err.text);
	assert_int_equal(err.code, code);
	assert_non_null(strstr(err.where, where));
	assert_non_null(strstr(err.text, text));
	assert_false(mc_file_exists(out));
}

/* What tables hold that a fresh job's hold, too; times apart. */
static void assert_same_rows(const char *a, const char *b)
{
	static const char *const queries[] = {
	    "SELECT count(*) FROM (SELECT * FROM module EXCEPT SELECT * FROM other.module)",
	    "SELECT count(*) FROM (SELECT * FROM expert EXCEPT SELECT * FROM other.expert)",
	    "SELECT count(*) FROM (SELECT * FROM channel EXCEPT SELECT * FROM other.channel)",
	    "SELECT count(*) FROM (SELECT * FROM site EXCEPT SELECT * FROM other.site)",
	    "SELECT (SELECT count(*) FROM site) - (SELECT count(*) FROM other.site)",
	    "SELECT (SELECT count(*) FROM site) = 0"};
	sqlite3_stmt *statement;
	char attach[600];
	sqlite3 *db;

	assert_int_equal(sqlite3_open(path_of(a, "calibration.db"), &db), SQLITE_OK);
	snprintf(attach, sizeof attach, "ATTACH '%s' AS other", path_of(b, "calibration.db"));
	assert_int_equal(sqlite3_exec(db, attach, NULL, NULL, NULL), SQLITE_OK);
	for (size_t i = 0; i < sizeof queries / sizeof *queries; i++) {
		assert_int_equal(
		    sqlite3_prepare_v2(db, queries[i], -1, &statement, NULL), SQLITE_OK);
		assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
		if (sqlite3_column_int(statement, 0) != 0)
			print_error("%s: %d\n", queries[i], sqlite3_column_int(statement, 0));
		assert_int_equal(sqlite3_column_int(statement, 0), 0);
		sqlite3_finalize(statement);
	}
	sqlite3_close(db);
}

/* Source and fresh jobs with `more` in their specs: every recipe derived is the fresh job's twin.
 */
static void require_twins(const char *name, const char *more, const char *source_recipe)
{
	static const unsigned workers[] = {1, 2, 3, 5};
	struct mc_run_result result;
	char source[128], fresh[128], derived[128];

	snprintf(source, sizeof source, "%s/%s-source", scratch, name);
	require_job(spec_of(source_recipe, more), source, 2, &result);
	for (size_t r = 0; r < RECIPES; r++) {
		snprintf(fresh, sizeof fresh, "%s/%s-fresh-%zu", scratch, name, r);
		snprintf(derived, sizeof derived, "%s/%s-derived-%zu", scratch, name, r);
		require_job(spec_of(recipes[r], more), fresh, 2, &result);
		require_derived(source, recipes[r], derived, workers[r % 4]);
		assert_same_files(fresh, derived);
		assert_same_rows(fresh, derived);
	}
}

static void test_all_experts(void **state)
{
	(void)state;
	require_twins("all", ", \"num_calibration_samples\": 4", "\"W4A16\"");
}

/* Few tokens: some experts see none, and stand-ins are needed. */
static void test_routed_experts(void **state)
{
	(void)state;
	require_twins("routed",
	    ", \"calibrate_all_experts\": false, \"num_calibration_samples\": 3, "
	    "\"max_seq_length\": 6, \"precision\": \"float32\"",
	    KV("tensor", "minmax"));
}

/* With statistics of channels the head and weighted searches can be derived, too. */
static void test_channels_and_head(void **state)
{
	static const char imatrix[] = "{\"scheme\": \"W4A16\", \"targets\": [\"Linear\"], "
				      "\"weight_observer\": \"imatrix_mse\"}",
			  head[] = "{\"scheme\": \"FP8\", \"targets\": [\"Linear\"]}",
			  more[] = ", \"num_calibration_samples\": 3, \"keep_statistics\": "
				   "\"channels\"";
	struct mc_run_result result;
	char source[128], fresh[128], derived[128], twice[128];
	(void)state;

	snprintf(source, sizeof source, "%s/channels", scratch);
	snprintf(derived, sizeof derived, "%s/channels-derived", scratch);
	snprintf(fresh, sizeof fresh, "%s/channels-fresh", scratch);
	snprintf(twice, sizeof twice, "%s/channels-twice", scratch);
	require_job(spec_of(head, more), source, 2, &result);
	require_job(spec_of(imatrix, more), fresh, 2, &result);
	require_derived(source, imatrix, derived, 3);
	assert_same_files(fresh, derived);
	assert_same_rows(fresh, derived);
	/* a derived job is a source like any other */
	require_derived(derived, head, twice, 1);
	assert_same_files(source, twice);
	assert_same_rows(source, twice);
}

static void test_every_layout(void **state)
{
	struct mc_toy toys[] = {mc_toy(MC_TOY_MIXTRAL), mc_toy(MC_TOY_QWEN3_MOE)};
	struct mc_run_result result;
	struct mc_error err;
	char folder[128], out[3][128], spec[2048];
	(void)state;

	toys[0].version_5 = toys[0].fused = true;
	toys[1].tied = toys[1].attention_bias = true;
	toys[1].dense_layers = 1;
	write_text(path_of(scratch, "ids.jsonl"),
	    "{\"input_ids\": [1, 2, 3, 4, 5, 6, 7]}\n{\"input_ids\": [7, 6, 5]}\n");
	for (size_t i = 0; i < 2; i++) {
		static const char *const made[] = {"\"FP8\"", KV("attn_head", "minmax")};
		mc_error_init(&err);
		snprintf(folder, sizeof folder, "%s/toy-%zu", scratch, i);
		assert_true(mc_file_make_folders(folder, &err));
		assert_true(mc_toy_write(&toys[i], folder, &err));
		for (size_t j = 0; j < 2; j++) {
			snprintf(out[j], sizeof out[j], "%s/toy-out-%zu-%zu", scratch, i, j);
			snprintf(spec, sizeof spec,
			    "{\"model\": \"%s\", \"dataset\": \"%s/ids.jsonl\", \"recipe\": %s}",
			    folder, scratch, made[j]);
			require_job(spec, out[j], 2, &result);
		}
		snprintf(out[2], sizeof out[2], "%s/toy-derived-%zu", scratch, i);
		require_derived(out[0], made[1], out[2], 2);
		assert_same_files(out[1], out[2]);
		assert_same_rows(out[1], out[2]);
	}
}

/* The data are not needed any more; the manifest names the source. */
static void test_without_data(void **state)
{
	struct mc_run_result result;
	struct mc_error err;
	char source[128], derived[128], spec[600], digest_of_source[65];
	(void)state;

	snprintf(source, sizeof source, "%s/gone", scratch);
	snprintf(derived, sizeof derived, "%s/gone-derived", scratch);
	write_text(path_of(scratch, "gone.jsonl"), "{\"text\": \"nobody knows me\"}\n");
	snprintf(spec, sizeof spec,
	    "{\"model\": \"" MODEL "\", \"dataset\": \"%s/gone.jsonl\", \"recipe\": \"W4A16\", "
	    "\"save_model\": false}",
	    scratch);
	require_job(spec, source, 1, &result);
	unlink(path_of(scratch, "gone.jsonl"));
	require_derived(source, "\"FP8\"", derived, 1);
	assert_false(mc_file_exists(path_of(derived, "model")));
	digest(source, "manifest.json", digest_of_source);
	struct mc_json *manifest = read_json(derived, "manifest.json"),
		       *old = read_json(source, "manifest.json");
	const struct mc_json *from = mc_json_get(manifest, "derived_from");
	assert_string_equal(mc_json_string(mc_json_get(from, "sha256"), NULL), digest_of_source);
	assert_true(mc_json_equal(mc_json_get(mc_json_get(manifest, "inputs"), "datasets"),
	    mc_json_get(mc_json_get(old, "inputs"), "datasets")));
	assert_null(mc_json_get(old, "derived_from"));
	mc_json_free(manifest);
	mc_json_free(old);
	/* without data there is nothing to derive from but the weights */
	snprintf(source, sizeof source, "%s/no-data", scratch);
	snprintf(derived, sizeof derived, "%s/no-data-derived", scratch);
	require_job("{\"model\": \"" MODEL "\", \"recipe\": \"W4A16\"}", source, 1, &result);
	require_derived(source, "\"W8A16\"", derived, 1);
	mc_error_init(&err);
}

static void test_stops_after_every_layer(void **state)
{
	struct mc_run_result result;
	char source[128], fresh[128], broken[128];
	struct mc_error err;
	(void)state;

	snprintf(source, sizeof source, "%s/stop-source", scratch);
	snprintf(fresh, sizeof fresh, "%s/stop-fresh", scratch);
	require_job(spec_of("\"W4A16\"", ""), source, 2, &result);
	require_job(spec_of("\"FP8\"", ""), fresh, 2, &result);
	for (size_t stop = 1; stop < LAYERS; stop++) {
		struct control control = {.cancel_at = stop};
		snprintf(broken, sizeof broken, "%s/stop-%zu", scratch, stop);
		mc_error_init(&err);
		assert_false(
		    run_job_from(source, changes("\"FP8\""), broken, 2, &control, &result, &err));
		assert_int_equal(err.code, MC_CANCELED);
		assert_false(mc_file_exists(path_of(broken, "manifest.json")));
		/* what was begun by deriving is not gone on with by running, nor from another job
		 */
		control = (struct control){0};
		mc_error_init(&err);
		assert_false(run_job(spec_of("\"FP8\"", ""), broken, 1, &control, &result, &err));
		assert_int_equal(err.code, MC_CONFLICT);
		assert_non_null(strstr(err.text, "cannot go on: derived_from"));
		mc_error_init(&err);
		assert_false(
		    run_job_from(fresh, changes("\"FP8\""), broken, 1, &control, &result, &err));
		assert_int_equal(err.code, MC_CONFLICT);
		require_derived(source, "\"FP8\"", broken, 3);
		assert_same_files(fresh, broken);
		assert_false(mc_file_exists(path_of(broken, "resume")));
	}
}

/* --- refusals --------------------------------------------------------------------------------- */

static void test_refuses_observers_that_look_at_inputs(void **state)
{
	struct mc_run_result result;
	char source[128];
	(void)state;

	snprintf(source, sizeof source, "%s/refusing", scratch);
	require_job(spec_of("\"FP8\"", ", \"num_calibration_samples\": 2"), source, 2, &result);
	require_refusal(source, "{\"scheme\": \"FP8\", \"input_observer\": \"mse\"}",
	    MC_UNSUPPORTED, "model.layers.0.self_attn.q_proj", "input observer 'mse'");
	require_refusal(source, "{\"scheme\": \"NVFP4\", \"input_observer\": \"minmax\"}",
	    MC_UNSUPPORTED, "model.layers.0.self_attn.q_proj", "each group of channels");
	require_refusal(source, "{\"scheme\": \"W4A16\", \"weight_observer\": \"imatrix_mse\"}",
	    MC_CONFLICT, "model.layers.0.self_attn.q_proj", "keep_statistics 'channels'");
	require_refusal(source, "{\"scheme\": \"FP8\", \"targets\": [\"Linear\"]}", MC_CONFLICT,
	    "lm_head", "did not quantize it");
	require_refusal(
	    path_of(scratch, "nowhere"), "\"FP8\"", MC_NOT_FOUND, "nowhere", "no manifest.json");
	require_refusal(scratch, "\"FP8\"", MC_CONFLICT, scratch, "no manifest.json");
}

static void test_refuses_changes(void **state)
{
	struct mc_run_result result;
	struct mc_problems problems;
	struct mc_source opened;
	struct mc_error err;
	char source[128];
	(void)state;

	snprintf(source, sizeof source, "%s/keys", scratch);
	require_job(spec_of("\"W4A16\"", ", \"num_calibration_samples\": 2"), source, 2, &result);
	mc_error_init(&err);
	assert_true(mc_source_open(&opened, source, &err));
	mc_problems_init(&problems);
	mc_json_free(job_spec("{\"recipe\": \"FP8\", \"threads\": 2, \"memory_bytes\": 100000000, "
			      "\"metadata\": {\"a\": 1}, \"num_calibration_samples\": 2}",
	    &opened, &problems));
	assert_int_equal(problems.total, 0);
	mc_json_free(job_spec("{\"precision\": \"float32\", \"dataset\": \"x\", \"model\": \"y\"}",
	    &opened, &problems));
	assert_int_equal(problems.total, 4);
	assert_string_equal(problems.items[0].pointer, "/precision");
	assert_non_null(strstr(problems.items[0].text, "cannot be changed"));
	assert_string_equal(problems.items[3].pointer, "/recipe");
	mc_problems_release(&problems);
	mc_source_close(&opened);
}

static void run_sql(const char *folder, const char *sql)
{
	sqlite3 *db;

	assert_int_equal(sqlite3_open(path_of(folder, "calibration.db"), &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
}

/* Sites that are absent or damaged; statistics of another job; an edited spec; an earlier file. */
static void test_refuses_damage(void **state)
{
	static const struct {
		const char *sql, *text;
		enum mc_code code;
	} cases[] = {
	    {"DELETE FROM site WHERE layer = 1 AND site = 'key'", "no site key", MC_CORRUPT},
	    {"UPDATE site SET min = zeroblob(4) WHERE layer = 0 AND site = 'qkv'",
		"ranges of other sequences", MC_CORRUPT},
	    {"UPDATE site SET min = max, max = min WHERE layer = 0 AND expert = 2", "no range",
		MC_CORRUPT},
	    {"UPDATE site SET channels = 3 WHERE layer = 0 AND site = 'o'", "number of channels",
		MC_CORRUPT},
	    {"DELETE FROM expert WHERE expert = 7", "coverage of other experts", MC_CORRUPT},
	    {"UPDATE run SET value = 'x' WHERE key = 'model'", "of different jobs", MC_CORRUPT},
	    {"DELETE FROM layer WHERE \"index\" = 3", "has 3 layers", MC_CORRUPT},
	    {"DROP TABLE site; PRAGMA user_version = 1", "an earlier program", MC_CONFLICT}};
	struct control control = {0};
	struct mc_run_result result;
	struct mc_error err;
	char source[128], out[128];
	(void)state;

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		snprintf(source, sizeof source, "%s/damaged-%zu", scratch, i);
		snprintf(out, sizeof out, "%s/damaged-out-%zu", scratch, i);
		require_job(
		    spec_of("\"W4A16\"", ", \"num_calibration_samples\": 2"), source, 2, &result);
		run_sql(source, cases[i].sql);
		mc_error_init(&err);
		assert_false(
		    run_job_from(source, changes("\"FP8\""), out, 1, &control, &result, &err));
		if (strstr(err.text, cases[i].text) == NULL)
			print_error("%s: %s: %s\n", cases[i].sql, err.where, err.text);
		assert_int_equal(err.code, cases[i].code);
		assert_non_null(strstr(err.text, cases[i].text));
		assert_false(mc_file_exists(path_of(out, "manifest.json")));
	}
	snprintf(source, sizeof source, "%s/edited", scratch);
	require_job(spec_of("\"W4A16\"", ", \"num_calibration_samples\": 2"), source, 2, &result);
	struct mc_json *spec = read_json(source, "spec.json");
	struct mc_buf text;
	mc_buf_init(&text, 1 << 20);
	mc_error_init(&err);
	assert_true(mc_json_set(spec, "precision", mc_json_new_string("float32"), &err));
	assert_true(mc_json_write(spec, MC_JSON_PRETTY, &text, &err));
	write_text(path_of(source, "spec.json"), mc_buf_text(&text));
	mc_buf_release(&text);
	mc_json_free(spec);
	require_refusal(source, "\"FP8\"", MC_CORRUPT, source, "spec.json is not the one");
}

/* Another checkpoint under the source's name. */
static void test_refuses_another_model(void **state)
{
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);
	struct control control = {0};
	struct mc_run_result result;
	struct mc_error err;
	char folder[128], source[128], out[128], spec[600];
	(void)state;

	mc_error_init(&err);
	snprintf(folder, sizeof folder, "%s/model", scratch);
	snprintf(source, sizeof source, "%s/model-source", scratch);
	snprintf(out, sizeof out, "%s/model-derived", scratch);
	snprintf(spec, sizeof spec, "{\"model\": \"%s\", \"recipe\": \"FP8_DYNAMIC\"}", folder);
	assert_true(mc_file_make_folders(folder, &err));
	assert_true(mc_toy_write(&toy, folder, &err));
	require_job(spec, source, 1, &result);
	toy.seed++;
	assert_true(mc_toy_write(&toy, folder, &err));
	assert_false(run_job_from(source, changes("\"W8A8\""), out, 1, &control, &result, &err));
	assert_int_equal(err.code, MC_CONFLICT);
	assert_string_equal(err.where, folder);
	assert_non_null(strstr(err.text, "is not the model of the source job: its sha256"));
	toy.dtype = MC_F32;
	assert_true(mc_toy_write(&toy, folder, &err));
	mc_error_init(&err);
	assert_false(run_job_from(source, changes("\"W8A8\""), out, 1, &control, &result, &err));
	assert_non_null(strstr(err.text, "its tensors have"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_all_experts),
	    cmocka_unit_test(test_routed_experts),
	    cmocka_unit_test(test_channels_and_head),
	    cmocka_unit_test(test_every_layout),
	    cmocka_unit_test(test_without_data),
	    cmocka_unit_test(test_stops_after_every_layer),
	    cmocka_unit_test(test_refuses_observers_that_look_at_inputs),
	    cmocka_unit_test(test_refuses_changes),
	    cmocka_unit_test(test_refuses_damage),
	    cmocka_unit_test(test_refuses_another_model),
	};
	return cmocka_run_group_tests_name("derive", tests, make_scratch, remove_scratch);
}
