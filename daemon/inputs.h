/*
 * inputs.h - models and datasets that requests name: where they lie and whether they changed
 */
#ifndef MOECALD_INPUTS_H
#define MOECALD_INPUTS_H

#include "service.h"

/*
 * The folder of a model as requests name it: a path (absolute, or relative to an allowed folder), or
 * a Hub id "owner/name" whose snapshot lies in a Hub cache beneath an allowed folder. *ret is opened
 * by mc_root_open_folder with service->roots; owned. Errors name what was asked for, never where it
 * lies: NOT_FOUND, INVALID (outside).
 */
bool input_find_model(struct service *service, const char *name, char **ret, struct mc_error *err) MC_CHECKED;
/* A file of data, the same way (without Hub ids). */
bool input_find_dataset(struct service *service, const char *path, char **ret, struct mc_error *err) MC_CHECKED;
/*
 * Whether files are still those of the snapshot [{name, bytes, inode, mtime_ns}] that the inspection
 * took: in the folder `path` (model), or the file itself (dataset, one entry). Gone counts as changed.
 */
bool input_has_changed(const struct mc_roots *roots, enum resource_kind kind, const char *path,
    const struct mc_json *files);
/* The first of a request's inputs [{kind, name, path, files, registered, uploaded}] whose files are not
 * those of its registration any more, or NULL. Uploads lie in our own folder, where nobody else writes. */
const struct mc_json *inputs_first_changed(const struct mc_roots *roots, const struct mc_json *inputs);
/* Allowed folders and the folder of uploads, as --allow options; appended to argv, which has room for
 * 2 * (folders + 1) more. The strings are borrowed: uploads from the caller. */
size_t input_allow_options(struct service *service, const char *uploads, char **argv, size_t count);

#endif
