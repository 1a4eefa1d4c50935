/*
 * route.c - the table of routes
 */
#include "api.h"

/* Keys of a query. */
#define QUERY(...) (const char *const[]){__VA_ARGS__, NULL}

const struct route routes[] = {
    {HTTP_POST, "/v1/models", SCOPE_SUBMIT, BODY_JSON, models_post, .query = NULL},
    {HTTP_GET, "/v1/models", SCOPE_READ, BODY_NONE, models_list,
	.query = QUERY("limit", "cursor", "model_type")},
    {HTTP_GET, "/v1/models/{id}", SCOPE_READ, BODY_NONE, model_get, .query = NULL},
    {HTTP_DELETE, "/v1/models/{id}", SCOPE_SUBMIT, BODY_NONE, model_delete, .query = NULL},
    {HTTP_POST, "/v1/datasets", SCOPE_SUBMIT, BODY_UPLOAD, datasets_post,
	.query = QUERY("id", "text_column")},
    {HTTP_GET, "/v1/datasets", SCOPE_READ, BODY_NONE, datasets_list,
	.query = QUERY("limit", "cursor", "kind")},
    {HTTP_GET, "/v1/datasets/{id}", SCOPE_READ, BODY_NONE, dataset_get, .query = NULL},
    {HTTP_DELETE, "/v1/datasets/{id}", SCOPE_SUBMIT, BODY_NONE, dataset_delete, .query = NULL},
    {HTTP_POST, "/v1/plans", SCOPE_SUBMIT, BODY_JSON, plans_post, .query = NULL},
    {HTTP_POST, "/v1/jobs", SCOPE_SUBMIT, BODY_JSON, jobs_post, .query = NULL},
    {HTTP_GET, "/v1/jobs", SCOPE_READ, BODY_NONE, jobs_list,
	.query = QUERY("limit", "cursor", "state", "model")},
    {HTTP_GET, "/v1/jobs/{id}", SCOPE_READ, BODY_NONE, job_get,
	.query = QUERY("wait")},
    {HTTP_DELETE, "/v1/jobs/{id}", SCOPE_SUBMIT, BODY_NONE, job_delete, .query = NULL},
    {HTTP_POST, "/v1/jobs/{id}/cancel", SCOPE_SUBMIT, BODY_JSON, job_cancel, .query = NULL},
    {HTTP_GET, "/v1/jobs/{id}/events", SCOPE_READ, BODY_NONE, job_events,
	.query = QUERY("limit", "cursor", "type")},
    {HTTP_GET, "/v1/jobs/{id}/coverage", SCOPE_READ, BODY_NONE, job_coverage, .query = NULL},
    {HTTP_GET, "/v1/jobs/{id}/statistics", SCOPE_READ, BODY_NONE, job_statistics,
	.query = QUERY("limit", "cursor", "layer", "expert", "module")},
    {HTTP_GET, "/v1/jobs/{id}/quantization", SCOPE_READ, BODY_NONE, job_quantization,
	.query = QUERY("limit", "cursor", "module")},
    {HTTP_GET, "/v1/jobs/{id}/verdict", SCOPE_READ, BODY_NONE, job_verdict, .query = NULL},
    {HTTP_GET, "/v1/jobs/{id}/artifacts", SCOPE_READ, BODY_NONE, job_artifacts,
	.query = QUERY("limit", "cursor", "prefix")},
    {HTTP_GET, "/v1/jobs/{id}/artifacts/{path...}", SCOPE_READ, BODY_NONE, job_artifact, .query = NULL},
    {HTTP_POST, "/v1/backup", SCOPE_ADMIN, BODY_JSON, backup_post, .query = NULL},
    {HTTP_GET, "/v1/version", SCOPE_READ, BODY_NONE, version_get, .query = NULL},
    {HTTP_GET, "/v1/openapi.json", SCOPE_NONE, BODY_NONE, openapi_get, .query = NULL},
    {HTTP_GET, "/healthz", SCOPE_NONE, BODY_NONE, healthz_get, .probe = true},
    {HTTP_GET, "/readyz", SCOPE_NONE, BODY_NONE, readyz_get, .probe = true},
    {HTTP_GET, "/metrics", SCOPE_READ, BODY_NONE, metrics_get, .query = NULL},
    {HTTP_GET, "/", SCOPE_NONE, BODY_NONE, page_get, .query = NULL},
    {HTTP_GET, "/assets/{file}", SCOPE_NONE, BODY_NONE, asset_get, .query = NULL},
    {0},
};
