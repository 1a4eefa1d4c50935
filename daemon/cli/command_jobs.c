/*
 * command_jobs.c - moecal list, get, cancel, rm, watch: jobs of the service
 */
#include <string.h>

#include "client.h"

/* --- list --------------------------------------------------------------------------------------- */

/* "W4A16": the scheme of the first modifier that names one, else what the modifier is called. */
static const char *recipe_name(const struct mc_json *recipe)
{
	const char *key = NULL;

	if (mc_json_type(recipe) == MC_JSON_ARRAY)
		recipe = mc_json_at(recipe, 0);
	if (mc_json_type(recipe) == MC_JSON_STRING)
		return mc_json_string(recipe, NULL);
	const struct mc_json *modifier = mc_json_member(recipe, 0, &key);
	if (modifier == NULL)
		return "";
	const char *scheme = member_text(modifier, "scheme");
	return scheme[0] != '\0' ? scheme : key;
}

static int model_width(const struct mc_json *jobs)
{
	int width = 5;

	for (size_t i = 0; i < mc_json_size(jobs); i++) {
		const struct mc_json *spec = mc_json_get(mc_json_at(jobs, i), "spec");
		int own = text_width(member_text(spec, "model"));
		width = own > width ? own : width;
	}
	return width;
}

static void print_jobs(const struct mc_json *jobs)
{
	int id = column_width(jobs, "id", 30), model = model_width(jobs);

	printf("%-*s %-10s %-9s %-*s %-14s %s\n", id, "job", "state", "layers", model, "model",
	    "recipe", "created");
	for (size_t i = 0; i < mc_json_size(jobs); i++) {
		const struct mc_json *job = mc_json_at(jobs, i), *spec = mc_json_get(job, "spec"),
				     *progress = mc_json_get(job, "progress");
		char layers[48] = "-";
		if (mc_json_type(progress) == MC_JSON_OBJECT)
			snprintf(layers, sizeof layers, "%lld/%lld",
			    (long long)member_integer(progress, "layers_done"),
			    (long long)member_integer(progress, "layers_total"));
		print_cell(member_text(job, "id"), id + 1);
		print_cell(member_text(job, "state"), 11);
		print_cell(layers, 10);
		print_cell(member_text(spec, "model"), model + 1);
		print_cell(recipe_name(mc_json_get(spec, "recipe")), 14);
		putchar(' ');
		print_cell(member_text(job, "created_at"), 0);
		putchar('\n');
	}
}

static int list_jobs(struct client *client, const char *state, const char *model, int64_t limit,
    bool json)
{
	struct mc_json *document = NULL;
	struct mc_buf path;
	struct mc_error err;

	mc_error_init(&err);
	mc_buf_init(&path, 8192);
	bool ok = mc_buf_addf(&path, &err, "/v1/jobs") && query_add(&path, "state", state, &err) &&
		  query_add(&path, "model", model, &err);
	int code = ok ? client_list(client, mc_buf_text(&path), "jobs", limit, json, &document)
		      : report_error(&err, json, false);
	mc_buf_release(&path);
	if (code != EXIT_DONE)
		return code;
	if (json && !print_json(document, &err))
		code = report_error(&err, false, true);
	if (!json) {
		print_jobs(mc_json_get(document, "jobs"));
		client_tell_more(document);
	}
	mc_json_free(document);
	return code;
}

int command_list(int argc, char **argv)
{
	struct client_options o = {0};
	const char *state = NULL, *model = NULL, *operand;
	int64_t limit = 50;
	size_t count;
	struct mc_error err;
	const struct option_row table[] = {CLIENT_OPTION_ROWS(&o), CLIENT_JSON_ROW(&o),
	    {"--state", OPTION_TEXT, &state, 0, 0}, {"--model", OPTION_TEXT, &model, 0, 0},
	    {"--limit", OPTION_INTEGER, &limit, 0, 1000000}, {0}};
	int code = options_read(table, argc, argv, &operand, 0, &count);

	if (code != EXIT_DONE)
		return code;
	mc_error_init(&err);
	struct client *client = client_open(&o, &err);
	if (client == NULL)
		return report_error(&err, o.json, false);
	code = list_jobs(client, state, model, limit, o.json);
	client_close(client);
	return code;
}

/* --- one job ------------------------------------------------------------------------------------ */

static void print_row(const char *name, const char *text)
{
	printf("%-10s ", name);
	print_cell(text, 0);
	putchar('\n');
}

static void print_time(const struct mc_json *job, const char *name, const char *key)
{
	if (member_text(job, key)[0] != '\0')
		print_row(name, member_text(job, key));
}

static void print_datasets(const struct mc_json *dataset)
{
	if (mc_json_is_null(dataset))
		return;
	printf("%-10s ", "dataset");
	if (mc_json_type(dataset) == MC_JSON_STRING)
		print_cell(mc_json_string(dataset, NULL), 0);
	for (size_t i = 0; mc_json_type(dataset) == MC_JSON_ARRAY && i < mc_json_size(dataset);
	     i++) {
		const struct mc_json *one = mc_json_at(dataset, i);
		printf("%s", i > 0 ? ", " : "");
		print_cell(mc_json_type(one) == MC_JSON_STRING ? mc_json_string(one, NULL)
							       : member_text(one, "path"),
		    0);
	}
	putchar('\n');
}

static void print_progress(const struct mc_json *progress, bool runs)
{
	char spent[32], left[32];

	if (mc_json_type(progress) != MC_JSON_OBJECT ||
	    strcmp(member_text(progress, "phase"), "queued") == 0)
		return;
	printf("%-10s ", "progress");
	print_cell(member_text(progress, "phase"), 0);
	printf(", layer %lld of %lld, %s", (long long)member_integer(progress, "layers_done"),
	    (long long)member_integer(progress, "layers_total"),
	    seconds_text(member_number(progress, "seconds"), spent));
	if (runs && !mc_json_is_null(mc_json_get(progress, "seconds_left")))
		printf(", left %s", seconds_text(member_number(progress, "seconds_left"), left));
	printf(", %lld experts starved by routing alone\n",
	    (long long)member_integer(progress, "starved"));
}

static void print_plan(const struct mc_json *plan)
{
	char a[32], b[32], c[32], d[32];

	if (mc_json_type(plan) != MC_JSON_OBJECT)
		return;
	printf("%-10s %lld layers, %lld experts, %s tokens; memory %s, disk %s, about %s\n", "plan",
	    (long long)member_integer(plan, "layers"), (long long)member_integer(plan, "experts"),
	    count_text(member_number(plan, "tokens"), a),
	    bytes_text((uint64_t)member_integer(plan, "memory_bytes"), b),
	    bytes_text((uint64_t)member_integer(plan, "disk_bytes"), c),
	    seconds_text(member_number(plan, "seconds"), d));
}

static void print_attempts(const struct mc_json *job)
{
	printf("%-10s %lld", "attempts", (long long)member_integer(job, "attempt"));
	if (member_integer(job, "crashes") > 0)
		printf(", %lld of them crashed", (long long)member_integer(job, "crashes"));
	putchar('\n');
}

static void print_job(const struct mc_json *job)
{
	const struct mc_json *spec = mc_json_get(job, "spec"), *reason = mc_json_get(job, "reason");

	print_row("job", member_text(job, "id"));
	print_row("state", member_text(job, "state"));
	if (mc_json_type(reason) == MC_JSON_OBJECT) {
		printf("%-10s ", "reason");
		print_cell(member_text(reason, "code"), 0);
		printf(": ");
		print_cell(member_text(reason, "detail"), 0);
		putchar('\n');
	}
	print_row("model", member_text(spec, "model"));
	print_datasets(mc_json_get(spec, "dataset"));
	print_row("recipe", recipe_name(mc_json_get(spec, "recipe")));
	print_plan(mc_json_get(job, "plan"));
	print_progress(
	    mc_json_get(job, "progress"), strcmp(member_text(job, "state"), "running") == 0);
	print_attempts(job);
	print_time(job, "created", "created_at");
	print_time(job, "started", "started_at");
	print_time(job, "finished", "finished_at");
	print_time(job, "kept until", "expires_at");
}

enum job_call { JOB_GET, JOB_CANCEL, JOB_REMOVE };

static int call(struct client *client, enum job_call what, const char *id, bool json)
{
	static const char *const methods[] = {"GET", "POST", "DELETE"};
	char path[160];
	struct client_request request = {.method = methods[what], .path = path};
	struct client_answer answer;
	struct mc_error err;

	snprintf(path, sizeof path, "/v1/jobs/%s%s", id, what == JOB_CANCEL ? "/cancel" : "");
	int code = client_do(client, &request, json, &answer);
	if (code != EXIT_DONE)
		return code;
	mc_error_init(&err);
	if (what == JOB_REMOVE)
		client_print_removed(id, json);
	else if (strcmp(member_text(answer.json, "id"), id) != 0)
		code = client_wrong_answer(client, json);
	else if (json && !print_json(answer.json, &err))
		code = report_error(&err, false, true);
	else if (what == JOB_GET && !json)
		print_job(answer.json);
	else if (what == JOB_CANCEL && !json) {
		printf("%s: ", id);
		print_cell(member_text(answer.json, "state"), 0);
		putchar('\n');
	}
	client_answer_release(&answer);
	return code;
}

static int command_job(int argc, char **argv, enum job_call what)
{
	struct client_options o = {0};
	const struct option_row table[] = {CLIENT_OPTION_ROWS(&o), CLIENT_JSON_ROW(&o), {0}};
	const char *id;
	struct mc_error err;
	int code = client_read_id(table, argc, argv, "job", &id);

	if (code != EXIT_DONE)
		return code;
	mc_error_init(&err);
	struct client *client = client_open(&o, &err);
	if (client == NULL)
		return report_error(&err, o.json, false);
	code = call(client, what, id, o.json);
	client_close(client);
	return code;
}

int command_get(int argc, char **argv)
{
	return command_job(argc, argv, JOB_GET);
}

int command_cancel(int argc, char **argv)
{
	return command_job(argc, argv, JOB_CANCEL);
}

int command_rm(int argc, char **argv)
{
	return command_job(argc, argv, JOB_REMOVE);
}

int command_watch(int argc, char **argv)
{
	struct client_options o = {0};
	int64_t retry_for_s = WATCH_RETRY_FOR_S;
	const struct option_row table[] = {CLIENT_OPTION_ROWS(&o), CLIENT_JSON_ROW(&o),
	    {"--retry-for", OPTION_INTEGER, &retry_for_s, 0, 86400 * 7}, {0}};
	const char *id;
	struct mc_error err;
	int code = client_read_id(table, argc, argv, "job", &id);

	if (code != EXIT_DONE)
		return code;
	mc_error_init(&err);
	struct client *client = client_open(&o, &err);
	if (client == NULL)
		return report_error(&err, o.json, false);
	code = watch_job(client, id, o.json, retry_for_s, false);
	client_close(client);
	return code;
}
