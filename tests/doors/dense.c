/*
 * dense.c - the weights that this program makes of a quantized checkpoint
 *
 *   dense CHECKPOINT OUT
 *
 * CHECKPOINT is a folder that dequantize.h can read. Writes the safetensors file OUT: every weight
 * that it makes as NAME.weight, every tensor that has nothing to do with a quantization as it is.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"
#include "moecal/dequantize.h"

#define MEMORY ((uint64_t)8 << 30) /* of address space; pages that nobody touches cost nothing */
#define NAME 512

struct door {
	struct mc_model model;
	struct mc_arena arena;
	struct mc_env env;
};

/* --- what there will be -------------------------------------------------------------------------
 */

static bool declare(const struct door *door, struct mc_st_writer *writer, struct mc_error *err)
{
	const struct mc_model *model = &door->model;
	bool ok = true;

	for (size_t i = 0; ok && i < model->modules_count; i++) {
		const struct mc_module *module = model->modules[i];
		if (!mc_module_is_made(module))
			continue;
		const struct mc_st_entry *entry = module->weight->entry;
		ok = mc_st_writer_declare(
		    writer, entry->name, entry->dtype, entry->rank, entry->shape, err);
	}
	for (size_t i = 0; ok && i < model->checkpoint.count; i++) {
		const struct mc_st_entry *entry = model->checkpoint.tensors[i].entry;
		if (mc_model_stored(model, i) == MC_STORED_PLAIN)
			ok = mc_st_writer_declare(
			    writer, entry->name, entry->dtype, entry->rank, entry->shape, err);
	}
	return ok;
}

/* --- data ---------------------------------------------------------------------------------------
 */

static bool make(const struct door *door, const char *name, uint64_t bytes,
    struct mc_st_writer *writer, struct mc_error *err)
{
	const char *dot = strrchr(name, '.');
	char module[NAME];
	struct mc_weight weight;

	snprintf(module, sizeof module, "%.*s", (int)(dot - name), name);
	return mc_model_read_weight(&door->model, mc_model_find(&door->model, module),
		   MC_DTYPE_COUNT, &weight, &door->env, err) &&
	       mc_st_writer_data(writer, weight.data, bytes, err);
}

static bool copy(const struct door *door, const struct mc_ckpt_tensor *tensor,
    struct mc_st_writer *writer, struct mc_error *err)
{
	uint64_t bytes = tensor->entry->bytes;
	void *data = mc_arena_alloc(door->env.arena, bytes, 1, tensor->entry->name, err);

	return data != NULL &&
	       mc_checkpoint_read(&door->model.checkpoint, tensor, 0, bytes, data, err) &&
	       mc_st_writer_data(writer, data, bytes, err);
}

static bool write_tensor(const struct door *door, const struct mc_st_entry *entry,
    struct mc_st_writer *writer, struct mc_error *err)
{
	const struct mc_checkpoint *checkpoint = &door->model.checkpoint;
	const struct mc_ckpt_tensor *tensor = mc_checkpoint_find(checkpoint, entry->name);
	size_t before = mc_arena_mark(door->env.arena);
	bool plain = tensor != NULL &&
		     mc_model_stored(&door->model, (size_t)(tensor - checkpoint->tensors)) ==
			 MC_STORED_PLAIN;
	bool ok = plain ? copy(door, tensor, writer, err)
			: make(door, entry->name, entry->bytes, writer, err);

	mc_arena_rewind(door->env.arena, before);
	return ok;
}

static bool write_all(const struct door *door, const char *path, struct mc_error *err)
{
	struct mc_st_writer *writer = mc_st_writer_new(path, err);
	bool ok = writer != NULL && declare(door, writer, err) && mc_st_writer_begin(writer, err);

	for (size_t i = 0; ok && mc_st_writer_entry(writer, i) != NULL; i++)
		ok = write_tensor(door, mc_st_writer_entry(writer, i), writer, err);
	ok = ok && mc_st_writer_finish(writer, err);
	mc_st_writer_free(writer);
	return ok;
}

int main(int argc, char **argv)
{
	static struct door door; /* the configuration is too big for a stack */
	struct mc_error err;

	mc_error_init(&err);
	if (argc != 3) {
		fprintf(stderr, "usage: dense CHECKPOINT OUT\n");
		return 2;
	}
	door.env = (struct mc_env){.arena = &door.arena};
	bool ok = mc_arena_init(&door.arena, MEMORY, &err);
	if (ok && mc_dequantize_open(&door.model, NULL, argv[1], &err)) {
		ok = write_all(&door, argv[2], &err);
		mc_model_close(&door.model);
	} else {
		ok = false;
	}
	mc_arena_release(&door.arena);
	if (!ok)
		fprintf(stderr, "dense: %s: %s: %s\n", mc_code_name(err.code), err.where, err.text);
	return !ok;
}
