/*
 * hidden.c - see hidden.h
 */
#include "hidden.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "moecal/file.h"

static char *path_of(const struct mc_folder *folder, size_t layer, struct mc_error *err)
{
	return mc_folder_numbered(folder, "hidden", layer, ".f32", err);
}

bool mc_hidden_save(const struct mc_folder *folder, size_t layer, const float *hidden, size_t bytes,
    struct mc_error *err)
{
	char *path = path_of(folder, layer, err);
	bool ok = path != NULL && mc_file_write_durable(path, hidden, bytes, err);

	free(path);
	return ok;
}

bool mc_hidden_load(
    const struct mc_folder *folder, size_t layer, float *hidden, size_t bytes, struct mc_error *err)
{
	char *path = path_of(folder, layer, err);
	int fd = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
	bool ok = fd >= 0 || (path != NULL && mc_fail_errno(err, errno, path,
						  "the saved hidden states cannot be read"));

	ok = ok && mc_file_read_at(fd, hidden, bytes, 0, path, err);
	mc_close(fd);
	free(path);
	return ok;
}

void mc_hidden_drop(const struct mc_folder *folder, size_t layer)
{
	struct mc_error ignored;

	mc_error_init(&ignored);
	char *path = path_of(folder, layer, &ignored);
	if (path != NULL)
		unlink(path);
	free(path);
}
