/*
 * file.c - whole reads, durable writes
 *
 * A durable write leaves PATH.partial at every instant before the rename and PATH after it. A
 * leftover .partial of a crash is removed by the next write of the same path.
 */
#include "moecal/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "moecal/alloc.h"
#include "moecal/fault.h"

#define PIECE_BYTES 65536
#define DEEPEST_TREE 64 /* folders that we make are a few levels deep */

/* --- reading --------------------------------------------------------------------------------- */

/* Nothing stands at byte `reached`: says where the file ends, which may be well before. */
static bool fail_short(
    int fd, uint64_t reached, uint64_t needed, const char *where, struct mc_error *err)
{
	struct stat st;

	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size < reached)
		reached = (uint64_t)st.st_size;
	return mc_fail(
	    err, MC_CORRUPT, where, "ends at byte %" PRIu64 ", needed %" PRIu64, reached, needed);
}

bool mc_file_read_at(
    int fd, void *into, uint64_t length, uint64_t offset, const char *where, struct mc_error *err)
{
	unsigned char *to = into;
	uint64_t done = 0, end;

	if (!mc_add(offset, length, &end) || end > INT64_MAX || length > SIZE_MAX)
		return mc_fail(err, MC_CORRUPT, where,
		    "%" PRIu64 " bytes at byte %" PRIu64 " lie past the end of any file", length,
		    offset);
	while (done < length) {
		ssize_t got = pread(fd, to + done, (size_t)(length - done), (off_t)(offset + done));

		if (mc_fault_here("read")) {
			got = -1;
			errno = EIO;
		}
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return mc_fail_errno(
			    err, errno, where, "cannot be read at byte %" PRIu64, offset + done);
		if (got == 0)
			return fail_short(fd, offset + done, end, where, err);
		done += (uint64_t)got;
	}
	return true;
}

bool mc_file_size(int fd, const char *where, uint64_t *ret_bytes, struct mc_error *err)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return mc_fail_errno(err, errno, where, "its size cannot be read");
	*ret_bytes = (uint64_t)st.st_size;
	return true;
}

/* The next bytes of a file (from *offset, which follows) or of a pipe. -1 and errno, 0 at the end.
 */
static ssize_t read_some(int fd, bool pipe, void *into, size_t length, off_t *offset)
{
	ssize_t got;

	do {
		got = pipe ? read(fd, into, length) : pread(fd, into, length, *offset);
		if (mc_fault_here("read")) {
			got = -1;
			errno = EIO;
		}
	} while (got < 0 && errno == EINTR);
	if (got > 0)
		*offset += got;
	return got;
}

bool mc_file_read_all(int fd, const char *where, struct mc_buf *buf, struct mc_error *err)
{
	bool pipe = lseek(fd, 0, SEEK_CUR) < 0;
	char piece[PIECE_BYTES];
	off_t offset = 0;

	for (;;) {
		ssize_t got = read_some(fd, pipe, piece, sizeof(piece), &offset);

		if (got < 0)
			return mc_fail_errno(err, errno, where, "cannot be read");
		if ((size_t)got > buf->maximum - buf->length)
			return mc_fail(err, MC_INVALID, where,
			    "is longer than the %zu bytes allowed", buf->maximum);
		/* Also at the end: so even an empty file leaves a text in the buffer. */
		if (!mc_buf_add(buf, piece, (size_t)got, err))
			return false;
		if (got == 0)
			return true;
	}
}

/* --- writing --------------------------------------------------------------------------------- */

bool mc_file_write(
    int fd, const void *bytes, size_t length, const char *where, struct mc_error *err)
{
	const unsigned char *from = bytes;
	size_t done = 0;

	while (done < length) {
		ssize_t put;

		if (mc_fault_here("write")) {
			put = -1;
			errno = ENOSPC;
		} else {
			put = write(fd, from + done, length - done);
		}
		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return mc_fail_errno(err, errno, where,
			    "cannot be written after %zu of %zu bytes", done, length);
		done += (size_t)put;
	}
	return true;
}

static bool sync_fd(int fd, const char *where, struct mc_error *err)
{
	int code = 0;

	if (mc_fault_here("sync"))
		code = EIO;
	else if (fsync(fd) != 0)
		code = errno;
	if (code != 0)
		return mc_fail_errno(err, code, where, "cannot be synced to the disk");
	return true;
}

bool mc_file_sync_folder(const char *path, struct mc_error *err)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool ok;

	if (fd < 0)
		return mc_fail_errno(err, errno, path, "the folder cannot be opened");
	ok = sync_fd(fd, path, err);
	close(fd);
	return ok;
}

/* The folder that holds path: "." and "/" included. Owned: free(). */
static char *parent_of(const char *path, struct mc_error *err)
{
	size_t length = strlen(path);

	while (length > 1 && path[length - 1] == '/')
		length--;
	while (length > 0 && path[length - 1] != '/')
		length--;
	while (length > 1 && path[length - 1] == '/')
		length--;
	if (length == 0)
		return mc_strdup(".", err);
	return mc_format(err, "%.*s", (int)length, path);
}

bool mc_file_rename_durable(const char *from, const char *to, struct mc_error *err)
{
	char *folder = parent_of(to, err);
	int code = 0;
	bool ok;

	if (!folder)
		return false;
	if (mc_fault_here("rename"))
		code = EIO;
	else if (rename(from, to) != 0)
		code = errno;
	ok = code == 0 || mc_fail_errno(err, code, to, "cannot be put in place of %s", from);
	ok = ok && mc_file_sync_folder(folder, err);
	free(folder);
	return ok;
}

static bool write_aside(const char *path, const void *bytes, size_t length, struct mc_error *err)
{
	int fd;
	bool ok;

	unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
	if (fd < 0)
		return mc_fail_errno(err, errno, path, "cannot be made");
	ok = mc_file_write(fd, bytes, length, path, err) && sync_fd(fd, path, err);
	if (close(fd) != 0 && ok)
		ok = mc_fail_errno(err, errno, path, "cannot be closed");
	return ok;
}

bool mc_file_write_durable(const char *path, const void *bytes, size_t length, struct mc_error *err)
{
	char *partial = mc_format(err, "%s.partial", path);
	bool ok;

	if (!partial)
		return false;
	ok = write_aside(partial, bytes, length, err) && mc_file_rename_durable(partial, path, err);
	if (!ok)
		unlink(partial);
	free(partial);
	return ok;
}

/* --- folders --------------------------------------------------------------------------------- */

static bool is_folder(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool make_folder(const char *path, struct mc_error *err)
{
	int code;

	if (mkdir(path, 0777) == 0)
		return true;
	code = errno;
	/* Whatever the reason (a read-only "/", say): what stands already need not be made. */
	if (is_folder(path))
		return true;
	if (code == EEXIST || code == ENOTDIR)
		return mc_fail(err, MC_CONFLICT, path, "is in the way: a folder is needed here");
	return mc_fail_errno(err, code, path, "the folder cannot be made");
}

bool mc_file_make_folders(const char *path, struct mc_error *err)
{
	char *part = mc_strdup(path, err);
	bool ok = part != NULL;

	for (char *s = part; ok && *s; s++) {
		if (*s != '/' || s == part)
			continue;
		*s = '\0';
		ok = make_folder(part, err);
		*s = '/';
	}
	ok = ok && make_folder(path, err);
	free(part);
	return ok;
}

bool mc_file_exists(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0;
}

static bool remove_entry(
    int folder, const char *name, const char *where, unsigned depth, struct mc_error *err);

/* Removes everything in the opened folder; takes fd over. */
static bool empty_folder(int fd, const char *where, unsigned depth, struct mc_error *err)
{
	DIR *entries = fdopendir(fd);
	struct dirent *entry;
	bool ok = true;

	if (!entries) {
		int code = errno;

		close(fd);
		return mc_fail_errno(err, code, where, "a folder cannot be listed");
	}
	while (ok && (errno = 0, entry = readdir(entries))) {
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			ok = remove_entry(dirfd(entries), entry->d_name, where, depth, err);
	}
	if (ok && errno != 0)
		ok = mc_fail_errno(err, errno, where, "a folder cannot be listed");
	closedir(entries);
	return ok;
}

static bool remove_entry(
    int folder, const char *name, const char *where, unsigned depth, struct mc_error *err)
{
	int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int flags = 0;

	if (depth > DEEPEST_TREE) {
		if (fd >= 0)
			close(fd);
		return mc_fail(
		    err, MC_IO, where, "has more than %d levels of folders", DEEPEST_TREE);
	}
	if (fd >= 0) {
		if (!empty_folder(fd, where, depth + 1, err))
			return false;
		flags = AT_REMOVEDIR;
	} else if (errno == EACCES || errno == EMFILE || errno == ENFILE) {
		return mc_fail_errno(
		    err, errno, where, "'%s' cannot be opened to be removed", name);
	}
	/* Anything else that is no folder, links included, is unlinked itself. */
	if (unlinkat(folder, name, flags) != 0 && errno != ENOENT)
		return mc_fail_errno(err, errno, where, "'%s' cannot be removed", name);
	return true;
}

bool mc_file_remove_tree(const char *path, struct mc_error *err)
{
	char *bare = mc_strdup(path, err);
	bool ok;

	if (!bare)
		return false;
	/* "link/" would name what the link leads to. */
	for (size_t n = strlen(bare); n > 1 && bare[n - 1] == '/'; n--)
		bare[n - 1] = '\0';
	ok = remove_entry(AT_FDCWD, bare, path, 0, err);
	free(bare);
	return ok;
}

bool mc_file_free_bytes(const char *path, uint64_t *ret_bytes, struct mc_error *err)
{
	char *folder = mc_strdup(path, err);
	struct statvfs fs;
	uint64_t bytes;

	while (folder && statvfs(folder, &fs) != 0) {
		int code = errno;
		char *above = code == ENOENT || code == ENOTDIR ? parent_of(folder, err) : NULL;
		bool stuck = !above || strcmp(above, folder) == 0;

		if (stuck) {
			free(above);
			free(folder);
			return mc_fail_errno(err, code, path, "its free space cannot be read");
		}
		free(folder);
		folder = above;
	}
	if (!folder)
		return false;
	free(folder);
	if (!mc_mul(fs.f_bavail, fs.f_frsize, &bytes))
		bytes = UINT64_MAX;
	*ret_bytes = bytes;
	return true;
}

void mc_close(int fd)
{
	if (fd >= 0)
		close(fd);
}
