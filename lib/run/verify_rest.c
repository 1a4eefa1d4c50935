/*
 * verify_rest.c - what is stored as it is, and what should not be there
 */
#include "verify_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"
#include "moecal/ops.h"

#define CHUNK 65536 /* elements looked at together, while they are in the cache */
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* --- numbers in names ------------------------------------------------------------------------- */

bool mc_verify_number(const char *name, const char *word, size_t *ret)
{
	const char *at = strstr(name, word);
	size_t n = 0, digits = 0;

	if (at == NULL || (at != name && at[-1] != '.'))
		return false;
	for (at += strlen(word); *at >= '0' && *at <= '9' && digits < 9; at++, digits++)
		n = 10 * n + (size_t)(*at - '0');
	*ret = n;
	return digits > 0 && (*at == '.' || *at == '\0');
}

size_t mc_verify_size(const struct mc_verification *v, const char *key)
{
	const struct mc_json *value = mc_json_get(v->json, key);

	if (value == NULL)
		value = mc_json_get(mc_json_get(v->json, "text_config"), key);
	if (value == NULL || mc_json_type(value) != MC_JSON_INTEGER || mc_json_integer(value) < 0 ||
	    mc_json_integer(value) > INT32_MAX)
		return 0;
	return (size_t)mc_json_integer(value);
}

size_t mc_verify_extra_layers(const struct mc_verification *v)
{
	static const char *const keys[] = {"num_nextn_predict_layers", "num_mtp_layers",
	    "mtp_num_hidden_layers", "num_mtp_modules"};
	size_t most = 0;

	for (size_t i = 0; i < COUNT(keys); i++) {
		size_t n = mc_verify_size(v, keys[i]);
		most = n > most ? n : most;
	}
	return most;
}

bool mc_verify_may_stay(const struct mc_verification *v, const char *name)
{
	size_t layer;

	if (!mc_model_carries(v->outline, name))
		return false;
	return !mc_verify_number(name, "layers.", &layer) ||
	       layer < v->outline->config.layers + mc_verify_extra_layers(v);
}

/* --- tensors of the model --------------------------------------------------------------------- */

static void check_plain(const struct mc_verification *v, const struct mc_found *m,
    const char *suffix, unsigned rank, const uint64_t *shape)
{
	char name[640], have[96], want[96], shown[MC_ST_SHOWN];
	int length = snprintf(name, sizeof name, "%s.%s", m->name, suffix);
	const struct mc_ckpt_tensor *tensor = length < 0 || (size_t)length >= sizeof name
						  ? NULL
						  : mc_checkpoint_find(&v->checkpoint, name);

	if (tensor == NULL) {
		mc_verdict_fail(
		    v->verdict, MC_CHECK_PRESENT, "%s is missing", mc_st_shown(name, shown));
		return;
	}
	mc_verify_take(v, name, MC_TAKEN_PLAIN);
	mc_verdict_pass(v->verdict, MC_CHECK_PRESENT, 1);
	const struct mc_st_entry *entry = tensor->entry;
	if (entry->rank == rank && memcmp(entry->shape, shape, rank * sizeof *shape) == 0 &&
	    mc_dtype_is_weight(entry->dtype))
		mc_verdict_pass(v->verdict, MC_CHECK_SHAPES, 1);
	else
		mc_verdict_fail(v->verdict, MC_CHECK_SHAPES, "%s is %s %s, needed %s %s",
		    mc_st_shown(name, shown), mc_dtype_name(entry->dtype),
		    mc_shape_text(entry->rank, entry->shape, have, sizeof have),
		    mc_dtype_is_weight(entry->dtype) ? mc_dtype_name(entry->dtype)
						     : "F32, F16 or BF16",
		    mc_shape_text(rank, shape, want, sizeof want));
}

/* Of the modules that config.json asks for and does not quantize; biases of all. */
static void check_expected(const struct mc_verification *v)
{
	for (size_t i = 0; i < v->count; i++) {
		const struct mc_found *m = &v->found[i];
		if (m->expected == NULL)
			continue;
		uint64_t shape[2] = {m->expected->rows, m->expected->cols};
		if (m->expected->weight != NULL) /* a part of a tensor with all experts */
			mc_verify_take(v, m->expected->weight->entry->name, MC_TAKEN_PLAIN);
		else if (m->scheme == MC_NO_SCHEME)
			check_plain(
			    v, m, "weight", m->expected->kind == MC_KIND_NORM ? 1 : 2, shape);
		if (m->expected->has_bias)
			check_plain(v, m, "bias", 1, shape);
	}
}

/* --- what nobody asked for -------------------------------------------------------------------- */

static bool ends_as(const char *name, const char *const *suffixes, size_t count)
{
	const char *dot = strrchr(name, '.');

	for (size_t i = 0; dot != NULL && i < count; i++)
		if (strcmp(dot + 1, suffixes[i]) == 0)
			return true;
	return false;
}

static bool is_of_cache(const char *name)
{
	static const char *const suffixes[] = {
	    "q_scale", "k_scale", "v_scale", "q_zero_point", "k_zero_point", "v_zero_point"};

	return ends_as(name, suffixes, COUNT(suffixes));
}

static bool is_addition(const char *name)
{
	static const char *const suffixes[] = {"weight_packed", "weight_scale", "weight_scale_inv",
	    "weight_shape", "weight_zero_point", "weight_global_scale", "weight_g_idx",
	    "input_scale", "input_zero_point", "input_global_scale", "output_scale",
	    "output_zero_point", "qweight", "qzeros", "scales"};

	return ends_as(name, suffixes, COUNT(suffixes));
}

static const struct mc_found *owner_of(const struct mc_verification *v, const char *name)
{
	const char *dot = strrchr(name, '.');
	char module[640];

	if (dot == NULL || (size_t)(dot - name) >= sizeof module)
		return NULL;
	memcpy(module, name, (size_t)(dot - name));
	module[dot - name] = '\0';
	return mc_verify_find(v, module);
}

static void judge(const struct mc_verification *v, const char *name)
{
	const struct mc_found *owner = owner_of(v, name);
	bool is_quantized = owner != NULL && owner->scheme != MC_NO_SCHEME;
	char shown[MC_ST_SHOWN];
	const char *why = NULL;

	mc_st_shown(name, shown);
	if (is_quantized &&
	    (is_addition(name) || ends_as(name, (const char *const[]){"weight"}, 1)))
		why = "belongs to no module of this format";
	else if (v->outline != NULL && (owner == NULL || owner->expected == NULL) &&
		 !mc_verify_may_stay(v, name))
		why = "is no tensor of a model with the sizes of config.json";
	else if (is_addition(name))
		why = "is there, but the config does not quantize its module";
	else if (v->outline != NULL && !mc_verify_may_stay(v, name))
		why = "is no tensor of a model with the sizes of config.json";
	if (why != NULL)
		mc_verdict_fail(v->verdict, MC_CHECK_EXPECTED, "%s %s", shown, why);
	else
		mc_verdict_pass(v->verdict, MC_CHECK_EXPECTED, 1);
}

/* --- values ----------------------------------------------------------------------------------- */

static bool check_finite(
    const struct mc_verification *v, const struct mc_ckpt_tensor *tensor, struct mc_error *err)
{
	const struct mc_st_entry *entry = tensor->entry;
	size_t mark = mc_arena_mark(v->env->arena), size = mc_dtype_bits(entry->dtype) / 8;
	uint64_t n = entry->bytes / size;
	size_t chunk = n < CHUNK ? (size_t)n : CHUNK;
	void *stored = mc_arena_alloc(v->env->arena, chunk, size, "tensor to check", err);
	float *wide = mc_arena_alloc(v->env->arena, chunk, sizeof *wide, "tensor to check", err);
	bool ok = stored != NULL && wide != NULL && mc_env_go_on(v->env, err), finite = true;
	char shown[MC_ST_SHOWN];

	for (uint64_t i = 0; ok && finite && i < n; i += chunk) {
		size_t count = n - i < chunk ? (size_t)(n - i) : chunk;
		ok = mc_checkpoint_read(
		    &v->checkpoint, tensor, i * size, count * size, stored, err);
		if (ok)
			mc_widen(entry->dtype, stored, wide, count);
		finite = ok && mc_all_finite(wide, count);
	}
	if (ok && finite)
		mc_verdict_pass(v->verdict, MC_CHECK_FINITE, 1);
	else if (ok)
		mc_verdict_fail(v->verdict, MC_CHECK_FINITE, "%s holds values that are not finite",
		    mc_st_shown(entry->name, shown));
	mc_arena_rewind(v->env->arena, mark);
	return ok;
}

bool mc_verify_rest(const struct mc_verification *v, struct mc_error *err)
{
	check_expected(v);
	for (size_t i = 0; i < v->checkpoint.count; i++) {
		const struct mc_ckpt_tensor *tensor = &v->checkpoint.tensors[i];
		const char *name = tensor->entry->name;
		if (v->taken[i] == MC_TAKEN_PART || is_of_cache(name))
			continue;
		if (v->taken[i] == MC_TAKEN_NOT)
			judge(v, name);
		if (mc_dtype_is_weight(tensor->entry->dtype) && tensor->entry->bytes > 0 &&
		    !check_finite(v, tensor, err))
			return false;
	}
	return true;
}
