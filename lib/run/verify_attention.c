/*
 * verify_attention.c - see verify_attention.h
 */
#include "verify_attention.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "quantize_attention.h"

#include "moecal/alloc.h"
#include "moecal/architecture.h"

static const char *const children[] = {"q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm"};
#define CHILDREN (sizeof children / sizeof *children)
#define FAMILY (2 + CHILDREN)

static const char *const suffixes[] = {
    "q_scale", "q_zero_point", "k_scale", "k_zero_point", "v_scale", "v_zero_point"};

struct attention {
	size_t count, capacity;
	struct mc_match_module *modules; /* owned, with their names */
	struct mc_packed *expected;      /* [count]; owned */
	const char *class_name;          /* borrowed; NULL: of a family that is not known */
	size_t heads, kv_heads;          /* 0: config.json does not say */
};

static void release(struct attention *list)
{
	for (size_t i = 0; i < list->count; i++)
		free((char *)list->modules[i].name);
	free(list->modules);
	free(list->expected);
}

/* --- what modules there are ------------------------------------------------------------------- */

/* Tensors come in the order of their names, so those of a module stand together. */
static bool find_modules(
    struct attention *list, const struct mc_checkpoint *checkpoint, struct mc_error *err)
{
	for (size_t i = 0; i < checkpoint->count; i++) {
		const char *name = checkpoint->tensors[i].entry->name;
		const char *end = strstr(name, ".k_proj.");
		if (end == NULL)
			continue;
		size_t length = (size_t)(end - name);
		const char *last = list->count > 0 ? list->modules[list->count - 1].name : "";
		if (strlen(last) == length && strncmp(last, name, length) == 0)
			continue;
		if (!mc_grow((void **)&list->modules, &list->capacity, list->count + 1,
			sizeof *list->modules, "attention modules", err))
			return false;
		struct mc_match_module *m = &list->modules[list->count];
		*m = (struct mc_match_module){.name = mc_format(err, "%.*s", (int)length, name),
		    .class_name = list->class_name,
		    .quantizable = true};
		if (m->name == NULL)
			return false;
		list->count++;
	}
	list->expected = mc_alloc(list->count, sizeof *list->expected, "attention modules", err);
	return list->expected != NULL;
}

static size_t count_of(const struct mc_json *config, const char *key)
{
	const struct mc_json *value = mc_json_get(config, key);

	if (value == NULL)
		value = mc_json_get(mc_json_get(config, "text_config"), key);
	if (value == NULL || mc_json_type(value) != MC_JSON_INTEGER)
		return 0;
	return mc_json_integer(value) > 0 && mc_json_integer(value) < INT32_MAX
		   ? (size_t)mc_json_integer(value)
		   : 0;
}

static bool read_heads(
    struct attention *list, const struct mc_checkpoint *checkpoint, struct mc_error *err)
{
	struct mc_error unknown;
	struct mc_buf text;
	struct mc_json *json = NULL;

	mc_error_init(&unknown);
	mc_buf_init(&text, (size_t)64 << 20);
	bool ok = mc_checkpoint_read_file(checkpoint, "config.json", &text, err);
	if (ok)
		json = mc_json_parse(mc_buf_text(&text), text.length, "config.json", err);
	if (json != NULL) {
		const struct mc_architecture *arch = mc_architecture_find(json, &unknown);
		list->class_name = arch == NULL ? NULL : arch->classes.attention;
		list->heads = count_of(json, "num_attention_heads");
		list->kv_heads = count_of(json, "num_key_value_heads");
		if (list->kv_heads == 0)
			list->kv_heads = list->heads;
	}
	ok = json != NULL;
	mc_json_free(json);
	mc_buf_release(&text);
	return ok;
}

/* --- what each of them should have ------------------------------------------------------------ */

static const struct mc_st_entry *find(
    const struct mc_checkpoint *checkpoint, const char *module, const char *suffix)
{
	char name[512];
	int n = snprintf(name, sizeof name, "%s.%s", module, suffix);
	const struct mc_ckpt_tensor *t = n < 0 || (size_t)n >= sizeof name
					     ? NULL
					     : mc_checkpoint_find(checkpoint, name);

	return t == NULL ? NULL : t->entry;
}

/* A target means the attention module when it matches it and neither its parent nor anything below. */
static bool attention_is_meant(const struct mc_scheme *scheme, const struct mc_match_module *family,
    size_t count, bool *ret, struct mc_error *err)
{
	*ret = false;
	for (size_t t = 0; t < scheme->targets_count && !*ret; t++) {
		bool own, other = false;
		if (!mc_match_any(&scheme->targets[t], 1, &family[0], &own, err))
			return false;
		for (size_t i = 1; i < count && own && !other; i++)
			if (!mc_match_any(&scheme->targets[t], 1, &family[i], &other, err))
				return false;
		*ret = own && !other;
	}
	return true;
}

/* Does the scheme mean the module itself? */
static bool is_meant(const struct mc_scheme *scheme, const struct mc_match_module *module,
    bool *ret, struct mc_error *err)
{
	const char *dot = strrchr(module->name, '.');
	struct mc_match_module family[FAMILY] = {*module};
	char names[FAMILY][512];
	size_t length = dot == NULL ? 0 : (size_t)(dot - module->name);

	snprintf(names[1], sizeof names[1], "%.*s", (int)length, module->name);
	family[1].name = names[1];
	family[1].class_name = NULL;
	for (size_t i = 0; i < CHILDREN; i++) {
		snprintf(names[2 + i], sizeof names[0], "%.480s.%s", module->name, children[i]);
		family[2 + i] = (struct mc_match_module){.name = names[2 + i],
		    .class_name = strstr(children[i], "_proj") != NULL ? "Linear" : NULL};
	}
	return attention_is_meant(scheme, family, FAMILY, ret, err);
}

/* Args of one module, NULL when it is not quantized; *ret_query as in mc_job_attention. */
static bool args_of(const struct mc_quant_config *config, const struct mc_match_module *module,
    size_t scheme, const struct mc_quant_args **ret, bool *ret_query, struct mc_error *err)
{
	const struct mc_scheme *s = scheme == MC_NO_SCHEME ? NULL : &config->schemes[scheme];

	*ret = config->has_kv_cache ? &config->kv_cache : NULL;
	*ret_query = false;
	if (s != NULL && s->has_input && !s->has_weights && !is_meant(s, module, ret_query, err))
		return false;
	if (*ret_query)
		*ret = &s->input;
	return *ret == NULL ||
	       mc_attention_require_supported(*ret, *ret_query ? s->name : "kv_cache_scheme", err);
}

static void drop(struct mc_packed *list, size_t index)
{
	list->count--;
	for (size_t i = index; i < list->count; i++)
		list->items[i] = list->items[i + 1];
}

/* Zero points that are all 0 may be left out, and so may all of a module that is ignored by name.
 */
static void drop_optional(struct mc_packed *expected, const struct mc_checkpoint *checkpoint,
    const char *module, bool symmetric, bool ignored)
{
	for (size_t i = expected->count; i-- > 0;) {
		const char *suffix = expected->items[i].suffix;
		bool optional = ignored || (symmetric && strstr(suffix, "zero_point") != NULL);
		if (optional && find(checkpoint, module, suffix) == NULL)
			drop(expected, i);
	}
}

static bool check_one(struct mc_verdict *verdict, struct attention *list, size_t index,
    size_t scheme, const struct mc_checkpoint *checkpoint, const struct mc_quant_config *config,
    const struct mc_env *env, struct mc_error *err)
{
	const struct mc_match_module *module = &list->modules[index];
	const struct mc_st_entry *scale = find(checkpoint, module->name, "k_scale");
	struct mc_attention_parts parts = {.heads = list->heads,
	    .kv_heads = list->kv_heads,
	    .dt = scale != NULL && mc_dtype_is_weight(scale->dtype) ? scale->dtype : MC_BF16};
	struct mc_tensor_source source = {.checkpoint = checkpoint};
	struct mc_module_check check = {.name = module->name};
	bool ignored;

	if (!args_of(config, module, scheme, &parts.args, &parts.query, err) ||
	    !mc_match_any(config->ignore, config->ignore_count, module, &ignored, err))
		return false;
	if (parts.args == NULL)
		return true;
	mc_verdict_pass(verdict, MC_CHECK_EXPECTED, 1);
	if (parts.args->strategy == MC_STRATEGY_ATTN_HEAD && list->heads == 0) {
		mc_verdict_fail(verdict, MC_CHECK_SHAPES,
		    "%s: config.json does not say how many heads there are", module->name);
		return true;
	}
	mc_attention_layout(&parts, &list->expected[index]);
	drop_optional(&list->expected[index], checkpoint, module->name, parts.args->symmetric,
	    ignored && !parts.query);
	return mc_check_attention(
	    verdict, &check, &list->expected[index], parts.args, &source, env->arena, err);
}

/* --- what should not be there ----------------------------------------------------------------- */

static bool is_expected(
    const struct attention *list, const char *name, size_t length, const char *suffix)
{
	for (size_t i = 0; i < list->count; i++) {
		if (strlen(list->modules[i].name) != length ||
		    strncmp(list->modules[i].name, name, length) != 0)
			continue;
		for (size_t p = 0; p < list->expected[i].count; p++)
			if (strcmp(list->expected[i].items[p].suffix, suffix) == 0)
				return true;
	}
	return false;
}

static void check_unexpected(struct mc_verdict *verdict, const struct attention *list,
    const struct mc_checkpoint *checkpoint)
{
	for (size_t i = 0; i < checkpoint->count; i++) {
		const char *name = checkpoint->tensors[i].entry->name, *dot = strrchr(name, '.');
		bool ours = false;
		for (size_t s = 0; dot != NULL && s < sizeof suffixes / sizeof *suffixes; s++)
			ours = ours || strcmp(dot + 1, suffixes[s]) == 0;
		if (!ours)
			continue;
		if (is_expected(list, name, (size_t)(dot - name), dot + 1))
			mc_verdict_pass(verdict, MC_CHECK_EXPECTED, 1);
		else
			mc_verdict_fail(verdict, MC_CHECK_EXPECTED,
			    "%s is there, but the config does not quantize it", name);
	}
}

bool mc_verify_attention(struct mc_verdict *verdict, const struct mc_checkpoint *checkpoint,
    const struct mc_quant_config *config, const struct mc_env *env, struct mc_error *err)
{
	struct attention list = {0};
	size_t *scheme = NULL;
	bool ok = read_heads(&list, checkpoint, err) && find_modules(&list, checkpoint, err);

	if (ok) {
		scheme = mc_alloc(list.count, sizeof *scheme, "schemes", err);
		ok = scheme != NULL &&
		     mc_match_schemes(config, list.modules, list.count, scheme, NULL, NULL, err);
	}
	for (size_t i = 0; ok && i < list.count; i++)
		ok = mc_env_go_on(env, err) &&
		     check_one(verdict, &list, i, scheme[i], checkpoint, config, env, err);
	if (ok)
		check_unexpected(verdict, &list, checkpoint);
	free(scheme);
	release(&list);
	return ok;
}
