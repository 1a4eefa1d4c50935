/*
 * verify_files.c - the files of a checkpoint: every mistake of an index and of the shards it names
 *
 * Opening a checkpoint stops at the first mistake; here each is looked for, so that one reading
 * tells what is to be fetched or written again.
 */
#include "verify_parts.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "moecal/alloc.h"
#include "moecal/file.h"

#define INDEX_NAME "model.safetensors.index.json"
#define INDEX_MAX_BYTES ((size_t)64 << 20)

struct shard {
	const char *name; /* borrowed from the index */
	struct mc_st_file file;
	bool open;
};

struct shards {
	size_t count, capacity;
	struct shard *list; /* owned */
};

static void release(struct shards *shards)
{
	for (size_t i = 0; i < shards->count; i++)
		if (shards->list[i].open)
			mc_st_close(&shards->list[i].file);
	free(shards->list);
}

static bool is_plain_name(const struct mc_json *value)
{
	size_t length;
	const char *name = value == NULL || mc_json_type(value) != MC_JSON_STRING
			       ? NULL
			       : mc_json_string(value, &length);

	return name != NULL && length > 0 && strlen(name) == length && strchr(name, '/') == NULL &&
	       strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

/* The shard of this name, opened when it is first met; NULL when there is no memory for it. */
static struct shard *shard_of(struct shards *shards, int folder_fd, const char *folder,
    const char *name, struct mc_verdict *verdict, const struct mc_env *env, struct mc_error *err)
{
	struct mc_error inner;
	int fd;

	for (size_t i = shards->count; i-- > 0;)
		if (strcmp(shards->list[i].name, name) == 0)
			return &shards->list[i];
	if (!mc_grow((void **)&shards->list, &shards->capacity, shards->count + 1,
		sizeof *shards->list, "shards", err))
		return NULL;
	struct shard *shard = &shards->list[shards->count++];
	*shard = (struct shard){.name = name};
	mc_error_init(&inner);
	shard->open = mc_root_open_at(env->roots, folder_fd, folder, name, &fd, &inner) &&
		      mc_st_open_fd(&shard->file, fd, name, &inner);
	if (shard->open) {
		mc_verdict_pass(verdict, MC_CHECK_FILES, 1);
	} else if (inner.code == MC_NOT_FOUND) {
		mc_verdict_fail(verdict, MC_CHECK_FILES,
		    "%s names the shard %s, which is not in the folder", INDEX_NAME, name);
	} else if (!mc_verify_note(verdict, MC_CHECK_FILES, &inner)) {
		*err = inner;
		return NULL;
	}
	return shard;
}

static bool check_index(struct mc_verdict *verdict, const struct mc_json *map, int folder_fd,
    const char *folder, const struct mc_env *env, struct mc_error *err)
{
	struct mc_json_iter item = mc_json_iter(map);
	struct shards shards = {0};
	char shown[MC_ST_SHOWN];
	bool ok = true;

	while (ok && mc_json_next(&item)) {
		if (!is_plain_name(item.value)) {
			mc_verdict_fail(verdict, MC_CHECK_FILES,
			    "%s: the shard of %s is no plain file name", INDEX_NAME,
			    mc_st_shown(item.key, shown));
			continue;
		}
		const char *name = mc_json_string(item.value, NULL);
		const struct shard *shard = shard_of(
		    &shards, folder_fd, folder, name, verdict, env, err);
		ok = shard != NULL;
		if (ok && shard->open && mc_st_find(&shard->file, item.key) == NULL)
			mc_verdict_fail(verdict, MC_CHECK_FILES,
			    "%s says that %s is in %s, which does not have it", INDEX_NAME,
			    mc_st_shown(item.key, shown), name);
	}
	release(&shards);
	return ok;
}

/* NULL in *ret: there is none. */
static bool read_index(int folder_fd, const char *folder, const struct mc_env *env,
    struct mc_json **ret, struct mc_error *err)
{
	struct mc_error inner;
	struct mc_buf text;
	int fd;

	*ret = NULL;
	mc_error_init(&inner);
	if (!mc_root_open_at(env->roots, folder_fd, folder, INDEX_NAME, &fd, &inner))
		return inner.code == MC_NOT_FOUND ||
		       mc_fail(err, inner.code, INDEX_NAME, "%s", inner.text);
	mc_buf_init(&text, INDEX_MAX_BYTES);
	if (mc_file_read_all(fd, INDEX_NAME, &text, err))
		*ret = mc_json_parse(mc_buf_text(&text), text.length, INDEX_NAME, err);
	mc_buf_release(&text);
	close(fd);
	return *ret != NULL;
}

bool mc_verify_files(struct mc_verdict *verdict, const char *folder, const struct mc_env *env,
    bool *ret_usable, struct mc_error *err)
{
	struct mc_checkpoint checkpoint;
	struct mc_json *index;
	int fd;

	*ret_usable = false;
	if (!mc_root_open_folder(env->roots, folder, &fd, err))
		return false;
	bool ok = read_index(fd, folder, env, &index, err) ||
		  mc_verify_note(verdict, MC_CHECK_FILES, err);
	const struct mc_json *map = mc_json_get(index, "weight_map");
	if (ok && map != NULL)
		ok = check_index(verdict, map, fd, folder, env, err);
	mc_json_free(index);
	close(fd);
	if (!ok || verdict->checks[MC_CHECK_FILES].failed > 0)
		return ok;
	if (mc_checkpoint_open(&checkpoint, env->roots, folder, err)) {
		mc_verdict_pass(verdict, MC_CHECK_FILES, checkpoint.shards_count);
		mc_checkpoint_close(&checkpoint);
		*ret_usable = true;
		return true;
	}
	/* a folder without any shard is no checkpoint, and not a damaged one */
	return err->code != MC_NOT_FOUND && mc_verify_note(verdict, MC_CHECK_FILES, err);
}

void mc_verify_unlisted(const struct mc_verification *v)
{
	char shown[MC_ST_SHOWN];

	for (size_t s = 0; s < v->checkpoint.shards_count; s++) {
		const struct mc_st_file *file = &v->checkpoint.shards[s];
		for (size_t i = 0; i < file->count; i++) {
			const char *name = file->entries[i].name;
			const char *end = strstr(name, ".rotary_emb.inv_freq");
			const struct mc_ckpt_tensor *listed = mc_checkpoint_find(
			    &v->checkpoint, name);
			if ((end != NULL && end[20] == '\0') ||
			    (listed != NULL && listed->shard == s))
				continue;
			mc_verdict_fail(v->verdict, MC_CHECK_FILES, "%s is in %s, but %s says %s",
			    mc_st_shown(name, shown), file->name, INDEX_NAME,
			    listed == NULL ? "nothing of it"
					   : v->checkpoint.shards[listed->shard].name);
		}
	}
}
