/*
 * export.c - assemble quantization.safetensors and the checkpoint from part files and the original
 *
 * The checkpoint holds, in the order of the modules, the computed tensors of quantized linears and
 * every other tensor of the original (cast when the spec's precision says so), then those that no
 * module claims (extra heads, vision), as they are. Shards by the Hub's rule. Data is streamed.
 */
#include "export.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "quantize_attention.h"

#include "moecal/alloc.h"
#include "moecal/file.h"
#include "moecal/pack.h"

#define COPY_BYTES ((size_t)8 << 20)

/* A tensor to write and where its bytes come from. */
struct output {
	const char *name;               /* borrowed from its source, or `owned` */
	char *owned;                    /* of a slice: "<module>.weight"; or NULL */
	const struct mc_st_entry *part; /* computed, in file; or NULL */
	const struct mc_st_file *file;
	const struct mc_ckpt_tensor *original;
	const struct mc_module *made;  /* whose weight the model's source makes; or NULL */
	uint64_t offset, stored_bytes; /* the part of the original that is written */
	enum mc_dtype dtype;           /* as written */
	unsigned rank;
	uint64_t shape[MC_MAX_RANK];
	uint64_t bytes; /* as written */
	size_t shard;
};

struct outputs {
	size_t count, capacity;
	struct output *items; /* owned */
};

static bool add_output(struct outputs *list, struct output item, struct mc_error *err)
{
	if (!mc_grow((void **)&list->items, &list->capacity, list->count + 1, sizeof *list->items,
		"output tensors", err))
		return false;
	list->items[list->count++] = item;
	return true;
}

static void release_outputs(struct outputs *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->items[i].owned);
	free(list->items);
}

/* What an original's elements are written as. */
static enum mc_dtype written_dtype(const struct mc_job *job, const struct mc_st_entry *entry)
{
	bool cast = job->spec->precision != MC_DTYPE_COUNT && mc_dtype_is_weight(entry->dtype);

	return cast ? job->spec->precision : entry->dtype;
}

static bool add_original(struct outputs *list, const struct mc_job *job,
    const struct mc_ckpt_tensor *tensor, bool may_cast, struct mc_error *err)
{
	const struct mc_st_entry *entry = tensor->entry;
	struct output item = {.name = entry->name,
	    .original = tensor,
	    .rank = entry->rank,
	    .stored_bytes = entry->bytes,
	    .dtype = may_cast ? written_dtype(job, entry) : entry->dtype};

	memcpy(item.shape, entry->shape, sizeof item.shape);
	item.bytes = entry->bytes / mc_dtype_bits(entry->dtype) * mc_dtype_bits(item.dtype);
	return add_output(list, item, err);
}

/* The weight of a module that keeps it. One that is a slice of a fused tensor gets a tensor of its
 * own, because its neighbours may be quantized; so does one that was quantized and is no more. */
static bool add_kept(
    struct outputs *list, const struct mc_job *job, const struct mc_module *m, struct mc_error *err)
{
	const struct mc_st_entry *entry = m->weight->entry;
	struct output item = {.original = m->weight, .rank = 2, .shape = {m->rows, m->cols}};

	if (mc_module_is_made(m))
		item.made = m;
	else if (!mc_module_is_slice(m))
		return add_original(list, job, m->weight, true, err);
	item.owned = mc_format(err, "%s.weight", m->name);
	if (item.owned == NULL)
		return false;
	item.name = item.owned;
	item.offset = m->weight_offset;
	item.dtype = written_dtype(job, entry);
	item.stored_bytes = (uint64_t)m->rows * m->cols * mc_dtype_bits(entry->dtype) / 8;
	item.bytes = (uint64_t)m->rows * m->cols * mc_dtype_bits(item.dtype) / 8;
	if (add_output(list, item, err))
		return true;
	free(item.owned);
	return false;
}

static bool add_part(struct outputs *list, const struct mc_st_file *file,
    const struct mc_st_entry *entry, struct mc_error *err)
{
	struct output item = {.name = entry->name,
	    .part = entry,
	    .file = file,
	    .dtype = entry->dtype,
	    .bytes = entry->bytes,
	    .rank = entry->rank};

	memcpy(item.shape, entry->shape, sizeof item.shape);
	return add_output(list, item, err);
}

/* Part entries whose name is "<module>.<suffix>". */
static bool add_parts(struct outputs *list, const struct mc_packed *layout, const char *module,
    const struct mc_parts *parts, struct mc_error *err)
{
	for (size_t i = 0; i < layout->count; i++) {
		const struct mc_st_file *file;
		char *name = mc_format(err, "%s.%s", module, layout->items[i].suffix);
		const struct mc_st_entry *entry = name == NULL ? NULL
							       : mc_parts_find(parts, name, &file);
		bool ok = entry != NULL ? add_part(list, file, entry, err)
					: mc_fail(err, MC_CORRUPT, name == NULL ? "" : name,
					      "the finished layers' files lack this tensor");
		free(name);
		if (!ok)
			return false;
	}
	return true;
}

/* Every computed tensor of a linear, and its bias. */
static bool add_computed(struct outputs *list, const struct mc_job *job, size_t index,
    const struct mc_parts *parts, struct mc_error *err)
{
	const struct mc_module *m = job->model.modules[index];
	const struct mc_scheme *scheme = mc_job_scheme(job, index);
	struct mc_packed layout;

	return mc_pack_layout(
		   scheme, mc_job_weight_dtype(job, m), m->rows, m->cols, m->name, &layout, err) &&
	       add_parts(list, &layout, m->name, parts, err) &&
	       (m->bias == NULL || add_original(list, job, m->bias, true, err));
}

static bool add_attention(struct outputs *list, const struct mc_job *job, const struct mc_module *m,
    const struct mc_parts *parts, struct mc_error *err)
{
	struct mc_packed layout;

	mc_job_attention_layout(job, m->layer, &layout);
	return add_parts(list, &layout, m->name, parts, err);
}

static int compare_pointers(const void *a, const void *b)
{
	const char *const *x = a, *const *y = b;
	return *x < *y ? -1 : *x > *y;
}

/* Tensors that no module claims: copied as they are. */
static bool add_unclaimed(struct outputs *list, const struct mc_job *job, struct mc_error *err)
{
	const struct mc_model *model = &job->model;
	size_t claimed = 0;
	const void **set = mc_alloc(
	    2 * model->modules_count + 1, sizeof *set, "claimed tensors", err);
	bool ok = set != NULL;

	for (size_t i = 0; ok && i < model->modules_count; i++) {
		if (model->modules[i]->weight != NULL)
			set[claimed++] = model->modules[i]->weight;
		if (model->modules[i]->bias != NULL)
			set[claimed++] = model->modules[i]->bias;
	}
	if (ok)
		qsort(set, claimed, sizeof *set, compare_pointers);
	for (size_t i = 0; ok && i < model->checkpoint.count; i++) {
		const void *key = &model->checkpoint.tensors[i];
		const char *name = model->checkpoint.tensors[i].entry->name;
		/* with tied embeddings the head is written once, as the embedding */
		bool tied_head = model->config.tied_embeddings &&
				 strncmp(name, model->arch->names.lm_head,
				     strlen(model->arch->names.lm_head)) == 0;
		if (!tied_head && mc_model_stored(model, i) == MC_STORED_PLAIN &&
		    bsearch(&key, set, claimed, sizeof *set, compare_pointers) == NULL)
			ok = add_original(list, job, &model->checkpoint.tensors[i], false, err);
	}
	free(set);
	return ok;
}

static bool list_checkpoint(struct outputs *list, const struct mc_export *export,
    const struct mc_parts *parts, struct mc_error *err)
{
	const struct mc_job *job = export->job;

	for (size_t i = 0; i < job->model.modules_count; i++) {
		const struct mc_module *m = job->model.modules[i];
		bool ok = true;
		if (mc_job_scheme(job, i) != NULL)
			ok = add_computed(list, job, i, parts, err);
		else if (m->role == MC_ROLE_ATTENTION)
			ok = add_attention(list, job, m, parts, err);
		else if (m->weight != NULL)
			ok = add_kept(list, job, m, err) &&
			     (m->bias == NULL || add_original(list, job, m->bias, true, err));
		if (!ok)
			return false;
	}
	return add_unclaimed(list, job, err);
}

/* --- writing ---------------------------------------------------------------------------------- */

static bool copy_original(struct mc_st_writer *writer, const struct mc_job *job,
    const struct output *item, unsigned char *buffer, float *wide, struct mc_error *err)
{
	const struct mc_st_entry *entry = item->original->entry;
	bool cast = item->dtype != entry->dtype;

	for (uint64_t at = 0; at < item->stored_bytes; at += COPY_BYTES) {
		uint64_t n = item->stored_bytes - at < COPY_BYTES ? item->stored_bytes - at
								  : COPY_BYTES;
		if (!mc_checkpoint_read(
			&job->model.checkpoint, item->original, item->offset + at, n, buffer, err))
			return false;
		if (cast) {
			size_t elements = n * 8 / mc_dtype_bits(entry->dtype);
			mc_widen(entry->dtype, buffer, wide, elements);
			mc_narrow(wide, item->dtype, buffer, elements);
			n = elements * mc_dtype_bits(item->dtype) / 8;
		}
		if (!mc_st_writer_data(writer, buffer, n, err))
			return false;
	}
	return true;
}

static bool write_made(struct mc_st_writer *writer, const struct mc_export *export,
    const struct output *item, struct mc_error *err)
{
	const struct mc_job *job = export->job;
	size_t mark = mc_arena_mark(export->env->arena);
	struct mc_weight weight;
	bool ok = mc_model_read_weight(
		      &job->model, item->made, job->spec->precision, &weight, export->env, err) &&
		  mc_st_writer_data(writer, weight.data, item->bytes, err);

	mc_arena_rewind(export->env->arena, mark);
	return ok;
}

static bool copy_part(struct mc_st_writer *writer, const struct output *item, unsigned char *buffer,
    struct mc_error *err)
{
	for (uint64_t at = 0; at < item->bytes; at += COPY_BYTES) {
		uint64_t n = item->bytes - at < COPY_BYTES ? item->bytes - at : COPY_BYTES;
		if (!mc_st_read(item->file, item->part, at, n, buffer, err) ||
		    !mc_st_writer_data(writer, buffer, n, err))
			return false;
	}
	return true;
}

static int compare_outputs(const void *a, const void *b)
{
	return strcmp(
	    (*(const struct output *const *)a)->name, (*(const struct output *const *)b)->name);
}

/* Writes the given tensors as one file. `sorted` [count] is ordered by name here. */
static bool write_file(const struct mc_export *export, const char *path,
    const struct output **sorted, size_t count, struct mc_error *err)
{
	struct mc_st_writer *writer = mc_st_writer_new(path, err);
	unsigned char *buffer = mc_alloc(2, COPY_BYTES, "copy buffer", err);
	float *wide = mc_alloc(COPY_BYTES / 2, sizeof *wide, "copy buffer", err);
	bool ok = writer != NULL && buffer != NULL && wide != NULL;

	qsort(sorted, count, sizeof *sorted, compare_outputs);
	for (size_t i = 0; ok && i < count; i++)
		ok = mc_st_writer_declare(writer, sorted[i]->name, sorted[i]->dtype,
		    sorted[i]->rank, sorted[i]->shape, err);
	ok = ok && mc_st_writer_begin(writer, err);
	for (size_t i = 0; ok && i < count; i++) {
		struct output key = {.name = mc_st_writer_entry(writer, i)->name};
		const struct output *key_pointer = &key;
		const struct output **found = bsearch(
		    &key_pointer, sorted, count, sizeof *sorted, compare_outputs);
		mc_assert(found != NULL);
		ok = mc_env_go_on(export->env, err);
		if (ok && (*found)->part != NULL)
			ok = copy_part(writer, *found, buffer, err);
		else if (ok && (*found)->made != NULL)
			ok = write_made(writer, export, *found, err);
		else if (ok)
			ok = copy_original(writer, export->job, *found, buffer, wide, err);
	}
	ok = ok && mc_st_writer_finish(writer, err);
	mc_st_writer_free(writer);
	free(buffer);
	free(wide);
	return ok;
}

/* --- shards ----------------------------------------------------------------------------------- */

/* The Hub's rule: in order; a tensor over the limit gets a shard of its own; no packing. */
static size_t assign_shards(struct outputs *list)
{
	size_t shard = 0;
	uint64_t filled = 0;

	for (size_t i = 0; i < list->count; i++) {
		struct output *item = &list->items[i];
		if (filled > 0 && filled + item->bytes > MC_SHARD_BYTES) {
			shard++;
			filled = 0;
		}
		item->shard = shard;
		filled += item->bytes;
	}
	return shard + 1;
}

static char *shard_name(size_t shard, size_t shards, struct mc_error *err)
{
	return shards == 1 ? mc_strdup("model.safetensors", err)
			   : mc_format(err, "model-%05zu-of-%05zu.safetensors", shard + 1, shards);
}

static bool write_index(
    const char *folder, const struct outputs *list, size_t shards, struct mc_error *err)
{
	struct mc_json *root = mc_json_new_object(), *metadata = mc_json_new_object(),
		       *map = mc_json_new_object();
	struct mc_buf text;
	uint64_t total = 0;
	char *path = mc_format(err, "%s/model.safetensors.index.json", folder);

	mc_buf_init(&text, (size_t)1 << 30);
	bool ok = path != NULL && mc_json_set(root, "metadata", metadata, err) &&
		  mc_json_set(root, "weight_map", map, err);
	for (size_t i = 0; ok && i < list->count; i++) {
		char *name = shard_name(list->items[i].shard, shards, err);
		total += list->items[i].bytes;
		ok = name != NULL &&
		     mc_json_set(map, list->items[i].name, mc_json_new_string(name), err);
		free(name);
	}
	ok = ok && mc_json_set(metadata, "total_size", mc_json_new_integer((int64_t)total), err) &&
	     mc_json_write(root, MC_JSON_PRETTY | MC_JSON_SORTED, &text, err) &&
	     mc_file_write_durable(path, text.data, text.length, err);
	mc_json_free(root);
	mc_buf_release(&text);
	free(path);
	return ok;
}

static bool write_shards(
    const struct mc_export *export, const char *folder, struct outputs *list, struct mc_error *err)
{
	size_t shards = assign_shards(list);
	const struct output **sorted = mc_alloc(list->count, sizeof *sorted, "shard", err);
	bool ok = sorted != NULL;

	for (size_t s = 0; ok && s < shards; s++) {
		size_t count = 0;
		char *name = shard_name(s, shards, err);
		char *path = name == NULL ? NULL : mc_format(err, "%s/%s", folder, name);
		for (size_t i = 0; i < list->count; i++)
			if (list->items[i].shard == s)
				sorted[count++] = &list->items[i];
		ok = path != NULL && write_file(export, path, sorted, count, err);
		free(name);
		free(path);
	}
	free(sorted);
	return ok && (shards == 1 || write_index(folder, list, shards, err));
}

/* --- small files ------------------------------------------------------------------------------ */

static const char *precision_name(enum mc_dtype dtype)
{
	return dtype == MC_BF16 ? "bfloat16" : dtype == MC_F16 ? "float16" : "float32";
}

/* An earlier one, wherever loaders look for it: the new one is the only one. */
static bool remove_quantization(struct mc_json *config, struct mc_error *err)
{
	const struct mc_json *text = mc_json_get(config, "text_config");

	(void)mc_json_remove(config, "compression_config");
	if (mc_json_get(text, "quantization_config") == NULL)
		return true;
	struct mc_json *without = mc_json_copy(text, err);
	if (without == NULL)
		return false;
	(void)mc_json_remove(without, "quantization_config");
	return mc_json_set(config, "text_config", without, err);
}

static bool write_config(const struct mc_export *export, const char *folder, struct mc_error *err)
{
	const struct mc_job *job = export->job;
	struct mc_json *config = mc_json_copy(job->model.config_json, err);
	char *path = mc_format(err, "%s/config.json", folder);
	struct mc_buf text;
	bool ok = config != NULL && path != NULL;

	mc_buf_init(&text, (size_t)64 << 20);
	ok = ok && remove_quantization(config, err) &&
	     mc_json_set(config, "quantization_config", mc_export_config(job, err), err);
	if (ok && job->spec->precision != MC_DTYPE_COUNT) {
		const char *key = mc_json_get(config, "dtype") != NULL ? "dtype" : "torch_dtype";
		ok = mc_json_set(
		    config, key, mc_json_new_string(precision_name(job->spec->precision)), err);
	}
	ok = ok && mc_json_write(config, MC_JSON_PRETTY | MC_JSON_SORTED, &text, err) &&
	     mc_file_write_durable(path, text.data, text.length, err);
	mc_json_free(config);
	mc_buf_release(&text);
	free(path);
	return ok;
}

/* The recipe that lies with the original, as an object; *ret NULL when there is none that can be
 * read. */
static bool read_recipe(const struct mc_export *export, struct mc_json **ret, struct mc_error *err)
{
	struct mc_error absent;
	struct mc_buf text;

	mc_error_init(&absent);
	mc_buf_init(&text, (size_t)1 << 20);
	*ret = NULL;
	if (mc_checkpoint_read_file(&export->job->model.checkpoint, "recipe.yaml", &text, &absent))
		*ret = mc_yaml_parse(mc_buf_text(&text), text.length, "recipe.yaml", &absent);
	mc_buf_release(&text);
	if (*ret != NULL && mc_json_type(*ret) != MC_JSON_OBJECT) {
		mc_json_free(*ret);
		*ret = NULL;
	}
	return absent.code != MC_NO_MEMORY ||
	       mc_fail(err, MC_NO_MEMORY, "recipe.yaml", "%s", absent.text);
}

static bool write_recipe(const struct mc_export *export, const char *folder, struct mc_error *err)
{
	struct mc_json *before, *file = NULL;
	char *path = mc_format(err, "%s/recipe.yaml", folder);
	struct mc_buf text;

	mc_buf_init(&text, (size_t)16 << 20);
	bool ok = path != NULL && read_recipe(export, &before, err);
	if (ok) {
		file = mc_recipe_file(&export->job->spec->recipe, before, err);
		mc_json_free(before);
	}
	ok = file != NULL && mc_yaml_write(file, &text, err) &&
	     mc_file_write_durable(path, text.data, text.length, err);
	mc_json_free(file);
	mc_buf_release(&text);
	free(path);
	return ok;
}

/* Tokenizer and generation files go along when the original has them. */
static bool copy_small_files(
    const struct mc_export *export, const char *folder, struct mc_error *err)
{
	static const char *const names[] = {"tokenizer.json", "tokenizer_config.json",
	    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
	    "tokenizer.model", "chat_template.jinja", "chat_template.json",
	    "generation_config.json", "preprocessor_config.json", "processor_config.json"};

	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		struct mc_error absent;
		struct mc_buf text;
		mc_error_init(&absent);
		mc_buf_init(&text, (size_t)256 << 20);
		bool ok = mc_checkpoint_read_file(
		    &export->job->model.checkpoint, names[i], &text, &absent);
		if (ok) {
			char *path = mc_format(err, "%s/%s", folder, names[i]);
			ok = path != NULL &&
			     mc_file_write_durable(path, mc_buf_text(&text), text.length, err);
			free(path);
		} else if (absent.code == MC_NOT_FOUND) {
			ok = true;
		} else {
			(void)mc_fail(err, absent.code, absent.where, "%s", absent.text);
		}
		mc_buf_release(&text);
		if (!ok)
			return false;
	}
	return true;
}

static bool write_checkpoint(
    const struct mc_export *export, const struct mc_parts *parts, struct mc_error *err)
{
	struct outputs list = {0};
	char *folder = mc_folder_path(export->folder, "resume/model", err);
	bool ok = folder != NULL && mc_file_remove_tree(folder, err) &&
		  mc_file_make_folders(folder, err) && list_checkpoint(&list, export, parts, err) &&
		  write_shards(export, folder, &list, err) && write_config(export, folder, err) &&
		  write_recipe(export, folder, err) && copy_small_files(export, folder, err) &&
		  mc_file_sync_folder(folder, err);

	release_outputs(&list);
	free(folder);
	return ok;
}

/* --- parameters ------------------------------------------------------------------------------- */

/* Everything of a module but its codes. */
static bool is_parameter(const char *name)
{
	const char *suffix = strrchr(name, '.');
	return suffix != NULL && strcmp(suffix, ".weight") != 0 &&
	       strcmp(suffix, ".weight_packed") != 0 && strcmp(suffix, ".weight_shape") != 0;
}

static bool write_parameters(
    const struct mc_export *export, const struct mc_parts *parts, struct mc_error *err)
{
	struct outputs list = {0};
	bool ok = true;

	for (size_t f = 0; f < parts->count; f++)
		for (size_t i = 0; ok && i < parts->files[f].count; i++) {
			const struct mc_st_entry *entry = &parts->files[f].entries[i];
			if (is_parameter(entry->name))
				ok = add_part(&list, &parts->files[f], entry, err);
		}
	const struct output **sorted = ok ? mc_alloc(
						list.count + 1, sizeof *sorted, "parameters", err)
					  : NULL;
	char *path = mc_folder_path(export->folder, "resume/quantization.safetensors", err);
	ok = sorted != NULL && path != NULL;
	for (size_t i = 0; ok && i < list.count; i++)
		sorted[i] = &list.items[i];
	ok = ok && write_file(export, path, sorted, list.count, err);
	free(sorted);
	free(path);
	release_outputs(&list);
	return ok;
}

bool mc_export_write(const struct mc_export *export, struct mc_error *err)
{
	struct mc_parts parts;

	if (!mc_parts_open(&parts, export, err))
		return false;
	bool ok = write_parameters(export, &parts, err) &&
		  (!export->job->spec->save_model || write_checkpoint(export, &parts, err));
	mc_parts_close(&parts);
	return ok;
}

bool mc_export_publish(const struct mc_export *export, struct mc_error *err)
{
	return (!export->job->spec->save_model ||
		   mc_folder_publish(export->folder, "model", err)) &&
	       mc_folder_publish(export->folder, "quantization.safetensors", err) &&
	       mc_folder_publish(export->folder, "verdict.json", err) &&
	       mc_folder_publish(export->folder, "manifest.json", err);
}
