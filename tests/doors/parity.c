/*
 * parity.c - quantized tensors against reference results, case by case
 *
 * usage: parity [--models DIR] [--only PATTERN,...] [--require PATTERN,...] DIR
 *
 * DIR is a folder of cases, or one case: recipe.yaml, case.json, expected.safetensors; token ids in
 * DIR/../calibration_ids.safetensors. A case is run whole, from its recipe to the written
 * checkpoint, and every expected tensor is looked up there. Weights' codes, scales and zero points
 * must be equal to the bit; input scales within a relative bound: 1e-5 for float32 cases; for bf16
 * ones 2 % but for one module in twenty, which may be 10 % off. A scheme that is not there yet is
 * skipped by name, unless --require names the case. Exit: 0 all pass, 1 one does not, 2 nothing to
 * compare.
 */
#include <dirent.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "moecal/alloc.h"
#include "moecal/calibrate.h"
#include "moecal/file.h"
#include "moecal/linalg.h"
#include "moecal/pack.h"

struct options {
	const char *models, *only, *require, *folder;
	char scratch[64];
};

struct tally {
	size_t compared, equal, inputs, inputs_off, skipped, missing, codes_off;
	size_t again, again_off; /* tensors made from the reference's inputs */
	double worst_input, worst_weight;
	char first[256]; /* what went wrong first */
};

static struct mc_json *read_json(const char *folder, const char *name, struct mc_error *err)
{
	struct mc_buf text;
	struct mc_json *json = NULL;
	int fd = -1;
	char *path = mc_format(err, "%s/%s", folder, name);

	mc_buf_init(&text, (size_t)256 << 20);
	if (path != NULL && mc_root_open(NULL, path, &fd, err) &&
	    mc_file_read_all(fd, path, &text, err))
		json = mc_json_parse(mc_buf_text(&text), text.length, path, err);
	mc_close(fd);
	mc_buf_release(&text);
	free(path);
	return json;
}

static char *read_text(const char *folder, const char *name, struct mc_error *err)
{
	struct mc_buf text;
	int fd = -1;
	char *path = mc_format(err, "%s/%s", folder, name), *copy = NULL;

	mc_buf_init(&text, (size_t)1 << 20);
	if (path != NULL && mc_root_open(NULL, path, &fd, err) &&
	    mc_file_read_all(fd, path, &text, err))
		copy = mc_strdup(mc_buf_text(&text), err);
	mc_close(fd);
	mc_buf_release(&text);
	free(path);
	return copy;
}

static const char *text_of(const struct mc_json *object, const char *key, const char *fallback)
{
	const struct mc_json *value = mc_json_get(object, key);
	return value != NULL && mc_json_type(value) == MC_JSON_STRING ? mc_json_string(value, NULL)
								      : fallback;
}

/* --- running a case --------------------------------------------------------------------------- */

static struct mc_json *case_spec(const char *folder, const struct mc_json *about,
    const struct options *options, struct mc_error *err)
{
	struct mc_json *spec = mc_json_new_object();
	const struct mc_json *all = mc_json_get(about, "calibrate_all_experts");
	bool f32 = strcmp(text_of(about, "dtype", ""), "f32") == 0;
	char *recipe = read_text(folder, "recipe.yaml", err);
	char *model = mc_format(err, "%s/%s", options->models, text_of(about, "model", ""));
	const char *ids_name = text_of(
	    mc_json_get(about, "calibration"), "ids", "calibration_ids.safetensors");
	char *ids = mc_format(err, "%s/../../%s", folder, ids_name);
	bool ok = recipe != NULL && model != NULL && ids != NULL;

	if (ok && !mc_file_exists(ids)) {
		free(ids);
		ids = mc_format(err, "%s/../%s", folder, ids_name);
		ok = ids != NULL;
	}
	ok = ok && mc_json_set(spec, "model", mc_json_new_string(model), err) &&
	     mc_json_set(spec, "dataset", mc_json_new_string(ids), err) &&
	     mc_json_set(spec, "recipe", mc_json_new_string(recipe), err) &&
	     mc_json_set(spec, "precision", mc_json_new_string(f32 ? "float32" : "auto"), err) &&
	     mc_json_set(spec, "compute", mc_json_new_string(f32 ? "float32" : "auto"), err) &&
	     mc_json_set(spec, "calibrate_all_experts",
		 mc_json_new_bool(
		     all == NULL || mc_json_type(all) != MC_JSON_BOOL || mc_json_bool(all)),
		 err);
	free(recipe);
	free(model);
	free(ids);
	if (ok)
		return spec;
	mc_json_free(spec);
	return NULL;
}

/* A job whose own verdict says no is not compared. */
static bool run_spec(
    struct mc_spec *spec, const char *out, const struct mc_env *env, struct mc_error *err)
{
	struct mc_job job;
	struct mc_plan plan;
	struct mc_run_result result;

	if (!mc_job_open(&job, spec, env, err))
		return false;
	bool ok = mc_plan_make(&plan, &job, 0, env, err) &&
		  mc_calibrate(&job, &plan, out, NULL, env, &result, err);
	mc_job_close(&job);
	return ok && (result.valid || mc_fail(err, MC_CORRUPT, out,
					  "the verdict on the written checkpoint is no"));
}

static bool run_case(
    const struct mc_json *json, const char *out, const struct mc_env *env, struct mc_error *err)
{
	struct mc_spec spec;
	struct mc_problems problems;

	mc_problems_init(&problems);
	bool ok = mc_spec_parse(&spec, json, &problems, err);
	if (ok && problems.total > 0)
		ok = mc_fail(
		    err, MC_UNSUPPORTED, problems.items[0].pointer, "%s", problems.items[0].text);
	ok = ok && run_spec(&spec, out, env, err);
	mc_spec_release(&spec);
	mc_problems_release(&problems);
	return ok;
}

/* --- comparing -------------------------------------------------------------------------------- */

static bool is_input_scale(const char *name)
{
	const char *dot = strrchr(name, '.');
	return dot != NULL &&
	       (strcmp(dot, ".input_scale") == 0 || strcmp(dot, ".input_global_scale") == 0 ||
		   strcmp(dot, ".k_scale") == 0 || strcmp(dot, ".v_scale") == 0);
}

static bool is_input_zero(const char *name)
{
	const char *dot = strrchr(name, '.');
	return dot != NULL && strcmp(dot, ".input_zero_point") == 0;
}

static double relative(float a, float b)
{
	return a == b ? 0 : fabs((double)a - b) / fmax(fabs((double)b), 1e-30);
}

static void note(struct tally *t, const char *name, const char *what)
{
	if (t->first[0] == '\0')
		snprintf(t->first, sizeof t->first, "%s: %s", name, what);
}

static void compare_bytes(struct tally *t, const struct mc_st_entry *want, const unsigned char *a,
    const unsigned char *b, bool f32)
{
	size_t n = want->bytes * 8 / mc_dtype_bits(want->dtype);
	double bound = f32 ? 1e-5 : 0.02, worst = 0;

	t->compared++;
	if (is_input_scale(want->name)) {
		for (size_t i = 0; i < n; i++) {
			float x, y;
			mc_widen(want->dtype, a + i * mc_dtype_bits(want->dtype) / 8, &x, 1);
			mc_widen(want->dtype, b + i * mc_dtype_bits(want->dtype) / 8, &y, 1);
			worst = fmax(worst, relative(x, y));
		}
		t->inputs++;
		t->inputs_off += !(worst <= bound);
		t->worst_input = fmax(t->worst_input, worst);
		if (!(worst <= bound))
			note(t, want->name, "input scale is off");
	} else if (is_input_zero(want->name)) {
		t->inputs++;
		if (abs((int)(int8_t)a[0] - (int)(int8_t)b[0]) > 1) {
			t->inputs_off++;
			note(t, want->name, "input zero point is off");
		}
	} else if (memcmp(a, b, want->bytes) == 0) {
		t->equal++;
	} else {
		t->codes_off++;
		note(t, want->name, "differs");
	}
}

static bool compare_case(
    const char *folder, const char *out, bool f32, struct tally *t, struct mc_error *err)
{
	struct mc_st_file expected;
	struct mc_checkpoint written;
	int fd;
	char *path = mc_format(err, "%s/expected.safetensors", folder),
	     *model = mc_format(err, "%s/model", out);
	bool ok = path != NULL && model != NULL && mc_root_open(NULL, path, &fd, err) &&
		  mc_st_open_fd(&expected, fd, path, err);

	if (ok && !mc_checkpoint_open(&written, NULL, model, err)) {
		mc_st_close(&expected);
		ok = false;
	}
	free(path);
	free(model);
	if (!ok)
		return false;
	for (size_t i = 0; ok && i < expected.count; i++) {
		const struct mc_st_entry *want = &expected.entries[i];
		const struct mc_ckpt_tensor *have = mc_checkpoint_find(&written, want->name);
		if (have == NULL || have->entry->dtype != want->dtype ||
		    have->entry->bytes != want->bytes) {
			t->missing++;
			note(t, want->name,
			    have == NULL ? "is missing" : "has another dtype or size");
			continue;
		}
		unsigned char *a = mc_alloc(2 * want->bytes + 1, 1, "tensor", err),
			      *b = a == NULL ? NULL : a + want->bytes;
		ok = a != NULL && mc_checkpoint_read(&written, have, 0, want->bytes, a, err) &&
		     mc_st_read(&expected, want, 0, want->bytes, b, err);
		if (ok)
			compare_bytes(t, want, a, b, f32);
		free(a);
	}
	mc_checkpoint_close(&written);
	mc_st_close(&expected);
	return ok;
}

/* --- weights that follow from inputs ---------------------------------------------------------- */

/* imatrix in bf16: the reference's inputs come out of its bf16 forward pass, ours of a float32 one,
 * and some groups fall the other way. So that the rounding itself is held against it, what differs
 * is made again from the inputs that the reference saw (../statistics beside the cases). */
struct again {
	struct mc_st_file expected, statistics;
	struct mc_job job;
	const struct mc_env *env;
};

/* Sums of squares over tokens: [cols] of the arena, or NULL. */
static float *reference_squares(
    const struct again *again, const struct mc_module *m, struct mc_error *err)
{
	char *sums = mc_format(err, "all.%s.sum_of_squares", m->name),
	     *count = mc_format(err, "all.%s.tokens", m->name);
	const struct mc_st_entry *s = sums == NULL ? NULL : mc_st_find(&again->statistics, sums),
				 *c = count == NULL ? NULL : mc_st_find(&again->statistics, count);
	float *squares = mc_arena_alloc(again->env->arena, m->cols, sizeof *squares, "sums", err);
	int64_t tokens = 0;
	bool ok = s != NULL && c != NULL && squares != NULL && s->dtype == MC_F32 &&
		  s->bytes == m->cols * sizeof *squares && c->bytes == sizeof tokens &&
		  mc_st_read(&again->statistics, s, 0, s->bytes, squares, err) &&
		  mc_st_read(&again->statistics, c, 0, c->bytes, &tokens, err);

	for (size_t i = 0; ok && i < m->cols; i++)
		squares[i] /= (float)tokens;
	free(sums);
	free(count);
	return ok ? squares : NULL;
}

static bool module_again(struct again *again, size_t index, struct tally *t, struct mc_error *err)
{
	const struct mc_module *m = again->job.model.modules[index];
	const struct mc_scheme *scheme = mc_job_scheme(&again->job, index);
	struct mc_arena *arena = again->env->arena;
	struct mc_weight weight;
	struct mc_quantized q;
	struct mc_packed packed;
	char *first = mc_format(err, "%s.weight_packed", m->name);
	bool stored = first != NULL && mc_st_find(&again->expected, first) != NULL;

	free(first);
	if (!stored)
		return true;
	struct mc_rtn_given given = {.mean_square = reference_squares(again, m, err)};
	if (given.mean_square == NULL ||
	    !mc_model_read_weight(
		&again->job.model, m, again->job.spec->precision, &weight, again->env, err) ||
	    !mc_rtn_given(&weight, &scheme->weights, &given, m->name, arena, &q, err) ||
	    !mc_pack(scheme, weight.dtype, &q, m->name, arena, &packed, err))
		return false;
	for (size_t i = 0; i < packed.count; i++) {
		char *name = mc_format(err, "%s.%s", m->name, packed.items[i].suffix);
		const struct mc_st_entry *want = name == NULL ? NULL
							      : mc_st_find(&again->expected, name);
		uint64_t bytes = mc_tensor_bytes(&packed.items[i].tensor);
		void *data = want == NULL ? NULL : mc_arena_alloc(arena, bytes, 1, "tensor", err);
		free(name);
		if (data == NULL || want->bytes != bytes ||
		    !mc_st_read(&again->expected, want, 0, bytes, data, err))
			return false;
		t->again++;
		if (memcmp(data, packed.items[i].tensor.data, bytes) != 0) {
			t->again_off++;
			note(t, m->name, "differs with the reference's inputs too");
		}
	}
	return true;
}

static bool open_file(
    struct mc_st_file *file, const char *folder, const char *name, struct mc_error *err)
{
	int fd;
	char *path = mc_format(err, "%s/%s", folder, name);
	bool ok = path != NULL && mc_root_open(NULL, path, &fd, err) &&
		  mc_st_open_fd(file, fd, path, err);

	free(path);
	return ok;
}

/* Every weight of the case from the reference's inputs. */
static bool compare_again(const char *folder, const struct mc_json *json, const struct mc_env *env,
    struct tally *t, struct mc_error *err)
{
	struct again again = {.env = env};
	struct mc_problems problems;
	struct mc_spec spec;

	if (!open_file(&again.expected, folder, "expected.safetensors", err))
		return false;
	if (!open_file(&again.statistics, folder, "../../statistics/bf16.safetensors", err)) {
		mc_st_close(&again.expected);
		return false;
	}
	mc_problems_init(&problems);
	bool ok = mc_spec_parse(&spec, json, &problems, err);
	if (ok && mc_job_open(&again.job, &spec, env, err)) {
		for (size_t i = 0; ok && i < again.job.model.modules_count; i++) {
			size_t mark = mc_arena_mark(env->arena);
			if (mc_job_scheme(&again.job, i) != NULL)
				ok = module_again(&again, i, t, err);
			mc_arena_rewind(env->arena, mark);
		}
		mc_job_close(&again.job);
	} else {
		ok = false;
	}
	mc_spec_release(&spec);
	mc_problems_release(&problems);
	mc_st_close(&again.statistics);
	mc_st_close(&again.expected);
	return ok;
}

/* --- config.json ------------------------------------------------------------------------------ */

static bool compare_config(
    const char *folder, const char *out, struct tally *t, struct mc_error *err)
{
	char *model = mc_format(err, "%s/model", out);
	struct mc_json *want = read_json(folder, "config.json", err),
		       *have = model == NULL ? NULL : read_json(model, "config.json", err);
	bool ok = want != NULL && have != NULL;

	if (ok && !mc_json_equal(mc_json_get(want, "quantization_config"),
		      mc_json_get(have, "quantization_config"))) {
		t->missing++;
		note(t, "config.json", "quantization_config differs");
	}
	mc_json_free(want);
	mc_json_free(have);
	free(model);
	return ok;
}

/* --- one case, all cases ---------------------------------------------------------------------- */

static bool named_by(const char *name, const char *patterns)
{
	char list[1024];
	char *save = NULL;

	snprintf(list, sizeof list, "%s", patterns);
	for (char *p = strtok_r(list, ",", &save); p != NULL; p = strtok_r(NULL, ",", &save))
		if (fnmatch(p, name, 0) == 0)
			return true;
	return false;
}

enum outcome { PASSED, FAILED, SKIPPED };

static enum outcome judge(const char *name, const struct tally *t, bool f32)
{
	/* bf16: the reference's forward pass runs in bf16, so a few modules may be further off */
	bool inputs = f32 ? t->inputs_off == 0
			  : t->worst_input <= 0.1 && t->inputs_off * 20 <= t->inputs + 19;
	/* weights that follow from inputs: bit-equal with the reference's, nearly all with ours */
	bool weights = t->again == 0 ? t->codes_off == 0
				     : t->again_off == 0 && t->codes_off * 5 <= t->compared;
	bool ok = t->compared > 0 && t->missing == 0 && weights && inputs;

	printf("%-36s %8zu %8zu %8zu %10.2e  %s%s%s", name, t->compared, t->equal, t->inputs,
	    t->worst_input, ok ? "pass" : "FAIL", ok ? "" : ": ", ok ? "" : t->first);
	if (ok && t->again > 0)
		printf(" (%zu of %zu equal with the reference's inputs)", t->again - t->again_off,
		    t->again);
	printf("\n");
	return ok ? PASSED : FAILED;
}

static enum outcome one_case(
    const char *folder, const char *name, const struct options *options, const struct mc_env *env)
{
	struct mc_error err;
	struct tally tally = {0};

	mc_error_init(&err);
	if (strstr(name, "-unmasked") != NULL) {
		printf("%-36s %s\n", name,
		    "skipped: made without a causal mask, which is not to be reproduced");
		return SKIPPED;
	}
	struct mc_json *about = read_json(folder, "case.json", &err);
	struct mc_json *spec = about == NULL ? NULL : case_spec(folder, about, options, &err);
	bool f32 = about != NULL && strcmp(text_of(about, "dtype", ""), "f32") == 0;
	bool ok = spec != NULL && mc_file_remove_tree(options->scratch, &err) &&
		  run_case(spec, options->scratch, env, &err) &&
		  compare_case(folder, options->scratch, f32, &tally, &err) &&
		  compare_config(folder, options->scratch, &tally, &err);
	if (ok && !f32 && strstr(name, "imatrix") != NULL)
		ok = compare_again(folder, spec, env, &tally, &err);
	enum outcome outcome;
	if (ok) {
		outcome = judge(name, &tally, f32);
	} else if (err.code == MC_UNSUPPORTED &&
		   (options->require == NULL || !named_by(name, options->require))) {
		printf("%-36s not there yet: %.110s\n", name, err.text);
		outcome = SKIPPED;
	} else {
		printf("%-36s FAIL: %s: %s\n", name, err.where, err.text);
		outcome = FAILED;
	}
	mc_json_free(spec);
	mc_json_free(about);
	return outcome;
}

static int visible(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

static int all_cases(const struct options *options, const struct mc_env *env)
{
	size_t count[3] = {0};
	struct dirent **names = NULL;
	struct mc_error err;

	mc_error_init(&err);
	printf("%-36s %8s %8s %8s %10s\n", "case", "compared", "equal", "inputs", "worst");
	char *single = mc_format(&err, "%s/case.json", options->folder);
	if (single != NULL && mc_file_exists(single)) {
		const char *slash = strrchr(options->folder, '/');
		count[one_case(options->folder,
		    slash != NULL && slash[1] != '\0' ? slash + 1 : options->folder, options,
		    env)]++;
	} else {
		int n = scandir(options->folder, &names, visible, alphasort);
		for (int i = 0; i < n; i++) {
			char *folder = mc_format(&err, "%s/%s", options->folder, names[i]->d_name);
			char *about = mc_format(&err, "%s/case.json", folder);
			if ((options->only == NULL || named_by(names[i]->d_name, options->only)) &&
			    mc_file_exists(about))
				count[one_case(folder, names[i]->d_name, options, env)]++;
			fflush(stdout);
			free(about);
			free(folder);
			free(names[i]);
		}
		free(names);
	}
	free(single);
	printf(
	    "%zu passed, %zu failed, %zu skipped\n", count[PASSED], count[FAILED], count[SKIPPED]);
	if (count[PASSED] + count[FAILED] == 0) {
		fprintf(stderr, "parity: no case was compared in %s\n", options->folder);
		return 2;
	}
	return count[FAILED] > 0 ? 1 : 0;
}

int main(int argc, char **argv)
{
	struct options options = {.models = "../shared/models"};
	struct mc_arena arena;
	struct mc_env env = {.arena = &arena};
	struct mc_error err;

	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], "--models") == 0 && i + 1 < argc)
			options.models = argv[++i];
		else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc)
			options.only = argv[++i];
		else if (strcmp(argv[i], "--require") == 0 && i + 1 < argc)
			options.require = argv[++i];
		else
			options.folder = argv[i];
	if (options.folder == NULL || access(options.folder, R_OK) != 0) {
		fprintf(stderr, "parity: there is no folder %s\n",
		    options.folder == NULL ? "(none given)" : options.folder);
		return 2;
	}
	mc_error_init(&err);
	snprintf(options.scratch, sizeof options.scratch, "/tmp/moecal-parity-%ld", (long)getpid());
	env.pool = mc_pool_new(mc_machine_threads(), &err);
	if (env.pool == NULL || !mc_arena_init(&arena, mc_machine_memory(), &err) ||
	    !mc_linalg_init(env.pool, &err)) {
		fprintf(stderr, "parity: %s: %s\n", err.where, err.text);
		return 2;
	}
	int code = all_cases(&options, &env);
	mc_error_init(&err);
	(void)!mc_file_remove_tree(options.scratch, &err);
	mc_pool_free(env.pool);
	mc_arena_release(&arena);
	return code;
}
