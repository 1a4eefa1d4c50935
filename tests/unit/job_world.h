/*
 * job_world.h - whole jobs over a small real model: what tests of jobs share
 */
#ifndef MC_UNIT_JOB_WORLD_H
#define MC_UNIT_JOB_WORLD_H

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
#include "moecal/derive.h"
#include "moecal/file.h"
#include "moecal/linalg.h"
#include "moecal/sha256.h"
#include "moecal/statistics.h"
#include "moecal/verdict.h"

#define MODEL "tests/data/qwen3moe-2m"
#define LAYERS 4

/* Of the test program: a folder with data.jsonl. */
static char scratch[] = "/tmp/moecal-test-job-XXXXXX";

/* --- running ---------------------------------------------------------------------------------- */

/* Cancels when the layer number `cancel_at` has been finished. */
struct control {
	size_t cancel_at; /* 0: never */
	size_t layers_done;
	bool cancel;
};

static inline bool canceled(void *ctx)
{
	return ((struct control *)ctx)->cancel;
}

static inline void on_progress(void *ctx, const struct mc_progress *p)
{
	struct control *c = ctx;
	c->layers_done = p->layers_done;
	if (c->cancel_at > 0 && p->layers_done >= c->cancel_at &&
	    strcmp(p->phase, "calibrate") == 0)
		c->cancel = true;
}

/* The spec as text, or of a source's spec the changes; NULL after problems, which are told. */
static inline struct mc_json *job_spec(
    const char *text, const struct mc_source *source, struct mc_problems *problems)
{
	struct mc_error err;

	mc_error_init(&err);
	struct mc_json *json = mc_json_parse(text, strlen(text), "spec", &err);
	assert_non_null(json);
	if (source == NULL)
		return json;
	struct mc_json *spec = mc_source_spec(source, json, problems, &err);
	assert_non_null(spec);
	mc_json_free(json);
	return spec;
}

/* Opens, plans and computes; source NULL: over the data. */
static inline bool run_opened(struct mc_spec *spec, struct mc_source *source, const char *out,
    const struct mc_env *env, struct control *control, struct mc_run_result *ret,
    struct mc_error *err)
{
	struct mc_run_hooks hooks = {.progress = on_progress, .ctx = control};
	struct mc_job job;
	struct mc_plan plan;

	if (source == NULL ? !mc_job_open(&job, spec, env, err)
			   : !mc_job_open_derived(&job, spec, source, env, err))
		return false;
	bool ok = mc_plan_make(&plan, &job, 0, env, err) &&
		  mc_calibrate(&job, &plan, out, &hooks, env, ret, err);
	/* what the plan says must hold: nothing takes more than it promised */
	if (ok && env->arena->peak > plan.arena_bytes)
		print_error("peak %zu, planned %llu\n", env->arena->peak,
		    (unsigned long long)plan.arena_bytes);
	if (ok)
		assert_true(env->arena->peak <= plan.arena_bytes);
	mc_job_close(&job);
	return ok;
}

static inline bool run_job_from(const char *from, const char *spec_text, const char *out,
    unsigned workers, struct control *control, struct mc_run_result *ret, struct mc_error *err)
{
	struct mc_arena arena;
	struct mc_env env = {.arena = &arena, .canceled = canceled, .hook_ctx = control};
	struct mc_source source = {0};
	struct mc_problems problems;
	struct mc_spec spec;

	if (from != NULL && !mc_source_open(&source, from, err))
		return false;
	mc_problems_init(&problems);
	struct mc_json *json = job_spec(spec_text, from == NULL ? NULL : &source, &problems);
	assert_true(mc_spec_parse(&spec, json, &problems, err));
	for (size_t i = 0; i < problems.count; i++)
		print_error("%s: %s\n", problems.items[i].pointer, problems.items[i].text);
	assert_int_equal(problems.total, 0);
	env.pool = mc_pool_new(workers, err);
	assert_non_null(env.pool);
	assert_true(mc_arena_init(&arena, (uint64_t)1 << 30, err));
	assert_true(mc_linalg_init(env.pool, err));
	bool ok = run_opened(&spec, from == NULL ? NULL : &source, out, &env, control, ret, err);
	mc_pool_free(env.pool);
	mc_arena_release(&arena);
	mc_spec_release(&spec);
	mc_problems_release(&problems);
	mc_json_free(json);
	mc_source_close(&source);
	return ok;
}

static inline bool run_job(const char *spec_text, const char *out, unsigned workers,
    struct control *control, struct mc_run_result *ret, struct mc_error *err)
{
	return run_job_from(NULL, spec_text, out, workers, control, ret, err);
}

static inline void require_job(
    const char *spec, const char *out, unsigned workers, struct mc_run_result *ret)
{
	struct control control = {0};
	struct mc_error err;

	mc_error_init(&err);
	if (!run_job(spec, out, workers, &control, ret, &err))
		print_error("%s: %s\n", err.where, err.text);
	assert_int_equal(err.code, MC_OK);
	assert_true(ret->valid);
}

/* --- files ------------------------------------------------------------------------------------ */

static inline const char *path_of(const char *folder, const char *name)
{
	static char paths[4][512];
	static unsigned next;
	char *p = paths[next++ % 4];
	snprintf(p, sizeof paths[0], "%s/%s", folder, name);
	return p;
}

static inline void digest(const char *folder, const char *name, char hex[65])
{
	struct mc_error err;
	uint64_t bytes;
	int fd;

	mc_error_init(&err);
	if (!mc_root_open(NULL, path_of(folder, name), &fd, &err))
		print_error("%s: %s\n", err.where, err.text);
	assert_int_equal(err.code, MC_OK);
	assert_true(mc_sha256_fd(fd, name, hex, &bytes, &err));
	mc_close(fd);
}

static inline void assert_same_files(const char *a, const char *b)
{
	static const char *const names[] = {"quantization.safetensors", "model/model.safetensors",
	    "model/config.json", "verdict.json", "spec.json"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		char x[65], y[65];
		digest(a, names[i], x);
		digest(b, names[i], y);
		if (strcmp(x, y) != 0)
			print_error("%s differs\n", names[i]);
		assert_string_equal(x, y);
	}
}

static inline void write_text(const char *path, const char *text)
{
	struct mc_error err;
	mc_error_init(&err);
	assert_true(mc_file_write_durable(path, text, strlen(text), &err));
}

/* A spec with the given recipe and further members (", \"key\": value"). */
static inline const char *spec_text(const char *recipe, const char *more)
{
	static char text[1024];
	snprintf(text, sizeof text,
	    "{\"model\": \"" MODEL "\", \"dataset\": \"%s/data.jsonl\", \"recipe\": \"%s\"%s%s}",
	    scratch, recipe,
	    strstr(more, "max_seq_length") != NULL ? "" : ", \"max_seq_length\": 96", more);
	return text;
}

static inline int make_scratch(void **state)
{
	static const char *const lines[] = {
	    "The house stood on a hill above the river, and nobody had lived in it for years.",
	    "def add(a, b):\\n    return a + b\\n",
	    "static int next(struct list *l) { return l->head == NULL ? -1 : l->head->value; }",
	    "Install the package, then run the command again. It prints the path of the file that "
	    "it wrote.",
	    "She opened the letter slowly. It had been folded twice and smelled of smoke."};
	struct mc_buf text;
	struct mc_error err;
	(void)state;

	mc_error_init(&err);
	mc_buf_init(&text, 1 << 20);
	if (mkdtemp(scratch) == NULL)
		return -1;
	for (unsigned i = 0; i < 15; i++)
		assert_true(mc_buf_addf(&text, &err, "{\"text\": \"%s %s %u\"}\n", lines[i % 5],
		    lines[(i * 3 + 1) % 5], i));
	write_text(path_of(scratch, "data.jsonl"), mc_buf_text(&text));
	mc_buf_release(&text);
	return 0;
}

static inline int remove_scratch(void **state)
{
	struct mc_error err;
	(void)state;
	mc_error_init(&err);
	return mc_file_remove_tree(scratch, &err) ? 0 : -1;
}

static inline struct mc_json *read_json(const char *folder, const char *name)
{
	struct mc_error err;
	struct mc_buf text;
	int fd;

	mc_error_init(&err);
	mc_buf_init(&text, 1 << 26);
	assert_true(mc_root_open(NULL, path_of(folder, name), &fd, &err));
	assert_true(mc_file_read_all(fd, name, &text, &err));
	mc_close(fd);
	struct mc_json *json = mc_json_parse(mc_buf_text(&text), text.length, name, &err);
	assert_non_null(json);
	mc_buf_release(&text);
	return json;
}

/* A spec with a recipe in JSON, over a few sequences. */
static inline const char *spec_of(const char *recipe, const char *more)
{
	static char text[2048];
	snprintf(text, sizeof text,
	    "{\"model\": \"" MODEL "\", \"dataset\": \"%s/data.jsonl\", \"recipe\": %s%s}", scratch,
	    recipe, more);
	return text;
}

#endif
