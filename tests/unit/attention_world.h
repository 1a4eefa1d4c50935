/*
 * attention_world.h - whole jobs in a folder of their own and what they wrote: what tests of
 * attention's parameters share
 */
#ifndef MC_UNIT_ATTENTION_WORLD_H
#define MC_UNIT_ATTENTION_WORLD_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "moecal/alloc.h"
#include "moecal/calibrate.h"
#include "moecal/file.h"
#include "moecal/linalg.h"
#include "moecal/verdict.h"

static char scratch[] = "/tmp/moecal-test-attention-XXXXXX";
static struct mc_error err;

/* --- running ---------------------------------------------------------------------------------- */

struct control {
	size_t cancel_at; /* 0: never */
	bool cancel;
};

static inline bool canceled(void *ctx)
{
	return ((struct control *)ctx)->cancel;
}

static inline void on_progress(void *ctx, const struct mc_progress *p)
{
	struct control *c = ctx;

	c->cancel = c->cancel || (c->cancel_at > 0 && p->layers_done >= c->cancel_at &&
				     strcmp(p->phase, "calibrate") == 0);
}

struct world {
	struct mc_arena arena;
	struct mc_env env;
	struct mc_spec spec;
	struct mc_job job;
	struct control control;
};

/* The job of a spec, opened; false: refused, err says why. */
static inline bool open_job(struct world *w, const char *spec, unsigned workers)
{
	struct mc_problems problems;

	*w = (struct world){0};
	mc_error_init(&err);
	mc_problems_init(&problems);
	struct mc_json *json = mc_json_parse(spec, strlen(spec), "spec", &err);
	assert_non_null(json);
	assert_true(mc_spec_parse(&w->spec, json, &problems, &err));
	for (size_t i = 0; i < problems.count; i++)
		print_error("%s: %s\n", problems.items[i].pointer, problems.items[i].text);
	assert_int_equal(problems.total, 0);
	mc_problems_release(&problems);
	mc_json_free(json);
	w->env = (struct mc_env){.arena = &w->arena,
	    .pool = mc_pool_new(workers, &err),
	    .canceled = canceled,
	    .hook_ctx = &w->control};
	assert_non_null(w->env.pool);
	assert_true(mc_arena_init(&w->arena, (uint64_t)1 << 30, &err));
	assert_true(mc_linalg_init(w->env.pool, &err));
	return mc_job_open(&w->job, &w->spec, &w->env, &err);
}

static inline void close_job(struct world *w, bool opened)
{
	if (opened)
		mc_job_close(&w->job);
	mc_pool_free(w->env.pool);
	mc_arena_release(&w->arena);
	mc_spec_release(&w->spec);
}

/* Runs to the end, or until the layer number cancel_at is done. */
static inline void run(const char *spec, const char *out, unsigned workers, size_t cancel_at)
{
	struct world w;
	struct mc_plan plan;
	struct mc_run_result result;
	bool opened = open_job(&w, spec, workers);

	if (!opened)
		fail_msg("%s: %s", err.where, err.text);
	w.control.cancel_at = cancel_at;
	struct mc_run_hooks hooks = {.progress = on_progress, .ctx = &w.control};
	assert_true(mc_plan_make(&plan, &w.job, 0, &w.env, &err));
	bool ok = mc_calibrate(&w.job, &plan, out, &hooks, &w.env, &result, &err);
	if (cancel_at > 0) {
		assert_int_equal(err.code, MC_CANCELED);
	} else {
		if (!ok)
			fail_msg("%s: %s", err.where, err.text);
		assert_true(result.valid);
		assert_true(w.arena.peak <= plan.arena_bytes);
		assert_int_equal(plan.modules_quantized, w.job.quantized);
	}
	close_job(&w, true);
}

/* --- files ------------------------------------------------------------------------------------ */

static inline const char *text_of(const char *fmt, ...)
{
	static char texts[8][2048];
	static unsigned next;
	char *text = texts[next++ % 8];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof texts[0], fmt, args);
	va_end(args);
	return text;
}

static inline struct mc_buf file_of(const char *path)
{
	struct mc_buf text;
	int fd;

	mc_error_init(&err);
	mc_buf_init(&text, 1 << 26);
	if (!mc_root_open(NULL, path, &fd, &err) || !mc_file_read_all(fd, path, &text, &err))
		fail_msg("%s: %s", err.where, err.text);
	mc_close(fd);
	return text;
}

static inline struct mc_json *json_of(const char *path)
{
	struct mc_buf text = file_of(path);
	struct mc_json *json = mc_json_parse(mc_buf_text(&text), text.length, path, &err);

	assert_non_null(json);
	mc_buf_release(&text);
	return json;
}

static inline void assert_same_file(const char *a, const char *b, const char *name)
{
	struct mc_buf x = file_of(text_of("%s/%s", a, name)),
		      y = file_of(text_of("%s/%s", b, name));

	if (x.length != y.length || memcmp(mc_buf_text(&x), mc_buf_text(&y), x.length) != 0)
		fail_msg("%s of %s and %s differ", name, a, b);
	mc_buf_release(&x);
	mc_buf_release(&y);
}

static inline struct mc_st_file tensors_of(const char *path)
{
	struct mc_st_file file = {0};
	int fd;

	mc_error_init(&err);
	if (!mc_root_open(NULL, path, &fd, &err) || !mc_st_open_fd(&file, fd, path, &err))
		fail_msg("%s: %s", err.where, err.text);
	return file;
}

/* Values of a tensor, whose dtype and shape are as said (heads 0: [1]); NULL when it is absent. */
static inline const float *values_of(
    const struct mc_st_file *file, const char *name, enum mc_dtype dtype, size_t heads)
{
	static float values[4][64];
	static unsigned next;
	const struct mc_st_entry *entry = mc_st_find(file, name);
	float *ret = values[next++ % 4];
	unsigned char bytes[256];

	if (entry == NULL)
		return NULL;
	assert_int_equal(entry->dtype, dtype);
	assert_int_equal(entry->rank, heads > 0 ? 3 : 1);
	assert_int_equal(entry->shape[0], heads > 0 ? heads : 1);
	assert_true(heads == 0 || (entry->shape[1] == 1 && entry->shape[2] == 1));
	assert_true(entry->bytes <= sizeof bytes);
	assert_true(mc_st_read(file, entry, 0, entry->bytes, bytes, &err));
	for (size_t i = 0; i < (heads > 0 ? heads : 1); i++)
		if (dtype == MC_I8)
			ret[i] = (float)(int8_t)bytes[i];
		else
			mc_widen(dtype, bytes + i * mc_dtype_bits(dtype) / 8, &ret[i], 1);
	return ret;
}

static inline int make_scratch(void **state)
{
	static const char ids[] =
	    "{\"input_ids\": [1, 2, 3, 4, 5, 6, 7, 60, 33, 12]}\n{\"input_ids\": [7]}\n"
	    "{\"input_ids\": [9, 9, 8, 40, 41, 42]}\n{\"input_ids\": [63, 0, 21, 5]}\n";
	(void)state;

	mc_error_init(&err);
	if (mkdtemp(scratch) == NULL)
		return -1;
	return mc_file_write_durable(text_of("%s/ids.jsonl", scratch), ids, strlen(ids), &err) ? 0
											       : -1;
}

static inline int remove_scratch(void **state)
{
	(void)state;
	mc_error_init(&err);
	return mc_file_remove_tree(scratch, &err) ? 0 : -1;
}

#endif
