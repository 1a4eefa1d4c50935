/*
 * test_pool.c - every item once, errors by lowest item, workers' numbers and names
 *
 * Also meant for VARIANT=tsan.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "moecal/env.h"
#include "moecal/pool.h"

#define ITEMS 1000

struct record {
	int runs[ITEMS]; /* not atomic: an item owns its place */
	unsigned workers;
	atomic_size_t started;
	atomic_bool wrong;
	long scratch[8]; /* owned by workers, to see races under tsan */
};

static bool count_item(void *ctx, size_t item, unsigned worker, struct mc_error *err)
{
	struct record *r = ctx;

	(void)err;
	if (worker >= r->workers)
		atomic_store(&r->wrong, true);
	else
		r->scratch[worker]++;
	r->runs[item]++;
	return true;
}

static void test_every_item_once(void **state)
{
	static const unsigned counts[] = {1, 2, 3, 8};
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	for (size_t i = 0; i < 4; i++) {
		struct mc_pool *pool = mc_pool_new(counts[i], &err);

		assert_non_null(pool);
		assert_int_equal(mc_pool_workers(pool), counts[i]);
		for (size_t n = 0; n <= ITEMS; n = n * 3 + 1) {
			struct record r = {.workers = counts[i]};
			long sum = 0;

			assert_true(mc_pool_run(pool, n, count_item, &r, &err));
			assert_false(atomic_load(&r.wrong));
			for (size_t item = 0; item < ITEMS; item++)
				assert_int_equal(r.runs[item], item < n);
			for (size_t w = 0; w < 8; w++)
				sum += r.scratch[w];
			assert_int_equal(sum, n);
		}
		mc_pool_free(pool);
	}
	mc_pool_free(NULL);
}

/* Many short runs one after the other: late workers must not disturb the next run. */
static void test_many_runs(void **state)
{
	struct mc_error err;
	struct mc_pool *pool;
	struct record r = {.workers = 4};

	(void)state;
	mc_error_init(&err);
	pool = mc_pool_new(4, &err);
	assert_non_null(pool);
	for (int i = 0; i < 2000; i++)
		assert_true(mc_pool_run(pool, 1 + (size_t)i % 7, count_item, &r, &err));
	mc_pool_free(pool);
	int sum = 0;
	for (size_t item = 0; item < 7; item++)
		sum += r.runs[item];
	/* 285 rounds of 1 + 2 + ... + 7, and 1 + ... + 5 */
	assert_int_equal(sum, 285 * 28 + 15);
}

static bool fail_some(void *ctx, size_t item, unsigned worker, struct mc_error *err)
{
	struct record *r = ctx;

	(void)worker;
	atomic_fetch_add(&r->started, 1);
	r->runs[item]++;
	if (item == 37)
		usleep(2000); /* the lower one fails later */
	if (item == 37 || item == 38 || item == 40)
		return mc_fail(err, MC_CORRUPT, "tensor", "item %zu is broken", item);
	usleep(10);
	return true;
}

static void test_lowest_error_is_kept(void **state)
{
	struct mc_error err;
	struct mc_pool *pool;

	(void)state;
	mc_error_init(&err);
	pool = mc_pool_new(4, &err);
	assert_non_null(pool);
	for (int i = 0; i < 30; i++) {
		struct record r = {.workers = 4};

		mc_error_init(&err);
		assert_false(mc_pool_run(pool, ITEMS, fail_some, &r, &err));
		assert_int_equal(err.code, MC_CORRUPT);
		assert_string_equal(err.where, "tensor");
		assert_string_equal(err.text, "item 37 is broken");
		/* All below have run; little was started after the failure. */
		for (size_t item = 0; item <= 37; item++)
			assert_int_equal(r.runs[item], 1);
		assert_true(atomic_load(&r.started) < ITEMS);
	}
	/* An error does not stay. */
	struct record r = {.workers = 4};
	mc_error_init(&err);
	assert_true(mc_pool_run(pool, 10, count_item, &r, &err));
	mc_pool_free(pool);
}

static bool fail_silently(void *ctx, size_t item, unsigned worker, struct mc_error *err)
{
	(void)ctx;
	(void)item;
	(void)worker;
	(void)err;
	return false;
}

static void test_errors(void **state)
{
	struct mc_error err;
	struct mc_pool *pool;

	(void)state;
	mc_error_init(&err);
	assert_null(mc_pool_new(0, &err));
	assert_int_equal(err.code, MC_INVALID);
	mc_error_init(&err);
	assert_null(mc_pool_new(100000, &err));
	assert_int_equal(err.code, MC_INVALID);
	mc_error_init(&err);
	pool = mc_pool_new(2, &err);
	assert_false(mc_pool_run(pool, 5, fail_silently, NULL, &err));
	assert_int_equal(err.code, MC_INTERNAL);
	/* The caller's first cause stays. */
	mc_error_init(&err);
	mc_fail(&err, MC_IO, "", "before");
	assert_false(mc_pool_run(pool, 5, fail_silently, NULL, &err));
	assert_string_equal(err.text, "before");
	mc_pool_free(pool);
}

struct meeting {
	atomic_int present;
	char names[2][16];
	bool blocked[2];
};

/* Both items wait for each other: passes only when two threads really work. */
static bool meet(void *ctx, size_t item, unsigned worker, struct mc_error *err)
{
	struct meeting *m = ctx;
	sigset_t mask;

	(void)item;
	atomic_fetch_add(&m->present, 1);
	for (int i = 0; atomic_load(&m->present) < 2; i++) {
		if (i > 5000)
			return mc_fail(err, MC_INTERNAL, "", "nobody came");
		usleep(1000);
	}
	pthread_getname_np(pthread_self(), m->names[worker], sizeof(m->names[worker]));
	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	m->blocked[worker] = sigismember(&mask, SIGTERM) == 1;
	return true;
}

static void test_workers_work_at_once(void **state)
{
	struct meeting m = {.present = 0};
	struct mc_error err;
	struct mc_pool *pool;

	(void)state;
	mc_error_init(&err);
	pool = mc_pool_new(2, &err);
	assert_true(mc_pool_run(pool, 2, meet, &m, &err));
	assert_string_equal(m.names[1], "mc-worker-1");
	assert_false(m.blocked[0]);
	assert_true(m.blocked[1]); /* signals go to the program's own threads */
	mc_pool_free(pool);
}

static bool nest(void *ctx, size_t item, unsigned worker, struct mc_error *err)
{
	(void)item;
	(void)worker;
	return mc_pool_run(ctx, 1, fail_silently, NULL, err);
}

static void test_nesting_is_a_bug(void **state)
{
	int status = 0;
	pid_t child;

	(void)state;
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		struct mc_error err;
		struct mc_pool *pool;

		signal(SIGABRT, SIG_DFL);
		if (!freopen("/dev/null", "w", stderr))
			_exit(2);
		mc_error_init(&err);
		pool = mc_pool_new(1, &err);
		if (pool && !mc_pool_run(pool, 1, nest, pool, &err))
			_exit(1);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
}

static void take_log(void *ctx, enum mc_log_level level, const char *text)
{
	snprintf(ctx, 64, "%d:%s", (int)level, text);
}

static bool stop_now(void *ctx)
{
	return ((char *)ctx)[0] != '\0';
}

/* env.c has no file of its own. */
static void test_env(void **state)
{
	char text[64] = "";
	struct mc_env env = {.log = take_log, .canceled = stop_now, .hook_ctx = text};
	struct mc_env bare = {.arena = NULL};
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	assert_true(mc_env_go_on(&env, &err));
	mc_env_log(&env, MC_LOG_WARNING, "expert %d saw nothing", 87);
	assert_string_equal(text, "2:expert 87 saw nothing");
	assert_false(mc_env_go_on(&env, &err));
	assert_int_equal(err.code, MC_CANCELED);
	mc_error_init(&err);
	mc_env_log(&bare, MC_LOG_INFO, "unheard");
	assert_true(mc_env_go_on(&bare, &err));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_nesting_is_a_bug), /* first: forks while there is one thread */
	    cmocka_unit_test(test_every_item_once),
	    cmocka_unit_test(test_many_runs),
	    cmocka_unit_test(test_lowest_error_is_kept),
	    cmocka_unit_test(test_errors),
	    cmocka_unit_test(test_workers_work_at_once),
	    cmocka_unit_test(test_env),
	};

	return cmocka_run_group_tests_name("pool", tests, NULL, NULL);
}
