/*
 * verify.c - check a quantized checkpoint that somebody wrote, by its own config.json
 *
 * What should be there is what config.json says where the model's family is known, else what the
 * original has, else what the names of tensors say: modules are everything before the last dot.
 * Which of them must be quantized is what quantization_config says by its targets and ignore list.
 */
#include <stdlib.h>
#include <string.h>

#include "verify_attention.h"
#include "verify_parts.h"

#include "moecal/alloc.h"
#include "moecal/dequantize.h"

bool mc_verify_note(struct mc_verdict *verdict, enum mc_check_id check, struct mc_error *err)
{
	if (err->code != MC_CORRUPT && err->code != MC_INVALID && err->code != MC_NOT_FOUND)
		return false;
	mc_verdict_fail(
	    verdict, check, "%s%s%s", err->where, err->where[0] != '\0' ? ": " : "", err->text);
	mc_error_init(err);
	return true;
}

/* --- one module ------------------------------------------------------------------------------- */

/* The module's tensors as its scheme wants them. false in *ret_possible: nothing can be checked by
 * that, and why has been said. */
static bool find_layout(const struct mc_verification *v, const struct mc_found *m,
    struct mc_packed *ret, bool *ret_possible, struct mc_error *err)
{
	const struct mc_scheme *scheme = &v->config.schemes[m->scheme];
	struct mc_error inner;

	mc_error_init(&inner);
	*ret_possible = mc_pack_layout(scheme, m->dt, m->rows, m->cols, m->name, ret, &inner);
	if (*ret_possible)
		return true;
	/* what this program cannot check was refused with the config, so it is no possible pair */
	if (inner.code == MC_UNSUPPORTED)
		mc_verdict_fail(v->verdict, MC_CHECK_CONFIG,
		    "%s: the format '%s' of %s cannot hold %u-bit %s of this scheme", m->name,
		    mc_format_name(scheme->format), scheme->name, scheme->weights.num_bits,
		    scheme->weights.type == MC_QUANT_FLOAT ? "floats" : "integers");
	else if (inner.code == MC_INVALID)
		mc_verdict_fail(v->verdict, MC_CHECK_SHAPES, "%s.%s: %s", m->name,
		    m->size_from == NULL ? "weight" : m->size_from, inner.text);
	else
		return mc_fail(err, inner.code, inner.where, "%s", inner.text);
	return true;
}

/* Whatever it has counts as seen: it has been judged, or cannot be. */
static bool take_parts(const struct mc_verification *v, const struct mc_found *m,
    const struct mc_packed *layout, struct mc_error *err)
{
	static const char *const all[] = {"weight", "weight_packed", "weight_scale",
	    "weight_global_scale", "weight_zero_point", "weight_shape", "input_scale",
	    "input_zero_point", "input_global_scale"};
	size_t count = layout != NULL ? layout->count : sizeof all / sizeof *all;

	for (size_t i = 0; i <= count; i++) {
		const char *suffix = i == count       ? "weight_g_idx"
				     : layout != NULL ? layout->items[i].suffix
						      : all[i];
		if (i == count &&
		    v->config.schemes[m->scheme].weights.strategy != MC_STRATEGY_GROUP)
			break;
		char *name = mc_format(err, "%s.%s", m->name, suffix);
		if (name == NULL)
			return false;
		mc_verify_take(v, name, MC_TAKEN_PART);
		free(name);
	}
	return true;
}

/* The original's weight in the dtype that the scales have; left out where it cannot be. */
static bool read_original(const struct mc_verification *v, const struct mc_found *m,
    struct mc_weight *weight, const struct mc_weight **ret, struct mc_error *err)
{
	const struct mc_module *original = v->original == NULL
					       ? NULL
					       : mc_model_find(v->original, m->name);

	*ret = NULL;
	if (v->original == NULL)
		return true;
	if (original == NULL || original->rows != m->rows || original->cols != m->cols) {
		mc_verdict_fail(v->verdict, MC_CHECK_EXPECTED,
		    "%s is not in the original, or has another shape there", m->name);
		return true;
	}
	if (!mc_model_read_weight(v->original, original, m->dt, weight, v->env, err))
		return mc_verify_note(v->verdict, MC_CHECK_BOUND, err);
	*ret = weight;
	return true;
}

/* The tensor that says how large a module is. */
static const char *size_suffix(const struct mc_scheme *scheme)
{
	bool nibbles = scheme->format == MC_FORMAT_NVFP4 || scheme->format == MC_FORMAT_MXFP4;

	if (scheme->format == MC_FORMAT_PACK)
		return "weight_shape";
	return nibbles ? "weight_packed" : "weight";
}

static bool check_found(const struct mc_verification *v, struct mc_found *m, struct mc_error *err)
{
	size_t mark = mc_arena_mark(v->env->arena);
	struct mc_tensor_source source = {.checkpoint = &v->checkpoint};
	struct mc_module_check check = {.name = m->name,
	    .scheme = &v->config.schemes[m->scheme],
	    .dt = m->dt,
	    .rows = m->rows,
	    .cols = m->cols,
	    .facts = &m->facts};
	struct mc_packed layout;
	struct mc_weight weight;
	bool possible;

	mc_verdict_pass(v->verdict, MC_CHECK_EXPECTED, 1);
	if (m->rows == 0 || m->cols == 0) {
		mc_verdict_fail(v->verdict, MC_CHECK_PRESENT,
		    "%s.%s is missing or has another form, so nothing says how large %s is",
		    m->name, size_suffix(check.scheme), m->name);
		return take_parts(v, m, NULL, err);
	}
	if (!find_layout(v, m, &layout, &possible, err) ||
	    !take_parts(v, m, possible ? &layout : NULL, err))
		return false;
	bool ok = !possible ||
		  (read_original(v, m, &weight, &check.original, err) &&
		      mc_env_go_on(v->env, err) &&
		      mc_check_module(v->verdict, &check, &source, v->env->arena, err));
	mc_arena_rewind(v->env->arena, mark);
	return ok && mc_check_fused(v->verdict, m->name, &source, err);
}

/* --- the whole -------------------------------------------------------------------------------- */

/* Modules of the original that the checkpoint has no tensor of, where no outline asks for them. */
static void check_original(const struct mc_verification *v)
{
	for (size_t i = 0; v->original != NULL && i < v->original->modules_count; i++) {
		const struct mc_module *m = v->original->modules[i];
		if (m->weight != NULL && mc_verify_find(v, m->name) == NULL)
			mc_verdict_fail(v->verdict, MC_CHECK_PRESENT,
			    "%s of the original has no tensor at all", m->name);
	}
}

static bool check_all(struct mc_verification *v, struct mc_error *err)
{
	if (!mc_verify_take_inventory(v, err))
		return mc_verify_note(v->verdict, MC_CHECK_CONFIG, err);
	mc_verify_unlisted(v);
	mc_verify_names(v);
	for (size_t i = 0; i < v->count; i++)
		if (v->found[i].scheme != MC_NO_SCHEME && !check_found(v, &v->found[i], err))
			return false;
	check_original(v);
	return mc_verify_rest(v, err) && (v->outline != NULL || mc_verify_numbers(v, err)) &&
	       mc_verify_proportions(v, err) &&
	       mc_verify_attention(v->verdict, &v->checkpoint, &v->config, v->env, err);
}

/* A family that is not known is no fault of the checkpoint's. */
static bool open_outline(const struct mc_verification *v, const char *folder,
    struct mc_model *model, bool *ret_open, struct mc_error *err)
{
	struct mc_error inner;

	mc_error_init(&inner);
	*ret_open = mc_model_outline(model, v->env->roots, folder, &inner);
	if (*ret_open || inner.code == MC_UNSUPPORTED)
		return true;
	if (mc_verify_note(v->verdict, MC_CHECK_CONFIG, &inner))
		return true;
	*err = inner;
	return false;
}

static void release(struct mc_verification *v)
{
	for (size_t i = 0; i < v->count; i++)
		free(v->found[i].name);
	free(v->found);
	free(v->taken);
	mc_quant_config_release(&v->config);
	mc_json_free(v->json);
	mc_checkpoint_close(&v->checkpoint);
}

/* The folder can be opened. */
static bool verify(struct mc_verification *v, const char *folder, const char *original_folder,
    struct mc_error *err)
{
	struct mc_model outline, original;
	bool usable, has_outline = false;

	if (!mc_checkpoint_open(&v->checkpoint, v->env->roots, folder, err))
		return false;
	mc_quant_config_init(&v->config);
	bool ok = mc_verify_read_config(v, &usable, err);
	if (ok && usable && original_folder != NULL) {
		ok = mc_dequantize_open(&original, v->env->roots, original_folder, err);
		v->original = ok ? &original : NULL;
	}
	ok = ok && (!usable || open_outline(v, folder, &outline, &has_outline, err));
	v->outline = has_outline ? &outline : v->original;
	ok = ok && (!usable || check_all(v, err));
	if (has_outline)
		mc_model_close(&outline);
	if (v->original != NULL)
		mc_model_close(&original);
	release(v);
	return ok;
}

bool mc_verify_checkpoint(struct mc_verdict *verdict, const char *folder, const char *original,
    const struct mc_env *env, struct mc_error *err)
{
	struct mc_verification v = {.verdict = verdict, .env = env};
	bool usable;

	return mc_verify_files(verdict, folder, env, &usable, err) &&
	       (!usable || verify(&v, folder, original, err));
}
