/*
 * folder.c - see folder.h
 */
#include "folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "moecal/alloc.h"
#include "moecal/calibrate.h"
#include "moecal/file.h"

/* Looks into the folder: is it empty, is there a resume/, and if neither, what is there? */
static bool look(
    const char *path, bool *ret_empty, bool *ret_resume, char first[256], struct mc_error *err)
{
	*ret_empty = true;
	*ret_resume = false;
	first[0] = '\0';
	DIR *dir = opendir(path);
	if (dir == NULL)
		return errno == ENOENT ||
		       mc_fail_errno(err, errno, path, "the output folder cannot be read");
	const struct dirent *entry;
	while ((entry = readdir(dir)) != NULL) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		*ret_empty = false;
		if (strcmp(entry->d_name, "resume") == 0)
			*ret_resume = true;
		/* the alphabetically first name, so that the message does not depend on the file
		 * system */
		if (first[0] == '\0' || strcmp(entry->d_name, first) < 0)
			snprintf(first, 256, "%s", entry->d_name);
	}
	closedir(dir);
	return true;
}

static bool require_usable(const char *path, bool *ret_resume, struct mc_error *err)
{
	bool empty;
	char first[256];
	struct stat status;

	if (stat(path, &status) == 0 && !S_ISDIR(status.st_mode))
		return mc_fail(
		    err, MC_CONFLICT, path, "the output must be a folder, this is a file");
	if (!look(path, &empty, ret_resume, first, err))
		return false;
	if (!empty && !*ret_resume)
		return mc_fail(err, MC_CONFLICT, path,
		    "the output folder is not empty (it holds '%s') and has no resume/ to go on "
		    "from",
		    first);
	return true;
}

bool mc_require_output_folder(const char *out, struct mc_error *err)
{
	bool resume;
	return require_usable(out, &resume, err);
}

static bool lock_folder(struct mc_folder *folder, struct mc_error *err)
{
	folder->lock = open(folder->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder->lock < 0)
		return mc_fail_errno(err, errno, folder->path, "cannot open the output folder");
	if (flock(folder->lock, LOCK_EX | LOCK_NB) == 0)
		return true;
	return errno == EWOULDBLOCK
		   ? mc_fail(err, MC_CONFLICT, folder->path,
			 "another process is working in this folder")
		   : mc_fail_errno(err, errno, folder->path, "cannot lock the output folder");
}

bool mc_folder_open(
    struct mc_folder *folder, const char *path, bool *ret_resuming, struct mc_error *err)
{
	*folder = (struct mc_folder){.lock = -1};
	if (!require_usable(path, ret_resuming, err))
		return false;
	folder->path = mc_strdup(path, err);
	char *resume = folder->path == NULL ? NULL : mc_folder_path(folder, "resume", err);
	bool ok = resume != NULL && mc_file_make_folders(resume, err) && lock_folder(folder, err) &&
		  mc_file_sync_folder(path, err);
	free(resume);
	if (!ok)
		mc_folder_release(folder);
	return ok;
}

void mc_folder_release(struct mc_folder *folder)
{
	mc_close(folder->lock);
	free(folder->path);
	*folder = (struct mc_folder){.lock = -1};
}

char *mc_folder_path(const struct mc_folder *folder, const char *name, struct mc_error *err)
{
	return mc_format(err, "%s/%s", folder->path, name);
}

char *mc_folder_numbered(const struct mc_folder *folder, const char *stem, size_t index,
    const char *ending, struct mc_error *err)
{
	return mc_format(err, "%s/resume/%s-%05zu%s", folder->path, stem, index, ending);
}

bool mc_folder_publish(const struct mc_folder *folder, const char *name, struct mc_error *err)
{
	char *from = mc_format(err, "%s/resume/%s", folder->path, name);
	char *to = mc_folder_path(folder, name, err);
	struct stat status;
	bool ok = from != NULL && to != NULL;

	if (ok && lstat(to, &status) == 0 && S_ISDIR(status.st_mode))
		ok = mc_file_remove_tree(to, err);
	ok = ok && mc_file_rename_durable(from, to, err);
	free(from);
	free(to);
	return ok;
}

bool mc_folder_finish(const struct mc_folder *folder, struct mc_error *err)
{
	/* away in one step: half of a resume/ would look like a job that can go on */
	char *resume = mc_folder_path(folder, "resume", err);
	char *finished = mc_folder_path(folder, ".finished", err);
	bool ok = resume != NULL && finished != NULL && mc_file_remove_tree(finished, err) &&
		  mc_file_rename_durable(resume, finished, err) && mc_file_remove_tree(finished, err);
	free(resume);
	free(finished);
	return ok;
}
