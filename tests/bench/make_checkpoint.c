/*
 * make_checkpoint.c - a mixture-of-experts checkpoint and token ids for measurements
 *
 *   make_checkpoint OUT [--layers N] [--hidden D] [--experts E] [--top-k K] [--intermediate F]
 *                   [--heads H] [--kv-heads N] [--head-dim N] [--vocab V]
 *                   [--sequences N] [--length N] [--seed N]
 *
 * Writes OUT/model.safetensors, OUT/ids.npy and, last, OUT/config.json: where it stands, the folder
 * is complete. Weights are bf16 with standard deviation 0.02, norms are 1. The shapes of a layer
 * are those of a real model of 30 G parameters unless given. The same options give the same bytes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"
#include "moecal/dtype.h"
#include "moecal/file.h"
#include "moecal/safetensors.h"

#define STD 0.02
/* Values made at a time: they stay in the cache until they are written. */
#define CHUNK 262144u
#define MAX_VALUE 1048576u
/* The sum of four bytes: 0 .. 1020, nearly normal. */
#define LEVELS 1021

struct options {
	size_t layers, hidden, experts, top_k, intermediate, heads, kv_heads, head_dim, vocab;
	size_t sequences, length, seed;
};

struct maker {
	struct options o;
	const char *folder;
	uint16_t levels[LEVELS]; /* bf16 of each sum */
	uint16_t *chunk;         /* [CHUNK] */
};

/* --- numbers ---------------------------------------------------------------------------- */

/* A 64-bit number for each position: the order of making does not matter. */
static uint64_t scramble(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

/* A uniform byte has mean 127.5 and variance (256^2 - 1) / 12; four of them four times that. */
static void make_levels(uint16_t levels[LEVELS])
{
	const double deviation = 147.80054; /* sqrt(65535 / 3) */

	for (size_t i = 0; i < LEVELS; i++)
		levels[i] = mc_f32_to_bf16((float)(STD * ((double)i - 510.0) / deviation));
}

/* Two values a draw. count is even. */
static void fill_random(const struct maker *maker, uint64_t seed, size_t count)
{
	for (size_t i = 0; i < count; i += 2) {
		uint64_t draw = scramble(seed + i);
		uint64_t pairs = (draw & 0x00ff00ff00ff00ffu) + (draw >> 8 & 0x00ff00ff00ff00ffu);
		maker->chunk[i] = maker->levels[(pairs & 0xffff) + (pairs >> 16 & 0xffff)];
		maker->chunk[i + 1] = maker->levels[(pairs >> 32 & 0xffff) + (pairs >> 48)];
	}
}

/* --- tensors ---------------------------------------------------------------------------- */

static bool declare(struct mc_st_writer *writer, uint64_t rows, uint64_t cols, const char *name,
    struct mc_error *err)
{
	const uint64_t shape[2] = {rows, cols};

	return mc_st_writer_declare(writer, name, MC_BF16, cols > 0 ? 2 : 1, shape, err);
}

static bool declare_layer(
    struct mc_st_writer *writer, const struct options *o, size_t layer, struct mc_error *err)
{
	const size_t q = o->heads * o->head_dim, kv = o->kv_heads * o->head_dim;
	const struct {
		const char *name;
		size_t rows, cols;
	} parts[] = {{"input_layernorm", o->hidden, 0}, {"post_attention_layernorm", o->hidden, 0},
	    {"self_attn.q_norm", o->head_dim, 0}, {"self_attn.k_norm", o->head_dim, 0},
	    {"self_attn.q_proj", q, o->hidden}, {"self_attn.k_proj", kv, o->hidden},
	    {"self_attn.v_proj", kv, o->hidden}, {"self_attn.o_proj", o->hidden, q},
	    {"mlp.gate", o->experts, o->hidden}};
	static const char *const projections[] = {"gate_proj", "up_proj", "down_proj"};
	char name[128];
	bool ok = true;

	for (size_t i = 0; ok && i < sizeof parts / sizeof *parts; i++) {
		snprintf(name, sizeof name, "model.layers.%zu.%s.weight", layer, parts[i].name);
		ok = declare(writer, parts[i].rows, parts[i].cols, name, err);
	}
	for (size_t i = 0; ok && i < 3 * o->experts; i++) {
		bool down = i % 3 == 2;
		snprintf(name, sizeof name, "model.layers.%zu.mlp.experts.%zu.%s.weight", layer,
		    i / 3, projections[i % 3]);
		ok = declare(writer, down ? o->hidden : o->intermediate,
		    down ? o->intermediate : o->hidden, name, err);
	}
	return ok;
}

static bool declare_all(struct mc_st_writer *writer, const struct options *o, struct mc_error *err)
{
	bool ok = declare(writer, o->vocab, o->hidden, "model.embed_tokens.weight", err) &&
		  declare(writer, o->hidden, 0, "model.norm.weight", err) &&
		  declare(writer, o->vocab, o->hidden, "lm_head.weight", err);

	for (size_t l = 0; ok && l < o->layers; l++)
		ok = declare_layer(writer, o, l, err);
	return ok;
}

/* Tensor number `index`: norms, the only ones of rank 1, are all 1. */
static bool write_tensor(
    struct maker *maker, struct mc_st_writer *writer, size_t index, struct mc_error *err)
{
	const struct mc_st_entry *entry = mc_st_writer_entry(writer, index);
	uint64_t count = entry->bytes / sizeof(uint16_t),
		 seed = scramble(maker->o.seed) + scramble(index);

	for (uint64_t at = 0; at < count; at += CHUNK) {
		size_t n = count - at < CHUNK ? (size_t)(count - at) : CHUNK;
		if (entry->rank == 1)
			for (size_t i = 0; i < n; i++)
				maker->chunk[i] = mc_f32_to_bf16(1.0f);
		else
			fill_random(maker, seed + at, n + n % 2);
		if (!mc_st_writer_data(writer, maker->chunk, n * sizeof *maker->chunk, err))
			return false;
	}
	return true;
}

static bool write_weights(struct maker *maker, struct mc_error *err)
{
	char *path = mc_format(err, "%s/model.safetensors", maker->folder);
	struct mc_st_writer *writer = path == NULL ? NULL : mc_st_writer_new(path, err);
	bool ok = writer != NULL && declare_all(writer, &maker->o, err) &&
		  mc_st_writer_begin(writer, err);

	for (size_t i = 0; ok && mc_st_writer_entry(writer, i) != NULL; i++)
		ok = write_tensor(maker, writer, i, err);
	ok = ok && mc_st_writer_finish(writer, err);
	mc_st_writer_free(writer);
	free(path);
	return ok;
}

/* --- the other files -------------------------------------------------------------------- */

/* Version 1.0 of the format: magic, length of the header, header padded so that data begin at 128.
 */
static bool write_ids(const struct maker *maker, struct mc_error *err)
{
	const struct options *o = &maker->o;
	size_t count = o->sequences * o->length, size = o->vocab <= 65536 ? 2 : 4;
	unsigned char *file = mc_alloc(128 + count * size, 1, "token ids", err);
	char *path = mc_format(err, "%s/ids.npy", maker->folder);
	bool ok = file != NULL && path != NULL;

	if (ok) {
		static const unsigned char magic[] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, 118, 0};
		char header[119];
		int length = snprintf(header, sizeof header,
		    "{'descr': '<u%zu', 'fortran_order': False, 'shape': (%zu, %zu), }", size,
		    o->sequences, o->length);
		memset(file, ' ', 127);
		file[127] = '\n';
		memcpy(file, magic, sizeof magic);
		memcpy(file + sizeof magic, header, (size_t)length);
		for (size_t i = 0; i < count; i++) {
			uint64_t id = scramble(scramble(o->seed) ^ i) % o->vocab;
			for (size_t byte = 0; byte < size; byte++)
				file[128 + i * size + byte] = (unsigned char)(id >> 8 * byte);
		}
		ok = mc_file_write_durable(path, file, 128 + count * size, err);
	}
	free(file);
	free(path);
	return ok;
}

static bool write_config(const struct maker *maker, struct mc_error *err)
{
	const struct options *o = &maker->o;
	size_t positions = o->length > 40960 ? o->length : 40960;
	char *path = mc_format(err, "%s/config.json", maker->folder);
	char *text = mc_format(err,
	    "{\n  \"architectures\": [\"Qwen3MoeForCausalLM\"],\n  \"model_type\": \"qwen3_moe\",\n"
	    "  \"torch_dtype\": \"bfloat16\",\n  \"hidden_act\": \"silu\",\n  \"attention_bias\": "
	    "false,\n"
	    "  \"hidden_size\": %zu,\n  \"num_hidden_layers\": %zu,\n  \"num_attention_heads\": "
	    "%zu,\n"
	    "  \"num_key_value_heads\": %zu,\n  \"head_dim\": %zu,\n  \"intermediate_size\": %zu,\n"
	    "  \"moe_intermediate_size\": %zu,\n  \"num_experts\": %zu,\n  "
	    "\"num_experts_per_tok\": %zu,\n"
	    "  \"norm_topk_prob\": true,\n  \"decoder_sparse_step\": 1,\n  \"mlp_only_layers\": "
	    "[],\n"
	    "  \"rms_norm_eps\": 1e-06,\n  \"rope_theta\": 1000000.0,\n  "
	    "\"max_position_embeddings\": %zu,\n"
	    "  \"use_sliding_window\": false,\n  \"tie_word_embeddings\": false,\n  "
	    "\"vocab_size\": %zu\n}\n",
	    o->hidden, o->layers, o->heads, o->kv_heads, o->head_dim, 8 * o->intermediate,
	    o->intermediate, o->experts, o->top_k, positions, o->vocab);
	bool ok = path != NULL && text != NULL &&
		  mc_file_write_durable(path, text, strlen(text), err);

	free(path);
	free(text);
	return ok;
}

/* --- options ---------------------------------------------------------------------------- */

static bool read_options(int argc, char **argv, struct options *o, struct mc_error *err)
{
	const struct {
		const char *name;
		size_t *value;
	} known[] = {{"--layers", &o->layers}, {"--hidden", &o->hidden}, {"--experts", &o->experts},
	    {"--top-k", &o->top_k}, {"--intermediate", &o->intermediate}, {"--heads", &o->heads},
	    {"--kv-heads", &o->kv_heads}, {"--head-dim", &o->head_dim}, {"--vocab", &o->vocab},
	    {"--sequences", &o->sequences}, {"--length", &o->length}, {"--seed", &o->seed}};

	for (int i = 2; i < argc; i += 2) {
		char *end = NULL;
		size_t k = 0;
		while (k < sizeof known / sizeof *known && strcmp(argv[i], known[k].name) != 0)
			k++;
		if (k == sizeof known / sizeof *known)
			return mc_fail(err, MC_INVALID, argv[i], "is not an option");
		unsigned long long value = i + 1 < argc ? strtoull(argv[i + 1], &end, 10) : 0;
		if (end == NULL || *end != '\0' || value == 0 || value > MAX_VALUE)
			return mc_fail(
			    err, MC_INVALID, argv[i], "needs a number from 1 to %u", MAX_VALUE);
		*known[k].value = (size_t)value;
	}
	if (o->top_k > o->experts || o->heads % o->kv_heads != 0)
		return mc_fail(err, MC_INVALID, "options",
		    "%zu of %zu experts a token, %zu heads over %zu key heads: must fit", o->top_k,
		    o->experts, o->heads, o->kv_heads);
	return true;
}

int main(int argc, char **argv)
{
	static struct maker maker = {.o = {.layers = 2,
					 .hidden = 2048,
					 .experts = 128,
					 .top_k = 8,
					 .intermediate = 768,
					 .heads = 32,
					 .kv_heads = 4,
					 .head_dim = 128,
					 .vocab = 8192,
					 .sequences = 16,
					 .length = 512,
					 .seed = 1}};
	struct mc_error err;

	mc_error_init(&err);
	if (argc < 2 || argv[1][0] == '-') {
		fprintf(stderr, "usage: make_checkpoint OUT [--layers N] ...\n");
		return 2;
	}
	maker.folder = argv[1];
	make_levels(maker.levels);
	maker.chunk = mc_alloc(CHUNK, sizeof *maker.chunk, "values", &err);
	bool ok = maker.chunk != NULL && read_options(argc, argv, &maker.o, &err) &&
		  mc_file_make_folders(maker.folder, &err) && write_weights(&maker, &err) &&
		  write_ids(&maker, &err) && write_config(&maker, &err);
	free(maker.chunk);
	if (!ok)
		fprintf(stderr, "make_checkpoint: %s: %s\n", err.where, err.text);
	return ok ? 0 : 1;
}
