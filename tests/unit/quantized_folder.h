/*
 * quantized_folder.h - quantized checkpoints for tests: made by jobs, changed tensor by tensor,
 * read raw
 */
#ifndef MC_UNIT_QUANTIZED_FOLDER_H
#define MC_UNIT_QUANTIZED_FOLDER_H

#include "toy_folder.h"

#include "moecal/alloc.h"
#include "moecal/calibrate.h"
#include "moecal/dequantize.h"
#include "moecal/linalg.h"
#include "reference/dequantize.h"

#define QF_MODEL "tests/data/qwen3moe-2m"
#define QF_PATH 160

/* --- memory and threads ----------------------------------------------------------------------- */

struct lab {
	struct mc_arena arena;
	struct mc_env env;
};

static inline void lab_open(struct lab *lab, unsigned workers)
{
	struct mc_error err;

	mc_error_init(&err);
	*lab = (struct lab){.env = {.arena = &lab->arena}};
	lab->env.pool = mc_pool_new(workers, &err);
	assert_non_null(lab->env.pool);
	toy_require(mc_arena_init(&lab->arena, (uint64_t)1 << 30, &err), &err);
	toy_require(mc_linalg_init(lab->env.pool, &err), &err);
}

static inline void lab_close(struct lab *lab)
{
	mc_pool_free(lab->env.pool);
	mc_arena_release(&lab->arena);
}

/* --- jobs ------------------------------------------------------------------------------------- */

/* What is done with a spec that has been opened; `ctx` is the caller's. */
typedef bool qf_job_fn(void *ctx, struct mc_job *job, struct lab *lab, struct mc_error *err);

/* Parses the spec, which must be right, opens the job and hands it over. */
static inline bool qf_with_job(
    const char *spec_text, unsigned workers, qf_job_fn *fn, void *ctx, struct mc_error *err)
{
	struct mc_problems problems;
	struct mc_spec spec;
	struct mc_job job;
	struct lab lab;

	mc_error_init(err);
	mc_problems_init(&problems);
	struct mc_json *json = mc_json_parse(spec_text, strlen(spec_text), "spec", err);
	if (json == NULL)
		fail_msg("%s: %s", err->text, spec_text);
	assert_true(mc_spec_parse(&spec, json, &problems, err));
	for (size_t i = 0; i < problems.count; i++)
		print_error("%s: %s\n", problems.items[i].pointer, problems.items[i].text);
	assert_int_equal(problems.total, 0);
	lab_open(&lab, workers);
	bool ok = mc_job_open(&job, &spec, &lab.env, err);
	if (ok) {
		ok = fn(ctx, &job, &lab, err);
		mc_job_close(&job);
	}
	lab_close(&lab);
	mc_spec_release(&spec);
	mc_problems_release(&problems);
	mc_json_free(json);
	return ok;
}

static inline bool qf_run_fn(void *ctx, struct mc_job *job, struct lab *lab, struct mc_error *err)
{
	struct mc_run_hooks hooks = {0};
	struct mc_run_result result;
	struct mc_plan plan;

	if (!mc_plan_make(&plan, job, 0, &lab->env, err) ||
	    !mc_calibrate(job, &plan, ctx, &hooks, &lab->env, &result, err))
		return false;
	assert_true(result.valid);
	/* what the plan says must hold: nothing takes more than it promised */
	assert_true(lab->arena.peak <= plan.arena_bytes);
	return true;
}

/* Runs a job on `model` into `out`; the checkpoint is out/model. recipe: JSON; more: ", \"k\": v".
 */
static inline void qf_run(
    const char *model, const char *recipe, const char *more, const char *out, unsigned workers)
{
	char spec[2048], path[2 * QF_PATH];
	struct mc_error err;

	snprintf(path, sizeof path, "%s", out);
	assert_true((size_t)snprintf(spec, sizeof spec, "{\"model\": \"%s\", \"recipe\": %s%s}",
			model, recipe, more) < sizeof spec);
	toy_require(qf_with_job(spec, workers, qf_run_fn, path, &err), &err);
}

/* --- refusals --------------------------------------------------------------------------------- */

static inline void qf_require_refusal(
    const char *folder, enum mc_code code, const char *where, const char *text)
{
	struct mc_model model;
	struct mc_error err;

	mc_error_init(&err);
	if (mc_dequantize_open(&model, NULL, folder, &err))
		fail_msg("opened, though '%s' was to be said", text);
	if (err.code != code || strstr(err.where, where) == NULL || strstr(err.text, text) == NULL)
		fail_msg("%s: %s: %s, not %s: %s: ...%s...", mc_code_name(err.code), err.where,
		    err.text, mc_code_name(code), where, text);
	assert_null(model.modules);
	assert_null(model.source_state);
	mc_model_close(&model);
}

/* --- changing a checkpoint -------------------------------------------------------------------- */

struct qf_edit {
	const char *name; /* of the tensor that is changed, or added when there is none */
	bool omit;
	enum mc_dtype dtype; /* as written */
	unsigned rank;
	uint64_t shape[3];
	const void *data; /* NULL: zeros */
};

static inline const struct qf_edit *qf_find_edit(
    const struct qf_edit *edits, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(edits[i].name, name) == 0)
			return &edits[i];
	return NULL;
}

static inline void qf_declare(
    struct mc_st_writer *writer, const struct mc_st_entry *entry, const struct qf_edit *edit)
{
	struct mc_error err;

	mc_error_init(&err);
	if (edit == NULL)
		toy_require(mc_st_writer_declare(
				writer, entry->name, entry->dtype, entry->rank, entry->shape, &err),
		    &err);
	else if (!edit->omit)
		toy_require(mc_st_writer_declare(
				writer, edit->name, edit->dtype, edit->rank, edit->shape, &err),
		    &err);
}

static inline void qf_write_data(struct mc_st_writer *writer, const struct mc_st_entry *entry,
    const struct mc_checkpoint *from, const struct qf_edit *edit)
{
	struct mc_error err;
	void *bytes = calloc(entry->bytes + 1, 1);

	mc_error_init(&err);
	assert_non_null(bytes);
	if (edit == NULL) {
		const struct mc_ckpt_tensor *tensor = mc_checkpoint_find(from, entry->name);
		toy_require(mc_checkpoint_read(from, tensor, 0, entry->bytes, bytes, &err), &err);
	} else if (edit->data != NULL) {
		memcpy(bytes, edit->data, entry->bytes);
	}
	toy_require(mc_st_writer_data(writer, bytes, entry->bytes, &err), &err);
	free(bytes);
}

static inline void qf_write_text(const char *folder, const char *name, const char *text)
{
	char path[QF_PATH + 64];
	struct mc_error err;

	mc_error_init(&err);
	snprintf(path, sizeof path, "%s/%s", folder, name);
	toy_require(mc_file_write_durable(path, text, strlen(text), &err), &err);
}

static inline struct mc_json *qf_config(const char *folder)
{
	struct mc_checkpoint checkpoint;
	struct mc_error err;
	struct mc_buf text;

	mc_error_init(&err);
	mc_buf_init(&text, 1 << 24);
	toy_require(mc_checkpoint_open(&checkpoint, NULL, folder, &err), &err);
	toy_require(mc_checkpoint_read_file(&checkpoint, "config.json", &text, &err), &err);
	struct mc_json *json = mc_json_parse(mc_buf_text(&text), text.length, "config.json", &err);
	assert_non_null(json);
	mc_buf_release(&text);
	mc_checkpoint_close(&checkpoint);
	return json;
}

/* Writes `from` with other tensors, and with members of `config` (a JSON object; NULL: none) set in
 * config.json, into the folder `to`, which is made. */
static inline void qf_rewrite(
    const char *from, const char *to, const struct qf_edit *edits, size_t count, const char *config)
{
	struct mc_checkpoint checkpoint;
	struct mc_error err;
	struct mc_buf text;
	char path[QF_PATH + 64];
	const struct mc_st_entry *entry;

	mc_error_init(&err);
	toy_require(mc_file_make_folders(to, &err), &err);
	toy_require(mc_checkpoint_open(&checkpoint, NULL, from, &err), &err);
	snprintf(path, sizeof path, "%s/model.safetensors", to);
	struct mc_st_writer *writer = mc_st_writer_new(path, &err);
	assert_non_null(writer);
	for (size_t i = 0; i < checkpoint.count; i++) {
		entry = checkpoint.tensors[i].entry;
		qf_declare(writer, entry, qf_find_edit(edits, count, entry->name));
	}
	for (size_t i = 0; i < count; i++)
		if (!edits[i].omit && mc_checkpoint_find(&checkpoint, edits[i].name) == NULL)
			qf_declare(writer, NULL, &edits[i]);
	toy_require(mc_st_writer_begin(writer, &err), &err);
	for (size_t i = 0; (entry = mc_st_writer_entry(writer, i)) != NULL; i++)
		qf_write_data(writer, entry, &checkpoint, qf_find_edit(edits, count, entry->name));
	toy_require(mc_st_writer_finish(writer, &err), &err);
	mc_st_writer_free(writer);
	mc_checkpoint_close(&checkpoint);

	struct mc_json *json = qf_config(from), *changes = NULL;
	if (config != NULL) {
		changes = mc_json_parse(config, strlen(config), "changes", &err);
		if (changes == NULL)
			fail_msg("%s: %s", err.text, config);
	}
	struct mc_json_iter member = mc_json_iter(changes);
	while (mc_json_next(&member))
		toy_require(
		    mc_json_set(json, member.key, mc_json_copy(member.value, &err), &err), &err);
	mc_buf_init(&text, 1 << 24);
	toy_require(mc_json_write(json, MC_JSON_PRETTY, &text, &err), &err);
	qf_write_text(to, "config.json", mc_buf_text(&text));
	mc_buf_release(&text);
	mc_json_free(json);
	mc_json_free(changes);
}

/* --- raw tensors ------------------------------------------------------------------------------ */

/* The bytes of "<module>.<suffix>"; NULL when there is none. Freed by the caller. */
static inline void *qf_tensor(const struct mc_checkpoint *checkpoint, const char *module,
    const char *suffix, enum mc_dtype *ret_dtype)
{
	char name[256];
	struct mc_error err;

	mc_error_init(&err);
	snprintf(name, sizeof name, "%s.%s", module, suffix);
	const struct mc_ckpt_tensor *tensor = mc_checkpoint_find(checkpoint, name);
	if (tensor == NULL)
		return NULL;
	void *bytes = malloc(tensor->entry->bytes + 1);
	assert_non_null(bytes);
	toy_require(
	    mc_checkpoint_read(checkpoint, tensor, 0, tensor->entry->bytes, bytes, &err), &err);
	if (ret_dtype != NULL)
		*ret_dtype = tensor->entry->dtype;
	return bytes;
}

/* A module as the reference reads it; everything in it is freed by qf_stored_free. */
static inline struct ref_stored qf_stored(const struct mc_checkpoint *checkpoint,
    const struct mc_module *m, int bits, size_t band, size_t width, const char *scale_suffix)
{
	struct ref_stored s = {.bits = bits,
	    .rows = m->rows,
	    .cols = m->cols,
	    .band = band,
	    .width = width == 0 ? m->cols : width};
	enum mc_dtype dt;
	size_t scales = (s.rows + s.band - 1) / s.band * ((s.cols + s.width - 1) / s.width);
	void *stored = qf_tensor(checkpoint, m->name, scale_suffix, &dt);
	float *wide = calloc(scales, sizeof *wide);
	double *scale = calloc(scales, sizeof *scale);

	assert_true(stored != NULL && wide != NULL && scale != NULL);
	mc_widen(dt, stored, wide, scales);
	for (size_t i = 0; i < scales; i++)
		scale[i] = wide[i];
	free(stored);
	free(wide);
	s.scale = scale;
	s.dt = dt == MC_BF16 ? &ref_bf16 : dt == MC_F16 ? &ref_f16 : NULL;
	s.words = qf_tensor(checkpoint, m->name, "weight_packed", NULL);
	s.bytes = s.words != NULL ? NULL : qf_tensor(checkpoint, m->name, "weight", NULL);
	s.zeros = qf_tensor(checkpoint, m->name, "weight_zero_point", NULL);
	assert_true(s.words != NULL || s.bytes != NULL);
	return s;
}

static inline void qf_stored_free(struct ref_stored *s)
{
	free((void *)s->words);
	free((void *)s->bytes);
	free((void *)s->scale);
	free((void *)s->zeros);
}

#endif
