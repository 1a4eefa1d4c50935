/*
 * toy.c - tiny checkpoints with seeded random weights, whole or with one flaw
 */
#include "reference/toy.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"
#include "moecal/file.h"
#include "moecal/safetensors.h"

#define NAME 192

struct toy_tensor {
	char name[NAME];
	char key[96]; /* what it is: the numbers come from here; of a fused one the layer's */
	unsigned rank;
	uint64_t shape[3];
	float offset, scale;
	enum { WHOLE, FUSED_GATE_UP, FUSED_DOWN } layout;
};

struct list {
	const struct mc_toy *toy;
	size_t count, capacity;
	struct toy_tensor *items;
};

struct mc_toy mc_toy(enum mc_toy_kind kind)
{
	return (struct mc_toy){.kind = kind,
	    .seed = 1,
	    .dtype = MC_BF16,
	    .layers = 2,
	    .hidden = 32,
	    .heads = 4,
	    .kv_heads = 2,
	    .head_dim = 12,
	    .vocab = 64,
	    .experts = 4,
	    .experts_per_token = 2,
	    .expert_intermediate = 24,
	    .intermediate = 40,
	    .shards = 1};
}

/* --- numbers -----------------------------------------------------------------------------------
 */

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static uint64_t stream_of(uint64_t seed, const char *key)
{
	uint64_t hash = 0xcbf29ce484222325u;

	for (; *key != '\0'; key++)
		hash = (hash ^ (unsigned char)*key) * 0x100000001b3u;
	return mix(hash ^ mix(seed));
}

/* n numbers from -1 to 1 of a stream, from number `first` on. */
static void fill(uint64_t stream, uint64_t first, float offset, float scale, size_t n, float *out)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t bits = mix(stream + (first + i + 1) * 0x9e3779b97f4a7c15u) >> 40;
		out[i] = offset + scale * ((float)bits / (float)(1 << 23) - 1);
	}
}

/* Row `row` of all rows of the tensor, its leading dimensions taken together. */
static void fill_row(const struct mc_toy *toy, const struct toy_tensor *t, uint64_t row, float *out)
{
	uint64_t cols = t->shape[t->rank - 1], per_expert = t->rank == 3 ? t->shape[1] : 0;
	const char *role = "down";
	uint64_t r = row;
	char key[160];

	snprintf(key, sizeof key, "%s", t->key);
	if (t->layout != WHOLE) {
		r = row % per_expert;
		if (t->layout == FUSED_GATE_UP) {
			role = r < per_expert / 2 ? "gate" : "up";
			r %= per_expert / 2;
		}
		snprintf(key, sizeof key, "%s.%zu.%s", t->key, (size_t)(row / per_expert), role);
	}
	fill(stream_of(toy->seed, key), r * cols, t->offset, t->scale, cols, out);
}

/* --- the list of tensors ------------------------------------------------------------------------
 */

static bool is_named(const char *flaw, const char *name)
{
	return flaw != NULL && strcmp(flaw, name) == 0;
}

/* fmt makes the name; the caller then sets what differs from a linear [rows, cols]. */
static struct toy_tensor *add(struct list *list, const char *key, uint64_t rows, uint64_t cols,
    struct mc_error *err, const char *fmt, ...) MC_PRINTF(6, 7);
static struct toy_tensor *add(struct list *list, const char *key, uint64_t rows, uint64_t cols,
    struct mc_error *err, const char *fmt, ...)
{
	void *items = list->items;
	va_list arguments;

	if (!mc_grow(&items, &list->capacity, list->count + 1, sizeof *list->items, "toy", err))
		return NULL;
	list->items = items;
	struct toy_tensor *t = &list->items[list->count++];
	float scale = 1;
	while (cols > 0 && scale * scale * (float)cols > 3) /* keeps the variance of what goes in */
		scale /= 2;
	*t = (struct toy_tensor){.rank = cols > 0 ? 2 : 1, .shape = {rows, cols}, .scale = scale};
	if (cols == 0) { /* norms; biases are as good around one */
		t->offset = 1;
		t->scale = 0.25f;
	}
	snprintf(t->key, sizeof t->key, "%s", key);
	va_start(arguments, fmt);
	vsnprintf(t->name, sizeof t->name, fmt, arguments);
	va_end(arguments);
	return t;
}

static bool add_attention(struct list *list, size_t l, struct mc_error *err)
{
	const struct mc_toy *toy = list->toy;
	uint64_t q = toy->heads * toy->head_dim, kv = toy->kv_heads * toy->head_dim,
		 D = toy->hidden;
	const struct {
		const char *role;
		uint64_t rows, cols;
	} linears[] = {{"q", q, D}, {"k", kv, D}, {"v", kv, D}, {"o", D, q}};
	char key[64];

	for (size_t i = 0; i < 4; i++) {
		const char *role = linears[i].role;
		snprintf(key, sizeof key, "%zu.%s", l, role);
		if (!add(list, key, linears[i].rows, linears[i].cols, err,
			"model.layers.%zu.self_attn.%s_proj.weight", l, role))
			return false;
		snprintf(key, sizeof key, "%zu.%s.bias", l, role);
		if (toy->attention_bias && !add(list, key, linears[i].rows, 0, err,
					       "model.layers.%zu.self_attn.%s_proj.bias", l, role))
			return false;
	}
	for (size_t i = 0; i < 2 && toy->kind == MC_TOY_QWEN3_MOE; i++) {
		snprintf(key, sizeof key, "%zu.%s_norm", l, linears[i].role);
		if (!add(list, key, toy->head_dim, 0, err,
			"model.layers.%zu.self_attn.%s_norm.weight", l, linears[i].role))
			return false;
	}
	return true;
}

static bool is_dense(const struct mc_toy *toy, size_t layer)
{
	return layer < 64 && (toy->dense_layers >> layer & 1) != 0;
}

static const char *block_name(const struct mc_toy *toy)
{
	return toy->kind == MC_TOY_MIXTRAL && !toy->version_5 ? "block_sparse_moe" : "mlp";
}

/* Gate, up and down below `prefix`. */
static bool add_gated(
    struct list *list, const char *key, const char *prefix, size_t width, struct mc_error *err)
{
	const struct mc_toy *toy = list->toy;
	bool numbered = strcmp(block_name(toy), "mlp") != 0;
	const struct {
		const char *role, *name, *number;
		uint64_t rows, cols;
	} linears[] = {{"gate", "gate_proj", "w1", width, toy->hidden},
	    {"up", "up_proj", "w3", width, toy->hidden},
	    {"down", "down_proj", "w2", toy->hidden, width}};
	char full[96];

	for (size_t i = 0; i < 3; i++) {
		snprintf(full, sizeof full, "%s.%s", key, linears[i].role);
		if (!add(list, full, linears[i].rows, linears[i].cols, err, "%s.%s.weight", prefix,
			numbered ? linears[i].number : linears[i].name))
			return false;
	}
	return true;
}

static bool add_fused(
    struct list *list, const char *key, size_t l, const char *block, struct mc_error *err)
{
	const struct mc_toy *toy = list->toy;
	uint64_t E = toy->experts, F = toy->expert_intermediate, D = toy->hidden;

	struct toy_tensor *up =
	    add(list, key, 2 * F, D, err, "model.layers.%zu.%s.experts.gate_up_proj", l, block);
	if (up == NULL)
		return false;
	up->rank = 3;
	memcpy(up->shape, (uint64_t[]){E, 2 * F, D}, sizeof up->shape);
	up->layout = FUSED_GATE_UP;
	struct toy_tensor *down =
	    add(list, key, D, F, err, "model.layers.%zu.%s.experts.down_proj", l, block);
	if (down == NULL)
		return false;
	down->rank = 3;
	memcpy(down->shape, (uint64_t[]){E, D, F}, sizeof down->shape);
	down->layout = FUSED_DOWN;
	return true;
}

static bool add_ffn(struct list *list, size_t l, struct mc_error *err)
{
	const struct mc_toy *toy = list->toy;
	const char *block = block_name(toy);
	char key[64], prefix[NAME / 2];

	if (is_dense(toy, l)) {
		snprintf(key, sizeof key, "%zu.dense", l);
		snprintf(prefix, sizeof prefix, "model.layers.%zu.mlp", l);
		return add_gated(list, key, prefix, toy->intermediate, err);
	}
	snprintf(key, sizeof key, "%zu.router", l);
	struct toy_tensor *router = add(
	    list, key, toy->experts, toy->hidden, err, "model.layers.%zu.%s.gate.weight", l, block);
	if (router == NULL)
		return false;
	router->scale = 1; /* clear choices */
	if (toy->fused) {
		snprintf(key, sizeof key, "%zu.experts", l);
		return add_fused(list, key, l, block, err);
	}
	for (size_t e = 0; e < toy->experts; e++) {
		snprintf(key, sizeof key, "%zu.experts.%zu", l, e);
		snprintf(prefix, sizeof prefix, "model.layers.%zu.%s.experts.%zu", l, block, e);
		if (!add_gated(list, key, prefix, toy->expert_intermediate, err))
			return false;
	}
	return true;
}

static bool add_all(struct list *list, struct mc_error *err)
{
	static const char *const norms[] = {"input_layernorm", "post_attention_layernorm"};
	const struct mc_toy *toy = list->toy;
	char key[64];

	if (!add(list, "embed", toy->vocab, toy->hidden, err, "model.embed_tokens.weight"))
		return false;
	for (size_t l = 0; l < toy->layers; l++) {
		if (!add_attention(list, l, err) || !add_ffn(list, l, err))
			return false;
		for (size_t i = 0; i < 2; i++) {
			snprintf(key, sizeof key, "%zu.%s", l, norms[i]);
			if (!add(list, key, toy->hidden, 0, err, "model.layers.%zu.%s.weight", l,
				norms[i]))
				return false;
		}
	}
	if (!add(list, "norm", toy->hidden, 0, err, "model.norm.weight"))
		return false;
	if ((!toy->tied || toy->keep_head) &&
	    !add(list, "head", toy->vocab, toy->hidden, err, "lm_head.weight"))
		return false;
	return toy->flaw.add == NULL || add(list, "extra", 4, 0, err, "%s", toy->flaw.add) != NULL;
}

static void apply_flaw(struct list *list)
{
	const struct mc_toy_flaw *flaw = &list->toy->flaw;
	size_t kept = 0;

	for (size_t i = 0; i < list->count; i++) {
		if (is_named(flaw->omit, list->items[i].name))
			continue;
		if (is_named(flaw->shorten, list->items[i].name))
			list->items[i].shape[0]--;
		list->items[kept++] = list->items[i];
	}
	list->count = kept;
}

/* --- files ---------------------------------------------------------------------------------------
 */

static bool write_tensor(struct mc_st_writer *writer, const struct mc_toy *toy,
    const struct toy_tensor *t, struct mc_error *err)
{
	uint64_t cols = t->shape[t->rank - 1], rows = 1;
	bool typed = is_named(toy->flaw.retype, t->name);
	bool ok = true;

	for (unsigned i = 0; i + 1 < t->rank; i++)
		rows *= t->shape[i];
	float *row = mc_alloc(cols, sizeof *row, "toy row", err);
	void *stored = mc_alloc(cols, sizeof *row, "toy row", err);
	ok = row != NULL && stored != NULL;
	for (uint64_t r = 0; ok && r < rows; r++) {
		size_t bytes = cols * (typed ? 4 : mc_dtype_bits(toy->dtype) / 8);
		fill_row(toy, t, r, row);
		if (is_named(toy->flaw.poison, t->name) && toy->flaw.poison_at / cols == r)
			row[toy->flaw.poison_at % cols] = toy->flaw.poison_value;
		if (!typed)
			mc_narrow(row, toy->dtype, stored, cols);
		ok = mc_st_writer_data(writer, stored, bytes, err);
	}
	free(row);
	free(stored);
	return ok;
}

static const struct toy_tensor *find(const struct list *list, const char *name)
{
	for (size_t i = 0; i < list->count; i++)
		if (strcmp(list->items[i].name, name) == 0)
			return &list->items[i];
	return NULL;
}

static size_t shard_of(const struct list *list, size_t index)
{
	return index * list->toy->shards / list->count;
}

static void name_shard(const struct mc_toy *toy, size_t shard, char name[64])
{
	if (toy->shards == 1)
		snprintf(name, 64, "model.safetensors");
	else
		snprintf(name, 64, "model-%05zu-of-%05zu.safetensors", shard + 1, toy->shards);
}

static bool write_shard(
    const struct list *list, const char *folder, size_t shard, struct mc_error *err)
{
	const struct mc_toy *toy = list->toy;
	const struct mc_st_entry *entry;
	char name[64];

	name_shard(toy, shard, name);
	char *path = mc_format(err, "%s/%s", folder, name);
	struct mc_st_writer *writer = path == NULL ? NULL : mc_st_writer_new(path, err);
	bool ok = writer != NULL;
	for (size_t i = 0; ok && i < list->count; i++) {
		const struct toy_tensor *t = &list->items[i];
		enum mc_dtype dtype = is_named(toy->flaw.retype, t->name) ? MC_I32 : toy->dtype;
		if (shard_of(list, i) == shard)
			ok = mc_st_writer_declare(writer, t->name, dtype, t->rank, t->shape, err);
	}
	ok = ok && mc_st_writer_begin(writer, err);
	for (size_t i = 0; ok && (entry = mc_st_writer_entry(writer, i)) != NULL; i++)
		ok = write_tensor(writer, toy, find(list, entry->name), err);
	ok = ok && mc_st_writer_finish(writer, err);
	mc_st_writer_free(writer);
	free(path);
	return ok;
}

static bool write_json(
    const struct mc_json *json, const char *folder, const char *name, struct mc_error *err)
{
	char *path = mc_format(err, "%s/%s", folder, name);
	struct mc_buf text;

	mc_buf_init(&text, (size_t)16 << 20);
	bool ok = path != NULL && mc_json_write(json, MC_JSON_PRETTY, &text, err) &&
		  mc_file_write_durable(path, text.data, text.length, err);
	mc_buf_release(&text);
	free(path);
	return ok;
}

static bool write_index(const struct list *list, const char *folder, struct mc_error *err)
{
	struct mc_json *root = mc_json_new_object(), *map = mc_json_new_object();
	bool ok = mc_json_set(root, "metadata", mc_json_new_object(), err) &&
		  mc_json_set(root, "weight_map", map, err);

	for (size_t i = 0; ok && i < list->count; i++) {
		char name[64];
		name_shard(list->toy, shard_of(list, i), name);
		ok = mc_json_set(map, list->items[i].name, mc_json_new_string(name), err);
	}
	ok = ok && write_json(root, folder, "model.safetensors.index.json", err);
	mc_json_free(root);
	return ok;
}

/* --- config.json ---------------------------------------------------------------------------------
 */

static bool set_sizes(struct mc_json *root, const struct mc_toy *toy, struct mc_error *err)
{
	bool qwen = toy->kind == MC_TOY_QWEN3_MOE;
	const struct {
		const char *key;
		size_t value;
	} sizes[] = {{"num_hidden_layers", toy->layers}, {"hidden_size", toy->hidden},
	    {"vocab_size", toy->vocab}, {"num_attention_heads", toy->heads},
	    {"num_key_value_heads", toy->kv_heads}, {"head_dim", toy->head_dim},
	    {"max_position_embeddings", 512}, {"num_experts_per_tok", toy->experts_per_token},
	    {qwen && !toy->version_5 ? "num_experts" : "num_local_experts", toy->experts},
	    {"intermediate_size", qwen ? toy->intermediate : toy->expert_intermediate},
	    {"moe_intermediate_size", toy->expert_intermediate}}; /* the last one: qwen's */

	for (size_t i = 0; i < sizeof sizes / sizeof *sizes - (qwen ? 0 : 1); i++)
		if (!mc_json_set(
			root, sizes[i].key, mc_json_new_integer((int64_t)sizes[i].value), err))
			return false;
	return true;
}

static bool set_rotary(struct mc_json *root, const struct mc_toy *toy, struct mc_error *err)
{
	struct mc_json *rope;

	if (!toy->version_5)
		return mc_json_set(root, "rope_theta", mc_json_new_real(20000), err) &&
		       mc_json_set(root, "rope_scaling", mc_json_new_null(), err);
	rope = mc_json_new_object();
	return mc_json_set(root, "rope_parameters", rope, err) &&
	       mc_json_set(rope, "rope_theta", mc_json_new_real(20000), err) &&
	       mc_json_set(rope, "rope_type", mc_json_new_string("default"), err);
}

static bool set_dense(struct mc_json *root, const struct mc_toy *toy, struct mc_error *err)
{
	struct mc_json *dense = mc_json_new_array();
	bool ok = mc_json_set(root, "mlp_only_layers", dense, err);

	for (size_t l = 0; ok && l < toy->layers; l++)
		if (is_dense(toy, l))
			ok = mc_json_append(dense, mc_json_new_integer((int64_t)l), err);
	return ok &&
	       mc_json_set(root, "attention_bias", mc_json_new_bool(toy->attention_bias), err) &&
	       mc_json_set(root, "norm_topk_prob", mc_json_new_bool(true), err);
}

static bool set_overrides(struct mc_json *root, const char *text, struct mc_error *err)
{
	if (text == NULL)
		return true;
	struct mc_json *changes = mc_json_parse(text, strlen(text), "config of the toy", err);
	bool ok = changes != NULL;
	struct mc_json_iter member = mc_json_iter(changes);
	while (ok && mc_json_next(&member)) {
		struct mc_json *copy = mc_json_copy(member.value, err);
		ok = mc_json_set(root, member.key, copy, err);
	}
	mc_json_free(changes);
	return ok;
}

static bool write_config(const struct mc_toy *toy, const char *folder, struct mc_error *err)
{
	bool qwen = toy->kind == MC_TOY_QWEN3_MOE;
	const char *type = qwen ? "qwen3_moe" : "mixtral";
	const char *dtype = toy->dtype == MC_F32   ? "float32"
			    : toy->dtype == MC_F16 ? "float16"
						   : "bfloat16";
	struct mc_json *root = mc_json_new_object(), *classes = mc_json_new_array();
	bool ok =
	    mc_json_set(root, "architectures", classes, err) &&
	    mc_json_append(classes,
		mc_json_new_string(qwen ? "Qwen3MoeForCausalLM" : "MixtralForCausalLM"), err) &&
	    mc_json_set(root, "model_type", mc_json_new_string(type), err) &&
	    mc_json_set(root, "hidden_act", mc_json_new_string("silu"), err) &&
	    mc_json_set(
		root, toy->version_5 ? "dtype" : "torch_dtype", mc_json_new_string(dtype), err) &&
	    mc_json_set(root, "rms_norm_eps", mc_json_new_real(1e-5), err) &&
	    mc_json_set(root, "tie_word_embeddings", mc_json_new_bool(toy->tied), err) &&
	    set_sizes(root, toy, err) && set_rotary(root, toy, err) &&
	    (!qwen || set_dense(root, toy, err)) && set_overrides(root, toy->config, err) &&
	    write_json(root, folder, "config.json", err);
	mc_json_free(root);
	return ok;
}

bool mc_toy_write(const struct mc_toy *toy, const char *folder, struct mc_error *err)
{
	struct list list = {.toy = toy};
	bool ok = write_config(toy, folder, err) && add_all(&list, err);

	if (ok)
		apply_flaw(&list);
	for (size_t shard = 0; ok && shard < toy->shards; shard++)
		ok = write_shard(&list, folder, shard, err);
	ok = ok && (toy->shards == 1 || write_index(&list, folder, err));
	free(list.items);
	return ok;
}
