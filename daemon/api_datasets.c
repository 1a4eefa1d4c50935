/*
 * api_datasets.c - /v1/datasets: calibration data by path, or uploaded
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api.h"
#include "inputs.h"

#include "moecal/alloc.h"
#include "moecal/file.h"

#define ROUTE "POST /v1/datasets"

/* --- one --------------------------------------------------------------------------------------- */

static struct mc_json *dataset_json(
    struct service *service, const struct resource_row *row, struct mc_error *err)
{
	struct mc_json *dataset = mc_json_parse(row->body, strlen(row->body), "dataset", err);
	struct mc_json *files = mc_json_parse(row->files, strlen(row->files), "files", err);
	bool changed = !row->uploaded && files != NULL &&
		       input_has_changed(service->roots, RESOURCE_DATASET, row->path, files);
	bool ok = dataset != NULL && files != NULL &&
		  mc_json_set(dataset, "changed", mc_json_new_bool(changed), err) &&
		  api_link(dataset, "self", err, "/v1/datasets/%s", row->id);

	mc_json_free(files);
	if (ok)
		return dataset;
	mc_json_free(dataset);
	return NULL;
}

static void reply_dataset(struct service *service, const char *id, bool created, bool replayed,
    const struct http_request *request, struct http_response *response)
{
	struct resource_row row;
	struct mc_error err;
	char location[96];

	mc_error_init(&err);
	if (!store_resource_get(service->store, RESOURCE_DATASET, id, &row, &err)) {
		api_reply_error(response, &err);
		return;
	}
	struct mc_json *dataset = dataset_json(service, &row, &err);
	resource_row_release(&row);
	if (!created) {
		api_reply(request, response, dataset, &err);
		return;
	}
	if (dataset == NULL) {
		api_reply_error(response, &err);
		return;
	}
	http_reply_json(response, 201, dataset);
	snprintf(location, sizeof location, "/v1/datasets/%s", id);
	http_set_header(response, "Location", location);
	if (replayed)
		http_set_header(response, "Idempotency-Replayed", "true");
}

void dataset_get(
    struct service *service, struct http_request *request, struct http_response *response)
{
	reply_dataset(service, request->parameters[0], false, false, request, response);
}

void dataset_delete(
    struct service *service, struct http_request *request, struct http_response *response)
{
	struct resource_row row = {0};
	struct mc_error err;

	mc_error_init(&err);
	if (store_resource_get(
		service->store, RESOURCE_DATASET, request->parameters[0], &row, &err) &&
	    store_resource_delete(
		service->store, RESOURCE_DATASET, request->parameters[0], &err)) {
		/* the row is gone; a file that stays is swept at the next start */
		if (row.uploaded && unlink(row.path) != 0)
			log_say(LOG_LEVEL_WARNING, NULL, request->id,
			    "the data of dataset %s could not be removed", row.id);
		http_reply_empty(response, 204);
	} else if (err.code == MC_CONFLICT) {
		problem_reply(response, PROBLEM_IN_USE, "%s", err.text);
	} else {
		api_reply_error(response, &err);
	}
	resource_row_release(&row);
}

/* --- the list ---------------------------------------------------------------------------------- */

struct listing {
	struct service *service;
	struct mc_json *list;
};

static bool add_dataset(void *ctx, const struct resource_row *row, struct mc_error *err)
{
	struct listing *listing = ctx;
	struct mc_json *dataset = dataset_json(listing->service, row, err);

	return dataset != NULL && mc_json_append(listing->list, dataset, err);
}

void datasets_list(
    struct service *service, struct http_request *request, struct http_response *response)
{
	const char *kind = http_query(request, "kind");
	struct page page;
	int64_t next;
	char key[24] = "";
	struct mc_error err;

	if (!page_read(&page, request, response, "datasets %s", kind != NULL ? kind : ""))
		return;
	mc_error_init(&err);
	struct listing listing = {service, mc_json_new_array()};
	if (!store_resource_list(service->store, RESOURCE_DATASET, kind != NULL ? "kind" : NULL, kind,
		atoll(page.key), page.limit, add_dataset, &listing, &next, &err)) {
		mc_json_free(listing.list);
		api_reply_error(response, &err);
		return;
	}
	if (next > 0)
		snprintf(key, sizeof key, "%lld", (long long)next);
	page_reply(&page, request, response, "datasets", listing.list, key);
}

/* --- making ------------------------------------------------------------------------------------ */

/* A dataset on its way in: by path, or as the body. */
struct arrival {
	const char *path;        /* as the caller gave it; NULL: uploaded */
	const char *text_column; /* or NULL */
	const char *given_id;    /* or NULL */
	char id[ID_SIZE];
	char fingerprint[MC_SHA256_HEX];
	char *found;             /* where it is now; owned */
};

static bool read_json_arrival(
    struct arrival *a, const struct mc_json *json, struct http_response *response)
{
	const struct api_text texts[] = {{"path", &a->path, "the file of data"},
	    {"id", &a->given_id, NULL}, {"text_column", &a->text_column, NULL}};

	return api_read_texts(json, texts, 3, response);
}

/* The ending that tells the library what kind of data it is. Binary kinds are known by their first
 * bytes; text is what the sender says it is. */
static const char *ending_of(
    const struct http_request *request, struct http_response *response, struct mc_error *err)
{
	unsigned char head[10] = {0};

	if (strcmp(request->media_type, "application/x-ndjson") == 0)
		return "jsonl";
	if (strcmp(request->media_type, "text/plain") == 0)
		return "txt";
	int fd = open(request->upload_path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : pread(fd, head, sizeof head, 0);
	mc_close(fd);
	if (n < 0) {
		(void)mc_fail_errno(err, errno, "upload", "cannot be read");
		problem_reply_error(response, err);
		return NULL;
	}
	if (memcmp(head, "\x93NUMPY", 6) == 0)
		return "npy";
	if (n >= 9 && head[8] == '{')
		return "safetensors";
	problem_reply(response, PROBLEM_MEDIA,
	    "application/octet-stream is for .npy and .safetensors, this is neither; send text as "
	    "text/plain and JSON lines as application/x-ndjson");
	return NULL;
}

/* The upload to its place; the request's file is then not removed any more. */
static bool take_upload(struct arrival *a, struct service *service, struct http_request *request,
    struct http_response *response)
{
	struct mc_error err;

	mc_error_init(&err);
	const char *ending = ending_of(request, response, &err);
	if (ending == NULL)
		return false;
	/* not by its id, which another upload may want at the same time */
	a->found = mc_format(
	    &err, "%s/datasets/%s.%s", service->settings.state, request->id, ending);
	int fd = a->found == NULL ? -1 : open(request->upload_path, O_RDONLY | O_CLOEXEC);
	bool ok = a->found != NULL &&
		  (fd >= 0 || mc_fail_errno(&err, errno, "upload", "cannot be read")) &&
		  (fsync(fd) == 0 || mc_fail_errno(&err, errno, "upload", "cannot be written")) &&
		  mc_file_rename_durable(request->upload_path, a->found, &err);
	mc_close(fd);
	if (ok)
		request->upload_path[0] = '\0';
	else
		problem_reply_error(response, &err);
	return ok;
}

static struct mc_json *make_body(
    const struct arrival *a, int64_t created, const struct mc_json *said, struct mc_error *err)
{
	static const char *const same[] = {"kind", "samples", "holds_ids", "bytes", "sha256"};
	struct mc_json *body = mc_json_new_object();
	bool ok = mc_json_set(body, "id", mc_json_new_string(a->id), err) &&
		  mc_json_set(body, "path",
		      a->path != NULL ? mc_json_new_string(a->path) : mc_json_new_null(), err);

	for (size_t i = 0; ok && i < sizeof same / sizeof *same; i++)
		ok = mc_json_set(body, same[i], mc_json_copy(mc_json_get(said, same[i]), err), err);
	ok = ok &&
	     mc_json_set(body, "text_column",
		 a->text_column != NULL ? mc_json_new_string(a->text_column) : mc_json_new_null(),
		 err) &&
	     api_set_time(body, "created_at", created, err);
	if (ok)
		return body;
	mc_json_free(body);
	return NULL;
}

static bool add_row(struct service *service, const struct arrival *a, const struct mc_json *said,
    const struct idempotency *idempotency, enum store_added *ret, char ret_id[ID_SIZE],
    struct mc_error *err)
{
	struct store_limits limits = {.rows = service_setting(service, datasets),
	    .bytes = service_setting(service, uploads_bytes)};
	struct resource_row row = {.created_ms = now_ms(),
	    .uploaded = a->path == NULL,
	    .bytes = (uint64_t)mc_json_integer(mc_json_get(said, "bytes"))};
	struct mc_json *body = make_body(a, row.created_ms, said, err);

	snprintf(row.id, sizeof row.id, "%s", a->id);
	row.body = api_text(body, err);
	row.files = api_text(mc_json_get(said, "files"), err);
	row.path = mc_strdup(a->found, err);
	row.text_column = a->text_column != NULL ? mc_strdup(a->text_column, err) : NULL;
	bool ok = row.body != NULL && row.files != NULL && err->code == MC_OK &&
		  store_resource_add(
		      service->store, RESOURCE_DATASET, &row, idempotency, &limits, ret, ret_id, err);
	mc_json_free(body);
	resource_row_release(&row);
	return ok;
}

/* Looks at the data in a process of its own, then writes the row. *ret_kept: the file belongs to it. */
static void inspect(struct service *service, struct arrival *a, const struct idempotency *idempotency,
    const struct http_request *request, struct http_response *response, bool *ret_kept)
{
	const char *words[] = {"inspect", a->found, "--json", "--text-column", a->text_column, NULL};
	struct mc_json *said;
	enum store_added added;
	char made[ID_SIZE];
	struct mc_error err;

	mc_error_init(&err);
	if (a->text_column == NULL)
		words[3] = NULL;
	if (!api_ask(service, words, NULL, service_setting(service, register_seconds), &said, response))
		return;
	if (mc_json_get(said, "samples") == NULL) {
		problem_reply(response, PROBLEM_INPUT, "%s: is a folder; data is a file", a->path);
	} else if (!add_row(service, a, said, idempotency, &added, made, &err)) {
		api_reply_error(response, &err);
	} else if (api_was_added(service, added, "dataset", a->id, response)) {
		*ret_kept = added == ADDED;
		reply_dataset(service, made, true, added == ADDED_BEFORE, request, response);
	}
	mc_json_free(said);
}

static bool find_arrival(struct arrival *a, struct service *service, struct http_request *request,
    struct http_response *response)
{
	struct mc_error err;

	if (a->path == NULL)
		return take_upload(a, service, request, response);
	mc_error_init(&err);
	if (input_find_dataset(service, a->path, &a->found, &err))
		return true;
	problem_reply(response, PROBLEM_INPUT, "%s: %s", a->path, err.text);
	return false;
}

/* What the same request would have again: the body and how it is named. */
static bool fingerprint_arrival(
    struct arrival *a, const struct http_request *request, struct mc_error *err)
{
	if (request->json != NULL)
		return api_fingerprint(request->json, a->fingerprint, err);
	struct mc_json *json = mc_json_new_object();
	bool ok =
	    mc_json_set(json, "sha256", mc_json_new_string(request->upload_sha256), err) &&
	    mc_json_set(json, "type", mc_json_new_string(request->media_type), err) &&
	    mc_json_set(json, "id",
		a->given_id != NULL ? mc_json_new_string(a->given_id) : mc_json_new_null(), err) &&
	    mc_json_set(json, "text_column",
		a->text_column != NULL ? mc_json_new_string(a->text_column) : mc_json_new_null(),
		err) &&
	    api_fingerprint(json, a->fingerprint, err);
	mc_json_free(json);
	return ok;
}

/* Data of no bytes come without a body, and then nothing but their type is there. */
static bool require_data(const struct http_request *request, struct http_response *response)
{
	const char *type = http_header(request, "Content-Type");

	if (request->json != NULL || type == NULL || strncmp(type, "application/json", 16) == 0)
		return true;
	problem_reply(response, PROBLEM_INPUT, "the upload is empty");
	return false;
}

static bool read_arrival(
    struct arrival *a, struct http_request *request, struct http_response *response)
{
	*a = (struct arrival){0};
	if (request->json != NULL || request->upload_path[0] == '\0') {
		if (http_query(request, "id") == NULL && http_query(request, "text_column") == NULL)
			return require_data(request, response) && api_require_body(request, response) &&
			       read_json_arrival(a, request->json, response);
		problem_reply(response, PROBLEM_QUERY,
		    "id and text_column stand in the body, unless the body is the data");
		return false;
	}
	a->given_id = http_query(request, "id");
	a->text_column = http_query(request, "text_column");
	return true;
}

void datasets_post(
    struct service *service, struct http_request *request, struct http_response *response)
{
	struct arrival a;
	char key[65], made[ID_SIZE];
	enum store_added added;
	bool kept = false;
	struct mc_error err;

	mc_error_init(&err);
	if (!read_arrival(&a, request, response) || !api_idempotency_key(request, key, response) ||
	    !api_require_open(service, response) ||
	    !api_choose_id(a.given_id, "dataset", a.id, response))
		return;
	struct idempotency idempotency = {
	    request->principal, key[0] != '\0' ? key : NULL, ROUTE, a.fingerprint};
	if (!fingerprint_arrival(&a, request, &err) ||
	    !store_idempotency_find(service->store, &idempotency, &added, made, &err)) {
		api_reply_error(response, &err);
		return;
	}
	if (added == ADDED_BEFORE) {
		reply_dataset(service, made, true, true, request, response);
		return;
	}
	if (!api_was_added(service, added, "dataset", a.id, response) ||
	    !find_arrival(&a, service, request, response)) {
		free(a.found);
		return;
	}
	if (a.path == NULL)
		metrics_add(service->metrics, METRIC_UPLOADED, request->upload_bytes);
	inspect(service, &a, &idempotency, request, response, &kept);
	if (a.path == NULL && !kept)
		unlink(a.found);
	free(a.found);
}
