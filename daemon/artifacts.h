/*
 * artifacts.h - the files of a job folder
 */
#ifndef MOECALD_ARTIFACTS_H
#define MOECALD_ARTIFACTS_H

#include "moecal/json.h"

/* Complete: manifest.json and verdict.json are there, resume/ is not. */
bool folder_is_finished(const char *folder);
/* Of a finished folder: true when verdict.json says valid. */
bool folder_is_valid(const char *folder, bool *ret_valid, struct mc_error *err) MC_CHECKED;
/* [{path, bytes, sha256}] of all files: digests of large ones from the manifest, which was written from
 * the files; of the others read now. New, owned. */
struct mc_json *folder_artifacts(const char *folder, struct mc_error *err) MC_CHECKED;
/* A JSON file of the folder, at most 256 MB. New, owned. */
struct mc_json *folder_json(const char *folder, const char *name, struct mc_error *err) MC_CHECKED;
/* Opens FOLDER/PATH, which is one of folder_artifacts, for reading. */
bool folder_open(const char *folder, const char *path, int *ret_fd, uint64_t *ret_bytes,
    struct mc_error *err) MC_CHECKED;

#endif
