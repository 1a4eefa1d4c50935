/*
 * config.c - helpers that architecture files read config.json with
 *
 * A key that is absent or null means its default. Every number is checked against limits, because
 * sizes come from here before any tensor is looked at.
 */
#include "moecal/config.h"

#include <math.h>
#include <string.h>

#define FILE_NAME "config.json"
#define MAX_WIDTH ((size_t)1 << 20)

static const struct mc_json *find(const struct mc_json *config, const char *key)
{
	const struct mc_json *value = mc_json_get(config, key);
	return value == NULL || mc_json_is_null(value) ? NULL : value;
}

static bool size_of(const struct mc_json *value, const char *key, size_t min, size_t max,
    size_t *ret, struct mc_error *err)
{
	if (mc_json_type(value) != MC_JSON_INTEGER)
		return mc_fail(err, MC_INVALID, FILE_NAME, "%s must be an integer, not %s", key,
		    mc_json_type_name(mc_json_type(value)));
	int64_t n = mc_json_integer(value);
	if (n < 0 || (uint64_t)n < min || (uint64_t)n > max)
		return mc_fail(err, MC_INVALID, FILE_NAME,
		    "%s is %lld, must be between %zu and %zu", key, (long long)n, min, max);
	*ret = (size_t)n;
	return true;
}

bool mc_config_size(const struct mc_json *config, const char *key, size_t fallback, size_t min,
    size_t max, size_t *ret, struct mc_error *err)
{
	const struct mc_json *value = find(config, key);
	if (value == NULL) {
		*ret = fallback;
		return true;
	}
	return size_of(value, key, min, max, ret, err);
}

bool mc_config_require_size(const struct mc_json *config, const char *key, size_t min, size_t max,
    size_t *ret, struct mc_error *err)
{
	const struct mc_json *value = find(config, key);
	if (value == NULL)
		return mc_fail(err, MC_INVALID, FILE_NAME, "%s is missing", key);
	return size_of(value, key, min, max, ret, err);
}

bool mc_config_number(const struct mc_json *config, const char *key, double fallback, double *ret,
    struct mc_error *err)
{
	const struct mc_json *value = find(config, key);
	if (value == NULL) {
		*ret = fallback;
		return true;
	}
	if (mc_json_type(value) != MC_JSON_INTEGER && mc_json_type(value) != MC_JSON_REAL)
		return mc_fail(err, MC_INVALID, FILE_NAME, "%s must be a number, not %s", key,
		    mc_json_type_name(mc_json_type(value)));
	*ret = mc_json_number(value);
	return isfinite(*ret) ||
	       mc_fail(err, MC_INVALID, FILE_NAME, "%s is not a finite number", key);
}

bool mc_config_bool(
    const struct mc_json *config, const char *key, bool fallback, bool *ret, struct mc_error *err)
{
	const struct mc_json *value = find(config, key);
	if (value == NULL) {
		*ret = fallback;
		return true;
	}
	if (mc_json_type(value) != MC_JSON_BOOL)
		return mc_fail(err, MC_INVALID, FILE_NAME, "%s must be true or false, not %s", key,
		    mc_json_type_name(mc_json_type(value)));
	*ret = mc_json_bool(value);
	return true;
}

bool mc_config_require_silu(const struct mc_json *config, struct mc_error *err)
{
	const struct mc_json *value = find(config, "hidden_act");
	if (value == NULL || (mc_json_type(value) == MC_JSON_STRING &&
				 strcmp(mc_json_string(value, NULL), "silu") == 0))
		return true;
	return mc_fail(err, MC_UNSUPPORTED, FILE_NAME,
	    "hidden_act is '%.40s', this model type is known with 'silu'",
	    mc_json_type(value) == MC_JSON_STRING ? mc_json_string(value, NULL)
						  : mc_json_type_name(mc_json_type(value)));
}

bool mc_config_common(const struct mc_json *config, double default_eps, struct mc_model_config *c,
    struct mc_error *err)
{
	double eps;

	if (!mc_config_require_size(
		config, "num_hidden_layers", 1, MC_MAX_LAYERS, &c->layers, err) ||
	    !mc_config_require_size(config, "hidden_size", 1, MAX_WIDTH, &c->hidden, err) ||
	    !mc_config_require_size(config, "vocab_size", 1, (size_t)1 << 24, &c->vocab, err) ||
	    !mc_config_require_size(config, "num_attention_heads", 1, 4096, &c->heads, err) ||
	    !mc_config_size(config, "num_key_value_heads", c->heads, 1, 4096, &c->kv_heads, err) ||
	    !mc_config_size(config, "head_dim", c->hidden / c->heads, 1, 8192, &c->head_dim, err) ||
	    !mc_config_number(config, "rms_norm_eps", default_eps, &eps, err) ||
	    !mc_config_bool(config, "tie_word_embeddings", false, &c->tied_embeddings, err) ||
	    !mc_config_size(
		config, "max_position_embeddings", 0, 1, (size_t)1 << 32, &c->max_positions, err))
		return false;
	if (c->heads % c->kv_heads != 0)
		return mc_fail(err, MC_INVALID, FILE_NAME,
		    "num_attention_heads %zu is not a multiple of num_key_value_heads %zu",
		    c->heads, c->kv_heads);
	if (c->head_dim == 0)
		return mc_fail(err, MC_INVALID, FILE_NAME,
		    "hidden_size %zu is smaller than num_attention_heads %zu", c->hidden, c->heads);
	if (!(eps > 0 && eps < 1))
		return mc_fail(
		    err, MC_INVALID, FILE_NAME, "rms_norm_eps is %g, must be between 0 and 1", eps);
	c->norm_eps = (float)eps;
	return true;
}

bool mc_config_sparse_layers(
    const struct mc_json *config, struct mc_model_config *c, struct mc_error *err)
{
	const struct mc_json *dense = find(config, "mlp_only_layers");
	size_t step;

	if (!mc_config_size(config, "decoder_sparse_step", 1, 1, MC_MAX_LAYERS, &step, err))
		return false;
	if (dense != NULL && mc_json_type(dense) != MC_JSON_ARRAY)
		return mc_fail(err, MC_INVALID, FILE_NAME, "mlp_only_layers must be a list");
	for (size_t l = 0; l < c->layers; l++)
		c->is_moe[l] = c->experts > 0 && (l + 1) % step == 0;
	for (size_t i = 0; i < mc_json_size(dense); i++) {
		size_t layer;
		if (!size_of(mc_json_at(dense, i), "an entry of mlp_only_layers", 0, MC_MAX_LAYERS,
			&layer, err))
			return false;
		if (layer < c->layers)
			c->is_moe[layer] = false;
	}
	return true;
}
