/*
 * test_store.c - the database of the daemon: moves, limits, idempotency, pages, recovery
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "moecal/alloc.h"
#include "moecal/file.h"
#include "store.h"

static char folder[64];
static struct store *store;

static int open_store(void **state)
{
	struct mc_error err;

	(void)state;
	snprintf(folder, sizeof folder, "/tmp/moecal-store-XXXXXX");
	assert_non_null(mkdtemp(folder));
	mc_error_init(&err);
	store = store_open(folder, NULL, &err);
	if (store == NULL)
		fail_msg("%s: %s", err.where, err.text);
	return 0;
}

static int close_store(void **state)
{
	struct mc_error err;

	(void)state;
	store_close(store);
	store = NULL;
	mc_error_init(&err);
	return mc_file_remove_tree(folder, &err) ? 0 : -1;
}

static void reopen(void)
{
	struct mc_error err;

	store_close(store);
	mc_error_init(&err);
	store = store_open(folder, NULL, &err);
	if (store == NULL)
		fail_msg("%s: %s", err.where, err.text);
}

static const struct store_limits wide = {100, 100, 100, 1000};

/* A queued job; key NULL: without idempotency. */
static enum store_added add(const char *id, const char *principal, const char *key,
    const char *fingerprint, int64_t priority, const struct store_limits *limits, char *made)
{
	struct job_row row = {.principal = (char *)principal,
	    .spec = (char *)"{\"model\":\"tiny\"}",
	    .request = (char *)"{}",
	    .plan = (char *)"{}",
	    .priority = priority,
	    .keep_ms = 1000,
	    .created_ms = 5};
	struct idempotency idempotency = {principal, key, "POST /v1/jobs", fingerprint};
	enum store_added added;
	char ignored[ID_SIZE];
	struct mc_error err;

	mc_error_init(&err);
	snprintf(row.id, sizeof row.id, "%s", id);
	if (!store_job_add(
		store, &row, NULL, 0, &idempotency, limits, &added, made ? made : ignored, &err))
		fail_msg("%s: %s", err.where, err.text);
	return added;
}

static void move(const char *id, enum job_state from, enum job_state to)
{
	struct job_change change = {.to = to, .now_ms = 100, .attempt = to == JOB_RUNNING};
	struct mc_error err;

	mc_error_init(&err);
	if (!store_job_move(store, id, from, &change, &err))
		fail_msg("%s: %s", err.where, err.text);
}

static enum job_state state_of(const char *id)
{
	struct job_row row;
	struct mc_error err;

	mc_error_init(&err);
	assert_true(store_job_get(store, id, &row, &err));
	enum job_state state = row.state;
	job_row_release(&row);
	return state;
}

/* --- the table of moves ------------------------------------------------------------------------
 */

static void test_moves(void **state)
{
	static const char *const may[JOB_STATES] = {/* to: q r c s f x */
	    [JOB_QUEUED] = "010011",
	    [JOB_RUNNING] = "101110",
	    [JOB_CANCELING] = "000111",
	    [JOB_SUCCEEDED] = "000000",
	    [JOB_FAILED] = "000000",
	    [JOB_CANCELED] = "000000"};

	(void)state;
	for (int from = 0; from < JOB_STATES; from++) {
		enum job_state parsed;
		for (int to = 0; to < JOB_STATES; to++)
			assert_int_equal(
			    job_move_is_allowed((enum job_state)from, (enum job_state)to),
			    may[from][to] == '1');
		assert_true(job_state_parse(job_state_name((enum job_state)from), &parsed));
		assert_int_equal(parsed, from);
		assert_int_equal(job_state_is_final((enum job_state)from), from >= JOB_SUCCEEDED);
	}
	enum job_state none;
	assert_false(job_state_parse("sleeping", &none));
}

static void test_move_needs_its_state(void **state)
{
	struct job_change change = {.to = JOB_CANCELED, .now_ms = 7};
	struct mc_error err;

	(void)state;
	add("a", "", NULL, NULL, 0, &wide, NULL);
	move("a", JOB_QUEUED, JOB_RUNNING);
	mc_error_init(&err);
	assert_false(store_job_move(store, "a", JOB_QUEUED, &change, &err));
	assert_int_equal(err.code, MC_CONFLICT);
	assert_int_equal(state_of("a"), JOB_RUNNING);
	mc_error_init(&err);
	assert_false(store_job_move(store, "b", JOB_QUEUED, &change, &err));
	assert_int_equal(err.code, MC_NOT_FOUND);
}

static void test_every_change_is_an_event_and_a_version(void **state)
{
	struct job_change done = {.to = JOB_SUCCEEDED, .now_ms = 200};
	struct job_row row;
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	add("a", "", NULL, NULL, 0, &wide, NULL);
	uint64_t before = store_generation(store);
	move("a", JOB_QUEUED, JOB_RUNNING);
	assert_true(store_generation(store) > before);
	static const char text[] =
	    "[{\"path\":\"x\",\"bytes\":3,\"sha256\":"
	    "\"0123456789012345678901234567890123456789012345678901234567890123\"}]";
	done.artifacts = mc_json_parse(text, sizeof text - 1, "t", &err);
	assert_non_null(done.artifacts);
	assert_true(store_job_move(store, "a", JOB_RUNNING, &done, &err));
	mc_json_free((struct mc_json *)done.artifacts);
	assert_true(store_job_get(store, "a", &row, &err));
	assert_int_equal(row.version, 3);
	assert_int_equal(row.attempt, 1);
	assert_int_equal(row.started_ms, 100);
	assert_int_equal(row.finished_ms, 200);
	assert_int_equal(row.expires_ms, 1200);
	struct mc_json *events = store_events(store, row.seq, 0, "state", 10, &err);
	static const char *const states[] = {"queued", "running", "succeeded"};
	assert_int_equal(mc_json_size(events), 3);
	for (size_t i = 0; i < 3; i++)
		assert_string_equal(
		    mc_json_string(
			mc_json_get(mc_json_get(mc_json_at(events, i), "data"), "state"), NULL),
		    states[i]);
	mc_json_free(events);
	char sha[65];
	uint64_t bytes;
	assert_true(store_artifact_get(store, row.seq, "x", sha, &bytes, &err));
	assert_int_equal(bytes, 3);
	assert_false(store_artifact_get(store, row.seq, "y", sha, &bytes, &err));
	job_row_release(&row);
}

/* --- adding ------------------------------------------------------------------------------------
 */

static void test_idempotency(void **state)
{
	char made[ID_SIZE];

	(void)state;
	assert_int_equal(add("a", "ann", "k", "f1", 0, &wide, made), ADDED);
	assert_int_equal(add("b", "ann", "k", "f1", 0, &wide, made), ADDED_BEFORE);
	assert_string_equal(made, "a");
	assert_int_equal(add("c", "ann", "k", "f2", 0, &wide, made), ADD_KEY_REUSED);
	/* another principal's key is another key */
	assert_int_equal(add("d", "bob", "k", "f2", 0, &wide, made), ADDED);
	reopen();
	assert_int_equal(add("e", "ann", "k", "f1", 0, &wide, made), ADDED_BEFORE);
	assert_string_equal(made, "a");
	/* deleted with what it made */
	struct mc_error err;
	mc_error_init(&err);
	move("a", JOB_QUEUED, JOB_CANCELED);
	assert_true(store_job_delete(store, "a", &err));
	assert_int_equal(add("f", "ann", "k", "f2", 0, &wide, made), ADDED);
}

static void test_limits(void **state)
{
	struct store_limits tight = {.queued = 3, .queued_of_principal = 2};

	(void)state;
	assert_int_equal(add("a", "ann", NULL, NULL, 0, &tight, NULL), ADDED);
	assert_int_equal(add("b", "ann", NULL, NULL, 0, &tight, NULL), ADDED);
	assert_int_equal(add("c", "ann", NULL, NULL, 0, &tight, NULL), ADD_QUOTA);
	assert_int_equal(add("c", "bob", NULL, NULL, 0, &tight, NULL), ADDED);
	assert_int_equal(add("d", "bob", NULL, NULL, 0, &tight, NULL), ADD_FULL);
	/* those that run do not wait */
	move("a", JOB_QUEUED, JOB_RUNNING);
	assert_int_equal(add("d", "ann", NULL, NULL, 0, &tight, NULL), ADDED);
}

/* --- the queue ---------------------------------------------------------------------------------
 */

static void assert_next(const char *id)
{
	struct job_row row;
	struct mc_error err;

	mc_error_init(&err);
	if (id == NULL) {
		assert_false(store_job_next(store, 50, &row, &err));
		assert_int_equal(err.code, MC_NOT_FOUND);
		return;
	}
	assert_true(store_job_next(store, 50, &row, &err));
	assert_string_equal(row.id, id);
	job_row_release(&row);
}

static void test_order_of_the_queue(void **state)
{
	struct job_change later = {.to = JOB_QUEUED, .now_ms = 10, .not_before_ms = 51};
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	assert_next(NULL);
	add("low", "", NULL, NULL, -1, &wide, NULL);
	add("first", "", NULL, NULL, 0, &wide, NULL);
	add("second", "", NULL, NULL, 0, &wide, NULL);
	add("high", "", NULL, NULL, 7, &wide, NULL);
	assert_next("high");
	move("high", JOB_QUEUED, JOB_RUNNING);
	assert_next("first");
	move("first", JOB_QUEUED, JOB_CANCELED);
	assert_next("second");
	/* one that has to wait does not hold up the others */
	assert_true(store_job_move(store, "high", JOB_RUNNING, &later, &err));
	assert_next("second");
	move("second", JOB_QUEUED, JOB_RUNNING);
	assert_next("low");
}

#define COLLECTED 256 /* bytes of the text that collect fills */

static bool collect(void *ctx, const struct job_row *row, struct mc_error *err)
{
	char *text = ctx;

	(void)err;
	size_t used = strlen(text);
	assert_true(used + ID_SIZE + 1 < COLLECTED);
	snprintf(text + used, ID_SIZE + 1, "%.64s ", row->id);
	return true;
}

static void test_pages_never_repeat(void **state)
{
	struct job_filter filter = {.limit = 2};
	char text[COLLECTED] = "";
	int64_t next;
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	for (char c = 'a'; c < 'f'; c++)
		add((char[]){c, '\0'}, "", NULL, NULL, 0, &wide, NULL);
	assert_true(store_job_list(store, &filter, collect, text, &next, &err));
	assert_string_equal(text, "e d ");
	/* jobs that come meanwhile do not move what is left */
	add("f", "", NULL, NULL, 0, &wide, NULL);
	filter.before = next;
	assert_true(store_job_list(store, &filter, collect, text, &next, &err));
	filter.before = next;
	assert_true(store_job_list(store, &filter, collect, text, &next, &err));
	assert_string_equal(text, "e d c b a ");
	assert_int_equal(next, 0);
	text[0] = '\0';
	move("c", JOB_QUEUED, JOB_RUNNING);
	filter = (struct job_filter){.limit = 10, .states = 1u << JOB_RUNNING};
	assert_true(store_job_list(store, &filter, collect, text, &next, &err));
	assert_string_equal(text, "c ");
	text[0] = '\0';
	filter = (struct job_filter){.limit = 10, .model = "other"};
	assert_true(store_job_list(store, &filter, collect, text, &next, &err));
	assert_string_equal(text, "");
}

/* --- events ------------------------------------------------------------------------------------
 */

static void test_only_the_newest_progress_is_kept(void **state)
{
	struct job_row row;
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	add("a", "", NULL, NULL, 0, &wide, NULL);
	struct mc_json *progress = mc_json_parse("{\"layers_done\":1}", 17, "t", &err);
	for (int i = 0; i < 5; i++)
		assert_true(store_job_progress(store, "a", progress, &err));
	assert_true(store_job_event(store, "a", "layer", progress, NULL, &err));
	mc_json_free(progress);
	assert_true(store_job_get(store, "a", &row, &err));
	assert_string_equal(row.progress, "{\"layers_done\":1}");
	struct mc_json *events = store_events(store, row.seq, 0, NULL, 100, &err);
	assert_int_equal(mc_json_size(events), 3);
	/* goes on after the event that the client has */
	int64_t first = mc_json_integer(mc_json_get(mc_json_at(events, 0), "id"));
	mc_json_free(events);
	events = store_events(store, row.seq, first, NULL, 100, &err);
	assert_int_equal(mc_json_size(events), 2);
	mc_json_free(events);
	job_row_release(&row);
}

/* --- recovery ----------------------------------------------------------------------------------
 */

static void test_recovery(void **state)
{
	struct job_row row;
	size_t jobs;
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	add("ran", "", NULL, NULL, 0, &wide, NULL);
	add("canceling", "", NULL, NULL, 0, &wide, NULL);
	add("waits", "", NULL, NULL, 0, &wide, NULL);
	move("ran", JOB_QUEUED, JOB_RUNNING);
	move("canceling", JOB_QUEUED, JOB_RUNNING);
	move("canceling", JOB_RUNNING, JOB_CANCELING);
	reopen();
	assert_true(store_recover(store, 300, &jobs, &err));
	assert_int_equal(jobs, 2);
	assert_int_equal(state_of("ran"), JOB_QUEUED);
	assert_int_equal(state_of("canceling"), JOB_CANCELED);
	assert_int_equal(state_of("waits"), JOB_QUEUED);
	/* however often the service dies: the job is not to blame */
	for (int i = 0; i < 5; i++) {
		move("ran", JOB_QUEUED, JOB_RUNNING);
		assert_true(store_recover(store, 300, &jobs, &err));
	}
	assert_true(store_job_get(store, "ran", &row, &err));
	assert_int_equal(row.state, JOB_QUEUED);
	assert_int_equal(row.crashes, 0);
	job_row_release(&row);
}

static void test_retention(void **state)
{
	char id[ID_SIZE];
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	add("a", "", NULL, NULL, 0, &wide, NULL);
	assert_false(store_job_delete(store, "a", &err));
	assert_int_equal(err.code, MC_CONFLICT);
	mc_error_init(&err);
	move("a", JOB_QUEUED, JOB_CANCELED); /* at 100, kept for 1000 */
	assert_false(store_job_expired(store, 1099, id, &err));
	mc_error_init(&err);
	assert_true(store_job_expired(store, 1100, id, &err));
	assert_string_equal(id, "a");
	assert_true(store_job_delete(store, id, &err));
	assert_false(store_job_delete(store, id, &err));
	assert_int_equal(err.code, MC_NOT_FOUND);
}

/* --- models and datasets -----------------------------------------------------------------------
 */

static enum store_added add_dataset(
    const char *id, uint64_t bytes, const struct store_limits *limits)
{
	struct resource_row row = {.body = (char *)"{\"kind\":\"txt\"}",
	    .path = (char *)"p",
	    .files = (char *)"[]",
	    .uploaded = true,
	    .bytes = bytes,
	    .created_ms = 1};
	struct idempotency none = {"", NULL, "", ""};
	enum store_added added;
	char made[ID_SIZE];
	struct mc_error err;

	mc_error_init(&err);
	snprintf(row.id, sizeof row.id, "%s", id);
	if (!store_resource_add(store, RESOURCE_DATASET, &row, &none, limits, &added, made, &err))
		fail_msg("%s: %s", err.where, err.text);
	return added;
}

static void test_resources(void **state)
{
	struct job_input input = {"dataset", "text"}, gone = {"dataset", "gone"};
	struct job_row job = {.id = "a",
	    .principal = (char *)"",
	    .spec = (char *)"{}",
	    .request = (char *)"{}",
	    .plan = (char *)"{}"};
	struct idempotency none = {"", NULL, "", ""};
	enum store_added added;
	char made[ID_SIZE];
	uint64_t bytes;
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	assert_int_equal(add_dataset("text", 600, &wide), ADDED);
	assert_int_equal(add_dataset("text", 1, &wide), ADD_NAME_TAKEN);
	assert_int_equal(add_dataset("more", 401, &wide), ADD_FULL); /* of 1000 bytes */
	assert_int_equal(add_dataset("more", 400, &wide), ADDED);
	assert_true(store_uploaded_bytes(store, &bytes, &err));
	assert_int_equal(bytes, 1000);
	/* a job that is not finished keeps its inputs */
	assert_false(store_job_add(store, &job, &gone, 1, &none, &wide, &added, made, &err));
	assert_int_equal(err.code, MC_NOT_FOUND);
	mc_error_init(&err);
	assert_true(store_job_add(store, &job, &input, 1, &none, &wide, &added, made, &err));
	assert_false(store_resource_delete(store, RESOURCE_DATASET, "text", &err));
	assert_int_equal(err.code, MC_CONFLICT);
	mc_error_init(&err);
	move("a", JOB_QUEUED, JOB_CANCELED);
	assert_true(store_resource_delete(store, RESOURCE_DATASET, "text", &err));
	assert_false(store_resource_delete(store, RESOURCE_DATASET, "text", &err));
	assert_int_equal(err.code, MC_NOT_FOUND);
}

/* --- the file ----------------------------------------------------------------------------------
 */

static void test_one_process_a_folder(void **state)
{
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	assert_null(store_open(folder, NULL, &err));
	assert_int_equal(err.code, MC_CONFLICT);
}

static void spoil(const char *sql)
{
	char path[96];
	sqlite3 *db;

	snprintf(path, sizeof path, "%s/moecald.db", folder);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
}

static void test_refused_files(void **state)
{
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	store_close(store);
	spoil("PRAGMA user_version=9999");
	store = store_open(folder, NULL, &err);
	assert_null(store);
	assert_int_equal(err.code, MC_UNSUPPORTED);
	spoil("PRAGMA application_id=7");
	mc_error_init(&err);
	store = store_open(folder, NULL, &err);
	assert_null(store);
	assert_int_equal(err.code, MC_UNSUPPORTED);
	assert_non_null(strstr(err.text, "not a database of moecald"));
}

static void test_backup(void **state)
{
	char path[96];
	struct mc_error err;
	struct stat status;

	(void)state;
	mc_error_init(&err);
	add("a", "", NULL, NULL, 0, &wide, NULL);
	snprintf(path, sizeof path, "%s/copy.db", folder);
	assert_true(store_backup(store, path, &err));
	assert_int_equal(stat(path, &status), 0);
	assert_false(store_backup(store, path, &err)); /* never over an old one */
	assert_false(store_is_failed(store));
	assert_int_equal(state_of("a"), JOB_QUEUED);
}

#define WITH_STORE(f) cmocka_unit_test_setup_teardown(f, open_store, close_store)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_moves),
	    WITH_STORE(test_move_needs_its_state),
	    WITH_STORE(test_every_change_is_an_event_and_a_version),
	    WITH_STORE(test_idempotency),
	    WITH_STORE(test_limits),
	    WITH_STORE(test_order_of_the_queue),
	    WITH_STORE(test_pages_never_repeat),
	    WITH_STORE(test_only_the_newest_progress_is_kept),
	    WITH_STORE(test_recovery),
	    WITH_STORE(test_retention),
	    WITH_STORE(test_resources),
	    WITH_STORE(test_one_process_a_folder),
	    WITH_STORE(test_refused_files),
	    WITH_STORE(test_backup),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
