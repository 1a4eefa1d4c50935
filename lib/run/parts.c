/*
 * parts.c - the part files of all steps, opened together
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "export.h"

#include "moecal/alloc.h"

static bool open_part(
    const struct mc_export *export, size_t step, struct mc_st_file *file, struct mc_error *err)
{
	char *path = mc_folder_numbered(export->folder, "layer", step, ".safetensors", err);
	if (path == NULL)
		return false;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	bool ok = fd >= 0 ||
		  mc_fail_errno(err, errno, path, "a finished layer's file cannot be read");
	ok = ok && mc_st_open_fd(file, fd, path, err);
	free(path);
	return ok;
}

bool mc_parts_open(struct mc_parts *parts, const struct mc_export *export, struct mc_error *err)
{
	*parts = (struct mc_parts){0};
	parts->files = mc_alloc(export->steps, sizeof *parts->files, "part files", err);
	if (parts->files == NULL)
		return false;
	for (; parts->count < export->steps; parts->count++)
		if (!open_part(export, parts->count, &parts->files[parts->count], err)) {
			mc_parts_close(parts);
			return false;
		}
	return true;
}

void mc_parts_close(struct mc_parts *parts)
{
	for (size_t i = 0; i < parts->count; i++)
		mc_st_close(&parts->files[i]);
	free(parts->files);
	*parts = (struct mc_parts){0};
}

const struct mc_st_entry *mc_parts_find(
    const struct mc_parts *parts, const char *name, const struct mc_st_file **ret_file)
{
	for (size_t i = 0; i < parts->count; i++) {
		const struct mc_st_entry *entry = mc_st_find(&parts->files[i], name);
		if (entry != NULL) {
			*ret_file = &parts->files[i];
			return entry;
		}
	}
	return NULL;
}
