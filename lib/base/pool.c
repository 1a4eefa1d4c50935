/*
 * pool.c - the one thread pool
 *
 * Items are handed out by a counter in rising order, and an item that was handed out always runs.
 * So every item below the first failing one has run whatever the timing was, and the error that is
 * kept (of the lowest failing item) is the same in every run.
 *
 * Locking: `lock` guards open, active, generation, stop and the kept error. The counter and the
 * failed flag are atomics. A worker that wakes up late finds the run closed and goes back to sleep.
 */
#include "moecal/pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "moecal/alloc.h"

#define MOST_WORKERS 4096

struct worker {
	struct mc_pool *pool;
	unsigned number; /* 0 is the calling thread, which has no record */
	pthread_t thread;
};

struct mc_pool {
	unsigned workers;
	unsigned threads; /* started so far: workers - 1 once it stands */
	struct worker *records;

	pthread_mutex_t lock;
	pthread_cond_t start; /* a run was opened, or stop */
	pthread_cond_t idle;  /* active fell to 0 */
	bool open;            /* workers may join the run */
	bool stop;
	unsigned active; /* workers inside the run, without the caller */
	unsigned long generation;

	/* the run */
	mc_pool_fn *fn;
	void *ctx;
	size_t items;
	atomic_size_t next;
	atomic_bool failed;
	size_t failed_item;
	struct mc_error error;

	atomic_bool busy; /* against nesting and second callers */
};

static void keep_error(struct mc_pool *pool, size_t item, const struct mc_error *error)
{
	pthread_mutex_lock(&pool->lock);
	if (!atomic_load(&pool->failed) || item < pool->failed_item) {
		pool->failed_item = item;
		pool->error = *error;
	}
	atomic_store(&pool->failed, true);
	pthread_mutex_unlock(&pool->lock);
}

static void work(struct mc_pool *pool, unsigned worker)
{
	struct mc_error error;

	while (!atomic_load(&pool->failed)) {
		size_t item = atomic_fetch_add(&pool->next, 1);

		if (item >= pool->items)
			return;
		mc_error_init(&error);
		if (pool->fn(pool->ctx, item, worker, &error))
			continue;
		if (error.code == MC_OK)
			mc_fail(&error, MC_INTERNAL, "", "a piece of work failed without a reason");
		keep_error(pool, item, &error);
	}
}

static void *worker_main(void *arg)
{
	struct worker *me = arg;
	struct mc_pool *pool = me->pool;
	unsigned long seen = 0;
	char name[16];

	snprintf(name, sizeof(name), "mc-worker-%u", me->number % 100000);
	pthread_setname_np(pthread_self(), name);
	pthread_mutex_lock(&pool->lock);
	for (;;) {
		while (!pool->stop && (!pool->open || pool->generation == seen))
			pthread_cond_wait(&pool->start, &pool->lock);
		if (pool->stop)
			break;
		seen = pool->generation;
		pool->active++;
		pthread_mutex_unlock(&pool->lock);
		work(pool, me->number);
		pthread_mutex_lock(&pool->lock);
		if (--pool->active == 0)
			pthread_cond_signal(&pool->idle);
	}
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

/* Workers take no signals: those belong to the program's own threads. */
static bool start_threads(struct mc_pool *pool, struct mc_error *err)
{
	sigset_t all, before;
	int code = 0;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	while (code == 0 && pool->threads < pool->workers - 1) {
		struct worker *w = &pool->records[pool->threads];

		w->pool = pool;
		w->number = pool->threads + 1;
		code = pthread_create(&w->thread, NULL, worker_main, w);
		if (code == 0)
			pool->threads++;
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (code != 0)
		return mc_fail_errno(err, code, "", "worker thread %u of %u cannot be started",
		    pool->threads + 1, pool->workers - 1);
	return true;
}

struct mc_pool *mc_pool_new(unsigned workers, struct mc_error *err)
{
	struct mc_pool *pool;

	if (workers < 1 || workers > MOST_WORKERS) {
		mc_fail(err, MC_INVALID, "threads", "%u threads asked for, 1 to %d are possible",
		    workers, MOST_WORKERS);
		return NULL;
	}
	pool = mc_alloc(1, sizeof(*pool), "the thread pool", err);
	if (!pool)
		return NULL;
	pool->workers = workers;
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->start, NULL);
	pthread_cond_init(&pool->idle, NULL);
	atomic_init(&pool->next, 0);
	atomic_init(&pool->failed, false);
	atomic_init(&pool->busy, false);
	pool->records = mc_alloc(workers, sizeof(*pool->records), "the thread pool", err);
	if (!pool->records || !start_threads(pool, err)) {
		mc_pool_free(pool);
		return NULL;
	}
	return pool;
}

void mc_pool_free(struct mc_pool *pool)
{
	if (!pool)
		return;
	mc_assert(!atomic_load(&pool->busy));
	pthread_mutex_lock(&pool->lock);
	pool->stop = true;
	pthread_cond_broadcast(&pool->start);
	pthread_mutex_unlock(&pool->lock);
	for (unsigned i = 0; i < pool->threads; i++)
		pthread_join(pool->records[i].thread, NULL);
	pthread_cond_destroy(&pool->idle);
	pthread_cond_destroy(&pool->start);
	pthread_mutex_destroy(&pool->lock);
	free(pool->records);
	free(pool);
}

unsigned mc_pool_workers(const struct mc_pool *pool)
{
	return pool->workers;
}

bool mc_pool_run(struct mc_pool *pool, size_t n, mc_pool_fn *fn, void *ctx, struct mc_error *err)
{
	bool was_busy = atomic_exchange(&pool->busy, true);
	bool shared = n > 1 && pool->threads > 0;
	bool done;

	mc_assert(!was_busy);
	mc_assert(n <= SIZE_MAX - MOST_WORKERS); /* each thread counts once past the end */
	pthread_mutex_lock(&pool->lock);
	pool->fn = fn;
	pool->ctx = ctx;
	pool->items = n;
	atomic_store(&pool->next, 0);
	atomic_store(&pool->failed, false);
	pool->open = shared;
	pool->generation++;
	if (shared)
		pthread_cond_broadcast(&pool->start);
	pthread_mutex_unlock(&pool->lock);

	work(pool, 0);

	pthread_mutex_lock(&pool->lock);
	pool->open = false;
	while (pool->active > 0)
		pthread_cond_wait(&pool->idle, &pool->lock);
	done = !atomic_load(&pool->failed);
	if (!done)
		mc_fail(err, pool->error.code, pool->error.where, "%s", pool->error.text);
	pthread_mutex_unlock(&pool->lock);
	atomic_store(&pool->busy, false);
	return done;
}
