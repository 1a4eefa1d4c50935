/*
 * root.h - open files beneath allowed folders only
 *
 * The kernel decides whether a path escapes (openat2, RESOLVE_BENEATH), never string code.
 * Symbolic links that stay beneath the root are followed (hub caches are made of them).
 */
#ifndef MC_ROOT_H
#define MC_ROOT_H

#include <stdint.h>
#include <stddef.h>

#include "moecal/error.h"

struct mc_roots; /* a list of allowed folders */

/* An empty list allows nothing. Owned: mc_roots_free. */
struct mc_roots *mc_roots_new(struct mc_error *err) MC_CHECKED;
void mc_roots_free(struct mc_roots *roots);
/* Errors: NOT_FOUND, INVALID when not a folder, UNSUPPORTED on a kernel without openat2. */
bool mc_roots_add(struct mc_roots *roots, const char *folder, struct mc_error *err) MC_CHECKED;

/*
 * Lets `name` stand for `path`, a folder or a file beneath a root: opening the name opens the path
 * by the same rules, errors say the name. So what a job is told, what it writes down and what it
 * complains of does not tell where things lie. A folder and a file may have the same name.
 * Errors: INVALID (empty name, one that begins with a slash), NO_MEMORY.
 */
bool mc_roots_add_alias(struct mc_roots *roots, const char *name, const char *path, bool folder,
    struct mc_error *err) MC_CHECKED;
/* The path of the file that `path` is a name of, else `path` itself; roots may be NULL. Borrowed. */
const char *mc_roots_file_path(const struct mc_roots *roots, const char *path);

/*
 * Opens a regular file for reading. roots NULL: any path. Otherwise the path, absolute or relative
 * to a root, must lie beneath one of the roots. The error names the path as given.
 * Errors: NOT_FOUND, INVALID (outside, not a regular file), IO. Owned: close().
 */
bool mc_root_open(const struct mc_roots *roots, const char *path, int *ret_fd, struct mc_error *err)
    MC_CHECKED;
/* The same for a folder (O_PATH|O_DIRECTORY): to open files in it with mc_root_open_at. */
bool mc_root_open_folder(const struct mc_roots *roots, const char *path, int *ret_fd,
    struct mc_error *err) MC_CHECKED;
/* A regular file `name` (no '/') in an opened folder. roots as above: with roots, links in the folder
 * must stay beneath a root (hub caches link to ../../blobs). */
bool mc_root_open_at(const struct mc_roots *roots, int folder_fd, const char *folder_path,
    const char *name, int *ret_fd, struct mc_error *err) MC_CHECKED;

#endif
