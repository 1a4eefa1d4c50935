/*
 * state.c - see state.h
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "state.h"

#include "moecal/alloc.h"
#include "moecal/file.h"

static bool make_folder(const char *state, const char *name, struct mc_error *err)
{
	char *path = mc_format(err, "%s/%s", state, name);
	bool ok = path != NULL &&
		  (mkdir(path, 0700) == 0 || errno == EEXIST ||
		      mc_fail_errno(err, errno, path, "cannot be made"));

	free(path);
	return ok;
}

bool state_prepare(const char *state, struct mc_error *err)
{
	return mc_file_make_folders(state, err) &&
	       (chmod(state, 0700) == 0 || errno == EPERM || errno == EROFS ||
		   mc_fail_errno(err, errno, state, "is not a folder of ours")) &&
	       make_folder(state, "uploads", err) && make_folder(state, "trash", err) &&
	       make_folder(state, "datasets", err) &&
	       make_folder(state, "jobs", err) && make_folder(state, "backup", err) &&
	       mc_file_sync_folder(state, err);
}

bool state_sweep(const char *state, struct mc_error *err)
{
	static const char *const passing[] = {"uploads", "trash"};
	bool ok = true;

	for (size_t i = 0; ok && i < sizeof passing / sizeof *passing; i++) {
		char *path = mc_format(err, "%s/%s", state, passing[i]);
		ok = path != NULL && mc_file_remove_tree(path, err) &&
		     make_folder(state, passing[i], err);
		free(path);
	}
	return ok;
}

char *state_job_path(const char *state, const char *id, const char *name, struct mc_error *err)
{
	return name == NULL ? mc_format(err, "%s/jobs/%s", state, id)
			    : mc_format(err, "%s/jobs/%s/%s", state, id, name);
}

bool state_remove_job(const char *state, const char *id, struct mc_error *err)
{
	char *from = state_job_path(state, id, NULL, err);
	char *to = mc_format(err, "%s/trash/%s", state, id);
	bool ok = from != NULL && to != NULL;

	if (ok && rename(from, to) != 0)
		ok = errno == ENOENT || mc_fail_errno(err, errno, id, "cannot be moved away");
	ok = ok && mc_file_remove_tree(to, err);
	free(from);
	free(to);
	return ok;
}

bool state_has_space(const char *state, uint64_t percent, uint64_t *ret_free)
{
	struct statvfs disk;

	*ret_free = 0;
	if (statvfs(state, &disk) != 0)
		return false;
	*ret_free = (uint64_t)disk.f_bavail * disk.f_frsize;
	return (double)disk.f_bavail * 100 >= (double)disk.f_blocks * (double)percent;
}

static void cut(char *text, const char *what)
{
	size_t length = strlen(what);

	for (char *at = strstr(text, what); length > 0 && at != NULL; at = strstr(at, what))
		memmove(at, at + length, strlen(at + length) + 1);
}

void state_hide(const char *state, const char *id, char *text)
{
	char folder[4096];

	snprintf(folder, sizeof folder, "%s/jobs/%s/folder/", state, id);
	cut(text, folder);
	folder[strlen(folder) - 1] = '\0';
	cut(text, folder);
	snprintf(folder, sizeof folder, "%s/", state);
	cut(text, folder);
}
