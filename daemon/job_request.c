/*
 * job_request.c - from the body of a request to a job that can be planned
 *
 * The caller's spec has names: of registered models and datasets, of paths beneath allowed folders.
 * The child gets the same spec, and where those names lie beside it, so that nothing it writes down
 * tells where that is.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "inputs.h"
#include "state.h"

#include "moecal/alloc.h"
#include "moecal/plan.h"
#include "moecal/spec.h"

#define MAX_KEYS 64
#define MAX_PRIORITY 1000

/* Keys of the queue, which the library does not know. */
static const char *const queue_keys[] = {"priority", "deadline_seconds", "keep_seconds"};
#define QUEUE_KEYS (sizeof queue_keys / sizeof *queue_keys)

/* --- keys of the queue ------------------------------------------------------------------------- */

static void read_number(const struct mc_json *json, const char *key, int64_t least, int64_t most,
    bool nullable, int64_t *ret, struct mc_problems *problems)
{
	const struct mc_json *value = mc_json_get(json, key);
	char pointer[160];

	mc_pointer_join(pointer, "", key);
	if (value == NULL || (nullable && mc_json_is_null(value)))
		return;
	if (mc_json_type(value) != MC_JSON_INTEGER)
		mc_problems_add(problems, pointer, "must be an integer, not %s",
		    mc_json_type_name(mc_json_type(value)));
	else if (mc_json_integer(value) < least || mc_json_integer(value) > most)
		mc_problems_add(problems, pointer, "is %lld, must be between %lld and %lld",
		    (long long)mc_json_integer(value), (long long)least, (long long)most);
	else
		*ret = mc_json_integer(value);
}

/* Takes the queue's keys out of the copy that the library will read, and complains of unknown ones
 * with all known ones in mind. */
static void take_queue_keys(struct job_request *job, struct service *service, struct mc_json *copy,
    struct mc_problems *problems)
{
	int64_t deadline = (int64_t)service_setting(service, deadline_seconds),
		keep = (int64_t)service_setting(service, keep_seconds);
	const char *known[MAX_KEYS];
	size_t count = 0;

	read_number(copy, "priority", -MAX_PRIORITY, MAX_PRIORITY, false, &job->priority, problems);
	read_number(copy, "deadline_seconds", 1, 315360000, true, &deadline, problems);
	read_number(copy, "keep_seconds", 60, 315360000, true, &keep, problems);
	job->deadline_ms = deadline * 1000;
	job->keep_ms = keep * 1000;
	for (size_t i = 0; i < QUEUE_KEYS; i++)
		mc_json_remove(copy, queue_keys[i]);
	while (count < MAX_KEYS - QUEUE_KEYS && mc_spec_key(count) != NULL) {
		known[count] = mc_spec_key(count);
		count++;
	}
	size_t of_spec = count;
	for (size_t i = 0; i < QUEUE_KEYS; i++)
		known[count++] = queue_keys[i];
	/* removing disturbs a walk: look for one, remove it, look again */
	for (size_t at = 0;;) {
		const char *key = NULL;
		size_t i = 0;
		if (mc_json_member(copy, at, &key) == NULL)
			break;
		while (i < of_spec && strcmp(known[i], key) != 0)
			i++;
		if (i < of_spec || strcmp(key, "moe_calibrate_all_experts") == 0) {
			at++;
			continue;
		}
		char name[160];
		snprintf(name, sizeof name, "%s", key);
		mc_problems_add_unknown_key(problems, "", name, known, count);
		if (strlen(key) >= sizeof name || !mc_json_remove(copy, name))
			break; /* a key too long to be ours: the library names it again */
	}
}

/* --- inputs ------------------------------------------------------------------------------------ */

/* {kind, name, path, files, uploaded} of a registered thing; or of a path that needs a name. */
static bool add_input(struct job_request *job, const char *kind, const char *name, const char *path,
    const char *files, bool uploaded, struct mc_error *err)
{
	struct mc_json *one = mc_json_new_object();

	return mc_json_append(job->inputs, one, err) &&
	       mc_json_set(one, "kind", mc_json_new_string(kind), err) &&
	       mc_json_set(one, "name", mc_json_new_string(name), err) &&
	       mc_json_set(one, "path", mc_json_new_string(path), err) &&
	       mc_json_set(one, "uploaded", mc_json_new_bool(uploaded), err) &&
	       mc_json_set(one, "registered", mc_json_new_bool(files != NULL), err) &&
	       mc_json_set(one, "files",
		   files != NULL ? mc_json_parse(files, strlen(files), "files", err)
				 : mc_json_new_array(),
		   err);
}

/* A registered one by its id. *ret_found false: there is none. */
static bool find_registered(struct service *service, enum resource_kind kind, const char *name,
    struct resource_row *ret, bool *ret_found, struct mc_error *err)
{
	struct mc_error absent;

	*ret_found = false;
	if (!id_is_valid(name))
		return true;
	mc_error_init(&absent);
	*ret_found = store_resource_get(service->store, kind, name, ret, &absent);
	return *ret_found || absent.code == MC_NOT_FOUND ||
	       mc_fail(err, absent.code, absent.where, "%s", absent.text);
}

static bool find_input(struct job_request *job, struct service *service, enum resource_kind kind,
    const char *name, const char *pointer, struct mc_problems *problems, struct mc_error *err)
{
	const char *word = kind == RESOURCE_MODEL ? "model" : "dataset";
	struct resource_row row;
	struct mc_error why;
	char *path;
	bool found;

	if (!find_registered(service, kind, name, &row, &found, err))
		return false;
	if (found) {
		bool ok =
		    add_input(job, word, row.id, row.path, row.files, row.uploaded, err);
		resource_row_release(&row);
		return ok;
	}
	mc_error_init(&why);
	if (kind == RESOURCE_MODEL ? !input_find_model(service, name, &path, &why)
				   : !input_find_dataset(service, name, &path, &why)) {
		mc_problems_add(problems, pointer,
		    "'%.100s' is no registered %s, and as a path it %s", name, word, why.text);
		return true;
	}
	/* a Hub id lies elsewhere than its name says */
	bool ok = strcmp(path, name) == 0 || (path[0] == '.' && strcmp(path + 2, name) == 0) || add_input(job, word, name, path, NULL, false, err);
	free(path);
	return ok;
}

/* Registered data knows its text column; a spec that names the data alone takes it from there. */
static bool fill_text_column(
    struct service *service, struct mc_json *source, struct mc_error *err)
{
	const struct mc_json *path = mc_json_get(source, "path");
	struct resource_row row;
	bool found;

	if (mc_json_type(path) != MC_JSON_STRING || mc_json_get(source, "text_column") != NULL)
		return true;
	if (!find_registered(service, RESOURCE_DATASET, mc_json_string(path, NULL), &row, &found, err))
		return false;
	if (!found)
		return true;
	bool ok = row.text_column == NULL ||
		  mc_json_set(source, "text_column", mc_json_new_string(row.text_column), err);
	resource_row_release(&row);
	return ok;
}

/* "name", {path}, or a list of both: to a list of objects with their text columns. */
static bool fill_sources(struct service *service, struct mc_json *copy, struct mc_error *err)
{
	const struct mc_json *dataset = mc_json_get(copy, "dataset");
	bool list = mc_json_type(dataset) == MC_JSON_ARRAY;
	size_t count = list ? mc_json_size(dataset) : 1;

	if (dataset == NULL || mc_json_is_null(dataset))
		return true;
	struct mc_json *filled = mc_json_new_array();
	bool ok = filled != NULL;
	for (size_t i = 0; ok && i < count; i++) {
		const struct mc_json *given = list ? mc_json_at(dataset, i) : dataset;
		struct mc_json *one = NULL;
		if (mc_json_type(given) == MC_JSON_STRING) {
			one = mc_json_new_object();
			ok = mc_json_set(one, "path", mc_json_copy(given, err), err);
		} else {
			one = mc_json_copy(given, err);
		}
		ok = ok && fill_text_column(service, one, err);
		ok = mc_json_append(filled, one, err) && ok;
	}
	if (!ok) {
		mc_json_free(filled);
		return false;
	}
	/* pointers of problems must stay those of the request: a lone string stays one if it can */
	if (!list && mc_json_get(mc_json_at(filled, 0), "text_column") == NULL) {
		mc_json_free(filled);
		return true;
	}
	return mc_json_set(copy, "dataset", filled, err);
}

/* --- the spec ---------------------------------------------------------------------------------- */

/* Worker threads of one job: what it asks for, within its share of what all may use. */
static uint64_t thread_share(struct service *service, uint64_t asked)
{
	uint64_t all = service_setting(service, threads), jobs = service_setting(service, jobs);

	if (all == 0)
		all = mc_machine_threads();
	uint64_t share = all / jobs > 0 ? all / jobs : 1;
	return asked > 0 && asked < share ? asked : share;
}

static bool find_inputs(struct job_request *job, struct service *service, const struct mc_spec *spec,
    struct mc_problems *problems, struct mc_error *err)
{
	char pointer[160], index[160];

	job->inputs = mc_json_new_array();
	if (job->inputs == NULL)
		return mc_fail(err, MC_NO_MEMORY, "spec", "no memory");
	bool ok = find_input(job, service, RESOURCE_MODEL, spec->model, "/model", problems, err);
	for (size_t i = 0; ok && i < spec->sources_count; i++) {
		mc_pointer_index(index, "/dataset", i);
		ok = find_input(job, service, RESOURCE_DATASET, spec->sources[i].path,
		    spec->sources_count > 1 ? mc_pointer_join(pointer, index, "path") : "/dataset",
		    problems, err);
	}
	return ok;
}

/* The spec as it is answered, and as the child gets it. */
static bool write_specs(struct job_request *job, struct service *service, const struct mc_spec *spec,
    struct mc_error *err)
{
	job->memory_given = spec->memory_bytes;
	job->answer = mc_spec_json(spec, err);
	job->spec = mc_spec_json(spec, err);
	return job->answer != NULL && job->spec != NULL &&
	       mc_json_set(job->answer, "priority", mc_json_new_integer(job->priority), err) &&
	       mc_json_set(job->answer, "deadline_seconds",
		   job->deadline_ms > 0 ? mc_json_new_integer(job->deadline_ms / 1000)
					: mc_json_new_null(),
		   err) &&
	       mc_json_set(
		   job->answer, "keep_seconds", mc_json_new_integer(job->keep_ms / 1000), err) &&
	       mc_json_set(job->spec, "threads",
		   mc_json_new_integer((int64_t)thread_share(service, spec->threads)), err) &&
	       mc_json_set(job->spec, "memory_bytes", mc_json_new_null(), err);
}

static bool parse(struct job_request *job, struct service *service, const struct mc_json *json,
    struct mc_problems *problems, struct mc_error *err)
{
	struct mc_spec spec = {0};
	struct mc_json *copy = mc_json_copy(json, err);
	bool ok = copy != NULL;

	if (ok && mc_json_type(copy) == MC_JSON_OBJECT) {
		take_queue_keys(job, service, copy, problems);
		ok = fill_sources(service, copy, err);
	}
	ok = ok && mc_spec_parse(&spec, copy, problems, err);
	if (ok && problems->total == 0)
		ok = find_inputs(job, service, &spec, problems, err) &&
		     write_specs(job, service, &spec, err);
	mc_spec_release(&spec);
	mc_json_free(copy);
	return ok;
}

/* Files that are not those that were registered would make the answer about something else. */
static bool require_unchanged(
    const struct job_request *job, struct service *service, struct http_response *response)
{
	for (size_t i = 0; i < mc_json_size(job->inputs); i++) {
		const struct mc_json *one = mc_json_at(job->inputs, i);
		const char *kind = mc_json_string(mc_json_get(one, "kind"), NULL);
		if (mc_json_bool(mc_json_get(one, "uploaded")) ||
		    !mc_json_bool(mc_json_get(one, "registered")) ||
		    !input_has_changed(service->roots,
			strcmp(kind, "model") == 0 ? RESOURCE_MODEL : RESOURCE_DATASET,
			mc_json_string(mc_json_get(one, "path"), NULL), mc_json_get(one, "files")))
			continue;
		problem_reply(response, PROBLEM_CHANGED,
		    "the files of %s '%s' are not the ones that were registered: delete it and "
		    "register it again",
		    kind, mc_json_string(mc_json_get(one, "name"), NULL));
		return false;
	}
	return true;
}

bool job_request_parse(struct job_request *job, struct service *service, const struct mc_json *json,
    struct http_response *response)
{
	struct mc_problems problems;
	struct mc_error err;

	*job = (struct job_request){0};
	mc_error_init(&err);
	mc_problems_init(&problems);
	bool ok = parse(job, service, json, &problems, &err);
	if (!ok)
		api_reply_error(response, &err);
	else if (problems.total > 0)
		problem_reply_fields(response, &problems);
	ok = ok && problems.total == 0 && require_unchanged(job, service, response);
	mc_problems_release(&problems);
	if (!ok)
		job_request_release(job);
	return ok;
}

void job_request_release(struct job_request *job)
{
	mc_json_free(job->answer);
	mc_json_free(job->spec);
	mc_json_free(job->inputs);
	mc_json_free(job->plan);
	*job = (struct job_request){0};
}

/* --- the plan ---------------------------------------------------------------------------------- */

static uint64_t number_of(const struct mc_json *json, const char *key)
{
	const struct mc_json *value = mc_json_get(json, key);
	return mc_json_type(value) == MC_JSON_INTEGER ? (uint64_t)mc_json_integer(value) : 0;
}

/* The words of `moecal plan`: the rate that an earlier plan measured, and where the names lie. */
static const char **plan_words(struct job_request *job, struct service *service, char rate[32],
    char **owned, struct mc_error *err)
{
	size_t inputs = mc_json_size(job->inputs), count = 0;
	const char **words = mc_alloc(8 + 2 * inputs, sizeof *words, "options", err);
	double gflops = atomic_load(&service->gflops);

	if (words == NULL)
		return NULL;
	words[count++] = "plan";
	words[count++] = "-";
	words[count++] = "--json";
	if (gflops > 0) {
		snprintf(rate, 32, "%.3f", gflops);
		words[count++] = "--gflops";
		words[count++] = rate;
	}
	for (size_t i = 0; i < inputs; i++) {
		const struct mc_json *one = mc_json_at(job->inputs, i);
		const char *kind = mc_json_string(mc_json_get(one, "kind"), NULL);
		owned[i] = mc_format(err, "%s=%s", mc_json_string(mc_json_get(one, "name"), NULL),
		    mc_json_string(mc_json_get(one, "path"), NULL));
		words[count++] = strcmp(kind, "model") == 0 ? "--model-alias" : "--dataset-alias";
		words[count++] = owned[i];
	}
	return words;
}

static bool take_plan(struct job_request *job, struct service *service, struct mc_error *err)
{
	const struct mc_json *gflops = mc_json_get(job->plan, "gflops");
	uint64_t planned = number_of(job->plan, "memory_bytes");

	if (gflops != NULL && mc_json_number(gflops) > 0)
		atomic_store(&service->gflops, mc_json_number(gflops));
	job->disk_bytes = number_of(job->plan, "disk_bytes");
	/* the child is held to its plan, with some air */
	job->memory_bytes =
	    job->memory_given > 0 ? job->memory_given : planned + planned / 8 + ((uint64_t)8 << 20);
	return mc_json_set(
	    job->spec, "memory_bytes", mc_json_new_integer((int64_t)job->memory_bytes), err);
}

bool job_request_plan(
    struct job_request *job, struct service *service, struct http_response *response)
{
	struct mc_error err;
	struct mc_buf input;
	char rate[32];
	size_t inputs = mc_json_size(job->inputs);

	mc_error_init(&err);
	mc_buf_init(&input, (size_t)64 << 20);
	char **owned = mc_alloc(inputs + 1, sizeof *owned, "options", &err);
	const char **words = owned == NULL ? NULL : plan_words(job, service, rate, owned, &err);
	bool ok = words != NULL && err.code == MC_OK &&
		  mc_json_write(job->spec, MC_JSON_COMPACT, &input, &err);
	if (!ok)
		problem_reply_error(response, &err);
	ok = ok && api_ask(service, words, &input, service_setting(service, plan_seconds),
		       &job->plan, response);
	if (ok && !take_plan(job, service, &err)) {
		problem_reply_error(response, &err);
		ok = false;
	}
	for (size_t i = 0; owned != NULL && i < inputs; i++)
		free(owned[i]);
	free(owned);
	free(words);
	mc_buf_release(&input);
	return ok;
}

bool job_request_fits(const struct job_request *job, struct service *service,
    enum problem *ret_problem, char ret_detail[256])
{
	uint64_t needed = number_of(job->plan, "memory_bytes"), granted, budget, free_bytes;
	unsigned running;

	runner_memory(service->runner, &granted, &budget, &running);
	if (job->memory_given > 0 && job->memory_given < budget)
		budget = job->memory_given;
	if (needed > budget) {
		*ret_problem = PROBLEM_TOO_BIG;
		snprintf(ret_detail, 256,
		    "it needs %llu MB of memory, %llu MB may be used: fewer or shorter sequences or "
		    "fewer threads need less",
		    (unsigned long long)(needed >> 20), (unsigned long long)(budget >> 20));
		return false;
	}
	(void)!state_has_space(service->settings.state, 0, &free_bytes);
	if (job->disk_bytes + job->disk_bytes / 10 > free_bytes) {
		*ret_problem = PROBLEM_DISK_LOW;
		snprintf(ret_detail, 256, "it needs %llu MB of disk, %llu MB are free",
		    (unsigned long long)(job->disk_bytes >> 20),
		    (unsigned long long)(free_bytes >> 20));
		return false;
	}
	return true;
}
