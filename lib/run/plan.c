/*
 * plan.c - cost from headers: memory as the sum of what each stage takes from the arena
 */
#include "moecal/plan.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "export.h"
#include "input_search.h"
#include "quantize_attention.h"
#include "quantize_layer.h"

#include "moecal/alloc.h"
#include "moecal/linalg.h"
#include "moecal/observer.h"

/* Besides the arena: code, thread stacks, BLAS buffers, SQLite, names. Measured, rounded up. */
#define FIXED_BYTES ((uint64_t)64 << 20)
#define SLACK_BYTES ((uint64_t)1 << 20)
/* Of the rate of plain products, what a whole layer reaches with its statistics. */
#define LAYER_EFFICIENCY 0.8
/* One value at one step of a search; measured, of the middle kinds. */
#define SEARCH_SECONDS 2e-9

static bool has_data(const struct mc_job *job)
{
	return job->dataset.sequences > 0 && job->spec->pipeline == MC_PIPELINE_SEQUENTIAL;
}

static uint64_t longest_sequence(const struct mc_dataset *dataset)
{
	uint64_t longest = 0;
	for (size_t s = 0; s < dataset->sequences; s++) {
		uint64_t n = dataset->start[s + 1] - dataset->start[s];
		longest = n > longest ? n : longest;
	}
	return longest;
}

static uint64_t max64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* Weights that a precision wider than the stored one makes bigger. */
static uint64_t widened(const struct mc_job *job, uint64_t bytes)
{
	unsigned stored = mc_dtype_bits(job->model.dtype);
	unsigned used = job->spec->precision == MC_DTYPE_COUNT
			    ? stored
			    : mc_dtype_bits(job->spec->precision);
	return used > stored ? bytes / stored * used + bytes : bytes;
}

static bool add_layers(struct mc_plan *plan, const struct mc_job *job, unsigned workers,
    uint64_t *ret_peak, struct mc_error *err)
{
	const struct mc_model *model = &job->model;
	uint64_t peak = 0;

	for (size_t l = 0; l < model->config.layers; l++) {
		uint64_t packed, scratch, layer = widened(job, mc_layer_bytes(model, l)),
					  forward = 0, statistics = 0;
		if (!mc_quantize_layer_bytes(job, l, workers, &packed, &scratch, err))
			return false;
		if (has_data(job)) {
			forward = mc_forward_scratch_bytes(
			    model, l, plan->tokens, longest_sequence(&job->dataset), workers);
			uint64_t searches = mc_input_searches_bytes(job, l, workers);
			statistics = mc_layer_observer_bytes(model, l, job->dataset.sequences,
					 mc_job_sees_all(job)) +
				     mc_observe_attention_bytes(job, l) + searches;
			plan->flops += (searches > 0 ? 2 : 1) * mc_forward_flops(
			    model, l, plan->tokens, mc_job_sees_all(job));
		}
		plan->memory_layer = max64(plan->memory_layer, layer);
		plan->memory_scratch = max64(plan->memory_scratch, max64(forward, scratch));
		plan->memory_statistics = max64(plan->memory_statistics, statistics);
		plan->memory_packed = max64(plan->memory_packed, packed);
		peak = max64(peak, layer + statistics + max64(forward, packed + scratch));
		plan->moe_layers += model->layers[l].moe != MC_NO_INDEX;
	}
	*ret_peak = peak;
	return true;
}

static bool add_head(
    const struct mc_job *job, unsigned workers, uint64_t *peak, struct mc_error *err)
{
	const struct mc_model *model = &job->model;
	uint64_t packed, scratch;

	if (model->head == MC_NO_INDEX || mc_job_scheme(job, model->head) == NULL)
		return true;
	if (!mc_quantize_layer_bytes(job, model->config.layers, workers, &packed, &scratch, err))
		return false;
	const struct mc_module *head = model->modules[model->head];
	uint64_t weight = widened(job, (uint64_t)head->rows * head->cols * 4) + head->scratch_bytes;
	*peak = max64(*peak, weight + packed + scratch + 2048 * (uint64_t)head->cols * 4 +
				 mc_input_stats_bytes(head->cols, job->dataset.sequences) +
				 mc_input_searches_bytes(job, model->config.layers, workers));
	return true;
}

/* What exporting a weight takes that is neither stored as it is used nor quantized again. */
static uint64_t kept_bytes(const struct mc_job *job)
{
	uint64_t most = 0;

	for (size_t i = 0; i < job->model.modules_count; i++) {
		const struct mc_module *m = job->model.modules[i];
		if (mc_module_is_made(m) && mc_job_scheme(job, i) == NULL)
			most = max64(most, mc_model_read_bytes(m, job->spec->precision));
	}
	return most;
}

/* Computed tensors are written twice (part files, then checkpoint), other tensors once. */
static bool add_disk(struct mc_plan *plan, const struct mc_job *job, struct mc_error *err)
{
	uint64_t computed = 0, others = 0;

	for (size_t i = 0; i < job->model.checkpoint.count; i++)
		if (mc_model_stored(&job->model, i) == MC_STORED_PLAIN)
			others += job->model.checkpoint.tensors[i].entry->bytes;
	for (size_t i = 0; i < job->model.modules_count; i++) {
		const struct mc_module *m = job->model.modules[i];
		const struct mc_scheme *scheme = mc_job_scheme(job, i);
		struct mc_packed layout;
		uint64_t weight = m->weight == NULL
				      ? 0
				      : (uint64_t)m->rows * m->cols *
					    mc_dtype_bits(m->weight->entry->dtype) / 8;
		if (scheme == NULL) { /* written as it is used, however it is stored */
			others += mc_module_is_made(m) ? weight : 0;
			continue;
		}
		if (!mc_pack_layout(scheme, mc_job_weight_dtype(job, m), m->rows, m->cols, m->name,
			&layout, err))
			return false;
		for (size_t p = 0; p < layout.count; p++)
			computed += mc_tensor_bytes(&layout.items[p].tensor);
		if (!mc_module_is_made(m))
			others -= weight < others ? weight : others;
	}
	plan->modules_quantized = job->quantized;
	for (size_t l = 0; l < job->model.config.layers; l++)
		computed += mc_quantize_attention_bytes(job, l);
	plan->checkpoint_bytes = computed + widened(job, others);
	plan->disk_bytes = computed + (job->spec->save_model ? plan->checkpoint_bytes : 0) +
			   2 * plan->memory_hidden + job->model.modules_count * 1024 +
			   ((uint64_t)16 << 20);
	return true;
}

/* Seconds of one core that searches over ranges take: a step looks at each value, which costs about
 * as much for weights as for inputs. */
static double search_seconds(const struct mc_plan *plan, const struct mc_job *job)
{
	double values = 0, routed = 1;

	if (job->model.config.experts > 0 && !mc_job_sees_all(job))
		routed = (double)job->model.config.experts_per_token /
			 (double)job->model.config.experts;
	for (size_t i = 0; i < job->model.modules_count; i++) {
		const struct mc_module *m = job->model.modules[i];
		const struct mc_scheme *scheme = mc_job_scheme(job, i);
		struct mc_weight_observer observer;
		struct mc_error ignored;
		mc_error_init(&ignored);
		if (scheme == NULL)
			continue;
		if (mc_weight_observer_make(&observer, &scheme->weights, "", &ignored))
			values += (double)m->rows * (double)m->cols * observer.steps;
		/* k, v and up see what q and gate see, and so do all experts that see all tokens */
		bool again = m->role == MC_ROLE_GATE && m->expert != MC_NO_INDEX && m->expert > 0 &&
			     mc_job_sees_all(job);
		if (again || !scheme->has_input || scheme->input.dynamic == MC_DYNAMIC_YES ||
		    m->role == MC_ROLE_K || m->role == MC_ROLE_V || m->role == MC_ROLE_UP ||
		    !mc_weight_observer_make(&observer, &scheme->input, "", &ignored))
			continue;
		values += (double)plan->tokens * (double)m->cols * observer.steps *
			  (m->expert == MC_NO_INDEX ? 1 : routed);
	}
	return values * SEARCH_SECONDS;
}

static bool estimate_seconds(
    struct mc_plan *plan, const struct mc_job *job, const struct mc_env *env, struct mc_error *err)
{
	const struct mc_model_config *config = &job->model.config;
	size_t width = config->expert_intermediate > 0 ? config->expert_intermediate
						       : config->intermediate;
	size_t n = 2 * width < 64 ? 64 : 2 * width > 1024 ? 1024 : 2 * width;
	size_t k = config->hidden > 4096 ? 4096 : config->hidden;

	if (plan->gflops < 0 && !mc_linalg_measure(512, n, k, 0.15, env, &plan->gflops, err))
		return false;
	/* reading, rounding and writing weights: about 300 MB/s a core of the slower schemes */
	double weights = (double)plan->model_bytes / 3e8 / plan->threads;
	plan->seconds = plan->flops / (plan->gflops * 1e9 * LAYER_EFFICIENCY) + weights +
			search_seconds(plan, job) / plan->threads + 0.5;
	return true;
}

bool mc_plan_make(struct mc_plan *plan, const struct mc_job *job, double gflops,
    const struct mc_env *env, struct mc_error *err)
{
	const struct mc_model *model = &job->model;
	unsigned workers = mc_pool_workers(env->pool);
	uint64_t peak, verify, kept;

	*plan = (struct mc_plan){.layers = model->config.layers,
	    .experts = model->config.experts,
	    .experts_per_token = model->config.experts_per_token,
	    .sequences = job->dataset.sequences,
	    .tokens = has_data(job) ? job->dataset.tokens : 0,
	    .parameters = mc_model_parameters(model),
	    .model_bytes = model->checkpoint.bytes,
	    .gflops = gflops,
	    .threads = workers};
	plan->memory_hidden = plan->tokens * model->config.hidden * sizeof(float);
	if (!add_layers(plan, job, workers, &peak, err) || !add_head(job, workers, &peak, err) ||
	    !add_disk(plan, job, err) || !mc_export_verify_bytes(job, &verify, err))
		return false;
	kept = kept_bytes(job);
	/* export and its checks come after the hidden states' last use, but the arena still holds
	 * them */
	plan->arena_bytes = plan->memory_hidden +
			    max64(max64(peak, kept), workers * (verify + 64)) + SLACK_BYTES;
	plan->memory_bytes = plan->arena_bytes + FIXED_BYTES;
	return gflops == 0 || estimate_seconds(plan, job, env, err);
}

bool mc_plan_require_fits(const struct mc_plan *plan, uint64_t memory_available,
    uint64_t disk_available, struct mc_error *err)
{
	if (plan->memory_bytes > memory_available)
		return mc_fail(err, MC_NO_MEMORY, "memory",
		    "the job needs %llu bytes (hidden states %llu, one layer %llu, scratch %llu), "
		    "%llu are allowed; "
		    "give it memory_bytes, or fewer or shorter samples",
		    (unsigned long long)(plan->memory_bytes),
		    (unsigned long long)plan->memory_hidden, (unsigned long long)plan->memory_layer,
		    (unsigned long long)plan->memory_scratch, (unsigned long long)memory_available);
	if (plan->disk_bytes > disk_available)
		return mc_fail(err, MC_NO_SPACE, "disk",
		    "the job writes up to %llu bytes, the file system has %llu free",
		    (unsigned long long)plan->disk_bytes, (unsigned long long)disk_available);
	return true;
}

struct mc_json *mc_plan_json(const struct mc_plan *plan, struct mc_error *err)
{
	struct mc_json *root = mc_json_new_object(), *memory = mc_json_new_object();
	const struct {
		struct mc_json *object;
		const char *key;
		uint64_t value;
	} numbers[] = {{root, "layers", plan->layers}, {root, "moe_layers", plan->moe_layers},
	    {root, "experts", plan->experts}, {root, "experts_per_token", plan->experts_per_token},
	    {root, "parameters", plan->parameters},
	    {root, "modules_quantized", plan->modules_quantized},
	    {root, "sequences", plan->sequences}, {root, "tokens", plan->tokens},
	    {root, "model_bytes", plan->model_bytes}, {root, "memory_bytes", plan->memory_bytes},
	    {root, "disk_bytes", plan->disk_bytes},
	    {root, "checkpoint_bytes", plan->checkpoint_bytes}, {root, "threads", plan->threads},
	    {memory, "layer", plan->memory_layer}, {memory, "scratch", plan->memory_scratch},
	    {memory, "statistics", plan->memory_statistics},
	    {memory, "hidden_states", plan->memory_hidden},
	    {memory, "packed", plan->memory_packed}};
	bool ok = true;

	for (size_t i = 0; ok && i < sizeof numbers / sizeof *numbers; i++)
		ok = mc_json_set(numbers[i].object, numbers[i].key,
		    mc_json_new_integer((int64_t)numbers[i].value), err);
	ok = ok && mc_json_set(root, "flops", mc_json_new_real(plan->flops), err);
	if (ok && plan->gflops > 0)
		ok = mc_json_set(root, "gflops", mc_json_new_real(plan->gflops), err) &&
		     mc_json_set(root, "seconds", mc_json_new_real(plan->seconds), err);
	if (!ok) {
		mc_json_free(memory);
		mc_json_free(root);
		return NULL;
	}
	if (mc_json_set(root, "memory", memory, err))
		return root;
	mc_json_free(root);
	return NULL;
}

uint64_t mc_machine_memory(void)
{
	FILE *file = fopen("/proc/meminfo", "re");
	char line[128];
	unsigned long long kib = 0;

	while (file != NULL && fgets(line, sizeof line, file) != NULL)
		if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
			break;
	if (file != NULL)
		fclose(file);
	/* without the figure: a modest guess rather than none */
	return kib > 0 ? kib * 1024 / 4 * 3 : (uint64_t)2 << 30;
}

unsigned mc_machine_threads(void)
{
	cpu_set_t set;
	return sched_getaffinity(0, sizeof set, &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
}
