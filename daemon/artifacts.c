/*
 * artifacts.c - see artifacts.h
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "artifacts.h"

#include "moecal/alloc.h"
#include "moecal/file.h"
#include "moecal/root.h"
#include "moecal/sha256.h"

#define MAX_JSON ((size_t)256 << 20)

static bool has(const char *folder, const char *name)
{
	struct mc_error err;

	mc_error_init(&err);
	char *path = mc_format(&err, "%s/%s", folder, name);
	bool there = path != NULL && mc_file_exists(path);
	free(path);
	return there;
}

bool folder_is_finished(const char *folder)
{
	return has(folder, "manifest.json") && has(folder, "verdict.json") &&
	       !has(folder, "resume");
}

bool folder_open(
    const char *folder, const char *path, int *ret_fd, uint64_t *ret_bytes, struct mc_error *err)
{
	struct mc_roots *roots = mc_roots_new(err);
	/* beneath the folder and nowhere else, whatever the path says */
	bool ok = roots != NULL && mc_roots_add(roots, folder, err) &&
		  mc_root_open(roots, path, ret_fd, err);

	if (ok && !mc_file_size(*ret_fd, path, ret_bytes, err)) {
		close(*ret_fd);
		ok = false;
	}
	mc_roots_free(roots);
	return ok;
}

struct mc_json *folder_json(const char *folder, const char *name, struct mc_error *err)
{
	struct mc_buf text;
	struct mc_json *json = NULL;
	uint64_t bytes;
	int fd;

	if (!folder_open(folder, name, &fd, &bytes, err))
		return NULL;
	mc_buf_init(&text, MAX_JSON);
	if (mc_file_read_all(fd, name, &text, err))
		json = mc_json_parse(mc_buf_text(&text), text.length, name, err);
	close(fd);
	mc_buf_release(&text);
	return json;
}

bool folder_is_valid(const char *folder, bool *ret_valid, struct mc_error *err)
{
	struct mc_json *verdict = folder_json(folder, "verdict.json", err);
	const struct mc_json *valid = mc_json_get(verdict, "valid");
	bool ok = verdict != NULL &&
		  (mc_json_type(valid) == MC_JSON_BOOL ||
		      mc_fail(err, MC_CORRUPT, "verdict.json", "has no 'valid'"));

	if (ok)
		*ret_valid = mc_json_bool(valid);
	mc_json_free(verdict);
	return ok;
}

static bool add_file(
    struct mc_json *list, const char *folder, const char *name, struct mc_error *err)
{
	char hex[MC_SHA256_HEX];
	uint64_t bytes;
	int fd;

	if (!folder_open(folder, name, &fd, &bytes, err))
		return false;
	struct mc_json *one = mc_json_new_object();
	bool ok = mc_sha256_fd(fd, name, hex, &bytes, err);
	close(fd);
	ok = mc_json_append(list, one, err) && ok;
	return ok && mc_json_set(one, "path", mc_json_new_string(name), err) &&
	       mc_json_set(one, "bytes", mc_json_new_integer((int64_t)bytes), err) &&
	       mc_json_set(one, "sha256", mc_json_new_string(hex), err);
}

struct mc_json *folder_artifacts(const char *folder, struct mc_error *err)
{
	static const char *const others[] = {
	    "manifest.json", "spec.json", "calibration.db", "events.jsonl"};
	struct mc_json *manifest = folder_json(folder, "manifest.json", err);
	const struct mc_json *listed = mc_json_get(manifest, "artifacts");
	struct mc_json *list = NULL;
	bool ok = manifest != NULL &&
		  (mc_json_type(listed) == MC_JSON_ARRAY ||
		      mc_fail(err, MC_CORRUPT, "manifest.json", "has no 'artifacts'"));

	if (ok) {
		list = mc_json_copy(listed, err);
		ok = list != NULL;
	}
	for (size_t i = 0; ok && i < sizeof others / sizeof *others; i++)
		ok = !has(folder, others[i]) || add_file(list, folder, others[i], err);
	mc_json_free(manifest);
	if (ok)
		return list;
	mc_json_free(list);
	return NULL;
}
