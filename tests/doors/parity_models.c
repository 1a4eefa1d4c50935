/*
 * parity_models.c - the decoder against the results of a reference implementation
 *
 *   parity_models [--only NAME,NAME...] DIR...
 *
 * DIR is a case or a folder of cases. A case is a model folder with expected.safetensors beside its
 * config.json: input_ids.<s>, hidden.<s>.embed, hidden.<s>.<layer>, router_indices.<s>.<layer>,
 * router_weights.<s>.<layer>, logits.<s>. All sequences go through the decoder together, once with
 * the experts seeing their own tokens and once seeing all. NAME may hold '*' and '?'.
 *
 * Exit: 0 every case within the tolerance; 1 one past it, or not computable; 2 usage, a missing
 * folder, or no case.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "moecal/alloc.h"
#include "moecal/forward.h"
#include "moecal/linalg.h"
#include "moecal/ops.h"

/* Relative to the rms of the expected tensor: rms of the difference, largest difference. */
#define MOST_RMS 1e-5
#define MOST_LARGEST 1e-4

struct worst {
	double rms, largest;
	char rms_at[64];
};

struct parity {
	struct mc_model model;
	struct mc_st_file expected;
	struct mc_batch batch;
	uint32_t *ids;   /* owned */
	uint64_t *start; /* owned */
	struct mc_arena arena;
	struct mc_env env;
	/* the router's choice in the layer at work, all tokens */
	uint32_t *index; /* [T, K] */
	float *weight;   /* [T, K] */
	size_t routed;   /* tokens that were chosen for */
	/* results */
	struct worst hidden, router, logits;
	size_t compared, mismatches;
};

/* --- expected tensors --------------------------------------------------------------------- */

static const struct mc_st_entry *find(
    const struct parity *p, const char *kind, size_t s, const char *rest)
{
	char name[96];

	snprintf(name, sizeof name, "%s.%zu%s", kind, s, rest);
	return mc_st_find(&p->expected, name);
}

/* A tensor of this dtype and shape [rows, cols] into memory from the arena. */
static void *read_expected(struct parity *p, const char *kind, size_t s, const char *rest,
    enum mc_dtype dtype, size_t rows, size_t cols, struct mc_error *err)
{
	const struct mc_st_entry *entry = find(p, kind, s, rest);

	if (entry == NULL) {
		(void)mc_fail(err, MC_NOT_FOUND, p->expected.name, "there is no tensor %s.%zu%s",
		    kind, s, rest);
		return NULL;
	}
	if (entry->dtype != dtype || entry->rank != 2 || entry->shape[0] != rows ||
	    entry->shape[1] != cols) {
		(void)mc_fail(err, MC_CORRUPT, p->expected.name, "%s is not %s [%zu, %zu]",
		    entry->name, mc_dtype_name(dtype), rows, cols);
		return NULL;
	}
	void *data = mc_arena_alloc(p->env.arena, entry->bytes, 1, entry->name, err);
	return data != NULL && mc_st_read(&p->expected, entry, 0, entry->bytes, data, err) ? data
											   : NULL;
}

static bool read_ids(struct parity *p, struct mc_error *err)
{
	size_t sequences = 0, tokens = 0;

	for (const struct mc_st_entry *e; (e = find(p, "input_ids", sequences, "")) != NULL;
	     sequences++) {
		if (e->dtype != MC_I64 || e->rank != 1)
			return mc_fail(
			    err, MC_CORRUPT, p->expected.name, "%s is not I64 [T]", e->name);
		tokens += e->shape[0];
	}
	if (tokens == 0)
		return mc_fail(err, MC_CORRUPT, p->expected.name, "there are no input_ids");
	p->ids = mc_alloc(tokens, sizeof *p->ids, "token ids", err);
	p->start = mc_alloc(sequences + 1, sizeof *p->start, "token ids", err);
	if (p->ids == NULL || p->start == NULL)
		return false;
	for (size_t s = 0; s < sequences; s++) {
		const struct mc_st_entry *e = find(p, "input_ids", s, "");
		p->start[s + 1] = p->start[s] + e->shape[0];
		for (size_t t = 0; t < e->shape[0]; t++) {
			int64_t id;
			if (!mc_st_read(&p->expected, e, t * sizeof id, sizeof id, &id, err))
				return false;
			if (id < 0 || (uint64_t)id >= p->model.config.vocab)
				return mc_fail(err, MC_CORRUPT, p->expected.name,
				    "%s holds the id %lld", e->name, (long long)id);
			p->ids[p->start[s] + t] = (uint32_t)id;
		}
	}
	p->batch = (struct mc_batch){
	    .ids = p->ids, .start = p->start, .sequences = sequences, .tokens = tokens};
	return true;
}

/* --- comparing ---------------------------------------------------------------------------- */

/* Written so that a NaN counts as past any tolerance. */
static void compare(
    struct worst *worst, const char *name, const float *expected, const float *got, size_t n)
{
	double difference = 0, square = 0, largest = 0;

	mc_error_sums(expected, got, n, &difference, &square);
	for (size_t i = 0; i < n; i++) {
		double d = fabs((double)expected[i] - (double)got[i]);
		if (!(d <= largest))
			largest = d;
	}
	double rms = sqrt(difference / square), most = largest / sqrt(square / (double)n);
	if (!(rms <= worst->rms)) {
		worst->rms = rms;
		snprintf(worst->rms_at, sizeof worst->rms_at, "%.63s", name);
	}
	if (!(most <= worst->largest))
		worst->largest = most;
}

/* Rows of all sequences, [T, cols], against the tensors kind.<s>rest. */
static bool compare_rows(struct parity *p, struct worst *worst, const char *kind, const char *rest,
    const float *got, size_t cols, struct mc_error *err)
{
	for (size_t s = 0; s < p->batch.sequences; s++) {
		size_t mark = mc_arena_mark(p->env.arena), first = (size_t)p->start[s];
		size_t rows = (size_t)p->start[s + 1] - first;
		char name[64];
		float *expected = read_expected(p, kind, s, rest, MC_F32, rows, cols, err);
		if (expected == NULL)
			return false;
		snprintf(name, sizeof name, "%s.%zu%s", kind, s, rest);
		compare(worst, name, expected, got + first * cols, rows * cols);
		p->compared++;
		mc_arena_rewind(p->env.arena, mark);
	}
	return true;
}

static bool compare_choice(struct parity *p, const char *rest, struct mc_error *err)
{
	size_t k = p->model.config.experts_per_token;

	if (p->routed != p->batch.tokens)
		return mc_fail(err, MC_INTERNAL, "", "the router chose for %zu of %zu tokens",
		    p->routed, p->batch.tokens);
	for (size_t s = 0; s < p->batch.sequences; s++) {
		size_t mark = mc_arena_mark(p->env.arena), first = (size_t)p->start[s];
		size_t rows = (size_t)p->start[s + 1] - first;
		const int64_t *expected =
		    read_expected(p, "router_indices", s, rest, MC_I64, rows, k, err);
		if (expected == NULL)
			return false;
		for (size_t i = 0; i < rows * k; i++)
			p->mismatches += expected[i] != (int64_t)p->index[first * k + i];
		mc_arena_rewind(p->env.arena, mark);
	}
	return compare_rows(p, &p->router, "router_weights", rest, p->weight, k, err);
}

/* --- the decoder -------------------------------------------------------------------------- */

static bool take_inputs(void *ctx, const struct mc_tap_slice *slice, struct mc_error *err)
{
	(void)ctx;
	(void)slice;
	(void)err;
	return true;
}

static bool take_routing(void *ctx, const struct mc_tap_routing *routing, struct mc_error *err)
{
	struct parity *p = ctx;
	size_t at = routing->first_token * routing->k, n = routing->tokens * routing->k;

	if (routing->first_token != p->routed)
		return mc_fail(err, MC_INTERNAL, "", "routing of token %zu came when %zu was next",
		    routing->first_token, p->routed);
	memcpy(p->index + at, routing->index, n * sizeof *p->index);
	memcpy(p->weight + at, routing->weight, n * sizeof *p->weight);
	p->routed += routing->tokens;
	return true;
}

static bool all_experts(const struct mc_module *self, const struct mc_moe_call *call,
    const struct mc_env *env, struct mc_error *err)
{
	(void)self;
	return mc_moe_forward(call, true, env, err);
}

static bool run_layer(struct parity *p, size_t l, bool all, float *hidden, struct mc_error *err)
{
	static const struct mc_moe_behaviour sees_all = {.forward = all_experts};
	size_t mark = mc_arena_mark(p->env.arena), moe = p->model.layers[l].moe;
	struct mc_tap tap = {.inputs = take_inputs, .routing = take_routing, .ctx = p};
	struct mc_layer layer;
	char rest[32];

	p->routed = 0;
	if (moe != MC_NO_INDEX)
		p->model.modules[moe]->behaviour = all ? &sees_all : NULL;
	snprintf(rest, sizeof rest, ".%zu", l);
	bool ok =
	    mc_layer_load(&layer, &p->model, l, MC_DTYPE_COUNT, &p->env, err) &&
	    mc_forward_layer(&layer, &p->batch, hidden, &tap, &p->env, err) &&
	    compare_rows(p, &p->hidden, "hidden", rest, hidden, p->model.config.hidden, err) &&
	    (moe == MC_NO_INDEX || compare_choice(p, rest, err));
	mc_arena_rewind(p->env.arena, mark);
	return ok;
}

static bool run_head(struct parity *p, const float *hidden, struct mc_error *err)
{
	size_t mark = mc_arena_mark(p->env.arena), vocab = p->model.config.vocab;
	float *logits =
	    mc_arena_alloc(p->env.arena, p->batch.tokens * vocab, sizeof *logits, "logits", err);
	struct mc_head head;

	bool ok = logits != NULL && mc_head_load(&head, &p->model, MC_DTYPE_COUNT, &p->env, err) &&
		  mc_head_logits(&head, hidden, p->batch.tokens, logits, &p->env, err) &&
		  compare_rows(p, &p->logits, "logits", "", logits, vocab, err);
	mc_arena_rewind(p->env.arena, mark);
	return ok;
}

static bool run_decoder(struct parity *p, bool all, struct mc_error *err)
{
	size_t mark = mc_arena_mark(p->env.arena), width = p->model.config.hidden;
	size_t entries = p->batch.tokens * p->model.config.experts_per_token;
	float *hidden =
	    mc_arena_alloc(p->env.arena, p->batch.tokens * width, sizeof *hidden, "hidden", err);

	p->index = mc_arena_alloc(p->env.arena, entries, sizeof *p->index, "choices", err);
	p->weight = mc_arena_alloc(p->env.arena, entries, sizeof *p->weight, "choices", err);
	bool ok = hidden != NULL && p->index != NULL && p->weight != NULL &&
		  mc_forward_embed(&p->model, &p->batch, MC_DTYPE_COUNT, hidden, &p->env, err) &&
		  compare_rows(p, &p->hidden, "hidden", ".embed", hidden, width, err);
	for (size_t l = 0; ok && l < p->model.config.layers; l++)
		ok = run_layer(p, l, all, hidden, err);
	ok = ok && run_head(p, hidden, err);
	mc_arena_rewind(p->env.arena, mark);
	return ok;
}

/* --- a case ------------------------------------------------------------------------------- */

static uint64_t longest_sequence(const struct mc_batch *batch)
{
	uint64_t longest = 0;

	for (size_t s = 0; s < batch->sequences; s++)
		if (batch->start[s + 1] - batch->start[s] > longest)
			longest = batch->start[s + 1] - batch->start[s];
	return longest;
}

static uint64_t bytes_needed(const struct parity *p)
{
	const struct mc_model_config *config = &p->model.config;
	uint64_t widest = config->vocab > config->hidden ? config->vocab : config->hidden,
		 layers = 0;
	uint64_t rows =
	    p->batch.tokens * (2 * widest + 2 * config->hidden + 2 * config->experts_per_token);

	for (size_t l = 0; l < config->layers; l++) {
		uint64_t bytes = mc_layer_bytes(&p->model, l) +
				 mc_forward_scratch_bytes(&p->model, l, p->batch.tokens,
				     longest_sequence(&p->batch), mc_pool_workers(p->env.pool));
		layers = bytes > layers ? bytes : layers;
	}
	return layers + 4 * rows + 4 * (uint64_t)config->vocab * config->hidden +
	       ((uint64_t)64 << 20);
}

static bool open_expected(struct parity *p, const char *folder, struct mc_error *err)
{
	char *path = mc_format(err, "%s/expected.safetensors", folder);
	int fd;
	bool ok = path != NULL && mc_root_open(NULL, path, &fd, err) &&
		  mc_st_open_fd(&p->expected, fd, "expected.safetensors", err);

	free(path);
	return ok;
}

static bool run_case(
    const char *folder, struct mc_pool *pool, struct parity *p, struct mc_error *err)
{
	*p = (struct parity){.env = {.arena = &p->arena, .pool = pool}};
	bool ok = mc_model_open(&p->model, NULL, folder, err);
	bool opened = ok;

	ok = ok && open_expected(p, folder, err) && read_ids(p, err) &&
	     mc_arena_init(&p->arena, bytes_needed(p), err) && run_decoder(p, false, err) &&
	     run_decoder(p, true, err);
	if (p->arena.base != NULL)
		mc_arena_release(&p->arena);
	if (p->expected.name != NULL)
		mc_st_close(&p->expected);
	if (opened)
		mc_model_close(&p->model);
	free(p->ids);
	free(p->start);
	return ok;
}

static bool within(const struct worst *worst)
{
	return worst->rms <= MOST_RMS && worst->largest <= MOST_LARGEST;
}

/* One line of the table; true when the case passed. */
static bool report_case(const char *folder, struct mc_pool *pool)
{
	static struct parity p; /* the configuration is too big for a stack */
	const char *slash = strrchr(folder, '/'), *name = slash == NULL ? folder : slash + 1;
	struct mc_error err;

	mc_error_init(&err);
	if (!run_case(folder, pool, &p, &err)) {
		printf(
		    "%-26s FAIL  %s: %s: %s\n", name, mc_code_name(err.code), err.where, err.text);
		return false;
	}
	bool passed =
	    within(&p.hidden) && within(&p.router) && within(&p.logits) && p.mismatches == 0;
	printf("%-26s %8.1e %8.1e  %8.1e %8.1e  %8.1e %8.1e  %7zu  %7zu  %s\n", name, p.hidden.rms,
	    p.hidden.largest, p.router.rms, p.router.largest, p.logits.rms, p.logits.largest,
	    p.mismatches, p.compared, passed ? "pass" : "FAIL");
	if (!within(&p.hidden))
		printf("%-26s worst hidden state: %s\n", "", p.hidden.rms_at);
	if (!within(&p.router))
		printf("%-26s worst router weights: %s\n", "", p.router.rms_at);
	return passed;
}

/* --- finding cases ------------------------------------------------------------------------ */

struct cases {
	char **folder; /* owned */
	size_t count, capacity;
};

static bool is_case(const char *folder)
{
	char path[4096];
	struct stat info;

	snprintf(path, sizeof path, "%s/config.json", folder);
	return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

/* `only` NULL: everything. */
static bool is_wanted(const char *name, const char *only)
{
	while (only != NULL) {
		char pattern[256];
		size_t length = strcspn(only, ",");
		snprintf(pattern, sizeof pattern, "%.*s", (int)(length < 255 ? length : 255), only);
		if (fnmatch(pattern, name, 0) == 0)
			return true;
		if (only[length] == '\0')
			return false;
		only += length + 1;
	}
	return true;
}

static bool add_case(
    struct cases *cases, const char *folder, const char *only, struct mc_error *err)
{
	const char *slash = strrchr(folder, '/');
	void *list = cases->folder;

	if (!is_case(folder) || !is_wanted(slash == NULL ? folder : slash + 1, only))
		return true;
	if (!mc_grow(
		&list, &cases->capacity, cases->count + 1, sizeof *cases->folder, "cases", err))
		return false;
	cases->folder = list;
	cases->folder[cases->count] = mc_strdup(folder, err);
	return cases->folder[cases->count++] != NULL;
}

static bool add_folder(struct cases *cases, char *folder, const char *only, struct mc_error *err)
{
	size_t length = strlen(folder);
	struct dirent **names = NULL;
	int count;

	while (length > 1 && folder[length - 1] == '/')
		folder[--length] = '\0';
	count = scandir(folder, &names, NULL, alphasort);
	if (count < 0)
		return mc_fail_errno(err, errno, folder, "the folder cannot be read");
	bool ok = add_case(cases, folder, only, err);
	for (int i = 0; i < count; i++) {
		char *path = names[i]->d_name[0] == '.'
				 ? NULL
				 : mc_format(err, "%s/%s", folder, names[i]->d_name);
		ok = ok && (path == NULL || add_case(cases, path, only, err));
		free(path);
		free(names[i]);
	}
	free(names);
	return ok;
}

static int fail_usage(const char *text, const char *what)
{
	fprintf(stderr, "parity_models: %s%s\nusage: parity_models [--only NAME,NAME...] DIR...\n",
	    text, what);
	return 2;
}

static int run_cases(const struct cases *cases)
{
	struct mc_error err;
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	size_t failed = 0;

	mc_error_init(&err);
	struct mc_pool *pool = mc_pool_new(processors > 1 ? 2 : 1, &err);
	if (pool == NULL || !mc_linalg_init(pool, &err)) {
		fprintf(stderr, "parity_models: %s: %s\n", err.where, err.text);
		mc_pool_free(pool);
		return 1;
	}
	printf("rms and largest error, relative to the rms of what is expected; at most %.0e and "
	       "%.0e\n",
	    MOST_RMS, MOST_LARGEST);
	printf("%-26s %17s  %17s  %17s  %7s  %7s\n", "case", "hidden", "router weights", "logits",
	    "indices", "tensors");
	for (size_t i = 0; i < cases->count; i++)
		failed += !report_case(cases->folder[i], pool);
	printf("%zu of %zu cases passed\n", cases->count - failed, cases->count);
	mc_pool_free(pool);
	return failed > 0;
}

int main(int argc, char **argv)
{
	const char *only = NULL;
	struct cases cases = {0};
	struct mc_error err;
	int folders = 0, result;

	mc_error_init(&err);
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--only") == 0 && i + 1 < argc)
			only = argv[++i];
		else if (argv[i][0] == '-')
			return fail_usage("this is no option: ", argv[i]);
	}
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--only") == 0) {
			i++;
			continue;
		}
		folders++;
		if (!add_folder(&cases, argv[i], only, &err)) {
			fprintf(stderr, "parity_models: %s: %s\n", err.where, err.text);
			return 2;
		}
	}
	if (folders == 0)
		return fail_usage("no folder given", "");
	if (cases.count == 0) {
		fprintf(stderr, "parity_models: there is no case in what was given%s%s\n",
		    only == NULL ? "" : " by the name ", only == NULL ? "" : only);
		return 2;
	}
	result = run_cases(&cases);
	for (size_t i = 0; i < cases.count; i++)
		free(cases.folder[i]);
	free(cases.folder);
	return result;
}
