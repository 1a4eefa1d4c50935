/*
 * verify_config.c - what config.json says about the quantization, and whether it can be true
 */
#include "config_dtype.h"
#include "verify_parts.h"

#include <stdio.h>
#include <string.h>

#define WHERE "config.json"
#define MAX_CONFIG ((size_t)64 << 20)

static const char *text_of(const struct mc_json *object, const char *key)
{
	const struct mc_json *value = mc_json_get(object, key);

	return value != NULL && mc_json_type(value) == MC_JSON_STRING ? mc_json_string(value, NULL)
								      : NULL;
}

static bool read_json(struct mc_verification *v, struct mc_error *err)
{
	struct mc_buf text;

	mc_buf_init(&text, MAX_CONFIG);
	if (mc_checkpoint_read_file(&v->checkpoint, WHERE, &text, err))
		v->json = mc_json_parse(mc_buf_text(&text), text.length, WHERE, err);
	mc_buf_release(&text);
	if (v->json != NULL && mc_json_type(v->json) != MC_JSON_OBJECT)
		return mc_fail(err, MC_INVALID, WHERE, "must be an object, not %s",
		    mc_json_type_name(mc_json_type(v->json)));
	return v->json != NULL;
}

/* --- is it of this format at all? ------------------------------------------------------------- */

static bool is_addition(const char *name)
{
	static const char *const suffixes[] = {
	    ".weight_packed", ".weight_scale", ".weight_global_scale", ".input_scale"};
	const char *dot = strrchr(name, '.');

	for (size_t i = 0; dot != NULL && i < sizeof suffixes / sizeof *suffixes; i++)
		if (strcmp(dot, suffixes[i]) == 0)
			return true;
	return false;
}

/* Nothing says that it is quantized: damage when tensors say it, else another kind of folder. */
static bool fail_unquantized(const struct mc_verification *v, struct mc_error *err)
{
	bool any = false;

	for (size_t i = 0; i < v->checkpoint.count; i++) {
		const char *name = v->checkpoint.tensors[i].entry->name;
		char shown[MC_ST_SHOWN];
		if (!is_addition(name))
			continue;
		any = true;
		mc_verdict_fail(v->verdict, MC_CHECK_CONFIG,
		    WHERE " has no quantization_config, but there is %s", mc_st_shown(name, shown));
	}
	return any || mc_fail(err, MC_INVALID, WHERE,
			  "has no quantization_config: this checkpoint is not quantized");
}

static bool require_compressed_tensors(const struct mc_json *json, struct mc_error *err)
{
	const char *method = text_of(json, "quant_method");

	/* the first versions of the format did not say whose it is */
	if (method == NULL || strcmp(method, "compressed-tensors") == 0)
		return true;
	return mc_fail(err, MC_UNSUPPORTED, WHERE,
	    "quant_method is '%.40s'; only checkpoints of compressed-tensors can be checked",
	    method);
}

/* --- formats ---------------------------------------------------------------------------------- */

/* Whether its tensors can be checked. Its observers and the order in which its columns were
 * quantized matter to those who make it, and its format is another question. */
static bool require_checkable(const struct mc_scheme *scheme, struct mc_error *err)
{
	struct mc_scheme probe = *scheme;

	if (!scheme->has_weights)
		return true;
	probe.weights.actorder[0] = probe.input.actorder[0] = '\0';
	snprintf(probe.weights.observer, sizeof probe.weights.observer, "memoryless_minmax");
	snprintf(probe.input.observer, sizeof probe.input.observer, "minmax");
	return mc_scheme_infer_format(&probe, &probe.format, err) &&
	       mc_scheme_require_supported(&probe, err);
}

/* The format at the top is that of all groups, or says that there are several. */
static bool check_format(
    const struct mc_verification *v, const struct mc_json *json, struct mc_error *err)
{
	const char *top = text_of(json, "format");
	enum mc_format one = MC_FORMAT_DENSE, named = MC_FORMAT_DENSE;
	bool known = false;

	for (size_t i = 0; i < v->config.count; i++) {
		const struct mc_scheme *s = &v->config.schemes[i];
		if (s->has_weights && s->format != MC_FORMAT_DENSE)
			one = one == MC_FORMAT_DENSE || one == s->format ? s->format
									 : MC_FORMAT_MIXED;
	}
	/* what stands there before a checkpoint is saved, and of the first versions */
	if (top == NULL || strcmp(top, "fakequant") == 0)
		return true;
	for (enum mc_format f = MC_FORMAT_DENSE; f <= MC_FORMAT_MIXED; f++)
		if (strcmp(top, mc_format_name(f)) == 0) {
			known = true;
			named = f;
		}
	if (!known)
		return mc_fail(
		    err, MC_UNSUPPORTED, WHERE, "the format '%.40s' cannot be checked", top);
	/* groups of one format may be called mixed: nobody is misled */
	if (named == one || named == MC_FORMAT_MIXED)
		mc_verdict_pass(v->verdict, MC_CHECK_CONFIG, 1);
	else
		mc_verdict_fail(v->verdict, MC_CHECK_CONFIG,
		    WHERE ": quantization_config.format is '%s', that of its config_groups is '%s'",
		    top, mc_format_name(one));
	return true;
}

bool mc_verify_read_config(struct mc_verification *v, bool *ret_usable, struct mc_error *err)
{
	*ret_usable = false;
	if (!read_json(v, err))
		return mc_verify_note(v->verdict, MC_CHECK_CONFIG, err);
	v->dtype = mc_config_dtype(v->json);
	const struct mc_json *quantization = mc_model_quantization(v->json);
	if (quantization == NULL)
		return fail_unquantized(v, err);
	if (!require_compressed_tensors(quantization, err))
		return false;
	if (!mc_quant_config_read(&v->config, quantization, err)) {
		mc_quant_config_init(&v->config);
		return mc_verify_note(v->verdict, MC_CHECK_CONFIG, err);
	}
	mc_verdict_pass(v->verdict, MC_CHECK_CONFIG, 1);
	for (size_t i = 0; i < v->config.count; i++)
		if (!require_checkable(&v->config.schemes[i], err))
			return mc_verify_note(v->verdict, MC_CHECK_CONFIG, err);
	*ret_usable = true;
	return check_format(v, quantization, err);
}

/* --- names ------------------------------------------------------------------------------------ */

/* A full name of a module, and not a pattern or a class. */
static bool is_name(const char *target)
{
	return strncmp(target, "re:", 3) != 0 && strchr(target, '.') != NULL;
}

/* Frameworks put decoders under other parents than files do, so without an outline only what
 * follows the layer's number is compared. */
static const char *tail_of(const char *name)
{
	const char *layers = strstr(name, "layers.");

	return layers == NULL ? name : layers;
}

/* The module, or something below it: a whole layer may be ignored by its name. */
static bool begins_with(const char *name, const char *module)
{
	size_t length = strlen(module);

	return strncmp(name, module, length) == 0 && (name[length] == '\0' || name[length] == '.');
}

static bool is_there(const struct mc_verification *v, const char *target)
{
	if (v->outline != NULL)
		return mc_model_find(v->outline, target) != NULL || mc_verify_may_stay(v, target);
	if (strstr(target, "layers.") == NULL)
		return true;
	for (size_t i = 0; i < v->count; i++)
		if (begins_with(tail_of(v->found[i].name), tail_of(target)))
			return true;
	return false;
}

static void check_list(
    const struct mc_verification *v, char *const *list, size_t count, const char *what)
{
	char shown[MC_ST_SHOWN];

	for (size_t i = 0; i < count; i++) {
		if (!is_name(list[i]))
			continue;
		if (mc_verify_find(v, list[i]) != NULL || is_there(v, list[i]))
			mc_verdict_pass(v->verdict, MC_CHECK_CONFIG, 1);
		else
			mc_verdict_fail(v->verdict, MC_CHECK_CONFIG,
			    WHERE ": %s names %s, which the model does not have", what,
			    mc_st_shown(list[i], shown));
	}
}

void mc_verify_names(const struct mc_verification *v)
{
	check_list(v, v->config.ignore, v->config.ignore_count, "ignore");
	for (size_t i = 0; i < v->config.count; i++)
		check_list(v, v->config.schemes[i].targets, v->config.schemes[i].targets_count,
		    v->config.schemes[i].name);
}
