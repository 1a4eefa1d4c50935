/*
 * file.h - whole reads, durable writes
 *
 * Durable means: written aside, synced, renamed, folder synced. A crash leaves the old or the new.
 */
#ifndef MC_FILE_H
#define MC_FILE_H

#include <stdint.h>
#include <stddef.h>

#include "moecal/buf.h"
#include "moecal/error.h"

/* Exactly `length` bytes at `offset`, or CORRUPT ("ends at byte N, needed M") / IO. */
bool mc_file_read_at(int fd, void *into, uint64_t length, uint64_t offset, const char *where,
    struct mc_error *err) MC_CHECKED;
bool mc_file_size(int fd, const char *where, uint64_t *ret_bytes, struct mc_error *err) MC_CHECKED;
/* All of an open file into buf (buf->maximum limits it). */
bool mc_file_read_all(int fd, const char *where, struct mc_buf *buf, struct mc_error *err) MC_CHECKED;
bool mc_file_write(int fd, const void *bytes, size_t length, const char *where, struct mc_error *err)
    MC_CHECKED;
/* Durable write of a whole small file. */
bool mc_file_write_durable(const char *path, const void *bytes, size_t length, struct mc_error *err)
    MC_CHECKED;
/* rename() then fsync of the folder that holds `to`. */
bool mc_file_rename_durable(const char *from, const char *to, struct mc_error *err) MC_CHECKED;
bool mc_file_sync_folder(const char *path, struct mc_error *err) MC_CHECKED;
/* mkdir -p, mode 0777 & ~umask; fine when it exists as a folder. */
bool mc_file_make_folders(const char *path, struct mc_error *err) MC_CHECKED;
bool mc_file_exists(const char *path);
/* rm -rf of a folder that we made; never follows links; fine when absent. */
bool mc_file_remove_tree(const char *path, struct mc_error *err) MC_CHECKED;
/* Bytes free for us on the file system that holds path (or its nearest existing parent). */
bool mc_file_free_bytes(const char *path, uint64_t *ret_bytes, struct mc_error *err) MC_CHECKED;

/* close() of a descriptor that may be -1. */
void mc_close(int fd);

#endif
