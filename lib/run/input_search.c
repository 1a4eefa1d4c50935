/*
 * input_search.c - see input_search.h
 *
 * A slice of channels owns its parts of every array, and within a slice rows come in token order,
 * so the bits are the same for any number of workers.
 */
#include "input_search.h"

#include <math.h>
#include <string.h>

#include "moecal/alloc.h"

enum pass { PASS_NONE, PASS_RANGES, PASS_ERRORS, PASS_DONE };

/* --- what is needed --------------------------------------------------------------------------- */

/* Whether the module's input needs more than ranges of sequences, and how its observer works. */
static bool needs_search(const struct mc_module *m, const struct mc_scheme *scheme,
    struct mc_weight_observer *observer, bool *ret_grouped)
{
	struct mc_error ignored;

	mc_error_init(&ignored);
	if (scheme == NULL || !scheme->has_input || scheme->input.dynamic == MC_DYNAMIC_YES ||
	    !mc_weight_observer_make(observer, &scheme->input, "", &ignored))
		return false;
	/* experts are given [tokens, channels], which the reference takes as one range */
	*ret_grouped = scheme->input.dynamic == MC_DYNAMIC_LOCAL && m->expert == MC_NO_INDEX &&
		       (observer->search != MC_SEARCH_NONE || observer->averages);
	return observer->search != MC_SEARCH_NONE || *ret_grouped;
}

static size_t parts_of(size_t channels, size_t width)
{
	return channels / width + (channels % width != 0);
}

static uint64_t padded(uint64_t bytes)
{
	return (bytes + 63) / 64 * 64;
}

/* Of one search, without the struct; table: for BF16. */
static uint64_t search_bytes(const struct mc_weight_observer *observer, bool grouped, size_t width,
    size_t channels, size_t sequences)
{
	uint64_t parts = parts_of(channels, width);
	uint64_t ranges = padded((grouped ? parts : 1) * sequences * sizeof(float));

	return 2 * ranges + 2 * padded(parts * sizeof(float)) +
	       padded(parts * sequences * observer->steps * sizeof(double)) +
	       padded(MC_POWER_TABLE * sizeof(uint16_t));
}

static size_t width_of(const struct mc_scheme *scheme, bool grouped)
{
	return grouped ? (size_t)scheme->input.group_size : MC_TAP_CHANNELS;
}

/* Whether two modules of a layer see the same input. */
static bool share_input(
    const struct mc_job *job, const struct mc_module *a, const struct mc_module *b)
{
	bool a_qkv = a->role == MC_ROLE_Q || a->role == MC_ROLE_K || a->role == MC_ROLE_V;
	bool b_qkv = b->role == MC_ROLE_Q || b->role == MC_ROLE_K || b->role == MC_ROLE_V;
	bool a_up = a->role == MC_ROLE_GATE || a->role == MC_ROLE_UP;
	bool b_up = b->role == MC_ROLE_GATE || b->role == MC_ROLE_UP;

	return (a_qkv && b_qkv) ||
	       (a_up && b_up && (a->expert == b->expert || mc_job_sees_all(job)));
}

static bool is_here(const struct mc_job *job, size_t module, size_t layer)
{
	const struct mc_module *m = job->model.modules[module];

	if (layer == job->model.config.layers)
		return module == job->model.head;
	return m->layer == layer && m->kind == MC_KIND_LINEAR && m->weight != NULL;
}

uint64_t mc_input_searches_bytes(const struct mc_job *job, size_t layer, unsigned workers)
{
	const struct mc_model *model = &job->model;
	uint64_t bytes = 0, count = 0, most_steps = 0;

	for (size_t i = 0; i < model->modules_count; i++) {
		struct mc_weight_observer observer;
		const struct mc_module *m = model->modules[i];
		const struct mc_scheme *scheme = mc_job_scheme(job, i);
		bool grouped, again = false;
		if (!is_here(job, i, layer) || !needs_search(m, scheme, &observer, &grouped))
			continue;
		count++;
		for (size_t j = i; j-- > 0 && !again && model->modules[j]->layer == m->layer;)
			again = mc_job_scheme(job, j) == scheme && is_here(job, j, layer) &&
				share_input(job, model->modules[j], m);
		if (again)
			continue;
		uint64_t one = search_bytes(
		    &observer, grouped, width_of(scheme, grouped), m->cols, job->dataset.sequences);
		/* the layer's own gate and up input stands in for experts without tokens */
		bytes += m->role == MC_ROLE_GATE && m->expert == 0 ? 2 * one : one;
		most_steps = observer.steps > most_steps ? observer.steps : most_steps;
	}
	if (count == 0)
		return 0;
	return bytes + padded((count + 1) * sizeof(struct mc_input_search)) +
	       padded(workers * most_steps * sizeof(struct mc_qparam)) +
	       padded((uint64_t)workers * 2 * MC_TAP_CHANNELS * sizeof(float));
}

/* --- making ----------------------------------------------------------------------------------- */

static bool init_search(
    struct mc_input_search *search, bool grouped, const struct mc_env *env, struct mc_error *err)
{
	size_t sequences = search->stats->sequences, channels = search->stats->channels;
	size_t steps = search->observer.steps;
	uint16_t *table;

	search->args = mc_search_args(&search->scheme->input);
	search->grouped = grouped;
	search->width = width_of(search->scheme, grouped);
	search->parts = parts_of(channels, search->width);
	size_t ranges = (grouped ? search->parts : 1) * sequences;
	search->min = mc_arena_alloc(env->arena, ranges, sizeof(float), "input ranges", err);
	search->max = mc_arena_alloc(env->arena, ranges, sizeof(float), "input ranges", err);
	if (search->min == NULL || search->max == NULL)
		return false;
	for (size_t i = 0; i < ranges; i++) {
		search->min[i] = INFINITY;
		search->max[i] = -INFINITY;
	}
	for (size_t q = 0; !grouped && q < sequences; q++)
		for (size_t s = 0; s < search->stats->slices; s++) {
			const struct mc_input_stats *stats = search->stats;
			search->min[q] = fminf(search->min[q], stats->slice_min[s * sequences + q]);
			search->max[q] = fmaxf(search->max[q], stats->slice_max[s * sequences + q]);
		}
	if (steps == 0)
		return true;
	search->error = mc_arena_zalloc(env->arena, search->parts * sequences * steps,
	    sizeof(double), "errors of candidates", err);
	table = mc_arena_alloc(env->arena, MC_POWER_TABLE, sizeof *table, "a table of powers", err);
	search->least = mc_arena_alloc(
	    env->arena, search->parts, sizeof *search->least, "least errors", err);
	search->best = mc_arena_alloc(
	    env->arena, search->parts, sizeof *search->best, "best candidates", err);
	if (search->error == NULL || table == NULL || search->least == NULL || search->best == NULL)
		return false;
	mc_power_init(&search->power, search->dt, search->observer.norm, table);
	return true;
}

static bool add_module(struct mc_input_searches *searches, const struct mc_job *job, size_t module,
    const struct mc_input_stats *stats, const struct mc_env *env, struct mc_error *err)
{
	const struct mc_module *m = job->model.modules[module];
	const struct mc_scheme *scheme = mc_job_scheme(job, module);
	struct mc_input_search *search = &searches->items[searches->count];
	bool grouped;

	*search = (struct mc_input_search){.stats = stats, .scheme = scheme};
	if (stats == NULL || stats->tokens == 0 ||
	    !needs_search(m, scheme, &search->observer, &grouped))
		return true;
	for (size_t i = 0; i < searches->count; i++)
		if (searches->items[i].stats == stats && searches->items[i].scheme == scheme)
			return true;
	if (grouped && (MC_TAP_CHANNELS % scheme->input.group_size != 0 ||
			   m->cols % (size_t)scheme->input.group_size != 0))
		return mc_fail(err, MC_INVALID, m->name,
		    "input_activations: group_size %lld does not divide the %zu input channels "
		    "and %u",
		    (long long)scheme->input.group_size, m->cols, MC_TAP_CHANNELS);
	search->dt = mc_job_weight_dtype(job, m);
	searches->count++;
	if (search->observer.steps > searches->most_steps)
		searches->most_steps = search->observer.steps;
	return init_search(search, grouped, env, err);
}

bool mc_input_searches_init(struct mc_input_searches *searches, const struct mc_job *job,
    size_t layer, const struct mc_layer_observer *observer, const struct mc_input_stats *head,
    const uint64_t *start, const struct mc_env *env, struct mc_error *err)
{
	unsigned workers = mc_pool_workers(env->pool);
	size_t count = 0;

	*searches = (struct mc_input_searches){.observer = observer, .start = start};
	for (size_t i = 0; i < job->model.modules_count; i++) {
		struct mc_weight_observer o;
		bool grouped;
		count += is_here(job, i, layer) &&
			 needs_search(job->model.modules[i], mc_job_scheme(job, i), &o, &grouped);
	}
	if (count == 0)
		return true;
	searches->items = mc_arena_alloc(
	    env->arena, count + 1, sizeof *searches->items, "input searches", err);
	if (searches->items == NULL)
		return false;
	for (size_t i = 0; i < job->model.modules_count; i++)
		if (is_here(job, i, layer) &&
		    !add_module(searches, job, i,
			observer == NULL ? head
					 : mc_layer_observer_of(observer, job->model.modules[i]),
			env, err))
			return false;
	searches->qparams = mc_arena_alloc(env->arena, workers * (searches->most_steps + 1),
	    sizeof *searches->qparams, "candidates", err);
	searches->scratch = mc_arena_alloc(env->arena, (uint64_t)workers * 2 * MC_TAP_CHANNELS,
	    sizeof *searches->scratch, "a row of inputs", err);
	return searches->qparams != NULL && searches->scratch != NULL;
}

/* --- passes ----------------------------------------------------------------------------------- */

/* Rows [from, to) of a slice, of sequence q. */
struct stretch {
	const struct mc_tap_slice *slice;
	size_t from, to, sequence, sequences;
};

static const float *row_of(const struct mc_tap_slice *slice, size_t i)
{
	return slice->x + (slice->rows != NULL ? slice->rows[i] : i) * slice->ldx;
}

static void add_ranges(struct mc_input_search *search, const struct stretch *at)
{
	size_t channels = at->slice->channels, first = at->slice->first_channel / search->width;

	for (size_t i = at->from; i < at->to; i++) {
		const float *x = row_of(at->slice, i);
		for (size_t c = 0; c < channels; c++) {
			size_t part = first + c / search->width;
			float *min = &search->min[part * at->sequences + at->sequence];
			float *max = &search->max[part * at->sequences + at->sequence];
			*min = x[c] < *min ? x[c] : *min;
			*max = x[c] > *max ? x[c] : *max;
		}
	}
}

static void make_candidates(
    const struct mc_input_search *search, size_t range, struct mc_qparam *qparams)
{
	for (unsigned step = 0; step < search->observer.steps; step++) {
		float min = mc_round_to(search->dt, search->min[range]);
		float max = mc_round_to(search->dt, search->max[range]);
		mc_weight_observer_range(&search->observer, search->dt, step, &min, &max);
		qparams[step] = mc_qparam_make(&search->args, search->dt, min, max);
	}
}

/* row, scratch [MC_TAP_CHANNELS] */
static void add_errors(struct mc_input_search *search, const struct stretch *at,
    struct mc_qparam *qparams, float *row, float *scratch)
{
	size_t steps = search->observer.steps, channels = at->slice->channels;
	size_t part = at->slice->first_channel / search->width;

	for (size_t c = 0; c < channels; c += search->width, part++) {
		size_t n = channels - c < search->width ? channels - c : search->width;
		size_t place = part * at->sequences + at->sequence;
		double *error = search->error + place * steps;
		make_candidates(search, search->grouped ? place : at->sequence, qparams);
		for (size_t i = at->from; i < at->to; i++) {
			const float *x = row_of(at->slice, i) + c;
			for (size_t k = 0; k < n; k++)
				row[k] = mc_round_to(search->dt, x[k]);
			for (size_t step = 0; step < steps; step++)
				error[step] += mc_search_error(&search->args, search->dt,
				    &search->power, qparams[step], row, scratch, n);
		}
	}
}

static const struct mc_input_stats *stats_of(
    const struct mc_layer_observer *observer, const struct mc_tap_slice *slice)
{
	switch (slice->site) {
	case MC_SITE_QKV:
		return &observer->qkv;
	case MC_SITE_O:
		return &observer->o;
	case MC_SITE_GATE_UP:
		return &observer->gate_up;
	case MC_SITE_EXPERT_GATE_UP:
		return observer->expert_gate_up == NULL ? NULL
							: &observer->expert_gate_up[slice->expert];
	case MC_SITE_DOWN:
		return observer->experts == 0 ? &observer->dense_down
					      : &observer->expert_down[slice->expert];
	case MC_SITE_QUERY: /* attention's inputs are watched by heads (head_ranges.c) */
	case MC_SITE_KEY:
	case MC_SITE_VALUE:
	case MC_SITE_COUNT:
		break;
	}
	return NULL;
}

static void take_stretch(
    struct mc_input_searches *searches, struct mc_input_search *search, const struct stretch *at)
{
	size_t worker = at->slice->worker;
	float *row = searches->scratch + worker * 2 * MC_TAP_CHANNELS;

	if (searches->pass == PASS_RANGES && search->grouped)
		add_ranges(search, at);
	if (searches->pass == PASS_ERRORS && search->observer.steps > 0)
		add_errors(search, at, searches->qparams + worker * (searches->most_steps + 1), row,
		    row + MC_TAP_CHANNELS);
}

static bool take_inputs(void *ctx, const struct mc_tap_slice *slice, struct mc_error *err)
{
	struct mc_input_searches *searches = ctx;
	const struct mc_input_stats *stats = searches->observer == NULL
						 ? searches->items[0].stats
						 : stats_of(searches->observer, slice);
	size_t sequence = 0;

	(void)err;
	for (size_t from = 0, to; stats != NULL && from < slice->count; from = to) {
		uint64_t token = slice->first_token +
				 (slice->rows != NULL ? slice->rows[from] : from);
		while (searches->start[sequence + 1] <= token)
			sequence++;
		for (to = from + 1; to < slice->count; to++)
			if (slice->first_token + (slice->rows != NULL ? slice->rows[to] : to) >=
			    searches->start[sequence + 1])
				break;
		struct stretch at = {.slice = slice,
		    .from = from,
		    .to = to,
		    .sequence = sequence,
		    .sequences = stats->sequences};
		for (size_t i = 0; i < searches->count; i++)
			if (searches->items[i].stats == stats)
				take_stretch(searches, &searches->items[i], &at);
	}
	return true;
}

struct mc_tap mc_input_searches_tap(struct mc_input_searches *searches)
{
	return (struct mc_tap){.inputs = take_inputs, .ctx = searches};
}

/* --- results ---------------------------------------------------------------------------------- */

/* The error of a candidate in one sequence, rounded as the reference rounds its sums. */
static float error_of(
    const struct mc_input_search *search, size_t range, size_t sequence, size_t step)
{
	size_t sequences = search->stats->sequences, steps = search->observer.steps;
	double sum = 0;

	if (search->grouped)
		sum = search->error[(range * sequences + sequence) * steps + step];
	else
		for (size_t part = 0; part < search->parts; part++)
			sum += search->error[(part * sequences + sequence) * steps + step];
	return mc_round_to(search->dt, (float)sum);
}

/* The best candidate of each range takes the range's place; all ranges of a sequence stop together.
 */
static void select_ranges(struct mc_input_search *search, size_t sequence)
{
	size_t ranges = search->grouped ? search->parts : 1, sequences = search->stats->sequences;
	unsigned misses = 0;

	for (size_t r = 0; r < ranges; r++) {
		search->least[r] = mc_search_largest(search->dt);
		search->best[r] = 0;
	}
	for (unsigned step = 0; step < search->observer.steps; step++) {
		bool improved = false;
		for (size_t r = 0; r < ranges; r++) {
			float error = error_of(search, r, sequence, step);
			if (!(error < search->least[r]))
				continue;
			search->least[r] = error;
			search->best[r] = step;
			improved = true;
		}
		misses = improved ? 0 : misses + 1;
		if (misses > 0 && misses >= search->observer.patience)
			break;
	}
	for (size_t r = 0; r < ranges; r++) {
		float *min = &search->min[r * sequences + sequence];
		float *max = &search->max[r * sequences + sequence];
		*min = mc_round_to(search->dt, *min);
		*max = mc_round_to(search->dt, *max);
		mc_weight_observer_range(&search->observer, search->dt, search->best[r], min, max);
	}
}

static void settle(struct mc_input_search *search)
{
	size_t ranges = search->grouped ? search->parts : 1, sequences = search->stats->sequences;
	const struct mc_json *constant = mc_json_get(
	    search->scheme->input.observer_kwargs, "averaging_constant");
	struct mc_observer fold = {
	    .kind = search->observer.averages ? MC_OBSERVER_MOVING : MC_OBSERVER_MEMORYLESS,
	    .averaging_constant = constant == NULL ? 0.01 : mc_json_number(constant),
	    .dtype = search->dt};

	for (size_t q = 0; search->observer.steps > 0 && q < sequences; q++)
		if (search->min[q] <= search->max[q]) /* a sequence with data */
			select_ranges(search, q);
	for (size_t r = 0; r < ranges; r++) {
		struct mc_range one = mc_observe(
		    &fold, search->min + r * sequences, search->max + r * sequences, sequences);
		struct mc_range *all = &search->range;
		if (!one.seen)
			continue;
		all->min = all->seen ? fminf(all->min, one.min) : one.min;
		all->max = all->seen ? fmaxf(all->max, one.max) : one.max;
		all->seen = true;
	}
}

bool mc_input_searches_next(struct mc_input_searches *searches)
{
	bool grouped = false, errors = false;

	if (searches->count == 0 || searches->pass == PASS_DONE)
		return false;
	for (size_t i = 0; i < searches->count; i++) {
		grouped |= searches->items[i].grouped;
		errors |= searches->items[i].observer.steps > 0;
	}
	if (searches->pass == PASS_NONE && grouped) {
		searches->pass = PASS_RANGES;
		return true;
	}
	if (searches->pass != PASS_ERRORS && errors) {
		searches->pass = PASS_ERRORS;
		return true;
	}
	for (size_t i = 0; i < searches->count; i++)
		settle(&searches->items[i]);
	searches->pass = PASS_DONE;
	return false;
}

bool mc_input_searches_find(const struct mc_input_searches *searches,
    const struct mc_input_stats *stats, const struct mc_scheme *scheme, struct mc_range *ret)
{
	for (size_t i = 0; searches != NULL && i < searches->count; i++) {
		const struct mc_input_search *search = &searches->items[i];
		if (search->stats != stats || search->scheme != scheme)
			continue;
		*ret = search->range;
		return true;
	}
	return false;
}
