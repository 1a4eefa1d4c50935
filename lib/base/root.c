/*
 * root.c - open files beneath allowed folders only
 *
 * String code only proposes a root and a path in it; openat2 decides. Two proposals are made:
 *
 * 1. The path as given, relative to a root, links followed as long as they stay beneath that root.
 * 2. When that leaves the root (an absolute link, a link into another root): the path that it
 * really leads to, relative to the root that holds it, and now without any link. If somebody
 * changes the links between the two steps, the second one fails.
 *
 * Files are opened non-blocking, so a named pipe cannot hold us up before it is refused.
 */
#include "moecal/root.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "moecal/alloc.h"

#define FILE_FLAGS (O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
#define FOLDER_FLAGS (O_PATH | O_DIRECTORY | O_CLOEXEC)
#define RACE_TRIES 16 /* openat2 says EAGAIN when a rename crosses its way */

struct root {
	int fd;
	char *given; /* absolute, cleaned, as the user names it */
	char *real;  /* the same folder without links */
};

/* Another name for something beneath a root. */
struct alias {
	char *name, *path;
	bool folder;
};

struct mc_roots {
	struct root *items;
	size_t count;
	size_t capacity;
	struct alias *aliases;
	size_t aliases_count;
	size_t aliases_capacity;
};

/* --- the list -------------------------------------------------------------------------------- */

struct mc_roots *mc_roots_new(struct mc_error *err)
{
	return mc_alloc(1, sizeof(struct mc_roots), "the allowed folders", err);
}

static void release_root(struct root *root)
{
	if (root->fd >= 0)
		close(root->fd);
	free(root->given);
	free(root->real);
}

void mc_roots_free(struct mc_roots *roots)
{
	if (!roots)
		return;
	for (size_t i = 0; i < roots->count; i++)
		release_root(&roots->items[i]);
	free(roots->items);
	for (size_t i = 0; i < roots->aliases_count; i++) {
		free(roots->aliases[i].name);
		free(roots->aliases[i].path);
	}
	free(roots->aliases);
	free(roots);
}

/* Drops empty and "." parts in place: "/a//b/./c/" becomes "/a/b/c". Never "..": only the kernel
 * knows where that leads. "" stays for "/" and for ".". */
static void clean(char *path)
{
	char *to = path;
	const char *from = path;
	bool absolute = *path == '/';

	while (*from) {
		while (*from == '/')
			from++;
		size_t length = strcspn(from, "/");
		bool dot = length == 1 && from[0] == '.';

		if (length > 0 && !dot) {
			if (to != path || absolute)
				*to++ = '/';
			memmove(to, from, length);
			to += length;
		}
		from += length;
	}
	*to = '\0';
}

static char *absolute_name(const char *path, struct mc_error *err)
{
	char *folder, *name;

	if (path[0] == '/') {
		name = mc_strdup(path, err);
	} else {
		folder = getcwd(NULL, 0);
		if (!folder) {
			mc_fail_errno(err, errno, path, "the current folder cannot be read");
			return NULL;
		}
		name = mc_format(err, "%s/%s", folder, path);
		free(folder);
	}
	if (name)
		clean(name);
	return name;
}

static int open_beneath(int folder, const char *path, int flags, uint64_t resolve)
{
	struct open_how how = {
	    .flags = (uint64_t)flags, .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | resolve};
	long fd = -1;

	errno = EAGAIN;
	for (int i = 0; i < RACE_TRIES && fd < 0 && (errno == EAGAIN || errno == EINTR); i++)
		fd = syscall(SYS_openat2, folder, path, &how, sizeof(how));
	return (int)fd;
}

static bool fill_root(struct root *root, const char *folder, struct mc_error *err)
{
	int probe;

	root->fd = open(folder, FOLDER_FLAGS);
	if (root->fd < 0 && errno == ENOTDIR)
		return mc_fail(err, MC_INVALID, folder, "is not a folder");
	if (root->fd < 0)
		return mc_fail_errno(err, errno, folder, "the allowed folder cannot be opened");
	probe = open_beneath(root->fd, ".", FOLDER_FLAGS, 0);
	/* EPERM: some sandboxes answer so for calls that they do not know. */
	if (probe < 0 && (errno == ENOSYS || errno == EPERM))
		return mc_fail(err, MC_UNSUPPORTED, folder,
		    "this kernel or sandbox has no openat2 (Linux 5.6), which keeps files beneath "
		    "a folder");
	if (probe < 0)
		return mc_fail_errno(err, errno, folder, "the allowed folder cannot be opened");
	close(probe);
	root->given = absolute_name(folder, err);
	if (!root->given)
		return false;
	root->real = realpath(folder, NULL);
	if (!root->real)
		return mc_fail_errno(err, errno, folder, "the allowed folder cannot be resolved");
	clean(root->real);
	return true;
}

bool mc_roots_add(struct mc_roots *roots, const char *folder, struct mc_error *err)
{
	struct root root = {.fd = -1};
	void *items = roots->items;

	if (!fill_root(&root, folder, err) || !mc_grow(&items, &roots->capacity, roots->count + 1,
						  sizeof(root), "the allowed folders", err)) {
		release_root(&root);
		return false;
	}
	roots->items = items;
	roots->items[roots->count++] = root;
	return true;
}

bool mc_roots_add_alias(struct mc_roots *roots, const char *name, const char *path, bool folder,
    struct mc_error *err)
{
	void *aliases = roots->aliases;

	if (name[0] == '\0' || name[0] == '/')
		return mc_fail(err, MC_INVALID, name, "is no name: it is empty or begins with a '/'");
	if (!mc_grow(&aliases, &roots->aliases_capacity, roots->aliases_count + 1,
		sizeof *roots->aliases, "names of inputs", err))
		return false;
	roots->aliases = aliases;
	struct alias alias = {mc_strdup(name, err), mc_strdup(path, err), folder};
	if (alias.name == NULL || alias.path == NULL) {
		free(alias.name);
		free(alias.path);
		return false;
	}
	roots->aliases[roots->aliases_count++] = alias;
	return true;
}

/* The alias that a path begins with: all of it is the name, or a folder's name and a '/'. */
static const struct alias *find_alias(const struct mc_roots *roots, const char *path, bool folder)
{
	for (size_t i = 0; i < roots->aliases_count; i++) {
		const struct alias *alias = &roots->aliases[i];
		size_t length = strlen(alias->name);

		if (strncmp(path, alias->name, length) != 0)
			continue;
		if (path[length] == '\0' ? alias->folder == folder
					 : path[length] == '/' && alias->folder)
			return alias;
	}
	return NULL;
}

const char *mc_roots_file_path(const struct mc_roots *roots, const char *path)
{
	const struct alias *alias = roots == NULL ? NULL : find_alias(roots, path, false);
	return alias != NULL && !alias->folder ? alias->path : path;
}

/* --- opening --------------------------------------------------------------------------------- */

/* The part of path below folder, "." for the folder itself, NULL when it is elsewhere. */
static const char *below(const char *folder, const char *path)
{
	size_t length = strlen(folder);

	if (strncmp(path, folder, length) != 0 || (path[length] != '/' && path[length] != '\0'))
		return NULL;
	path += length;
	while (*path == '/')
		path++;
	return *path ? path : ".";
}

/* Proposal 2 of the head comment. */
static int open_real(const struct mc_roots *roots, const char *path, int flags)
{
	char *real = realpath(path, NULL);
	int fd = -1, code = EXDEV;

	for (size_t i = 0; real && i < roots->count && fd < 0; i++) {
		const char *rest = below(roots->items[i].real, real);

		if (!rest)
			continue;
		fd = open_beneath(roots->items[i].fd, rest, flags, RESOLVE_NO_SYMLINKS);
		code = errno;
	}
	free(real);
	errno = code;
	return fd;
}

/* One root; path absolute and cleaned, or relative to the root. Sets errno; EXDEV: not beneath it.
 */
static int open_in_root(const struct mc_roots *roots, const struct root *root, const char *path,
    int flags, struct mc_error *err)
{
	const char *rest = path;
	char *full;
	int fd, code;

	if (path[0] == '/' || path[0] == '\0') {
		rest = below(root->given, path);
		if (!rest)
			rest = below(root->real, path);
	}
	errno = EXDEV;
	if (!rest)
		return -1;
	fd = open_beneath(root->fd, rest, flags, 0);
	if (fd >= 0 || errno != EXDEV)
		return fd;
	full = mc_format(err, "%s/%s", root->real, rest);
	if (!full) {
		errno = ENOMEM;
		return -1;
	}
	fd = open_real(roots, full, flags);
	code = errno;
	free(full);
	errno = code;
	return fd;
}

/* What to report when every root refused: a file that is missing tells more than one outside, a
 * file that stands but cannot be opened more than a missing one. */
static int telling(int before, int now)
{
	if (now == EXDEV)
		return before;
	if (now == ENOENT && before != EXDEV)
		return before;
	return now;
}

/* -1 and errno. A path outside of all roots: EXDEV, whether it exists or not. */
static int open_in_roots(
    const struct mc_roots *roots, const char *path, int flags, struct mc_error *err)
{
	const struct alias *alias = find_alias(roots, path, (flags & O_DIRECTORY) != 0);
	char *cleaned = alias == NULL ? mc_strdup(path, err)
				      : mc_format(err, "%s%s", alias->path,
					    path + strlen(alias->name));
	int fd = -1, code = EXDEV;

	if (!cleaned) {
		errno = ENOMEM;
		return -1;
	}
	clean(cleaned);
	/* "." is a relative name; only "/" may stay empty. */
	const char *name = cleaned[0] == '\0' && path[0] != '/' ? "." : cleaned;
	for (size_t i = 0; i < roots->count && fd < 0; i++) {
		fd = open_in_root(roots, &roots->items[i], name, flags, err);
		if (fd < 0)
			code = telling(code, errno);
	}
	free(cleaned);
	errno = code;
	return fd;
}

static bool fail_open(const char *path, int code, const char *needed, struct mc_error *err)
{
	switch (code) {
	case EXDEV:
		return mc_fail(err, MC_INVALID, path, "lies outside of the allowed folders");
	case ENOENT:
		return mc_fail(err, MC_NOT_FOUND, path, "does not exist; %s is needed", needed);
	case ENOTDIR:
		return mc_fail(err, MC_INVALID, path,
		    "is not a folder or leads through something that is none; %s is needed",
		    needed);
	case ELOOP:
		return mc_fail(err, MC_INVALID, path, "its symbolic links lead nowhere");
	case ENAMETOOLONG:
		return mc_fail(err, MC_INVALID, path, "is too long for a path");
	case ENXIO:
	case ENODEV:
		return mc_fail(err, MC_INVALID, path, "is not a regular file");
	default:
		return mc_fail_errno(err, code, path, "cannot be opened");
	}
}

/* Takes fd (or -1 and errno); keeps it only when it is a regular file. */
static bool require_file(int fd, const char *path, int *ret_fd, struct mc_error *err)
{
	struct stat st;
	bool ok;

	if (fd < 0)
		return fail_open(path, errno, "a file", err);
	if (fstat(fd, &st) != 0)
		ok = mc_fail_errno(err, errno, path, "cannot be opened");
	else if (S_ISDIR(st.st_mode))
		ok = mc_fail(err, MC_INVALID, path, "is a folder; a file is needed");
	else
		ok = S_ISREG(st.st_mode) || mc_fail(err, MC_INVALID, path, "is not a regular file");
	if (ok)
		*ret_fd = fd;
	else
		close(fd);
	return ok;
}

bool mc_root_open(const struct mc_roots *roots, const char *path, int *ret_fd, struct mc_error *err)
{
	int fd;

	if (path[0] == '\0')
		return mc_fail(err, MC_INVALID, path, "the path is empty; a file is needed");
	fd = roots ? open_in_roots(roots, path, FILE_FLAGS, err) : open(path, FILE_FLAGS);
	return require_file(fd, path, ret_fd, err);
}

bool mc_root_open_folder(
    const struct mc_roots *roots, const char *path, int *ret_fd, struct mc_error *err)
{
	int fd;

	if (path[0] == '\0')
		return mc_fail(err, MC_INVALID, path, "the path is empty; a folder is needed");
	fd = roots ? open_in_roots(roots, path, FOLDER_FLAGS, err) : open(path, FOLDER_FLAGS);
	if (fd < 0)
		return fail_open(path, errno, "a folder", err);
	*ret_fd = fd;
	return true;
}

bool mc_root_open_at(const struct mc_roots *roots, int folder_fd, const char *folder_path,
    const char *name, int *ret_fd, struct mc_error *err)
{
	char *path;
	int fd;
	bool ok;

	if (name[0] == '\0' || strchr(name, '/') || strcmp(name, ".") == 0 ||
	    strcmp(name, "..") == 0)
		return mc_fail(
		    err, MC_INVALID, name, "is not the name of a file in %s", folder_path);
	path = mc_format(err, "%s%s%s", folder_path,
	    folder_path[0] && folder_path[strlen(folder_path) - 1] != '/' ? "/" : "", name);
	if (!path)
		return false;
	if (!roots) {
		fd = openat(folder_fd, name, FILE_FLAGS);
	} else {
		fd = open_beneath(folder_fd, name, FILE_FLAGS, 0);
		/* A link that leaves the folder: the roots decide. */
		if (fd < 0 && errno == EXDEV)
			fd = open_in_roots(roots, path, FILE_FLAGS, err);
	}
	ok = require_file(fd, path, ret_fd, err);
	free(path);
	return ok;
}
