/*
 * logits.c - what this program makes of a quantized checkpoint: dense weights, and logits
 *
 *   logits CHECKPOINT IDS OUT
 *
 * CHECKPOINT is a folder in compressed-tensors' format, IDS data that hold token ids. Writes the
 * folder OUT/dense, the checkpoint with its weights dequantized, and OUT/logits.safetensors: logits
 * F32 [tokens, vocabulary], input_ids I64 [tokens] and start I64 [sequences + 1], where each
 * sequence begins. Inputs of linears are not quantized: what is computed with is what was stored.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"
#include "moecal/evaluate.h"
#include "moecal/file.h"
#include "moecal/linalg.h"
#include "moecal/match.h"
#include "moecal/pack.h"

#define MEMORY ((uint64_t)8 << 30) /* of address space; pages that nobody touches cost nothing */
#define NAME 512

struct door {
	const char *folder, *ids, *out;
	char *dense; /* owned */
	struct mc_checkpoint checkpoint;
	struct mc_quant_config config;
	/* [checkpoint.count]: for each weight_scale the scheme of its module; else NULL; owned */
	const struct mc_scheme **schemes;
	struct mc_arena arena;
	struct mc_env env;
};

/* A quantized linear as the checkpoint describes it. */
struct linear {
	char name[NAME];
	const struct mc_scheme *scheme;
	size_t rows, cols;
	enum mc_dtype dt;
};

/* --- names ---------------------------------------------------------------------------------- */

/* "model.norm.weight": "model.norm" into module, "weight" returned; NULL when there is no dot. */
static const char *split_name(const char *name, char module[NAME])
{
	const char *dot = strrchr(name, '.');

	if (dot == NULL || (size_t)(dot - name) >= NAME)
		return NULL;
	memcpy(module, name, (size_t)(dot - name));
	module[dot - name] = '\0';
	return dot + 1;
}

static const struct mc_ckpt_tensor *find(
    const struct door *door, const char *module, const char *suffix)
{
	char name[NAME + 32];

	snprintf(name, sizeof name, "%s.%s", module, suffix);
	return mc_checkpoint_find(&door->checkpoint, name);
}

/* --- what is quantized ------------------------------------------------------------------------ */

/* config.json, without its quantization_config, is the dense checkpoint's. */
static bool read_config(struct door *door, struct mc_error *err)
{
	struct mc_buf text;
	struct mc_json *json = NULL;
	char *path = mc_format(err, "%s/config.json", door->dense);

	mc_buf_init(&text, (size_t)64 << 20);
	bool ok = path != NULL &&
		  mc_checkpoint_read_file(&door->checkpoint, "config.json", &text, err);
	if (ok) {
		json = mc_json_parse(mc_buf_text(&text), text.length, "config.json", err);
		ok = json != NULL;
	}
	if (ok && mc_json_get(json, "quantization_config") == NULL)
		ok = mc_fail(err, MC_INVALID, door->folder,
		    "config.json has no quantization_config: this checkpoint is not quantized");
	ok = ok &&
	     mc_quant_config_read(&door->config, mc_json_get(json, "quantization_config"), err);
	if (ok) {
		mc_json_remove(json, "quantization_config");
		mc_buf_clear(&text);
		ok = mc_json_write(json, MC_JSON_PRETTY, &text, err) &&
		     mc_file_write_durable(path, text.data, text.length, err);
	}
	mc_json_free(json);
	mc_buf_release(&text);
	free(path);
	return ok;
}

/* Modules are those that have a weight_scale; each must be one that the config quantizes. */
static bool match_modules(struct door *door, struct mc_error *err)
{
	size_t count = door->checkpoint.count, found = 0;
	struct mc_match_module *modules = mc_alloc(count + 1, sizeof *modules, "modules", err);
	size_t *position = mc_alloc(count + 1, sizeof *position, "modules", err);
	size_t *scheme = mc_alloc(count + 1, sizeof *scheme, "schemes", err);
	char(*names)[NAME] = mc_alloc(count + 1, sizeof *names, "names", err);
	bool ok = modules != NULL && position != NULL && scheme != NULL && names != NULL;

	for (size_t i = 0; ok && i < count; i++) {
		const char *suffix = split_name(
		    door->checkpoint.tensors[i].entry->name, names[found]);
		if (suffix == NULL || strcmp(suffix, "weight_scale") != 0)
			continue;
		modules[found] = (struct mc_match_module){
		    .name = names[found], .class_name = "Linear", .quantizable = true};
		position[found++] = i;
	}
	ok = ok && mc_match_schemes(&door->config, modules, found, scheme, NULL, NULL, err);
	for (size_t i = 0; ok && i < found; i++) {
		if (scheme[i] == MC_NO_SCHEME || !door->config.schemes[scheme[i]].has_weights)
			ok = mc_fail(err, MC_CORRUPT, names[i],
			    "has a weight_scale, but the config does not quantize it");
		else
			door->schemes[position[i]] = &door->config.schemes[scheme[i]];
	}
	free(modules);
	free(position);
	free(scheme);
	free(names);
	return ok;
}

/* --- one linear ------------------------------------------------------------------------------- */

static bool read_shape(const struct door *door, struct linear *linear, struct mc_error *err)
{
	const struct mc_ckpt_tensor *weight = find(door, linear->name, "weight"),
				    *packed = find(door, linear->name, "weight_packed"),
				    *shape = find(door, linear->name, "weight_shape");
	int64_t sizes[2] = {0, 0};

	if (shape != NULL && shape->entry->dtype == MC_I64 && shape->entry->bytes == sizeof sizes) {
		if (!mc_checkpoint_read(&door->checkpoint, shape, 0, sizeof sizes, sizes, err))
			return false;
	} else if (packed != NULL && packed->entry->dtype == MC_U8 && packed->entry->rank == 2) {
		sizes[0] = (int64_t)packed->entry->shape[0];
		sizes[1] = 2 * (int64_t)packed->entry->shape[1]; /* two values a byte */
	} else if (weight != NULL && weight->entry->rank == 2) {
		sizes[0] = (int64_t)weight->entry->shape[0];
		sizes[1] = (int64_t)weight->entry->shape[1];
	}
	if (sizes[0] <= 0 || sizes[1] <= 0 || sizes[0] > INT32_MAX || sizes[1] > INT32_MAX)
		return mc_fail(err, MC_CORRUPT, linear->name,
		    "neither a weight nor weight_shape says how large it is");
	linear->rows = (size_t)sizes[0];
	linear->cols = (size_t)sizes[1];
	return true;
}

/* The linear whose weight_scale is tensor number `scale`. */
static bool describe(
    const struct door *door, size_t scale, struct linear *linear, struct mc_error *err)
{
	const struct mc_st_entry *entry = door->checkpoint.tensors[scale].entry;

	(void)split_name(entry->name, linear->name);
	linear->scheme = door->schemes[scale];
	/* scales of a byte say nothing of the weight, which is restored as BF16 then */
	bool byte = entry->dtype == MC_F8_E4M3 || entry->dtype == MC_U8;
	linear->dt = byte ? MC_BF16 : entry->dtype;
	if (!byte && !mc_dtype_is_weight(entry->dtype))
		return mc_fail(err, MC_CORRUPT, entry->name, "is %s; needed BF16, F16 or F32",
		    mc_dtype_name(entry->dtype));
	return mc_scheme_require_supported(linear->scheme, err) && read_shape(door, linear, err);
}

/* Its tensors as they are; unpacking complains of what is missing or has another shape. */
static bool read_packed(const struct door *door, const struct linear *linear,
    struct mc_packed *packed, struct mc_error *err)
{
	if (!mc_pack_layout(
		linear->scheme, linear->dt, linear->rows, linear->cols, linear->name, packed, err))
		return false;
	for (size_t i = 0; i < packed->count; i++) {
		struct mc_tensor *tensor = &packed->items[i].tensor;
		const struct mc_ckpt_tensor *stored = find(
		    door, linear->name, packed->items[i].suffix);
		if (stored == NULL)
			continue;
		tensor->dtype = stored->entry->dtype;
		tensor->rank = stored->entry->rank;
		memcpy(tensor->shape, stored->entry->shape, sizeof tensor->shape);
		tensor->data = mc_arena_alloc(
		    door->env.arena, stored->entry->bytes, 1, stored->entry->name, err);
		if (tensor->data == NULL || !mc_checkpoint_read(&door->checkpoint, stored, 0,
						stored->entry->bytes, tensor->data, err))
			return false;
	}
	return true;
}

static bool write_linear(const struct door *door, const struct linear *linear,
    struct mc_st_writer *writer, struct mc_error *err)
{
	size_t mark = mc_arena_mark(door->env.arena), cols = linear->cols;
	float *row = mc_arena_alloc(door->env.arena, cols, sizeof *row, "row", err);
	float *stored = mc_arena_alloc(door->env.arena, cols, sizeof *stored, "row", err);
	struct mc_packed packed;
	struct mc_quantized q;
	bool ok = row != NULL && stored != NULL && read_packed(door, linear, &packed, err) &&
		  mc_unpack(linear->scheme, &packed, linear->rows, cols, linear->name,
		      door->env.arena, &q, err);

	for (size_t r = 0; ok && r < linear->rows; r++) {
		mc_quantized_row(&q, &linear->scheme->weights, linear->dt, r, row);
		mc_narrow(row, linear->dt, stored, cols);
		ok = mc_st_writer_data(writer, stored, cols * mc_dtype_bits(linear->dt) / 8, err);
	}
	mc_arena_rewind(door->env.arena, mark);
	return ok;
}

/* --- the dense checkpoint -----------------------------------------------------------------------
 */

/* What becomes of tensor number `index`: a dense weight, a copy, or nothing. */
static bool declare(
    const struct door *door, size_t index, struct mc_st_writer *writer, struct mc_error *err)
{
	const struct mc_st_entry *entry = door->checkpoint.tensors[index].entry;
	char module[NAME], name[NAME + 8];
	const char *suffix = split_name(entry->name, module);
	struct linear linear;

	if (door->schemes[index] != NULL) {
		if (!describe(door, index, &linear, err))
			return false;
		const uint64_t shape[2] = {linear.rows, linear.cols};
		snprintf(name, sizeof name, "%s.weight", linear.name);
		return mc_st_writer_declare(writer, name, linear.dt, 2, shape, err);
	}
	if (suffix != NULL && find(door, module, "weight_scale") != NULL)
		return true;
	return mc_st_writer_declare(
	    writer, entry->name, entry->dtype, entry->rank, entry->shape, err);
}

static bool copy_tensor(
    const struct door *door, const char *name, struct mc_st_writer *writer, struct mc_error *err)
{
	size_t mark = mc_arena_mark(door->env.arena);
	const struct mc_ckpt_tensor *tensor = mc_checkpoint_find(&door->checkpoint, name);
	uint64_t bytes = tensor->entry->bytes;
	void *data = mc_arena_alloc(door->env.arena, bytes, 1, name, err);
	bool ok = data != NULL &&
		  mc_checkpoint_read(&door->checkpoint, tensor, 0, bytes, data, err) &&
		  mc_st_writer_data(writer, data, bytes, err);

	mc_arena_rewind(door->env.arena, mark);
	return ok;
}

static bool write_tensor(
    const struct door *door, const char *name, struct mc_st_writer *writer, struct mc_error *err)
{
	char module[NAME];
	const char *suffix = split_name(name, module);
	const struct mc_ckpt_tensor *scale = suffix == NULL ? NULL
							    : find(door, module, "weight_scale");
	struct linear linear;

	if (scale == NULL)
		return copy_tensor(door, name, writer, err);
	return describe(door, (size_t)(scale - door->checkpoint.tensors), &linear, err) &&
	       write_linear(door, &linear, writer, err);
}

static bool write_dense(const struct door *door, struct mc_error *err)
{
	char *path = mc_format(err, "%s/model.safetensors", door->dense);
	struct mc_st_writer *writer = path == NULL ? NULL : mc_st_writer_new(path, err);
	bool ok = writer != NULL;

	for (size_t i = 0; ok && i < door->checkpoint.count; i++)
		ok = declare(door, i, writer, err);
	ok = ok && mc_st_writer_begin(writer, err);
	for (size_t i = 0; ok && mc_st_writer_entry(writer, i) != NULL; i++)
		ok = write_tensor(door, mc_st_writer_entry(writer, i)->name, writer, err);
	ok = ok && mc_st_writer_finish(writer, err);
	mc_st_writer_free(writer);
	free(path);
	return ok;
}

static bool dequantize(struct door *door, struct mc_error *err)
{
	if (!mc_checkpoint_open(&door->checkpoint, NULL, door->folder, err))
		return false;
	mc_quant_config_init(&door->config);
	door->schemes = mc_alloc(door->checkpoint.count + 1, sizeof *door->schemes, "schemes", err);
	bool ok = door->schemes != NULL && mc_file_remove_tree(door->dense, err) &&
		  mc_file_make_folders(door->dense, err) && read_config(door, err) &&
		  match_modules(door, err) && write_dense(door, err);
	free(door->schemes);
	mc_quant_config_release(&door->config);
	mc_checkpoint_close(&door->checkpoint);
	return ok;
}

/* --- logits -------------------------------------------------------------------------------------
 */

struct results {
	const struct mc_dataset *dataset;
	size_t vocab;
	float *logits; /* [tokens, vocab] */
};

static bool take_logits(
    void *ctx, size_t first, size_t rows, const float *logits, struct mc_error *err)
{
	const struct results *r = ctx;

	(void)err;
	memcpy(r->logits + first * r->vocab, logits, rows * r->vocab * sizeof *logits);
	return true;
}

static bool write_integer(struct mc_st_writer *writer, uint64_t value, struct mc_error *err)
{
	const int64_t wide = (int64_t)value;

	return mc_st_writer_data(writer, &wide, sizeof wide, err);
}

static bool write_result(
    const struct results *r, struct mc_st_writer *writer, const char *name, struct mc_error *err)
{
	const struct mc_dataset *d = r->dataset;
	bool ok = true;

	if (strcmp(name, "logits") == 0)
		return mc_st_writer_data(
		    writer, r->logits, d->tokens * r->vocab * sizeof *r->logits, err);
	if (strcmp(name, "input_ids") == 0)
		for (size_t t = 0; ok && t < d->tokens; t++)
			ok = write_integer(writer, d->ids[t], err);
	else
		for (size_t s = 0; ok && s <= d->sequences; s++)
			ok = write_integer(writer, d->start[s], err);
	return ok;
}

static bool write_results(const struct results *r, const char *folder, struct mc_error *err)
{
	char *path = mc_format(err, "%s/logits.safetensors", folder);
	const uint64_t logits[2] = {r->dataset->tokens, r->vocab}, ids = r->dataset->tokens,
		       start = r->dataset->sequences + 1;
	struct mc_st_writer *writer = path == NULL ? NULL : mc_st_writer_new(path, err);
	bool ok = writer != NULL &&
		  mc_st_writer_declare(writer, "logits", MC_F32, 2, logits, err) &&
		  mc_st_writer_declare(writer, "input_ids", MC_I64, 1, &ids, err) &&
		  mc_st_writer_declare(writer, "start", MC_I64, 1, &start, err) &&
		  mc_st_writer_begin(writer, err);

	for (size_t i = 0; ok && mc_st_writer_entry(writer, i) != NULL; i++)
		ok = write_result(r, writer, mc_st_writer_entry(writer, i)->name, err);
	ok = ok && mc_st_writer_finish(writer, err);
	mc_st_writer_free(writer);
	free(path);
	return ok;
}

static bool evaluate(const struct door *door, const struct mc_model *model, struct mc_error *err)
{
	struct mc_dataset_source source = {.path = door->ids};
	struct mc_dataset_options options = {
	    .max_seq_length = UINT32_MAX, .vocab_size = model->config.vocab};
	struct mc_evaluation evaluation;
	struct mc_dataset dataset;

	if (!mc_dataset_load(&dataset, &source, 1, &options, NULL, NULL, err))
		return false;
	struct results results = {.dataset = &dataset, .vocab = model->config.vocab};
	results.logits = mc_arena_alloc(
	    door->env.arena, dataset.tokens * results.vocab, sizeof *results.logits, "logits", err);
	bool ok = results.logits != NULL &&
		  mc_evaluate(model, &dataset, MC_DTYPE_COUNT, take_logits, NULL, &results,
		      &door->env, &evaluation, err) &&
		  write_results(&results, door->out, err);
	mc_dataset_release(&dataset);
	return ok;
}

static bool run(struct door *door, struct mc_error *err)
{
	static struct mc_model model; /* the configuration is too big for a stack */

	door->dense = mc_format(err, "%s/dense", door->out);
	door->env = (struct mc_env){.arena = &door->arena, .pool = mc_pool_new(1, err)};
	bool ok = door->dense != NULL && door->env.pool != NULL &&
		  mc_arena_init(&door->arena, MEMORY, err) && mc_linalg_init(door->env.pool, err) &&
		  dequantize(door, err) && mc_model_open(&model, NULL, door->dense, err);
	if (ok) {
		ok = evaluate(door, &model, err);
		mc_model_close(&model);
	}
	mc_pool_free(door->env.pool);
	mc_arena_release(&door->arena);
	free(door->dense);
	return ok;
}

int main(int argc, char **argv)
{
	struct door door = {0};
	struct mc_error err;

	mc_error_init(&err);
	if (argc != 4) {
		fprintf(stderr, "usage: logits CHECKPOINT IDS OUT\n");
		return 2;
	}
	door.folder = argv[1];
	door.ids = argv[2];
	door.out = argv[3];
	if (!run(&door, &err)) {
		fprintf(
		    stderr, "logits: %s: %s: %s\n", mc_code_name(err.code), err.where, err.text);
		return 1;
	}
	return 0;
}
