/*
 * checkpoint.c - a folder of safetensors shards as one set of named tensors
 *
 * Which files and which of their tensors count is decided here and nowhere else.
 */
#include "moecal/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "moecal/alloc.h"
#include "moecal/file.h"

#define INDEX_NAME "model.safetensors.index.json"
#define SINGLE_NAME "model.safetensors"
/* The largest published index has some 15 MB. */
#define INDEX_MAX_BYTES ((size_t)64 << 20)

/* --- lists of file names --------------------------------------------------------------------- */

struct names {
	char **list; /* sorted once complete; owned, as are the names */
	size_t count;
	size_t capacity;
};

static void names_release(struct names *names)
{
	for (size_t i = 0; i < names->count; i++)
		free(names->list[i]);
	free(names->list);
	*names = (struct names){0};
}

static bool names_add(struct names *names, const char *name, struct mc_error *err)
{
	void *list = names->list;
	bool grown = mc_grow(&list, &names->capacity, names->count + 1, sizeof(*names->list),
	    "the list of shards", err);

	names->list = list;
	if (!grown)
		return false;
	names->list[names->count] = mc_strdup(name, err);
	if (!names->list[names->count])
		return false;
	names->count++;
	return true;
}

static int compare_texts(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorted, each name once. */
static void names_settle(struct names *names)
{
	size_t kept = 0;

	if (names->count == 0)
		return;
	qsort(names->list, names->count, sizeof(*names->list), compare_texts);
	for (size_t i = 1; i < names->count; i++) {
		if (strcmp(names->list[kept], names->list[i]) == 0)
			free(names->list[i]);
		else
			names->list[++kept] = names->list[i];
	}
	names->count = kept + 1;
}

/* --- tensors --------------------------------------------------------------------------------- */

static bool ends_with(const char *text, const char *end)
{
	size_t length = strlen(text);
	size_t end_length = strlen(end);

	return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

/* Rotary frequencies that old checkpoints stored; every model computes them. */
static bool is_ignored(const char *name)
{
	return ends_with(name, ".rotary_emb.inv_freq");
}

static int compare_tensors(const void *a, const void *b)
{
	const struct mc_ckpt_tensor *x = a;
	const struct mc_ckpt_tensor *y = b;
	int order = strcmp(x->entry->name, y->entry->name);

	if (order != 0)
		return order;
	return (x->shard > y->shard) - (x->shard < y->shard);
}

static bool add_tensor(
    struct mc_checkpoint *ckpt, const struct mc_st_entry *entry, size_t shard, struct mc_error *err)
{
	if (!mc_add(ckpt->bytes, entry->bytes, &ckpt->bytes))
		return mc_fail(err, MC_CORRUPT, ckpt->path, "the tensors together pass 2^64 bytes");
	ckpt->tensors[ckpt->count++] = (struct mc_ckpt_tensor){entry, (uint32_t)shard};
	return true;
}

/* The list of tensors for at most `count`, empty. */
static bool make_list(struct mc_checkpoint *ckpt, size_t count, struct mc_error *err)
{
	ckpt->tensors =
	    mc_alloc(count ? count : 1, sizeof(*ckpt->tensors), "the list of tensors", err);
	return ckpt->tensors != NULL;
}

/* Every tensor of every shard; a name in two of them has no meaning. */
static bool collect_all(struct mc_checkpoint *ckpt, struct mc_error *err)
{
	size_t count = 0;
	char shown[MC_ST_SHOWN];

	for (size_t i = 0; i < ckpt->shards_count; i++)
		count += ckpt->shards[i].count;
	if (!make_list(ckpt, count, err))
		return false;
	for (size_t i = 0; i < ckpt->shards_count; i++) {
		const struct mc_st_file *shard = &ckpt->shards[i];

		for (size_t k = 0; k < shard->count; k++) {
			if (!is_ignored(shard->entries[k].name) &&
			    !add_tensor(ckpt, &shard->entries[k], i, err))
				return false;
		}
	}
	qsort(ckpt->tensors, ckpt->count, sizeof(*ckpt->tensors), compare_tensors);
	for (size_t i = 1; i < ckpt->count; i++) {
		const struct mc_ckpt_tensor *a = &ckpt->tensors[i - 1];
		const struct mc_ckpt_tensor *b = &ckpt->tensors[i];

		if (strcmp(a->entry->name, b->entry->name) == 0)
			return mc_fail(err, MC_CORRUPT, ckpt->shards[b->shard].name,
			    "tensor '%s' is also in '%s', and there is no " INDEX_NAME
			    " that says which counts",
			    mc_st_shown(b->entry->name, shown), ckpt->shards[a->shard].name);
	}
	return true;
}

/* --- shards ---------------------------------------------------------------------------------- */

static bool open_shards(
    struct mc_checkpoint *ckpt, const struct names *names, bool from_index, struct mc_error *err)
{
	ckpt->shards = mc_alloc(names->count, sizeof(*ckpt->shards), "the list of shards", err);
	if (!ckpt->shards)
		return false;
	for (size_t i = 0; i < names->count; i++) {
		struct mc_error inner;
		int fd;

		mc_error_init(&inner);
		if (!mc_root_open_at(
			ckpt->roots, ckpt->folder_fd, ckpt->path, names->list[i], &fd, &inner)) {
			if (inner.code == MC_NOT_FOUND && from_index)
				return mc_fail(err, MC_CORRUPT, INDEX_NAME,
				    "the index names shard '%s', which is not in the folder",
				    names->list[i]);
			return mc_fail(err, inner.code, names->list[i], "%s", inner.text);
		}
		if (!mc_st_open_fd(&ckpt->shards[i], fd, names->list[i], err))
			return false;
		ckpt->shards_count++;
	}
	return true;
}

/* --- the index ------------------------------------------------------------------------------- */

/* The shard that a member of weight_map names; a plain file name, so that it stays in the folder.
 */
static bool read_shard_name(
    const struct mc_json *value, const char *tensor, const char **ret_name, struct mc_error *err)
{
	const char *name;
	size_t length;
	char shown[MC_ST_SHOWN];
	char name_shown[MC_ST_SHOWN];

	mc_st_shown(tensor, shown);
	if (mc_json_type(value) != MC_JSON_STRING)
		return mc_fail(err, MC_CORRUPT, INDEX_NAME,
		    "weight_map: the shard of tensor '%s' is %s, needed a file name", shown,
		    mc_json_type_name(mc_json_type(value)));
	name = mc_json_string(value, &length);
	if (length == 0 || strlen(name) != length || strchr(name, '/') || strcmp(name, ".") == 0 ||
	    strcmp(name, "..") == 0)
		return mc_fail(err, MC_CORRUPT, INDEX_NAME,
		    "weight_map: the shard of tensor '%s' is '%s', needed a plain file name "
		    "without "
		    "a folder",
		    shown, mc_st_shown(name, name_shown));
	*ret_name = name;
	return true;
}

static bool list_index_shards(const struct mc_json *map, struct names *names, struct mc_error *err)
{
	struct mc_json_iter item = mc_json_iter(map);
	const char *name = NULL;
	const char *last = NULL; /* neighbours mostly share their shard: keeps the list short */

	while (mc_json_next(&item)) {
		if (!read_shard_name(item.value, item.key, &name, err))
			return false;
		if (is_ignored(item.key) || (last && strcmp(last, name) == 0))
			continue;
		if (!names_add(names, name, err))
			return false;
		last = name;
	}
	names_settle(names);
	if (names->count == 0)
		return mc_fail(err, MC_CORRUPT, INDEX_NAME, "weight_map lists no tensors");
	return true;
}

/* Exactly what the index lists, each from the shard it says. */
static bool collect_listed(struct mc_checkpoint *ckpt, const struct mc_json *map,
    const struct names *names, struct mc_error *err)
{
	struct mc_json_iter item = mc_json_iter(map);
	char shown[MC_ST_SHOWN];

	if (!make_list(ckpt, mc_json_size(map), err))
		return false;
	while (mc_json_next(&item)) {
		const char *name = mc_json_string(item.value, NULL);
		const struct mc_st_entry *entry;
		char **found;
		size_t shard;

		if (is_ignored(item.key))
			continue;
		found = bsearch(&name, names->list, names->count, sizeof(name), compare_texts);
		mc_assert(found);
		shard = (size_t)(found - names->list);
		entry = mc_st_find(&ckpt->shards[shard], item.key);
		if (!entry)
			return mc_fail(err, MC_CORRUPT, INDEX_NAME,
			    "the index says that tensor '%s' is in shard '%s', which does not have "
			    "it",
			    mc_st_shown(item.key, shown), name);
		if (!add_tensor(ckpt, entry, shard, err))
			return false;
	}
	qsort(ckpt->tensors, ckpt->count, sizeof(*ckpt->tensors), compare_tensors);
	return true;
}

static bool read_index(int fd, struct mc_json **ret_index, struct mc_error *err)
{
	struct mc_error inner;
	struct mc_buf text;

	mc_error_init(&inner);
	mc_buf_init(&text, INDEX_MAX_BYTES);
	if (mc_file_read_all(fd, INDEX_NAME, &text, &inner))
		*ret_index = mc_json_parse(mc_buf_text(&text), text.length, INDEX_NAME, &inner);
	mc_buf_release(&text);
	if (*ret_index)
		return true;
	/* Too long or not JSON: the file is to be mended, not the request. */
	return mc_fail(
	    err, inner.code == MC_INVALID ? MC_CORRUPT : inner.code, INDEX_NAME, "%s", inner.text);
}

static bool open_indexed(struct mc_checkpoint *ckpt, int index_fd, struct mc_error *err)
{
	struct names names = {0};
	struct mc_json *index = NULL;
	const struct mc_json *map;
	bool done = false;

	if (!read_index(index_fd, &index, err))
		return false;
	map = mc_json_get(index, "weight_map");
	if (!map || mc_json_type(map) != MC_JSON_OBJECT)
		mc_fail(err, MC_CORRUPT, INDEX_NAME, "weight_map is %s, needed an object",
		    map ? mc_json_type_name(mc_json_type(map)) : "missing");
	else
		done = list_index_shards(map, &names, err) &&
		       open_shards(ckpt, &names, true, err) &&
		       collect_listed(ckpt, map, &names, err);
	names_release(&names);
	mc_json_free(index);
	return done;
}

/* --- the folder ------------------------------------------------------------------------------ */

/* consolidated*.safetensors repeats the weights under other names. */
static bool is_shard_name(const char *name)
{
	return name[0] != '.' && ends_with(name, ".safetensors") &&
	       strncmp(name, "consolidated", strlen("consolidated")) != 0;
}

static bool list_folder_shards(
    const struct mc_checkpoint *ckpt, struct names *names, struct mc_error *err)
{
	int fd = openat(ckpt->folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *folder = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *item;
	bool done = true;

	if (!folder) {
		mc_fail_errno(err, errno, ckpt->path, "cannot list the folder");
		if (fd >= 0)
			close(fd);
		return false;
	}
	errno = 0;
	while (done && (item = readdir(folder))) {
		if (is_shard_name(item->d_name))
			done = names_add(names, item->d_name, err);
		errno = 0;
	}
	if (done && errno != 0)
		done = mc_fail_errno(err, errno, ckpt->path, "cannot list the folder");
	closedir(folder);
	names_settle(names);
	if (done && names->count == 0)
		return mc_fail(err, MC_NOT_FOUND, ckpt->path,
		    "the folder has no " INDEX_NAME ", no " SINGLE_NAME
		    " and no other *.safetensors file");
	return done;
}

/* *ret_fd is -1 when the folder has no such file. */
static bool open_if_there(
    const struct mc_checkpoint *ckpt, const char *name, int *ret_fd, struct mc_error *err)
{
	struct mc_error inner;

	mc_error_init(&inner);
	*ret_fd = -1;
	if (mc_root_open_at(ckpt->roots, ckpt->folder_fd, ckpt->path, name, ret_fd, &inner))
		return true;
	*ret_fd = -1;
	if (inner.code == MC_NOT_FOUND)
		return true;
	return mc_fail(err, inner.code, name, "%s", inner.text);
}

static bool open_files(struct mc_checkpoint *ckpt, struct mc_error *err)
{
	struct names names = {0};
	int fd = -1;
	bool done;

	if (!open_if_there(ckpt, INDEX_NAME, &fd, err))
		return false;
	if (fd >= 0) {
		done = open_indexed(ckpt, fd, err);
		close(fd);
		return done;
	}
	if (!open_if_there(ckpt, SINGLE_NAME, &fd, err))
		return false;
	if (fd >= 0) {
		close(fd);
		done = names_add(&names, SINGLE_NAME, err);
	} else {
		done = list_folder_shards(ckpt, &names, err);
	}
	done = done && open_shards(ckpt, &names, false, err) && collect_all(ckpt, err);
	names_release(&names);
	return done;
}

bool mc_checkpoint_open(struct mc_checkpoint *ckpt, const struct mc_roots *roots,
    const char *folder, struct mc_error *err)
{
	memset(ckpt, 0, sizeof(*ckpt));
	ckpt->roots = roots;
	ckpt->path = mc_strdup(folder, err);
	if (!ckpt->path)
		return false;
	if (!mc_root_open_folder(roots, folder, &ckpt->folder_fd, err)) {
		ckpt->folder_fd = -1;
		mc_checkpoint_close(ckpt);
		return false;
	}
	if (!open_files(ckpt, err)) {
		mc_checkpoint_close(ckpt);
		return false;
	}
	return true;
}

void mc_checkpoint_close(struct mc_checkpoint *ckpt)
{
	if (!ckpt->path)
		return; /* zeroed: fd 0 is not ours */
	for (size_t i = 0; i < ckpt->shards_count; i++)
		mc_st_close(&ckpt->shards[i]);
	if (ckpt->folder_fd >= 0)
		close(ckpt->folder_fd);
	free(ckpt->shards);
	free(ckpt->tensors);
	free(ckpt->path);
	memset(ckpt, 0, sizeof(*ckpt));
}

static int compare_name_to_tensor(const void *name, const void *tensor)
{
	return strcmp(name, ((const struct mc_ckpt_tensor *)tensor)->entry->name);
}

const struct mc_ckpt_tensor *mc_checkpoint_find(const struct mc_checkpoint *ckpt, const char *name)
{
	if (ckpt->count == 0)
		return NULL;
	return bsearch(
	    name, ckpt->tensors, ckpt->count, sizeof(*ckpt->tensors), compare_name_to_tensor);
}

bool mc_checkpoint_read(const struct mc_checkpoint *ckpt, const struct mc_ckpt_tensor *tensor,
    uint64_t offset, uint64_t bytes, void *into, struct mc_error *err)
{
	mc_assert(tensor->shard < ckpt->shards_count);
	return mc_st_read(&ckpt->shards[tensor->shard], tensor->entry, offset, bytes, into, err);
}

bool mc_checkpoint_read_file(
    const struct mc_checkpoint *ckpt, const char *name, struct mc_buf *buf, struct mc_error *err)
{
	bool done;
	int fd;

	if (!mc_root_open_at(ckpt->roots, ckpt->folder_fd, ckpt->path, name, &fd, err))
		return false;
	done = mc_file_read_all(fd, name, buf, err);
	close(fd);
	return done;
}
