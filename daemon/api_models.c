/*
 * api_models.c - /v1/models: checkpoints that jobs may name
 *
 * Registering reads the whole checkpoint once, in a process of its own: headers are checked, layers and
 * experts counted, every byte hashed. Later changes of the files are noticed by size, time and inode.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "inputs.h"

#include "moecal/alloc.h"

#define ROUTE "POST /v1/models"

/* --- one --------------------------------------------------------------------------------------- */

static struct mc_json *model_json(
    struct service *service, const struct resource_row *row, struct mc_error *err)
{
	struct mc_json *model = mc_json_parse(row->body, strlen(row->body), "model", err);
	struct mc_json *files = mc_json_parse(row->files, strlen(row->files), "files", err);
	bool ok = model != NULL && files != NULL &&
		  mc_json_set(model, "changed",
		      mc_json_new_bool(
			  input_has_changed(service->roots, RESOURCE_MODEL, row->path, files)),
		      err) &&
		  api_link(model, "self", err, "/v1/models/%s", row->id);

	mc_json_free(files);
	if (ok)
		return model;
	mc_json_free(model);
	return NULL;
}

static void reply_model(struct service *service, const char *id, bool created, bool replayed,
    const struct http_request *request, struct http_response *response)
{
	struct resource_row row;
	struct mc_error err;
	char location[96];

	mc_error_init(&err);
	if (!store_resource_get(service->store, RESOURCE_MODEL, id, &row, &err)) {
		api_reply_error(response, &err);
		return;
	}
	struct mc_json *model = model_json(service, &row, &err);
	resource_row_release(&row);
	if (!created) {
		api_reply(request, response, model, &err);
		return;
	}
	if (model == NULL) {
		api_reply_error(response, &err);
		return;
	}
	http_reply_json(response, 201, model);
	snprintf(location, sizeof location, "/v1/models/%s", id);
	http_set_header(response, "Location", location);
	if (replayed)
		http_set_header(response, "Idempotency-Replayed", "true");
}

void model_get(
    struct service *service, struct http_request *request, struct http_response *response)
{
	reply_model(service, request->parameters[0], false, false, request, response);
}

void model_delete(
    struct service *service, struct http_request *request, struct http_response *response)
{
	struct mc_error err;

	mc_error_init(&err);
	if (store_resource_delete(service->store, RESOURCE_MODEL, request->parameters[0], &err))
		http_reply_empty(response, 204);
	else if (err.code == MC_CONFLICT)
		problem_reply(response, PROBLEM_IN_USE, "%s", err.text);
	else
		api_reply_error(response, &err);
}

/* --- the list ---------------------------------------------------------------------------------- */

struct listing {
	struct service *service;
	struct mc_json *list;
};

static bool add_model(void *ctx, const struct resource_row *row, struct mc_error *err)
{
	struct listing *listing = ctx;
	struct mc_json *model = model_json(listing->service, row, err);

	return model != NULL && mc_json_append(listing->list, model, err);
}

void models_list(
    struct service *service, struct http_request *request, struct http_response *response)
{
	const char *type = http_query(request, "model_type");
	struct page page;
	int64_t next;
	char key[24] = "";
	struct mc_error err;

	if (!page_read(&page, request, response, "models %s", type != NULL ? type : ""))
		return;
	mc_error_init(&err);
	struct listing listing = {service, mc_json_new_array()};
	if (!store_resource_list(service->store, RESOURCE_MODEL, type != NULL ? "model_type" : NULL,
		type, atoll(page.key), page.limit, add_model, &listing, &next, &err)) {
		mc_json_free(listing.list);
		api_reply_error(response, &err);
		return;
	}
	if (next > 0)
		snprintf(key, sizeof key, "%lld", (long long)next);
	page_reply(&page, request, response, "models", listing.list, key);
}

/* --- registering ------------------------------------------------------------------------------- */

struct wanted {
	const char *path, *id; /* borrowed from the request */
};

static bool read_wanted(
    struct wanted *wanted, const struct mc_json *json, struct http_response *response)
{
	const struct api_text texts[] = {
	    {"path", &wanted->path, "the folder of the checkpoint"}, {"id", &wanted->id, NULL}};

	*wanted = (struct wanted){0};
	return api_read_texts(json, texts, 2, response);
}

/* What GET answers, from what the inspection said. */
static struct mc_json *make_body(const char *id, const char *path, int64_t created,
    const struct mc_json *said, struct mc_error *err)
{
	static const char *const same[] = {"architecture", "model_type", "layers", "moe_layers",
	    "experts", "experts_per_token", "hidden", "expert_intermediate", "vocabulary",
	    "parameters", "bytes", "dtype", "tensors", "shards"};
	struct mc_json *body = mc_json_new_object();
	char digest[80];
	bool ok = mc_json_set(body, "id", mc_json_new_string(id), err) &&
		  mc_json_set(body, "path", mc_json_new_string(path), err);

	for (size_t i = 0; ok && i < sizeof same / sizeof *same; i++)
		ok = mc_json_get(said, same[i]) == NULL ||
		     mc_json_set(body, same[i], mc_json_copy(mc_json_get(said, same[i]), err), err);
	if (ok)
		snprintf(digest, sizeof digest, "sha256:%s",
		    mc_json_string(mc_json_get(said, "sha256"), NULL));
	ok = ok && mc_json_set(body, "digest", mc_json_new_string(digest), err) &&
	     api_set_time(body, "created_at", created, err);
	if (ok)
		return body;
	mc_json_free(body);
	return NULL;
}

static bool add_row(struct service *service, const char *id, const struct wanted *wanted,
    const char *found, const struct mc_json *said, const struct idempotency *idempotency,
    enum store_added *ret, char ret_id[ID_SIZE], struct mc_error *err)
{
	struct store_limits limits = {.rows = service_setting(service, models)};
	struct resource_row row = {.created_ms = now_ms()};
	struct mc_json *body = make_body(id, wanted->path, row.created_ms, said, err);

	snprintf(row.id, sizeof row.id, "%s", id);
	row.body = api_text(body, err);
	row.files = api_text(mc_json_get(said, "files"), err);
	row.path = mc_strdup(found, err);
	bool ok = row.body != NULL && row.files != NULL && row.path != NULL &&
		  store_resource_add(
		      service->store, RESOURCE_MODEL, &row, idempotency, &limits, ret, ret_id, err);
	mc_json_free(body);
	resource_row_release(&row);
	return ok;
}

static void register_model(struct service *service, const struct wanted *wanted, const char *id,
    const struct idempotency *idempotency, const struct http_request *request,
    struct http_response *response)
{
	struct mc_error err;
	struct mc_json *said;
	enum store_added added;
	char made[ID_SIZE], *found;

	mc_error_init(&err);
	if (!input_find_model(service, wanted->path, &found, &err)) {
		problem_reply(response, PROBLEM_INPUT, "%s: %s", wanted->path, err.text);
		return;
	}
	const char *const words[] = {"inspect", found, "--json", "--digest", NULL};
	if (api_ask(service, words, NULL, service_setting(service, register_seconds), &said, response)) {
		if (mc_json_get(said, "architecture") == NULL)
			problem_reply(response, PROBLEM_INPUT,
			    "%s: is a file of data; a model is a folder", wanted->path);
		else if (!add_row(
			     service, id, wanted, found, said, idempotency, &added, made, &err))
			api_reply_error(response, &err);
		else if (api_was_added(service, added, "model", id, response))
			reply_model(service, made, true, added == ADDED_BEFORE, request, response);
		mc_json_free(said);
	}
	free(found);
}

void models_post(
    struct service *service, struct http_request *request, struct http_response *response)
{
	struct wanted wanted;
	char key[65], fingerprint[MC_SHA256_HEX], id[ID_SIZE], made[ID_SIZE];
	enum store_added added;
	struct mc_error err;

	mc_error_init(&err);
	if (!api_require_body(request, response) || !read_wanted(&wanted, request->json, response) ||
	    !api_idempotency_key(request, key, response) || !api_require_open(service, response) ||
	    !api_choose_id(wanted.id, "model", id, response))
		return;
	struct idempotency idempotency = {
	    request->principal, key[0] != '\0' ? key : NULL, ROUTE, fingerprint};
	if (!api_fingerprint(request->json, fingerprint, &err) ||
	    !store_idempotency_find(service->store, &idempotency, &added, made, &err))
		api_reply_error(response, &err);
	else if (added == ADDED_BEFORE)
		reply_model(service, made, true, true, request, response);
	else if (api_was_added(service, added, "model", id, response))
		register_model(service, &wanted, id, &idempotency, request, response);
}
