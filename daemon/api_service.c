/*
 * api_service.c - the service about itself: version, description, health, metrics, page, backup
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "state.h"

#include "moecal/alloc.h"

#define RUNNER_STALE_MS 30000
#define STORE_SLOW_MS 5000

/* Files that the build puts into the program (Makefile). */
#define EMBEDDED(name) extern const char embedded_##name[], embedded_##name##_end[];
EMBEDDED(daemon_web_index_html)
EMBEDDED(daemon_web_style_css)
EMBEDDED(docs_openapi_json)
/* The scripts of the page. */
#define SCRIPTS(X)                                                                                 \
	X(app) X(bar) X(elements) X(errors) X(heat) X(job) X(list) X(place) X(plots) X(results)    \
	    X(service) X(text) X(token) X(watch)
#define X(name) EMBEDDED(daemon_web_##name##_js)
SCRIPTS(X)
#undef X
#define REPLY_EMBEDDED(response, type, name)                                                       \
	http_reply_static(                                                                         \
	    response, type, embedded_##name, (size_t)(embedded_##name##_end - embedded_##name))

/* --- documents --------------------------------------------------------------------------------- */

void version_get(
    struct service *service, struct http_request *request, struct http_response *response)
{
	struct mc_error err;

	mc_error_init(&err);
	api_reply(request, response, mc_json_copy(service->version, &err), &err);
}

void openapi_get(
    struct service *service, struct http_request *request, struct http_response *response)
{
	(void)service;
	(void)request;
	REPLY_EMBEDDED(response, "application/json", docs_openapi_json);
	http_set_header(response, "Cache-Control", "no-cache");
}

/* --- the page ---------------------------------------------------------------------------------- */

static void set_page_headers(struct http_response *response)
{
	http_set_header(response, "Content-Security-Policy",
	    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
	    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
	http_set_header(response, "Referrer-Policy", "no-referrer");
	http_set_header(response, "Cache-Control", "no-cache");
}

void page_get(struct service *service, struct http_request *request, struct http_response *response)
{
	(void)service;
	(void)request;
	REPLY_EMBEDDED(response, "text/html; charset=utf-8", daemon_web_index_html);
	set_page_headers(response);
}

static const struct asset {
	const char *name, *type, *start, *end;
} assets[] = {
    {"style.css", "text/css; charset=utf-8", embedded_daemon_web_style_css,
	embedded_daemon_web_style_css_end},
#define X(name)                                                                                    \
	{#name ".js", "text/javascript; charset=utf-8", embedded_daemon_web_##name##_js,           \
	    embedded_daemon_web_##name##_js_end},
    SCRIPTS(X)
#undef X
};

void asset_get(
    struct service *service, struct http_request *request, struct http_response *response)
{
	const char *name = request->parameters[0];

	(void)service;
	for (size_t i = 0; i < sizeof assets / sizeof *assets; i++) {
		if (strcmp(assets[i].name, name) != 0)
			continue;
		http_reply_static(response, assets[i].type, assets[i].start,
		    (size_t)(assets[i].end - assets[i].start));
		set_page_headers(response);
		return;
	}
	problem_reply(response, PROBLEM_NOT_FOUND, "The page has no file '%s'.", name);
}

/* --- health ------------------------------------------------------------------------------------ */

void healthz_get(
    struct service *service, struct http_request *request, struct http_response *response)
{
	static const char body[] = "{\"status\":\"ok\"}\n";

	(void)service;
	(void)request;
	http_reply_static(response, "application/json", body, sizeof body - 1);
}

static bool add_failed(struct mc_json *failed, bool bad, const char *name, struct mc_error *err)
{
	return !bad || mc_json_append(failed, mc_json_new_string(name), err);
}

void readyz_get(
    struct service *service, struct http_request *request, struct http_response *response)
{
	struct mc_json *root = mc_json_new_object(), *failed = mc_json_new_array();
	uint64_t bytes;
	struct mc_error err;

	(void)request;
	mc_error_init(&err);
	bool disk = !state_has_space(
	    service->settings.state, service_setting(service, free_percent), &bytes);
	bool ok = mc_json_set(root, "ready", mc_json_new_bool(true), &err) &&
		  mc_json_set(root, "failed", failed, &err) &&
		  add_failed(failed, disk, "disk", &err) &&
		  add_failed(failed, store_is_failed(service->store), "store", &err) &&
		  add_failed(
		      failed, runner_idle_ms(service->runner) > RUNNER_STALE_MS, "runner", &err) &&
		  add_failed(failed, atomic_load(&service->draining), "draining", &err);
	bool ready = ok && mc_json_size(failed) == 0;
	ok = ok && mc_json_set(root, "ready", mc_json_new_bool(ready), &err);
	if (ok) {
		http_reply_json(response, ready ? 200 : 503, root);
	} else {
		mc_json_free(root);
		api_reply_error(response, &err);
	}
}

/* --- metrics ----------------------------------------------------------------------------------- */

static void gather(struct service *service)
{
	struct metrics *metrics = service->metrics;
	struct store_counts counts;
	uint64_t granted, budget, bytes;
	unsigned running;
	struct mc_error err;

	mc_error_init(&err);
	if (store_counts(service->store, &counts, &err)) {
		for (int i = 0; i < JOB_STATES; i++)
			metrics_set_jobs(
			    metrics, job_state_name((enum job_state)i), counts.jobs[i]);
		metrics_set(metrics, METRIC_QUEUE_OLDEST,
		    counts.oldest_queued_ms > 0
			? (double)(now_ms() - counts.oldest_queued_ms) / 1000
			: 0);
	}
	(void)!state_has_space(service->settings.state, 0, &bytes);
	runner_memory(service->runner, &granted, &budget, &running);
	metrics_set(metrics, METRIC_STATE_FREE, (double)bytes);
	metrics_set(metrics, METRIC_MEMORY_GRANTED, (double)granted);
	metrics_set(metrics, METRIC_MEMORY_BUDGET, (double)budget);
	metrics_set(metrics, METRIC_RUNNING, running);
	metrics_set(metrics, METRIC_WATCHERS, atomic_load(&service->watchers));
	metrics_set(metrics, METRIC_HEARTBEAT, (double)runner_idle_ms(service->runner) / 1000);
}

void metrics_get(
    struct service *service, struct http_request *request, struct http_response *response)
{
	struct mc_buf text;
	struct mc_error err;

	(void)request;
	mc_error_init(&err);
	mc_buf_init(&text, (size_t)4 << 20);
	gather(service);
	if (metrics_render(service->metrics, &text, &err)) {
		http_reply_text(response, 200, "text/plain; version=0.0.4; charset=utf-8", &text);
		return;
	}
	mc_buf_release(&text);
	api_reply_error(response, &err);
}

/* --- backup ------------------------------------------------------------------------------------ */

void backup_post(
    struct service *service, struct http_request *request, struct http_response *response)
{
	char name[64];
	struct mc_error err;

	mc_error_init(&err);
	if (!api_require_no_body(request, response))
		return;
	struct mc_json *root = mc_json_new_object();
	snprintf(name, sizeof name, "moecald-%lld.db", (long long)now_ms());
	char *path = mc_format(&err, "%s/backup/%s", service->settings.state, name);
	bool ok = path != NULL && store_backup(service->store, path, &err) &&
		  mc_json_set(root, "name", mc_json_new_string(name), &err);
	free(path);
	if (ok) {
		log_say(LOG_LEVEL_INFO, NULL, request->id, "backup: %s", name);
		http_reply_json(response, 201, root);
	} else {
		mc_json_free(root);
		api_reply_error(response, &err);
	}
}
