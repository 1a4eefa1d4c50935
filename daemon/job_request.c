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
#include "moecal/derive.h"
#include "moecal/plan.h"
#include "moecal/spec.h"

#define MAX_KEYS 64
#define MAX_PRIORITY 1000

/* Keys of the queue, which the library does not know. */
static const char *const queue_keys[] = {"priority", "deadline_seconds", "keep_seconds"};
#define QUEUE_KEYS (sizeof queue_keys / sizeof *queue_keys)

/* --- keys of the queue ------------------------------------------------------------------------- */

static void read_number(const struct mc_json *json, const char *key, int64_t least, int64_t most,
    int64_t *ret, struct mc_problems *problems)
{
	const struct mc_json *value = mc_json_get(json, key);
	char pointer[160];

	mc_pointer_join(pointer, "", key);
	if (value == NULL || mc_json_is_null(value))
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

	read_number(copy, "priority", -MAX_PRIORITY, MAX_PRIORITY, &job->priority, problems);
	read_number(copy, "deadline_seconds", 1, 315360000, &deadline, problems);
	read_number(copy, "keep_seconds", 1, 315360000, &keep, problems);
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

/* One entry with its text column; one that needs none stays as it was given, so that the pointers of
 * problems stay those of the request. NULL: no memory. */
static struct mc_json *filled_source(
    struct service *service, const struct mc_json *given, struct mc_error *err)
{
	if (mc_json_type(given) != MC_JSON_STRING) {
		struct mc_json *one = mc_json_copy(given, err);
		if (one != NULL && fill_text_column(service, one, err))
			return one;
		mc_json_free(one);
		return NULL;
	}
	struct mc_json *one = mc_json_new_object();
	if (!mc_json_set(one, "path", mc_json_copy(given, err), err) ||
	    !fill_text_column(service, one, err)) {
		mc_json_free(one);
		return NULL;
	}
	if (mc_json_get(one, "text_column") != NULL)
		return one;
	mc_json_free(one);
	return mc_json_copy(given, err);
}

/* "name", {path}, or a list of both. */
static bool fill_sources(struct service *service, struct mc_json *copy, struct mc_error *err)
{
	const struct mc_json *dataset = mc_json_get(copy, "dataset");
	struct mc_json *filled;
	bool ok = true;

	if (dataset == NULL || mc_json_is_null(dataset))
		return true;
	if (mc_json_type(dataset) != MC_JSON_ARRAY) {
		filled = filled_source(service, dataset, err);
		return filled != NULL && mc_json_set(copy, "dataset", filled, err);
	}
	filled = mc_json_new_array();
	for (size_t i = 0; ok && i < mc_json_size(dataset); i++) {
		struct mc_json *one = filled_source(service, mc_json_at(dataset, i), err);
		ok = one != NULL && mc_json_append(filled, one, err);
	}
	if (ok)
		return mc_json_set(copy, "dataset", filled, err);
	mc_json_free(filled);
	return false;
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

/* Where the name of source i stands in the request. */
static const char *source_pointer(char ret[160], const struct mc_json *json, size_t i)
{
	const struct mc_json *given = mc_json_get(json, "dataset");
	char entry[160] = "/dataset";

	if (mc_json_type(given) == MC_JSON_ARRAY) {
		given = mc_json_at(given, i);
		mc_pointer_index(entry, "/dataset", i);
	}
	if (mc_json_type(given) == MC_JSON_OBJECT)
		return mc_pointer_join(ret, entry, "path");
	memcpy(ret, entry, sizeof entry);
	return ret;
}

/* Looks for all that the spec names, also when there are problems already: they are told together. */
static bool find_inputs(struct job_request *job, struct service *service, const struct mc_spec *spec,
    const struct mc_json *json, struct mc_problems *problems, struct mc_error *err)
{
	char pointer[160];
	bool ok = true;

	job->inputs = mc_json_new_array();
	if (job->inputs == NULL)
		return mc_fail(err, MC_NO_MEMORY, "spec", "no memory");
	if (spec->model != NULL)
		ok = find_input(job, service, RESOURCE_MODEL, spec->model, "/model", problems, err);
	for (size_t i = 0; ok && i < spec->sources_count; i++)
		if (spec->sources[i].path != NULL)
			ok = find_input(job, service, RESOURCE_DATASET, spec->sources[i].path,
			    source_pointer(pointer, json, i), problems, err);
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
	ok = ok && mc_spec_parse(&spec, copy, problems, err) &&
	     find_inputs(job, service, &spec, json, problems, err);
	if (ok && problems->total == 0)
		ok = write_specs(job, service, &spec, err);
	mc_spec_release(&spec);
	mc_json_free(copy);
	return ok;
}

/* What `moecal derive` reads: all else is in the source's folder. */
static bool keep_changes(struct job_request *job, struct mc_error *err)
{
	static const char *const keys[] = {"recipe", "threads", "memory_bytes", "metadata"};
	struct mc_json *changes = mc_json_new_object();

	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
		if (!mc_json_set(changes, keys[i], mc_json_copy(mc_json_get(job->spec, keys[i]), err),
			err)) {
			mc_json_free(changes);
			return false;
		}
	mc_json_free(job->spec);
	job->spec = changes;
	return true;
}

/* given: the body without keys of the queue. */
static bool parse_changes(struct job_request *job, struct service *service,
    const struct mc_source *source, const struct mc_json *given, struct mc_problems *problems,
    struct mc_error *err)
{
	struct mc_spec spec = {0};
	struct mc_json *whole = mc_source_spec(source, given, problems, err);
	bool ok = whole != NULL;

	if (ok && mc_json_get(given, "metadata") == NULL) /* labels are of one job */
		ok = mc_json_set(whole, "metadata", mc_json_new_object(), err);
	if (ok && problems->total == 0)
		ok = mc_spec_parse(&spec, whole, problems, err);
	if (ok && problems->total == 0) {
		job->inputs = mc_json_new_array();
		ok = find_input(job, service, RESOURCE_MODEL, spec.model, "/model", problems, err);
	}
	if (ok && problems->total == 0)
		ok = write_specs(job, service, &spec, err) && keep_changes(job, err);
	mc_spec_release(&spec);
	mc_json_free(whole);
	return ok;
}

static bool parse_derived(struct job_request *job, struct service *service,
    const struct job_row *row, const struct mc_json *json, struct mc_problems *problems,
    struct mc_error *err)
{
	struct mc_source source = {.spec = mc_json_parse(row->spec, strlen(row->spec), "spec", err)};
	struct mc_json *given = mc_json_copy(json, err);
	bool ok = source.spec != NULL && given != NULL;

	if (ok && mc_json_type(given) != MC_JSON_OBJECT) {
		mc_problems_add(problems, "", "must be an object, not %s",
		    mc_json_type_name(mc_json_type(given)));
	} else if (ok) {
		take_queue_keys(job, service, given, problems);
		for (size_t i = 0; i < QUEUE_KEYS; i++)
			mc_json_remove(source.spec, queue_keys[i]);
		ok = parse_changes(job, service, &source, given, problems, err);
	}
	mc_json_free(source.spec);
	mc_json_free(given);
	return ok;
}

/* A problem of /dataset is none of the request: the source ran without data. */
static void reply_problems(const struct mc_problems *problems, struct http_response *response)
{
	for (size_t i = 0; i < problems->count; i++)
		if (strcmp(problems->items[i].pointer, "/dataset") == 0) {
			problem_reply(response, PROBLEM_STATE,
			    "the job ran without data, so it has no statistics of inputs, and the "
			    "recipe has static activations");
			return;
		}
	problem_reply_fields(response, problems);
}

/* Files that are not those that were registered would make the answer about something else. */
static bool require_unchanged(
    const struct job_request *job, struct service *service, struct http_response *response)
{
	const struct mc_json *one = inputs_first_changed(service->roots, job->inputs);

	if (one == NULL)
		return true;
	problem_reply(response, PROBLEM_CHANGED,
	    "the files of %s '%s' are not the ones that were registered: delete it and register it "
	    "again",
	    mc_json_string(mc_json_get(one, "kind"), NULL),
	    mc_json_string(mc_json_get(one, "name"), NULL));
	return false;
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

bool job_request_derive(struct job_request *job, struct service *service, const struct job_row *source,
    const struct mc_json *json, struct http_response *response)
{
	struct mc_problems problems;
	struct mc_error err;

	*job = (struct job_request){0};
	snprintf(job->source, sizeof job->source, "%s", source->id);
	mc_error_init(&err);
	mc_problems_init(&problems);
	bool ok = parse_derived(job, service, source, json, &problems, &err);
	if (!ok)
		api_reply_error(response, &err);
	else if (problems.total > 0)
		reply_problems(&problems, response);
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
	const char **words = mc_alloc(10 + 2 * inputs, sizeof *words, "options", err);
	double gflops = atomic_load(&service->gflops);

	if (words == NULL)
		return NULL;
	if (job->source[0] != '\0') {
		owned[inputs] = state_job_path(service->settings.state, job->source, "folder", err);
		words[count++] = "derive";
		words[count++] = owned[inputs];
		words[count++] = "--plan";
	} else {
		words[count++] = "plan";
	}
	words[count++] = "-";
	words[count++] = "--json";
	if (gflops > 0 && job->source[0] == '\0') {
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
	char **owned = mc_alloc(inputs + 1, sizeof *owned, "options", &err); /* one for the source */
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
	for (size_t i = 0; owned != NULL && i <= inputs; i++)
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
