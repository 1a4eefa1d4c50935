/*
 * recovery.c - see recovery.h
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "recovery.h"
#include "state.h"

#include "moecal/alloc.h"

/* Calls fn for every visible name in STATE/sub. */
static bool each_name(const char *state, const char *sub,
    bool (*fn)(void *ctx, const char *name, struct mc_error *err), void *ctx, struct mc_error *err)
{
	char *path = mc_format(err, "%s/%s", state, sub);
	DIR *dir = path == NULL ? NULL : opendir(path);
	const struct dirent *entry;
	bool ok = path != NULL && (dir != NULL || mc_fail_errno(err, errno, path, "cannot be read"));

	while (ok && (entry = readdir(dir)) != NULL)
		if (entry->d_name[0] != '.')
			ok = fn(ctx, entry->d_name, err);
	if (dir != NULL)
		closedir(dir);
	free(path);
	return ok;
}

static bool sweep_job(void *ctx, const char *name, struct mc_error *err)
{
	struct service *service = ctx;
	struct job_row row;
	struct mc_error absent;

	mc_error_init(&absent);
	if (store_job_get(service->store, name, &row, &absent)) {
		job_row_release(&row);
		return true;
	}
	if (absent.code != MC_NOT_FOUND)
		return mc_fail(err, absent.code, absent.where, "%s", absent.text);
	log_say(LOG_LEVEL_INFO, name, NULL, "removed: a folder without a job");
	return state_remove_job(service->settings.state, name, err);
}

/* --- datasets ---------------------------------------------------------------------------------- */

struct uploads {
	struct service *service;
	char **paths; /* of all uploads that have a row; owned, strings too */
	size_t count, capacity;
};

static bool note_upload(void *ctx, const struct resource_row *row, struct mc_error *err)
{
	struct uploads *uploads = ctx;

	if (!row->uploaded)
		return true;
	if (!mc_grow((void **)&uploads->paths, &uploads->capacity, uploads->count + 1,
		sizeof *uploads->paths, "uploads", err))
		return false;
	uploads->paths[uploads->count] = mc_strdup(row->path, err);
	return uploads->paths[uploads->count++] != NULL;
}

static bool sweep_dataset(void *ctx, const char *name, struct mc_error *err)
{
	const struct uploads *uploads = ctx;
	bool known = false;

	for (size_t i = 0; !known && i < uploads->count; i++) {
		const char *base = strrchr(uploads->paths[i], '/');
		known = strcmp(base != NULL ? base + 1 : uploads->paths[i], name) == 0;
	}
	if (known)
		return true;
	char *path = mc_format(err, "%s/datasets/%s", uploads->service->settings.state, name);
	bool ok = path != NULL &&
		  (unlink(path) == 0 || mc_fail_errno(err, errno, path, "cannot be removed"));
	free(path);
	return ok;
}

static bool sweep_datasets(struct service *service, struct mc_error *err)
{
	struct uploads uploads = {.service = service};
	int64_t next = 0;
	bool ok;

	do
		ok = store_resource_list(service->store, RESOURCE_DATASET, NULL, NULL, next, 200,
		    note_upload, &uploads, &next, err);
	while (ok && next > 0);
	ok = ok && each_name(service->settings.state, "datasets", sweep_dataset, &uploads, err);
	for (size_t i = 0; i < uploads.count; i++)
		free(uploads.paths[i]);
	free(uploads.paths);
	return ok;
}

bool recover(struct service *service, struct mc_error *err)
{
	size_t jobs;

	if (!store_recover(service->store, now_ms(), &jobs, err))
		return false;
	if (jobs > 0)
		log_say(LOG_LEVEL_WARNING, NULL, NULL, "%zu job%s ran when the service ended", jobs,
		    jobs == 1 ? "" : "s");
	return each_name(service->settings.state, "jobs", sweep_job, service, err) &&
	       sweep_datasets(service, err);
}
