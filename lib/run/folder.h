/*
 * folder.h - the job folder: its paths, who may use it, and how results get their final names
 *
 * While a job runs, everything that is not finished lies in resume/. Publishing renames the
 * complete results one by one, the manifest last; then resume/ goes. A crash in between is mended
 * by running again: what is in resume/ is published over what is there.
 */
#ifndef MC_RUN_FOLDER_H
#define MC_RUN_FOLDER_H

#include "moecal/error.h"

struct mc_folder {
	char *path; /* owned */
	int lock;   /* the folder, open and locked while the job runs: two runs never share one */
};

/* Makes the folder and its resume/ when absent. CONFLICT when it holds other things, or when another
 * process is working in it. */
bool mc_folder_open(struct mc_folder *folder, const char *path, bool *ret_resuming,
    struct mc_error *err) MC_CHECKED;
void mc_folder_release(struct mc_folder *folder);
/* "<folder>/<name>"; owned by the caller. */
char *mc_folder_path(
    const struct mc_folder *folder, const char *name, struct mc_error *err) MC_CHECKED;
/* "<folder>/resume/<stem>-<index, five digits><ending>"; owned by the caller. */
char *mc_folder_numbered(const struct mc_folder *folder, const char *stem, size_t index,
    const char *ending, struct mc_error *err) MC_CHECKED;
/* resume/<name> -> <name>; a folder of that name is removed first. */
bool mc_folder_publish(
    const struct mc_folder *folder, const char *name, struct mc_error *err) MC_CHECKED;
/* Removes resume/. */
bool mc_folder_finish(const struct mc_folder *folder, struct mc_error *err) MC_CHECKED;

#endif
