/*
 * route.c - the table of routes
 */
#include "api.h"

const struct route routes[] = {
    {HTTP_POST, "/v1/models", SCOPE_SUBMIT, BODY_JSON, models_post},
    {HTTP_GET, "/v1/models", SCOPE_READ, BODY_NONE, models_list},
    {HTTP_GET, "/v1/models/{id}", SCOPE_READ, BODY_NONE, model_get},
    {HTTP_DELETE, "/v1/models/{id}", SCOPE_SUBMIT, BODY_NONE, model_delete},
    {HTTP_POST, "/v1/datasets", SCOPE_SUBMIT, BODY_UPLOAD, datasets_post},
    {HTTP_GET, "/v1/datasets", SCOPE_READ, BODY_NONE, datasets_list},
    {HTTP_GET, "/v1/datasets/{id}", SCOPE_READ, BODY_NONE, dataset_get},
    {HTTP_DELETE, "/v1/datasets/{id}", SCOPE_SUBMIT, BODY_NONE, dataset_delete},
    {HTTP_POST, "/v1/plans", SCOPE_SUBMIT, BODY_JSON, plans_post},
    {HTTP_POST, "/v1/jobs", SCOPE_SUBMIT, BODY_JSON, jobs_post},
    {HTTP_GET, "/v1/jobs", SCOPE_READ, BODY_NONE, jobs_list},
    {HTTP_GET, "/v1/jobs/{id}", SCOPE_READ, BODY_NONE, job_get},
    {HTTP_DELETE, "/v1/jobs/{id}", SCOPE_SUBMIT, BODY_NONE, job_delete},
    {HTTP_POST, "/v1/jobs/{id}/cancel", SCOPE_SUBMIT, BODY_JSON, job_cancel},
    {HTTP_POST, "/v1/jobs/{id}/derive", SCOPE_SUBMIT, BODY_JSON, job_derive},
    {HTTP_GET, "/v1/jobs/{id}/events", SCOPE_READ, BODY_NONE, job_events},
    {HTTP_GET, "/v1/jobs/{id}/coverage", SCOPE_READ, BODY_NONE, job_coverage},
    {HTTP_GET, "/v1/jobs/{id}/statistics", SCOPE_READ, BODY_NONE, job_statistics},
    {HTTP_GET, "/v1/jobs/{id}/quantization", SCOPE_READ, BODY_NONE, job_quantization},
    {HTTP_GET, "/v1/jobs/{id}/verdict", SCOPE_READ, BODY_NONE, job_verdict},
    {HTTP_GET, "/v1/jobs/{id}/artifacts", SCOPE_READ, BODY_NONE, job_artifacts},
    {HTTP_GET, "/v1/jobs/{id}/artifacts/{path...}", SCOPE_READ, BODY_NONE, job_artifact},
    {HTTP_POST, "/v1/backup", SCOPE_ADMIN, BODY_JSON, backup_post},
    {HTTP_GET, "/v1/version", SCOPE_READ, BODY_NONE, version_get},
    {HTTP_GET, "/v1/openapi.json", SCOPE_NONE, BODY_NONE, openapi_get},
    {HTTP_GET, "/healthz", SCOPE_NONE, BODY_NONE, healthz_get},
    {HTTP_GET, "/readyz", SCOPE_NONE, BODY_NONE, readyz_get},
    {HTTP_GET, "/metrics", SCOPE_READ, BODY_NONE, metrics_get},
    {HTTP_GET, "/", SCOPE_NONE, BODY_NONE, page_get},
    {HTTP_GET, "/assets/app.js", SCOPE_NONE, BODY_NONE, script_get},
    {HTTP_GET, "/assets/style.css", SCOPE_NONE, BODY_NONE, style_get},
    {0},
};
