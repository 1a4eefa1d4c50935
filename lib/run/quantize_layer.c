/*
 * quantize_layer.c - tasks of one layer, run on the pool; each owns its output tensors
 */
#include "quantize_layer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fused.h"
#include "quantize_attention.h"

#include "moecal/alloc.h"

static const struct mc_weight *layer_weight(const struct mc_layer *layer, const struct mc_module *m)
{
	size_t e = m->expert == MC_NO_INDEX ? 0 : m->expert;

	switch (m->role) {
	case MC_ROLE_Q:
		return &layer->q;
	case MC_ROLE_K:
		return &layer->k;
	case MC_ROLE_V:
		return &layer->v;
	case MC_ROLE_O:
		return &layer->o;
	case MC_ROLE_GATE:
		return &layer->gate[e];
	case MC_ROLE_UP:
		return &layer->up[e];
	case MC_ROLE_DOWN:
		return &layer->down[e];
	case MC_ROLE_NONE:
	case MC_ROLE_EMBED:
	case MC_ROLE_HEAD:
	case MC_ROLE_FINAL_NORM:
	case MC_ROLE_ATTENTION_NORM:
	case MC_ROLE_FFN_NORM:
	case MC_ROLE_Q_NORM:
	case MC_ROLE_K_NORM:
	case MC_ROLE_ROUTER:
	case MC_ROLE_ATTENTION:
	case MC_ROLE_MOE:
	case MC_ROLE_LAYER:
	case MC_ROLE_EXPERT:
		break;
	}
	return NULL;
}

/* --- input scales ----------------------------------------------------------------------------- */

/* What is known of a layer's inputs. */
struct inputs {
	const struct mc_layer_result *result;
	const struct mc_layer_observer *observer; /* NULL: of the head, or no data */
	const struct mc_input_searches *searches; /* or NULL */
};

static double averaging_constant(const struct mc_quant_args *args)
{
	const struct mc_json *value = mc_json_get(args->observer_kwargs, "averaging_constant");
	return value == NULL ? 0.01 : mc_json_number(value);
}

/* The range of a site's inputs under a scheme: as a search found it, or folded over sequences. */
static struct mc_range observed(const struct mc_input_stats *stats, const struct mc_scheme *scheme,
    enum mc_dtype dtype, const struct mc_input_searches *searches)
{
	const struct mc_quant_args *args = &scheme->input;
	struct mc_observer observer = {.kind = MC_OBSERVER_MOVING,
	    .averaging_constant = averaging_constant(args),
	    .dtype = dtype};
	struct mc_range found;

	if (stats == NULL || stats->tokens == 0)
		return (struct mc_range){0};
	if (mc_input_searches_find(searches, stats, scheme, &found))
		return found;
	if (args->observer[0] != '\0' && !mc_observer_find(args->observer, &observer.kind))
		mc_assert(!"an observer that the scheme's check let through");
	return mc_input_stats_range(stats, &observer);
}

/* What the other experts of the layer saw, for an expert that saw nothing. */
static struct mc_range observed_by_others(const struct inputs *inputs, const struct mc_job *job,
    enum mc_role role, const struct mc_scheme *scheme)
{
	struct mc_range all = {0};

	for (size_t i = 0; i < inputs->result->count; i++) {
		const struct mc_linear_task *task = &inputs->result->tasks[i];
		const struct mc_module *m = job->model.modules[task->module];
		struct mc_range one;
		/* with the same observer, so of those that have the same scheme */
		if (m->role != role || m->expert == MC_NO_INDEX || task->scheme != scheme)
			continue;
		one = observed(task->input, scheme, task->weight.dtype, inputs->searches);
		if (!one.seen)
			continue;
		all.min = all.seen ? fminf(all.min, one.min) : one.min;
		all.max = all.seen ? fmaxf(all.max, one.max) : one.max;
		all.seen = true;
	}
	return all;
}

static struct mc_packed_tensor *find_packed(struct mc_packed *packed, const char *suffix)
{
	for (size_t i = 0; i < packed->count; i++)
		if (strcmp(packed->items[i].suffix, suffix) == 0)
			return &packed->items[i];
	return NULL;
}

/* The range of a module's inputs; of what stands in for them where its expert saw no token. */
static bool input_range(const struct mc_linear_task *task, const struct inputs *inputs,
    const struct mc_job *job, struct mc_range *ret, struct mc_error *err)
{
	const struct mc_module *m = job->model.modules[task->module];
	enum mc_dtype dt = task->weight.dtype;

	*ret = observed(task->input, task->scheme, dt, inputs->searches);
	if (!ret->seen && inputs->observer != NULL && m->expert != MC_NO_INDEX)
		*ret = m->role == MC_ROLE_DOWN
			   ? observed_by_others(inputs, job, MC_ROLE_DOWN, task->scheme)
			   : observed(
				 &inputs->observer->gate_up, task->scheme, dt, inputs->searches);
	return ret->seen || mc_fail(err, MC_INVALID, m->name,
				"no calibration token reached this module's input");
}

static bool set_input_parameters(struct mc_linear_task *task, const struct inputs *inputs,
    const struct mc_job *job, struct mc_error *err)
{
	const struct mc_quant_args *args = &task->scheme->input;
	enum mc_dtype dt = task->weight.dtype;
	struct mc_range range;

	if (!task->scheme->has_input || args->dynamic == MC_DYNAMIC_YES)
		return true;
	if (!input_range(task, inputs, job, &range, err))
		return false;
	if (args->dynamic == MC_DYNAMIC_LOCAL) {
		struct mc_packed_tensor *global = find_packed(&task->packed, "input_global_scale");
		mc_assert(global != NULL);
		*(float *)global->tensor.data = mc_global_scale(dt, fmaxf(range.max, -range.min));
		return true;
	}
	struct mc_qparam qparam = mc_qparam_make(args, dt, range.min, range.max);
	struct mc_packed_tensor *scale = find_packed(&task->packed, "input_scale");
	struct mc_packed_tensor *zero = find_packed(&task->packed, "input_zero_point");
	mc_assert(scale != NULL);
	mc_narrow(&qparam.scale, scale->tensor.dtype, scale->tensor.data, 1);
	if (zero != NULL) {
		mc_assert(zero->tensor.dtype == MC_I8);
		*(int8_t *)zero->tensor.data = (int8_t)qparam.zero_point;
	}
	return true;
}

/* --- one task --------------------------------------------------------------------------------- */

struct work {
	const struct mc_job *job;
	struct mc_linear_task *tasks;
	size_t count;
	struct mc_arena *scratch; /* [workers] */
	const struct mc_env *env;
};

/* Mean squares of the task's input, where its weight's observer weighs with them and there are any.
 */
static bool mean_squares(const struct mc_linear_task *task, const char *name,
    struct mc_arena *arena, const float **ret, struct mc_error *err)
{
	struct mc_weight_observer observer;

	*ret = NULL;
	if (!mc_weight_observer_make(&observer, &task->scheme->weights, name, err))
		return false;
	if (observer.search != MC_SEARCH_IMATRIX || task->input == NULL || task->input->tokens == 0)
		return true;
	float *squares = mc_arena_alloc(
	    arena, task->weight.cols, sizeof *squares, "mean squares of inputs", err);
	if (squares == NULL)
		return false;
	mc_input_stats_mean_square(task->input, squares);
	*ret = squares;
	return true;
}

/* The first pass over weights that share a global scale: what each alone would have. */
static bool observe_task(void *ctx, size_t item, unsigned worker, struct mc_error *err)
{
	struct work *work = ctx;
	struct mc_linear_task *task = &work->tasks[item];
	struct mc_arena *arena = &work->scratch[worker];
	const char *name = work->job->model.modules[task->module]->name;
	size_t mark = mc_arena_mark(arena);
	struct mc_observed seen;
	const float *squares;

	if (!task->fused)
		return true;
	if (!mc_env_go_on(work->env, err) || !mean_squares(task, name, arena, &squares, err) ||
	    !mc_observe_weight(
		&task->weight, &task->scheme->weights, squares, name, arena, &seen, err))
		return false;
	task->observed.absmax = seen.absmax;
	if (seen.step != NULL) /* the place was made beforehand, in memory that stays */
		memcpy(task->observed.step, seen.step,
		    mc_observed_bytes(
			&task->scheme->weights, task->weight.rows, task->weight.cols));
	mc_arena_rewind(arena, mark);
	return true;
}

static float fused_absmax(const struct work *work, const struct mc_linear_task *task)
{
	const struct mc_module *m = work->job->model.modules[task->module];
	float absmax = 0;

	for (size_t i = 0; i < work->count; i++)
		if (work->tasks[i].fused &&
		    mc_fused_together(m, work->job->model.modules[work->tasks[i].module]))
			absmax = fmaxf(absmax, work->tasks[i].observed.absmax);
	return absmax;
}

static void keep_packed(struct mc_linear_task *task, const struct mc_packed *packed)
{
	for (size_t i = 0; i < packed->count; i++) {
		struct mc_packed_tensor *to = find_packed(&task->packed, packed->items[i].suffix);
		mc_assert(to != NULL && mc_tensor_bytes(&to->tensor) ==
					    mc_tensor_bytes(&packed->items[i].tensor));
		memcpy(to->tensor.data, packed->items[i].tensor.data, mc_tensor_bytes(&to->tensor));
	}
}

static bool quantize_task(void *ctx, size_t item, unsigned worker, struct mc_error *err)
{
	struct work *work = ctx;
	struct mc_linear_task *task = &work->tasks[item];
	struct mc_arena *arena = &work->scratch[worker];
	const char *name = work->job->model.modules[task->module]->name;
	size_t mark = mc_arena_mark(arena);
	struct mc_rtn_given given = {0};
	struct mc_quantized q;
	struct mc_packed packed;

	if (task->scheme == NULL)
		return true;
	if (task->fused) {
		given.observed = &task->observed;
		given.fused_absmax = fused_absmax(work, task);
	}
	if (!mc_env_go_on(work->env, err) ||
	    (!task->fused && !mean_squares(task, name, arena, &given.mean_square, err)) ||
	    !mc_rtn_given(&task->weight, &task->scheme->weights, &given, name, arena, &q, err) ||
	    !mc_pack(task->scheme, task->weight.dtype, &q, name, arena, &packed, err))
		return false;
	keep_packed(task, &packed);
	task->row.algorithm = "rtn";
	task->row.error_relative = q.square_sum > 0 ? sqrt(q.error_sum / q.square_sum) : 0.0;
	task->row.weight_absmax = q.weight_absmax;
	task->row.scale_min = q.scale_min;
	task->row.scale_max = q.scale_max;
	mc_arena_rewind(arena, mark);
	return true;
}

/* Whether a module's weight shares its global scale with another. */
static bool shares_scale(const struct mc_module *m, const struct mc_scheme *scheme)
{
	return scheme != NULL && scheme->weights.strategy == MC_STRATEGY_TENSOR_GROUP &&
	       mc_fused_is_member(m);
}

/* Room for what the first pass finds. */
static bool prepare_observed(struct mc_linear_task *task, const struct mc_module *m,
    const struct mc_env *env, struct mc_error *err)
{
	uint64_t bytes;

	task->fused = shares_scale(m, task->scheme);
	if (!task->fused)
		return true;
	bytes = mc_observed_bytes(&task->scheme->weights, task->weight.rows, task->weight.cols);
	if (bytes == 0)
		return true;
	task->observed.step = mc_arena_alloc(env->arena, bytes, 1, "steps of a search", err);
	return task->observed.step != NULL;
}

/* Allocates the output tensors and the channel statistics that are kept. */
static bool prepare_task(struct mc_linear_task *task, const struct mc_job *job,
    const struct mc_env *env, struct mc_error *err)
{
	const struct mc_module *m = job->model.modules[task->module];
	struct mc_module_row *row = &task->row;

	*row = (struct mc_module_row){.name = m->name,
	    .layer = m->layer,
	    .expert = m->expert,
	    .role = mc_role_name(m->role),
	    .source = task->source,
	    .rows = m->rows,
	    .cols = m->cols,
	    .scheme = task->scheme == NULL ? NULL : task->scheme->name,
	    .error_relative = NAN,
	    .weight_absmax = NAN,
	    .scale_min = NAN,
	    .scale_max = NAN};
	if (task->scheme != NULL) {
		if (!mc_pack_layout(task->scheme, task->weight.dtype, m->rows, m->cols, m->name,
			&task->packed, err))
			return false;
		for (size_t i = 0; i < task->packed.count; i++) {
			struct mc_tensor *t = &task->packed.items[i].tensor;
			t->data = mc_arena_zalloc(
			    env->arena, mc_tensor_bytes(t), 1, "packed weights", err);
			if (t->data == NULL)
				return false;
		}
	}
	if (!prepare_observed(task, m, env, err))
		return false;
	if (task->input == NULL || task->input->tokens == 0)
		return true;
	struct mc_moments moments = mc_input_stats_moments(task->input);
	row->has_input = true;
	row->input_min = moments.min;
	row->input_max = moments.max;
	row->input_absmax = moments.absmax;
	row->input_mean = moments.mean;
	row->input_var = moments.variance;
	if (job->spec->keep_statistics == MC_KEEP_CHANNELS) {
		float *squares = mc_arena_alloc(
		    env->arena, m->cols, sizeof *squares, "channel statistics", err);
		if (squares == NULL)
			return false;
		mc_input_stats_mean_square(task->input, squares);
		row->channel_absmax = task->input->absmax;
		row->channel_mean_square = squares;
	}
	return true;
}

static uint64_t scratch_bytes(const struct mc_linear_task *tasks, size_t count)
{
	uint64_t most = 0;

	for (size_t i = 0; i < count; i++) {
		if (tasks[i].scheme == NULL)
			continue;
		uint64_t bytes = mc_rtn_bytes(&tasks[i].scheme->weights, tasks[i].weight.rows,
				     tasks[i].weight.cols) +
				 64 * MC_MAX_PACKED + tasks[i].weight.cols * sizeof(float) + 64;
		for (size_t p = 0; p < tasks[i].packed.count; p++)
			bytes += mc_tensor_bytes(&tasks[i].packed.items[p].tensor);
		most = bytes > most ? bytes : most;
	}
	return (most + 4095) / 4096 * 4096;
}

static bool run_tasks(const struct mc_job *job, struct mc_layer_result *result,
    const struct mc_layer_observer *observer, const struct mc_input_searches *searches,
    const struct mc_env *env, struct mc_error *err)
{
	const struct inputs inputs = {.result = result, .observer = observer, .searches = searches};
	unsigned workers = mc_pool_workers(env->pool);
	struct work work = {.job = job, .tasks = result->tasks, .count = result->count, .env = env};

	for (size_t i = 0; i < result->count; i++)
		if (!prepare_task(&result->tasks[i], job, env, err))
			return false;
	work.scratch = mc_arena_zalloc(
	    env->arena, workers, sizeof *work.scratch, "quantize scratch", err);
	if (work.scratch == NULL)
		return false;
	uint64_t bytes = scratch_bytes(result->tasks, result->count);
	for (unsigned w = 0; w < workers; w++)
		if (!mc_arena_sub(env->arena, bytes, "quantize scratch", &work.scratch[w], err))
			return false;
	if (!mc_pool_run(env->pool, result->count, observe_task, &work, err) ||
	    !mc_pool_run(env->pool, result->count, quantize_task, &work, err))
		return false;
	for (size_t i = 0; i < result->count; i++)
		if (result->tasks[i].scheme != NULL &&
		    !set_input_parameters(&result->tasks[i], &inputs, job, err))
			return false;
	return true;
}

/* --- a layer ---------------------------------------------------------------------------------- */

static const char *source_of(
    const struct mc_job *job, const struct mc_module *m, const struct mc_layer_observer *observer)
{
	if (observer == NULL)
		return "weights-only";
	if (m->expert == MC_NO_INDEX)
		return "measured";
	if (mc_job_sees_all(job))
		return "all-tokens";
	return observer->expert_down[m->expert].tokens > 0 ? "measured" : "weights-only";
}

static bool is_layer_linear(const struct mc_module *m, size_t layer)
{
	return m->layer == layer && m->kind == MC_KIND_LINEAR && m->weight != NULL;
}

bool mc_quantize_layer(const struct mc_job *job, const struct mc_layer *layer,
    const struct mc_layer_observer *observer, const struct mc_input_searches *searches,
    const struct mc_env *env, struct mc_layer_result *ret, struct mc_error *err)
{
	const struct mc_model *model = &job->model;
	size_t count = 0;

	*ret = (struct mc_layer_result){0};
	for (size_t i = 0; i < model->modules_count; i++)
		count += is_layer_linear(model->modules[i], layer->index);
	ret->tasks = mc_arena_zalloc(env->arena, count, sizeof *ret->tasks, "layer tasks", err);
	if (ret->tasks == NULL)
		return false;
	for (size_t i = 0; i < model->modules_count; i++) {
		const struct mc_module *m = model->modules[i];
		if (!is_layer_linear(m, layer->index))
			continue;
		struct mc_linear_task *task = &ret->tasks[ret->count++];
		*task = (struct mc_linear_task){.module = i,
		    .scheme = mc_job_scheme(job, i),
		    .weight = *layer_weight(layer, m),
		    .source = source_of(job, m, observer)};
		/* an expert without tokens has no statistics of its own; what stands in for them is
		 * chosen with its scale */
		if (strcmp(task->source, "weights-only") != 0)
			task->input = mc_layer_observer_of(observer, m);
	}
	if (model->layers[layer->index].moe != MC_NO_INDEX) {
		ret->expert_source = mc_arena_zalloc(env->arena, model->config.experts,
		    sizeof *ret->expert_source, "expert sources", err);
		if (ret->expert_source == NULL)
			return false;
		for (size_t e = 0; e < model->config.experts; e++)
			ret->expert_source[e] = source_of(
			    job, mc_model_expert(model, layer->index, e, 1), observer);
	}
	ret->attention_module = model->layers[layer->index].attention;
	return run_tasks(job, ret, observer, searches, env, err) &&
	       mc_quantize_attention(job, layer->index, observer, env, &ret->attention, err);
}

bool mc_quantize_head(const struct mc_job *job, const struct mc_weight *weight,
    const struct mc_input_stats *input, const struct mc_input_searches *searches,
    const struct mc_env *env, struct mc_layer_result *ret, struct mc_error *err)
{
	*ret = (struct mc_layer_result){.count = 1};
	ret->tasks = mc_arena_zalloc(env->arena, 1, sizeof *ret->tasks, "head task", err);
	if (ret->tasks == NULL)
		return false;
	ret->tasks[0] = (struct mc_linear_task){.module = job->model.head,
	    .scheme = mc_job_scheme(job, job->model.head),
	    .weight = *weight,
	    .input = input,
	    .source = input == NULL ? "weights-only" : "measured"};
	return run_tasks(job, ret, NULL, searches, env, err);
}

bool mc_quantize_layer_bytes(const struct mc_job *job, size_t layer, unsigned workers,
    uint64_t *ret_packed, uint64_t *ret_scratch, struct mc_error *err)
{
	const struct mc_model *model = &job->model;
	uint64_t packed_bytes = 0, scratch = 0;

	for (size_t i = 0; i < model->modules_count; i++) {
		const struct mc_module *m = model->modules[i];
		struct mc_linear_task task = {.module = i, .scheme = mc_job_scheme(job, i)};
		bool here = layer < model->config.layers ? is_layer_linear(m, layer)
							 : i == model->head;
		if (!here)
			continue;
		packed_bytes += sizeof task + 256;
		if (job->spec->keep_statistics == MC_KEEP_CHANNELS)
			packed_bytes += m->cols * sizeof(float) + 64;
		if (task.scheme == NULL)
			continue;
		task.weight = (struct mc_weight){
		    .rows = m->rows, .cols = m->cols, .dtype = mc_job_weight_dtype(job, m)};
		if (!mc_pack_layout(task.scheme, task.weight.dtype, m->rows, m->cols, m->name,
			&task.packed, err))
			return false;
		if (shares_scale(m, task.scheme))
			packed_bytes += mc_observed_bytes(&task.scheme->weights, m->rows, m->cols);
		for (size_t p = 0; p < task.packed.count; p++)
			packed_bytes += mc_tensor_bytes(&task.packed.items[p].tensor) + 64;
		uint64_t one = scratch_bytes(&task, 1);
		scratch = one > scratch ? one : scratch;
	}
	if (layer < model->config.layers)
		packed_bytes += mc_quantize_attention_bytes(job, layer);
	*ret_packed = packed_bytes;
	*ret_scratch = (scratch + 64) * workers;
	return true;
}

/* --- the part file ---------------------------------------------------------------------------- */

struct named {
	char *name; /* owned */
	const struct mc_tensor *tensor;
};

static int compare_named(const void *a, const void *b)
{
	return strcmp(((const struct named *)a)->name, ((const struct named *)b)->name);
}

static bool write_named(
    const struct named *list, size_t count, const char *path, struct mc_error *err)
{
	struct mc_st_writer *writer = mc_st_writer_new(path, err);
	bool ok = writer != NULL;

	for (size_t i = 0; ok && i < count; i++)
		ok = mc_st_writer_declare(writer, list[i].name, list[i].tensor->dtype,
		    list[i].tensor->rank, list[i].tensor->shape, err);
	ok = ok && mc_st_writer_begin(writer, err);
	for (size_t i = 0; ok && i < count; i++) {
		struct named key = {.name = (char *)mc_st_writer_entry(writer, i)->name};
		const struct named *found = bsearch(&key, list, count, sizeof *list, compare_named);
		mc_assert(found != NULL);
		ok = mc_st_writer_data(
		    writer, found->tensor->data, mc_tensor_bytes(found->tensor), err);
	}
	ok = ok && mc_st_writer_finish(writer, err);
	mc_st_writer_free(writer);
	return ok;
}

/* Names a module's tensors behind those that are in the list. */
static bool add_named(struct named *list, size_t *count, const struct mc_packed *packed,
    const char *module, struct mc_error *err)
{
	for (size_t p = 0; p < packed->count; p++) {
		list[*count].tensor = &packed->items[p].tensor;
		list[*count].name = mc_format(err, "%s.%s", module, packed->items[p].suffix);
		if (list[(*count)++].name == NULL)
			return false;
	}
	return true;
}

bool mc_layer_result_write(const struct mc_layer_result *result, const struct mc_job *job,
    const char *path, struct mc_error *err)
{
	struct mc_module *const *modules = job->model.modules;
	size_t count = 0, most = (result->count + 1) * MC_MAX_PACKED;
	struct named *list = mc_alloc(most, sizeof *list, "tensor names", err);
	bool ok = list != NULL && add_named(list, &count, &result->attention,
				      modules[result->attention_module]->name, err);

	for (size_t i = 0; ok && i < result->count; i++)
		ok = add_named(list, &count, &result->tasks[i].packed,
		    modules[result->tasks[i].module]->name, err);
	if (ok) {
		qsort(list, count, sizeof *list, compare_named);
		ok = write_named(list, count, path, err);
	}
	for (size_t i = 0; list != NULL && i < count; i++)
		free(list[i].name);
	free(list);
	return ok;
}
