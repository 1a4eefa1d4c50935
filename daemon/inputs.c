/*
 * inputs.c - see inputs.h
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "inputs.h"

#include "moecal/alloc.h"
#include "moecal/file.h"

#define MAX_REVISION 256

/* --- finding -----------------------------------------------------------------------------------
 */

static bool opens_folder(const struct mc_roots *roots, const char *path, struct mc_error *err)
{
	int fd;

	if (!mc_root_open_folder(roots, path, &fd, err))
		return false;
	close(fd);
	return true;
}

/* "owner/name", both of [A-Za-z0-9._-] and not beginning with a dot */
static bool is_hub_id(const char *name)
{
	static const char letters[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
	size_t owner = strspn(name, letters);

	return owner > 0 && name[0] != '.' && name[owner] == '/' && name[owner + 1] != '.' &&
	       name[owner + 1] != '\0' &&
	       name[owner + 1 + strspn(name + owner + 1, letters)] == '\0';
}

/* CACHE/refs/main holds the name of the folder in CACHE/snapshots that is the model now. */
static bool read_revision(
    const struct mc_roots *roots, const char *cache, struct mc_buf *revision, struct mc_error *err)
{
	char *path = mc_format(err, "%s/refs/main", cache);
	int fd = -1;
	bool ok = path != NULL && mc_root_open(roots, path, &fd, err) &&
		  mc_file_read_all(fd, path, revision, err);

	mc_close(fd);
	free(path);
	if (!ok)
		return false;
	size_t length = strspn(mc_buf_text(revision), "0123456789abcdef");
	if (length == 0 || (revision->data[length] != '\0' && revision->data[length] != '\n'))
		return mc_fail(err, MC_CORRUPT, cache, "refs/main is no revision");
	revision->data[length] = '\0';
	return true;
}

/* A cache is named beneath an allowed folder as models--owner--name, or hub/models--owner--name. */
static char *find_in_cache(
    const struct mc_roots *roots, const char *name, const char *prefix, struct mc_error *err)
{
	const char *slash = strchr(name, '/');
	char *cache = mc_format(
	    err, "%smodels--%.*s--%s", prefix, (int)(slash - name), name, slash + 1);
	struct mc_buf revision;
	char *path = NULL;

	mc_buf_init(&revision, MAX_REVISION);
	if (cache != NULL && read_revision(roots, cache, &revision, err))
		path = mc_format(err, "%s/snapshots/%s", cache, mc_buf_text(&revision));
	mc_buf_release(&revision);
	free(cache);
	if (path != NULL && !opens_folder(roots, path, err)) {
		free(path);
		path = NULL;
	}
	return path;
}

/* A name that begins with '-' would be an option of moecal. */
static char *operand(const char *name, struct mc_error *err)
{
	return mc_format(err, "%s%s", name[0] == '-' ? "./" : "", name);
}

bool input_find_model(struct service *service, const char *name, char **ret, struct mc_error *err)
{
	struct mc_error direct, cached;

	mc_error_init(&direct);
	if (opens_folder(service->roots, name, &direct)) {
		*ret = operand(name, err);
		return *ret != NULL;
	}
	static const char *const prefixes[] = {"", "hub/"};
	for (size_t i = 0; i < 2 && is_hub_id(name); i++) {
		mc_error_init(&cached);
		*ret = find_in_cache(service->roots, name, prefixes[i], &cached);
		if (*ret != NULL)
			return true;
	}
	return mc_fail(err, direct.code, direct.where, "%s", direct.text);
}

bool input_find_dataset(struct service *service, const char *path, char **ret, struct mc_error *err)
{
	int fd;

	if (!mc_root_open(service->roots, path, &fd, err))
		return false;
	close(fd);
	*ret = operand(path, err);
	return *ret != NULL;
}

/* --- changes -----------------------------------------------------------------------------------
 */

static bool is_same(int fd, const struct mc_json *file)
{
	struct stat now;

	return fstat(fd, &now) == 0 && now.st_size == mc_json_integer(mc_json_get(file, "bytes")) &&
	       (int64_t)now.st_ino == mc_json_integer(mc_json_get(file, "inode")) &&
	       (int64_t)now.st_mtim.tv_sec * 1000000000 + now.st_mtim.tv_nsec ==
		   mc_json_integer(mc_json_get(file, "mtime_ns"));
}

bool input_has_changed(const struct mc_roots *roots, enum resource_kind kind, const char *path,
    const struct mc_json *files)
{
	struct mc_error err;
	int folder = -1;
	bool same = true;

	mc_error_init(&err);
	if (kind == RESOURCE_MODEL && !mc_root_open_folder(roots, path, &folder, &err))
		return true;
	for (size_t i = 0; same && i < mc_json_size(files); i++) {
		const struct mc_json *file = mc_json_at(files, i);
		const char *name = mc_json_string(mc_json_get(file, "name"), NULL);
		int fd = -1;
		same = (kind == RESOURCE_MODEL
			       ? mc_root_open_at(roots, folder, path, name, &fd, &err)
			       : mc_root_open(roots, path, &fd, &err)) &&
		       is_same(fd, file);
		mc_close(fd);
	}
	mc_close(folder);
	return !same;
}

/* --- children ----------------------------------------------------------------------------------
 */

size_t input_allow_options(struct service *service, const char *uploads, char **argv, size_t count)
{
	const struct text_list *allow = &service->settings.allow; /* needs a restart to change */

	for (size_t i = 0; i < allow->count; i++) {
		argv[count++] = (char *)"--allow";
		argv[count++] = allow->items[i];
	}
	argv[count++] = (char *)"--allow";
	argv[count++] = (char *)uploads;
	return count;
}
