/*
 * model_build.c - the list of modules, in definition order, each with its tensors claimed and
 * checked
 *
 * Two layouts of experts: one tensor a projection, or all experts of a layer in two tensors
 * (gate_up_proj [E, 2F, D], gate rows first; down_proj [E, D, F]), of which each linear is a slice.
 */
#include "model_build.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"

#define MAX_NAME 512

struct builder {
	struct mc_model *model;
	const struct mc_arch_names *names;
	size_t capacity;
	bool *claimed; /* [checkpoint.count] */
	struct mc_error *err;
};

void mc_module_free(struct mc_module *module)
{
	if (module == NULL)
		return;
	free(module->name);
	free(module);
}

/* "{l}" and "{e}" replaced; into text [MAX_NAME]. */
static const char *expand(const char *pattern, size_t layer, size_t expert, char *text)
{
	size_t used = 0;

	for (const char *p = pattern; *p != '\0' && used + 24 < MAX_NAME; p++)
		if (strncmp(p, "{l}", 3) == 0 || strncmp(p, "{e}", 3) == 0) {
			used += (size_t)snprintf(
			    text + used, MAX_NAME - used, "%zu", p[1] == 'l' ? layer : expert);
			p += 2;
		} else {
			text[used++] = *p;
		}
	text[used] = '\0';
	return text;
}

/* --- claiming --------------------------------------------------------------------------------- */

static const struct mc_ckpt_tensor *claim(
    struct builder *b, const char *name, unsigned rank, const uint64_t *shape)
{
	const struct mc_ckpt_tensor *tensor = mc_checkpoint_find(&b->model->checkpoint, name);
	char have[96], want[96];

	if (tensor == NULL) {
		(void)mc_fail(b->err, MC_CORRUPT, name,
		    "the checkpoint lacks this tensor of a %s model, needed with shape %s",
		    b->model->config.model_type, mc_shape_text(rank, shape, want, sizeof want));
		return NULL;
	}
	if (tensor->entry->rank != rank ||
	    memcmp(tensor->entry->shape, shape, rank * sizeof *shape) != 0) {
		(void)mc_fail(b->err, MC_CORRUPT, name, "has shape %s, config.json needs %s",
		    mc_shape_text(tensor->entry->rank, tensor->entry->shape, have, sizeof have),
		    mc_shape_text(rank, shape, want, sizeof want));
		return NULL;
	}
	if (!mc_dtype_is_weight(tensor->entry->dtype)) {
		(void)mc_fail(b->err, MC_UNSUPPORTED, name,
		    "has dtype %s; weights must be F32, F16 or BF16",
		    mc_dtype_name(tensor->entry->dtype));
		return NULL;
	}
	b->claimed[tensor - b->model->checkpoint.tensors] = true;
	return tensor;
}

/* --- adding modules --------------------------------------------------------------------------- */

static struct mc_module *add(struct builder *b, const char *pattern, size_t layer, size_t expert,
    const char *class_name, enum mc_module_kind kind, enum mc_role role)
{
	struct mc_model *model = b->model;
	char name[MAX_NAME];

	void *modules = model->modules;
	bool grown = mc_grow(&modules, &b->capacity, model->modules_count + 1,
	    sizeof *model->modules, "modules", b->err);
	model->modules = modules;
	if (!grown)
		return NULL;
	struct mc_module *m = mc_alloc(1, sizeof *m, "module", b->err);
	if (m == NULL)
		return NULL;
	*m = (struct mc_module){
	    .class_name = class_name, .kind = kind, .role = role, .layer = layer, .expert = expert};
	m->name = mc_strdup(expand(pattern, layer, expert, name), b->err);
	if (m->name == NULL) {
		free(m);
		return NULL;
	}
	model->modules[model->modules_count++] = m;
	return m;
}

static bool add_container(struct builder *b, const char *pattern, size_t layer, size_t expert,
    const char *class_name, enum mc_role role)
{
	return add(b, pattern, layer, expert, class_name, MC_KIND_CONTAINER, role) != NULL;
}

/* A module with a weight [rows, cols] (norms: [rows]) and, when asked for, a bias [rows]. */
static bool add_weight(struct builder *b, const char *pattern, size_t layer, size_t expert,
    const char *class_name, enum mc_module_kind kind, enum mc_role role, size_t rows, size_t cols,
    bool bias)
{
	struct mc_module *m = add(b, pattern, layer, expert, class_name, kind, role);

	if (m == NULL)
		return false;
	m->rows = rows;
	m->cols = cols;
	m->has_bias = bias;
	return true;
}

static bool add_linear(struct builder *b, const char *pattern, size_t layer, size_t expert,
    enum mc_role role, size_t rows, size_t cols, bool bias)
{
	return add_weight(
	    b, pattern, layer, expert, "Linear", MC_KIND_LINEAR, role, rows, cols, bias);
}

static bool add_norm(
    struct builder *b, const char *pattern, size_t layer, enum mc_role role, size_t n)
{
	return add_weight(b, pattern, layer, MC_NO_INDEX, b->model->arch->classes.norm,
	    MC_KIND_NORM, role, n, 1, false);
}

/* --- experts ---------------------------------------------------------------------------------- */

struct fused {
	const struct mc_ckpt_tensor *gate_up, *down; /* NULL: one tensor a projection */
};

static bool find_fused(struct builder *b, size_t layer, struct fused *ret)
{
	const struct mc_model_config *c = &b->model->config;
	uint64_t up[3] = {c->experts, 2 * c->expert_intermediate, c->hidden};
	uint64_t down[3] = {c->experts, c->hidden, c->expert_intermediate};
	char experts[MAX_NAME], name[MAX_NAME + 16];

	*ret = (struct fused){0};
	expand(b->names->experts, layer, 0, experts);
	snprintf(name, sizeof name, "%s.gate_up_proj", experts);
	if (mc_checkpoint_find(&b->model->checkpoint, name) == NULL)
		return true;
	ret->gate_up = claim(b, name, 3, up);
	snprintf(name, sizeof name, "%s.down_proj", experts);
	ret->down = ret->gate_up == NULL ? NULL : claim(b, name, 3, down);
	return ret->down != NULL;
}

/* A slice of a fused tensor: rows [first, first + rows) of its rows of `cols` elements. */
static bool add_slice(struct builder *b, const char *pattern, size_t layer, size_t expert,
    enum mc_role role, size_t rows, size_t cols, const struct mc_ckpt_tensor *tensor,
    uint64_t first)
{
	struct mc_module *m = add(b, pattern, layer, expert, "Linear", MC_KIND_LINEAR, role);

	if (m == NULL)
		return false;
	m->rows = rows;
	m->cols = cols;
	m->weight = tensor;
	m->weight_offset = first * cols * mc_dtype_bits(tensor->entry->dtype) / 8;
	return true;
}

static bool add_expert(struct builder *b, size_t l, size_t e, const struct fused *fused)
{
	const struct mc_model_config *c = &b->model->config;
	const struct mc_arch_names *n = b->names;
	size_t F = c->expert_intermediate, D = c->hidden;

	if (!add_container(b, n->expert, l, e, b->model->arch->classes.expert, MC_ROLE_EXPERT))
		return false;
	if (fused->gate_up != NULL)
		return add_slice(b, n->gate, l, e, MC_ROLE_GATE, F, D, fused->gate_up, e * 2 * F) &&
		       add_slice(b, n->up, l, e, MC_ROLE_UP, F, D, fused->gate_up, e * 2 * F + F) &&
		       add_slice(b, n->down, l, e, MC_ROLE_DOWN, D, F, fused->down, e * D);
	return add_linear(b, n->gate, l, e, MC_ROLE_GATE, F, D, false) &&
	       add_linear(b, n->up, l, e, MC_ROLE_UP, F, D, false) &&
	       add_linear(b, n->down, l, e, MC_ROLE_DOWN, D, F, false);
}

static bool add_moe(struct builder *b, size_t l, struct mc_layer_index *index)
{
	const struct mc_arch_classes *classes = &b->model->arch->classes;
	const struct mc_model_config *c = &b->model->config;
	struct fused fused;

	index->moe = b->model->modules_count;
	if (!find_fused(b, l, &fused) ||
	    !add_container(b, b->names->moe, l, MC_NO_INDEX, classes->moe, MC_ROLE_MOE) ||
	    !add_container(b, b->names->experts, l, MC_NO_INDEX, classes->experts, MC_ROLE_NONE))
		return false;
	index->gate = b->model->modules_count + 1;
	index->up = index->gate + 1;
	index->down = index->gate + 2;
	for (size_t e = 0; e < c->experts; e++)
		if (!add_expert(b, l, e, &fused))
			return false;
	index->router = b->model->modules_count;
	return add_weight(b, b->names->router, l, MC_NO_INDEX, classes->router, MC_KIND_ROUTER,
	    MC_ROLE_ROUTER, c->experts, c->hidden, false);
}

static bool add_dense(struct builder *b, size_t l, struct mc_layer_index *index)
{
	const struct mc_model_config *c = &b->model->config;
	const struct mc_arch_names *n = b->names;

	if (n->dense == NULL)
		return mc_fail(b->err, MC_UNSUPPORTED, "config.json",
		    "layer %zu has no experts, which %s does not know", l, c->model_type);
	if (!add_container(
		b, n->dense, l, MC_NO_INDEX, b->model->arch->classes.dense, MC_ROLE_NONE))
		return false;
	index->gate = b->model->modules_count;
	index->up = index->gate + 1;
	index->down = index->gate + 2;
	return add_linear(b, n->dense_gate, l, MC_NO_INDEX, MC_ROLE_GATE, c->intermediate,
		   c->hidden, false) &&
	       add_linear(
		   b, n->dense_up, l, MC_NO_INDEX, MC_ROLE_UP, c->intermediate, c->hidden, false) &&
	       add_linear(b, n->dense_down, l, MC_NO_INDEX, MC_ROLE_DOWN, c->hidden,
		   c->intermediate, false);
}

/* --- layers ----------------------------------------------------------------------------------- */

static bool add_attention(struct builder *b, size_t l, struct mc_layer_index *index)
{
	const struct mc_model_config *c = &b->model->config;
	const struct mc_arch_names *n = b->names;
	size_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim, D = c->hidden;

	index->attention = b->model->modules_count;
	if (!add_container(b, n->attention, l, MC_NO_INDEX, b->model->arch->classes.attention,
		MC_ROLE_ATTENTION))
		return false;
	index->q = b->model->modules_count;
	index->k = index->q + 1;
	index->v = index->q + 2;
	index->o = index->q + 3;
	if (!add_linear(b, n->q, l, MC_NO_INDEX, MC_ROLE_Q, q, D, c->qkv_bias) ||
	    !add_linear(b, n->k, l, MC_NO_INDEX, MC_ROLE_K, kv, D, c->qkv_bias) ||
	    !add_linear(b, n->v, l, MC_NO_INDEX, MC_ROLE_V, kv, D, c->qkv_bias) ||
	    !add_linear(b, n->o, l, MC_NO_INDEX, MC_ROLE_O, D, q, c->o_bias))
		return false;
	if (!c->qk_norm)
		return true;
	index->q_norm = b->model->modules_count;
	index->k_norm = index->q_norm + 1;
	return add_norm(b, n->q_norm, l, MC_ROLE_Q_NORM, c->head_dim) &&
	       add_norm(b, n->k_norm, l, MC_ROLE_K_NORM, c->head_dim);
}

static bool add_layer(struct builder *b, size_t l)
{
	const struct mc_model_config *c = &b->model->config;
	struct mc_layer_index *index = &b->model->layers[l];

	*index = (struct mc_layer_index){.layer = b->model->modules_count,
	    .attention_norm = MC_NO_INDEX,
	    .ffn_norm = MC_NO_INDEX,
	    .q_norm = MC_NO_INDEX,
	    .k_norm = MC_NO_INDEX,
	    .moe = MC_NO_INDEX,
	    .router = MC_NO_INDEX};
	if (!add_container(
		b, b->names->layer, l, MC_NO_INDEX, b->model->arch->classes.layer, MC_ROLE_LAYER) ||
	    !add_attention(b, l, index))
		return false;
	if (!(c->is_moe[l] ? add_moe(b, l, index) : add_dense(b, l, index)))
		return false;
	index->attention_norm = b->model->modules_count;
	index->ffn_norm = index->attention_norm + 1;
	return add_norm(b, b->names->attention_norm, l, MC_ROLE_ATTENTION_NORM, c->hidden) &&
	       add_norm(b, b->names->ffn_norm, l, MC_ROLE_FFN_NORM, c->hidden);
}

static bool add_all(struct builder *b)
{
	struct mc_model *model = b->model;
	const struct mc_arch_classes *classes = &model->arch->classes;
	const struct mc_model_config *c = &model->config;

	model->layers = mc_alloc(c->layers, sizeof *model->layers, "layers", b->err);
	if (model->layers == NULL)
		return false;
	if (!add_container(b, "", MC_NO_INDEX, MC_NO_INDEX, classes->causal_lm, MC_ROLE_NONE) ||
	    !add_container(
		b, b->names->model, MC_NO_INDEX, MC_NO_INDEX, classes->model, MC_ROLE_NONE))
		return false;
	model->embed = model->modules_count;
	if (!add_weight(b, b->names->embed, MC_NO_INDEX, MC_NO_INDEX, "Embedding",
		MC_KIND_EMBEDDING, MC_ROLE_EMBED, c->vocab, c->hidden, false))
		return false;
	for (size_t l = 0; l < c->layers; l++)
		if (!add_layer(b, l))
			return false;
	model->final_norm = model->modules_count;
	if (!add_norm(b, b->names->final_norm, MC_NO_INDEX, MC_ROLE_FINAL_NORM, c->hidden))
		return false;
	model->head = c->tied_embeddings ? MC_NO_INDEX : model->modules_count;
	return c->tied_embeddings || add_linear(b, b->names->lm_head, MC_NO_INDEX, MC_NO_INDEX,
					 MC_ROLE_HEAD, c->vocab, c->hidden, false);
}

/* --- tensors of modules ----------------------------------------------------------------------- */

static bool claim_module(struct builder *b, size_t index)
{
	struct mc_model *model = b->model;
	struct mc_module *m = model->modules[index];
	uint64_t shape[2] = {m->rows, m->cols};
	char name[MAX_NAME + 16];

	if (model->source_state != NULL)
		m->weight = model->source->find(model->source_state, index);
	if (m->weight != NULL) {
		m->scratch_bytes = model->source->scratch(model->source_state, m->weight);
	} else {
		snprintf(name, sizeof name, "%s.weight", m->name);
		m->weight = claim(b, name, m->kind == MC_KIND_NORM ? 1 : 2, shape);
	}
	if (m->weight == NULL || !m->has_bias)
		return m->weight != NULL;
	snprintf(name, sizeof name, "%s.bias", m->name);
	m->bias = claim(b, name, 1, shape);
	return m->bias != NULL;
}

/* Of all modules in order. Slices of fused tensors have theirs. */
static bool claim_all(struct builder *b)
{
	for (size_t i = 0; i < b->model->modules_count; i++) {
		const struct mc_module *m = b->model->modules[i];
		if (m->kind != MC_KIND_CONTAINER && m->weight == NULL && !claim_module(b, i))
			return false;
	}
	return true;
}

/* --- left-over tensors ------------------------------------------------------------------------ */

/* A layer behind the last one: releases carry them to predict further tokens in training. */
static bool is_extra_layer(const struct builder *b, const char *name)
{
	const char *pattern = b->names->layer;
	size_t before = (size_t)(strstr(pattern, "{l}") - pattern), digits;
	char first[24];

	if (strncmp(name, pattern, before) != 0)
		return false;
	name += before;
	digits = strspn(name, "0123456789");
	if (digits == 0 || name[digits] != '.' || (name[0] == '0' && digits > 1))
		return false;
	/* of two numbers without leading zeros the longer one is greater */
	size_t length = (size_t)snprintf(first, sizeof first, "%zu", b->model->config.layers);
	return digits > length || (digits == length && memcmp(name, first, length) >= 0);
}

static bool may_stay(const struct builder *b, const char *name)
{
	const struct mc_model_config *c = &b->model->config;
	size_t head = strlen(b->names->lm_head);

	for (const char *const *prefix = b->model->arch->ignored_prefixes;
	     prefix != NULL && *prefix != NULL; prefix++)
		if (strncmp(name, *prefix, strlen(*prefix)) == 0)
			return true;
	if (is_extra_layer(b, name))
		return true;
	return c->tied_embeddings && strncmp(name, b->names->lm_head, head) == 0 &&
	       name[head] == '.';
}

static bool check_left_over(struct builder *b)
{
	const struct mc_checkpoint *checkpoint = &b->model->checkpoint;
	char shown[MC_ST_SHOWN];

	for (size_t i = 0; i < checkpoint->count; i++) {
		const char *name = checkpoint->tensors[i].entry->name;
		if (b->claimed[i] || mc_model_stored(b->model, i) == MC_STORED_PART ||
		    may_stay(b, name))
			continue;
		return mc_fail(b->err, MC_CORRUPT, mc_st_shown(name, shown),
		    "this tensor is not part of a %s model with the sizes of config.json",
		    b->model->config.model_type);
	}
	return true;
}

/* Of checkpoints whose config.json does not say so. Looked for first: such a one lacks the plain
 * weights, and that they are missing would be the lesser truth. */
static bool require_unquantized(struct builder *b)
{
	static const char *const parts[] = {".weight_packed", ".weight_scale", ".weight_scale_inv",
	    ".qweight", ".gate_up_proj_blocks"};
	const struct mc_checkpoint *checkpoint = &b->model->checkpoint;
	char shown[MC_ST_SHOWN];

	for (size_t i = 0; i < checkpoint->count; i++) {
		const char *name = checkpoint->tensors[i].entry->name, *dot = strrchr(name, '.');
		for (size_t k = 0; dot != NULL && k < sizeof parts / sizeof *parts; k++)
			if (strcmp(dot, parts[k]) == 0)
				return mc_fail(b->err, MC_UNSUPPORTED, mc_st_shown(name, shown),
				    "this tensor says that the checkpoint is already quantized; "
				    "%s",
				    b->model->source == NULL ? "the original is needed"
							     : "config.json does not say how");
	}
	return true;
}

static bool has_router(const struct builder *b, const struct mc_arch_names *names, size_t layer)
{
	char router[MAX_NAME], name[MAX_NAME + 16];

	snprintf(name, sizeof name, "%s.weight", expand(names->router, layer, 0, router));
	return mc_checkpoint_find(&b->model->checkpoint, name) != NULL;
}

/* The second set of names when only its first router is there. */
static void choose_names(struct builder *b)
{
	const struct mc_architecture *arch = b->model->arch;

	b->names = &arch->names;
	if (arch->alternative == NULL)
		return;
	for (size_t l = 0; l < b->model->config.layers; l++) {
		if (!b->model->config.is_moe[l])
			continue;
		if (!has_router(b, &arch->names, l) && has_router(b, arch->alternative, l))
			b->names = arch->alternative;
		return;
	}
}

bool mc_model_build(struct mc_model *model, struct mc_error *err)
{
	struct builder b = {.model = model, .err = err};
	bool asks = model->source != NULL && mc_model_quantization(model->config_json) != NULL;

	choose_names(&b);
	b.claimed = mc_alloc(
	    model->checkpoint.count + 1, sizeof *b.claimed, "claimed tensors", err);
	bool ok = b.claimed != NULL && (asks || require_unquantized(&b)) && add_all(&b) &&
		  (!asks || model->source->open(model, &model->source_state, err)) &&
		  claim_all(&b) && check_left_over(&b);
	free(b.claimed);
	return ok;
}

bool mc_model_build_outline(struct mc_model *model, struct mc_error *err)
{
	struct builder b = {.model = model, .err = err};

	choose_names(&b);
	b.claimed = mc_alloc(
	    model->checkpoint.count + 1, sizeof *b.claimed, "claimed tensors", err);
	bool ok = b.claimed != NULL && add_all(&b);
	free(b.claimed);
	return ok;
}

bool mc_model_carries(const struct mc_model *model, const char *name)
{
	struct builder b = {.model = (struct mc_model *)model};

	choose_names(&b);
	return may_stay(&b, name);
}
