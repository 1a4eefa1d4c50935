/*
 * logits.c - the logits that this program computes of a quantized checkpoint
 *
 *   logits CHECKPOINT IDS OUT
 *
 * CHECKPOINT is a folder that dequantize.h can read, IDS data that hold token ids. Writes the
 * safetensors file OUT: logits F32 [tokens, vocabulary], input_ids I64 [tokens] and start I64
 * [sequences + 1], where each sequence begins. Inputs of linears are not quantized: what is
 * computed with is what was stored.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/dequantize.h"
#include "moecal/evaluate.h"
#include "moecal/linalg.h"

#define MEMORY ((uint64_t)8 << 30) /* of address space; pages that nobody touches cost nothing */

struct door {
	const char *folder, *ids, *out;
	struct mc_arena arena;
	struct mc_env env;
};

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

static bool write_results(const struct results *r, const char *path, struct mc_error *err)
{
	const uint64_t logits[2] = {r->dataset->tokens, r->vocab}, ids = r->dataset->tokens,
		       start = r->dataset->sequences + 1;
	struct mc_st_writer *writer = mc_st_writer_new(path, err);
	bool ok = writer != NULL &&
		  mc_st_writer_declare(writer, "logits", MC_F32, 2, logits, err) &&
		  mc_st_writer_declare(writer, "input_ids", MC_I64, 1, &ids, err) &&
		  mc_st_writer_declare(writer, "start", MC_I64, 1, &start, err) &&
		  mc_st_writer_begin(writer, err);

	for (size_t i = 0; ok && mc_st_writer_entry(writer, i) != NULL; i++)
		ok = write_result(r, writer, mc_st_writer_entry(writer, i)->name, err);
	ok = ok && mc_st_writer_finish(writer, err);
	mc_st_writer_free(writer);
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

	door->env = (struct mc_env){.arena = &door->arena, .pool = mc_pool_new(1, err)};
	bool ok = door->env.pool != NULL && mc_arena_init(&door->arena, MEMORY, err) &&
		  mc_linalg_init(door->env.pool, err) &&
		  mc_dequantize_open(&model, NULL, door->folder, err);
	if (ok) {
		ok = evaluate(door, &model, err);
		mc_model_close(&model);
	}
	mc_pool_free(door->env.pool);
	mc_arena_release(&door->arena);
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
