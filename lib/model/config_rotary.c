/*
 * config_rotary.c - rotary embedding: both spellings of its settings, and its frequencies
 *
 * transformers 4 writes rope_theta and rope_scaling, transformers 5 rope_parameters with everything
 * in it.
 */
#include <math.h>
#include <string.h>

#include "moecal/config.h"

#define FILE_NAME "config.json"

static const struct mc_json *find(const struct mc_json *object, const char *key)
{
	const struct mc_json *value = mc_json_get(object, key);
	return value == NULL || mc_json_is_null(value) ? NULL : value;
}

/* Keys that say that the object is one of parameters and not one of layer types. */
static bool is_by_layer_type(const struct mc_json *parameters)
{
	struct mc_json_iter member = mc_json_iter(parameters);

	while (mc_json_next(&member))
		if (mc_json_type(member.value) == MC_JSON_OBJECT)
			return true;
	return false;
}

static bool find_scaling(
    const struct mc_json *config, const struct mc_json **ret, struct mc_error *err)
{
	const struct mc_json *scaling = find(config, "rope_parameters");
	const char *key = "rope_parameters";

	if (scaling == NULL) {
		scaling = find(config, "rope_scaling");
		key = "rope_scaling";
	}
	*ret = scaling;
	if (scaling == NULL)
		return true;
	if (mc_json_type(scaling) != MC_JSON_OBJECT)
		return mc_fail(err, MC_INVALID, FILE_NAME, "%s must be an object", key);
	if (is_by_layer_type(scaling))
		return mc_fail(err, MC_UNSUPPORTED, FILE_NAME,
		    "%s differs by layer type, which is not there yet", key);
	return true;
}

static bool find_kind(const struct mc_json *scaling, enum mc_rotary_kind *ret, struct mc_error *err)
{
	static const struct {
		const char *name;
		enum mc_rotary_kind kind;
	} kinds[] = {{"default", MC_ROTARY_NONE}, {"linear", MC_ROTARY_LINEAR},
	    {"llama3", MC_ROTARY_LLAMA3}, {"yarn", MC_ROTARY_YARN}};
	const struct mc_json *type = find(scaling, "rope_type");

	*ret = MC_ROTARY_NONE;
	if (type == NULL)
		type = find(scaling, "type");
	if (type == NULL)
		return true;
	if (mc_json_type(type) != MC_JSON_STRING)
		return mc_fail(err, MC_INVALID, FILE_NAME, "rope_type must be a string");
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
		if (strcmp(mc_json_string(type, NULL), kinds[i].name) == 0) {
			*ret = kinds[i].kind;
			return true;
		}
	return mc_fail(err, MC_UNSUPPORTED, FILE_NAME,
	    "rope_type '%.40s' is not there yet (default, linear, llama3, yarn are)",
	    mc_json_string(type, NULL));
}

/* 0 and null mean the default here, as in the reference. */
static bool number_or(const struct mc_json *object, const char *key, double fallback, double *ret,
    struct mc_error *err)
{
	if (!mc_config_number(object, key, fallback, ret, err))
		return false;
	if (*ret == 0)
		*ret = fallback;
	return true;
}

static double yarn_gain(double scale, double factor)
{
	return factor <= 1 ? 1 : 0.1 * scale * log(factor) + 1;
}

static bool read_yarn(const struct mc_json *s, struct mc_rotary *r, struct mc_error *err)
{
	double mscale, all_dim, attention;

	if (!number_or(s, "beta_fast", 32, &r->beta_fast, err) ||
	    !number_or(s, "beta_slow", 1, &r->beta_slow, err) ||
	    !mc_config_bool(s, "truncate", true, &r->truncate, err) ||
	    !mc_config_number(s, "mscale", 0, &mscale, err) ||
	    !mc_config_number(s, "mscale_all_dim", 0, &all_dim, err) ||
	    !mc_config_number(s, "attention_factor", 0, &attention, err))
		return false;
	if (!(r->beta_fast > 0 && r->beta_slow > 0))
		return mc_fail(
		    err, MC_INVALID, FILE_NAME, "beta_fast and beta_slow must be positive");
	if (attention != 0)
		r->attention_factor = attention;
	else if (mscale != 0 && all_dim != 0)
		r->attention_factor = yarn_gain(mscale, r->factor) / yarn_gain(all_dim, r->factor);
	else
		r->attention_factor = yarn_gain(1, r->factor);
	return (isfinite(r->attention_factor) && r->attention_factor > 0) ||
	       mc_fail(err, MC_INVALID, FILE_NAME,
		   "the rotary scaling gives an attention factor of %g, must be positive",
		   r->attention_factor);
}

static bool read_scaling(const struct mc_json *config, const struct mc_json *s,
    size_t max_positions, struct mc_rotary *r, struct mc_error *err)
{
	const struct mc_json *top = find(config, "original_max_position_embeddings");
	double fallback = (double)max_positions;

	if (!mc_config_number(top != NULL ? config : s, "original_max_position_embeddings",
		fallback, &r->original_length, err))
		return false;
	double default_factor =
	    r->kind == MC_ROTARY_YARN && r->original_length > 0 ? fallback / r->original_length : 0;
	if (!mc_config_number(s, "factor", default_factor, &r->factor, err))
		return false;
	if (!(r->factor > 0))
		return mc_fail(
		    err, MC_INVALID, FILE_NAME, "the rotary scaling has no positive factor");
	if (r->kind != MC_ROTARY_LINEAR && !(r->original_length > 0))
		return mc_fail(err, MC_INVALID, FILE_NAME,
		    "the rotary scaling has no original_max_position_embeddings");
	if (r->kind == MC_ROTARY_LLAMA3)
		return mc_config_number(s, "low_freq_factor", 1, &r->low_freq_factor, err) &&
		       mc_config_number(s, "high_freq_factor", 4, &r->high_freq_factor, err) &&
		       ((r->low_freq_factor > 0 && r->high_freq_factor > 0) ||
			   mc_fail(err, MC_INVALID, FILE_NAME,
			       "low_freq_factor and high_freq_factor must be positive"));
	return r->kind != MC_ROTARY_YARN || read_yarn(s, r, err);
}

bool mc_config_rotary(const struct mc_json *config, double default_theta, size_t head_dim,
    size_t max_positions, struct mc_rotary *r, struct mc_error *err)
{
	const struct mc_json *scaling;
	double partial;

	*r = (struct mc_rotary){.attention_factor = 1};
	if (!find_scaling(config, &scaling, err) || !find_kind(scaling, &r->kind, err))
		return false;
	if (!mc_config_number(find(scaling, "rope_theta") != NULL ? scaling : config, "rope_theta",
		default_theta, &r->theta, err) ||
	    !mc_config_number(find(scaling, "partial_rotary_factor") != NULL ? scaling : config,
		"partial_rotary_factor", 1, &partial, err))
		return false;
	if (!(r->theta > 1))
		return mc_fail(
		    err, MC_INVALID, FILE_NAME, "rope_theta is %g, must be above 1", r->theta);
	if (!(partial > 0 && partial <= 1))
		return mc_fail(err, MC_INVALID, FILE_NAME,
		    "partial_rotary_factor is %g, must be above 0 and at most 1", partial);
	r->dims = (size_t)((double)head_dim * partial);
	if (r->dims == 0 || r->dims % 2 != 0)
		return mc_fail(err, MC_INVALID, FILE_NAME,
		    "%zu rotated dimensions of a head: must be even and above 0", r->dims);
	return r->kind == MC_ROTARY_NONE || read_scaling(config, scaling, max_positions, r, err);
}

/* --- frequencies ------------------------------------------------------------------------------ */

static double yarn_dimension(const struct mc_rotary *r, double beta)
{
	return (double)r->dims * log(r->original_length / (2 * M_PI * beta)) / (2 * log(r->theta));
}

static double yarn(const struct mc_rotary *r, size_t j, double f)
{
	double low = yarn_dimension(r, r->beta_fast), high = yarn_dimension(r, r->beta_slow);

	if (r->truncate) {
		low = floor(low);
		high = ceil(high);
	}
	low = fmax(low, 0);
	high = fmin(high, (double)r->dims - 1);
	if (low == high)
		high += 0.001;
	double ramp = fmin(fmax(((double)j - low) / (high - low), 0), 1);
	return f / r->factor * ramp + f * (1 - ramp);
}

static double llama3(const struct mc_rotary *r, double f)
{
	double wavelength = 2 * M_PI / f;

	if (wavelength < r->original_length / r->high_freq_factor)
		return f;
	if (wavelength > r->original_length / r->low_freq_factor ||
	    r->high_freq_factor == r->low_freq_factor)
		return f / r->factor;
	double smooth = (r->original_length / wavelength - r->low_freq_factor) /
			(r->high_freq_factor - r->low_freq_factor);
	return (1 - smooth) * f / r->factor + smooth * f;
}

void mc_rotary_frequencies(const struct mc_rotary *r, float *ret_inv_freq)
{
	for (size_t j = 0; j < r->dims / 2; j++) {
		double f = pow(r->theta, -2.0 * (double)j / (double)r->dims);
		switch (r->kind) {
		case MC_ROTARY_NONE:
			break;
		case MC_ROTARY_LINEAR:
			f /= r->factor;
			break;
		case MC_ROTARY_LLAMA3:
			f = llama3(r, f);
			break;
		case MC_ROTARY_YARN:
			f = yarn(r, j, f);
			break;
		}
		ret_inv_freq[j] = (float)f;
	}
}
