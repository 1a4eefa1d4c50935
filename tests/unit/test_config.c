/*
 * test_config.c - reading config.json: defaults, limits, both rotary spellings, frequencies
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/config.h"

static struct mc_json *parse(const char *text)
{
	struct mc_error err;

	mc_error_init(&err);
	struct mc_json *json = mc_json_parse(text, strlen(text), "test", &err);
	assert_non_null(json);
	return json;
}

/* The last call failed with `code` and its text holds `part`. */
static void assert_error(const struct mc_error *err, enum mc_code code, const char *part)
{
	if (err->code != code || strstr(err->text, part) == NULL)
		fail_msg("%s: %s: %s, not %s with '%s'", mc_code_name(err->code), err->where,
		    err->text, mc_code_name(code), part);
	assert_string_equal(err->where, "config.json");
}

/* --- single keys --------------------------------------------------------------------------------
 */

static bool read_size(const char *text, size_t *ret, struct mc_error *err)
{
	struct mc_json *json = parse(text);

	mc_error_init(err);
	*ret = 777;
	bool ok = mc_config_size(json, "n", 5, 2, 9, ret, err);
	mc_json_free(json);
	return ok;
}

static void test_size(void **state)
{
	struct mc_error err;
	size_t n;

	(void)state;
	assert_true(read_size("{\"n\": 7}", &n, &err));
	assert_int_equal(n, 7);
	assert_true(read_size("{\"n\": 2}", &n, &err) && n == 2);
	assert_true(read_size("{\"n\": 9}", &n, &err) && n == 9);
	assert_true(read_size("{}", &n, &err) && n == 5);
	assert_true(read_size("{\"n\": null}", &n, &err) && n == 5);
	assert_false(read_size("{\"n\": 1}", &n, &err));
	assert_error(&err, MC_INVALID, "n is 1, must be between 2 and 9");
	assert_false(read_size("{\"n\": 10}", &n, &err));
	assert_false(read_size("{\"n\": -3}", &n, &err));
	assert_error(&err, MC_INVALID, "n is -3");
	assert_false(read_size("{\"n\": 3.0}", &n, &err));
	assert_error(&err, MC_INVALID, "n must be an integer, not real");
	assert_false(read_size("{\"n\": \"7\"}", &n, &err));
	assert_false(read_size("{\"n\": [7]}", &n, &err));
	assert_false(read_size("{\"n\": true}", &n, &err));
}

static void test_required_size(void **state)
{
	struct mc_json *empty = parse("{\"a\": null}");
	struct mc_error err;
	size_t n;

	(void)state;
	mc_error_init(&err);
	assert_false(mc_config_require_size(empty, "a", 0, 9, &n, &err));
	assert_error(&err, MC_INVALID, "a is missing");
	mc_error_init(&err);
	assert_false(mc_config_require_size(empty, "b", 0, 9, &n, &err));
	assert_error(&err, MC_INVALID, "b is missing");
	mc_json_free(empty);
}

static void test_number_and_bool(void **state)
{
	struct mc_json *json = parse(
	    "{\"i\": 3, \"r\": 0.25, \"s\": \"x\", \"t\": true, \"z\": null}");
	struct mc_error err;
	double number;
	bool truth;

	(void)state;
	mc_error_init(&err);
	assert_true(mc_config_number(json, "i", 9, &number, &err) && number == 3);
	assert_true(mc_config_number(json, "r", 9, &number, &err) && number == 0.25);
	assert_true(mc_config_number(json, "z", 9, &number, &err) && number == 9);
	assert_true(mc_config_number(json, "none", 8, &number, &err) && number == 8);
	assert_true(mc_config_bool(json, "t", false, &truth, &err) && truth);
	assert_true(mc_config_bool(json, "z", true, &truth, &err) && truth);
	assert_true(mc_config_bool(json, "none", false, &truth, &err) && !truth);
	assert_false(mc_config_number(json, "s", 9, &number, &err));
	assert_error(&err, MC_INVALID, "s must be a number, not string");
	mc_error_init(&err);
	assert_false(mc_config_number(json, "t", 9, &number, &err));
	mc_error_init(&err);
	assert_false(mc_config_bool(json, "i", false, &truth, &err));
	assert_error(&err, MC_INVALID, "i must be true or false, not integer");
	mc_json_free(json);
}

static void test_activation(void **state)
{
	static const char *const good[] = {
	    "{}", "{\"hidden_act\": null}", "{\"hidden_act\": \"silu\"}"};
	static const char *const bad[] = {"{\"hidden_act\": \"gelu\"}", "{\"hidden_act\": 3}"};
	struct mc_error err;

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct mc_json *json = parse(good[i]);
		mc_error_init(&err);
		assert_true(mc_config_require_silu(json, &err));
		mc_json_free(json);
	}
	for (size_t i = 0; i < 2; i++) {
		struct mc_json *json = parse(bad[i]);
		mc_error_init(&err);
		assert_false(mc_config_require_silu(json, &err));
		assert_error(&err, MC_UNSUPPORTED, i == 0 ? "'gelu'" : "integer");
		mc_json_free(json);
	}
}

/* --- common sizes -------------------------------------------------------------------------------
 */

#define SIZES "\"num_hidden_layers\": 3, \"hidden_size\": 64, \"vocab_size\": 100, "

static bool read_common(const char *text, struct mc_model_config *ret, struct mc_error *err)
{
	struct mc_json *json = parse(text);

	*ret = (struct mc_model_config){0};
	mc_error_init(err);
	bool ok = mc_config_common(json, 1e-6, ret, err);
	mc_json_free(json);
	return ok;
}

static void test_common(void **state)
{
	struct mc_model_config c;
	struct mc_error err;

	(void)state;
	assert_true(read_common("{" SIZES "\"num_attention_heads\": 8}", &c, &err));
	assert_int_equal(c.layers, 3);
	assert_int_equal(c.hidden, 64);
	assert_int_equal(c.vocab, 100);
	assert_int_equal(c.kv_heads, 8); /* as many as heads */
	assert_int_equal(c.head_dim, 8); /* hidden / heads */
	assert_true(c.norm_eps == 1e-6f);
	assert_false(c.tied_embeddings);
	assert_true(read_common("{" SIZES "\"num_attention_heads\": 8, \"num_key_value_heads\": 2, "
				"\"head_dim\": 24, \"rms_norm_eps\": 0.001, "
				"\"tie_word_embeddings\": true, \"max_position_embeddings\": 4096}",
	    &c, &err));
	assert_int_equal(c.kv_heads, 2);
	assert_int_equal(c.head_dim, 24); /* 8 * 24 is not 64, and need not be */
	assert_true(c.norm_eps == 0.001f);
	assert_true(c.tied_embeddings);
	assert_int_equal(c.max_positions, 4096);
	assert_true(
	    read_common("{" SIZES "\"num_attention_heads\": 8, \"num_key_value_heads\": null, "
			"\"head_dim\": null}",
		&c, &err));
	assert_int_equal(c.kv_heads, 8);
	assert_int_equal(c.head_dim, 8);
}

static void test_common_refuses(void **state)
{
	static const struct {
		const char *text, *part;
	} cases[] = {
	    {"{" SIZES "\"num_attention_heads\": 8, \"num_key_value_heads\": 3}",
		"num_attention_heads 8 is not a multiple of num_key_value_heads 3"},
	    {"{" SIZES "\"num_attention_heads\": 0}", "num_attention_heads is 0"},
	    {"{" SIZES "\"num_attention_heads\": 128}", "hidden_size 64 is smaller"},
	    {"{" SIZES "\"num_attention_heads\": 8, \"num_key_value_heads\": 0}",
		"num_key_value_heads is 0"},
	    {"{" SIZES "\"num_attention_heads\": 8, \"rms_norm_eps\": 0}", "rms_norm_eps"},
	    {"{" SIZES "\"num_attention_heads\": 8, \"rms_norm_eps\": -1e-6}", "rms_norm_eps"},
	    {"{\"num_hidden_layers\": 1025, \"hidden_size\": 64}", "num_hidden_layers is 1025"},
	    {"{\"num_hidden_layers\": 0, \"hidden_size\": 64}", "num_hidden_layers is 0"},
	    {"{\"num_hidden_layers\": 3, \"hidden_size\": 1e9}", "hidden_size must be an integer"},
	    {"{\"num_hidden_layers\": 3, \"hidden_size\": 1000000000}",
		"hidden_size is 1000000000"},
	    {"{\"num_hidden_layers\": 3}", "hidden_size is missing"},
	    {"{}", "num_hidden_layers is missing"},
	};
	struct mc_model_config c;
	struct mc_error err;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		assert_false(read_common(cases[i].text, &c, &err));
		assert_error(&err, MC_INVALID, cases[i].part);
	}
}

static bool read_sparse(const char *text, size_t experts, char ret[8], struct mc_error *err)
{
	struct mc_model_config c = {.layers = 6, .experts = experts};
	struct mc_json *json = parse(text);

	mc_error_init(err);
	bool ok = mc_config_sparse_layers(json, &c, err);
	mc_json_free(json);
	for (size_t l = 0; l < 6; l++)
		ret[l] = c.is_moe[l] ? 'm' : 'd';
	ret[6] = '\0';
	return ok;
}

static void test_sparse_layers(void **state)
{
	struct mc_error err;
	char layers[8];

	(void)state;
	assert_true(read_sparse("{}", 4, layers, &err));
	assert_string_equal(layers, "mmmmmm");
	assert_true(read_sparse("{\"decoder_sparse_step\": 2}", 4, layers, &err));
	assert_string_equal(layers, "dmdmdm");
	assert_true(
	    read_sparse("{\"decoder_sparse_step\": 3, \"mlp_only_layers\": [5]}", 4, layers, &err));
	assert_string_equal(layers, "ddmddd");
	assert_true(read_sparse("{\"mlp_only_layers\": [0, 4, 4, 900]}", 4, layers, &err));
	assert_string_equal(layers, "dmmmdm");
	assert_true(read_sparse("{\"mlp_only_layers\": null}", 0, layers, &err));
	assert_string_equal(layers, "dddddd"); /* no experts at all */
	assert_false(read_sparse("{\"mlp_only_layers\": 3}", 4, layers, &err));
	assert_error(&err, MC_INVALID, "mlp_only_layers must be a list");
	assert_false(read_sparse("{\"mlp_only_layers\": [\"0\"]}", 4, layers, &err));
	assert_false(read_sparse("{\"mlp_only_layers\": [-1]}", 4, layers, &err));
	assert_false(read_sparse("{\"decoder_sparse_step\": 0}", 4, layers, &err));
	assert_error(&err, MC_INVALID, "decoder_sparse_step is 0");
}

/* --- rotary: reading ----------------------------------------------------------------------------
 */

static bool read_rotary(const char *text, size_t head_dim, size_t positions, struct mc_rotary *ret,
    struct mc_error *err)
{
	struct mc_json *json = parse(text);

	mc_error_init(err);
	bool ok = mc_config_rotary(json, 10000, head_dim, positions, ret, err);
	mc_json_free(json);
	return ok;
}

static void test_rotary_plain(void **state)
{
	/* base: the inner entry, else the outer, else the default */
	static const struct {
		const char *text;
		double theta;
		size_t dims;
	} cases[] = {
	    {"{}", 10000, 64},
	    {"{\"rope_theta\": 5000000, \"rope_scaling\": null}", 5e6, 64},
	    {"{\"rope_theta\": null}", 10000, 64},
	    {"{\"rope_theta\": 1e6, \"partial_rotary_factor\": 0.5}", 1e6, 32},
	    {"{\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 2e6}}", 2e6, 64},
	    {"{\"rope_parameters\": {\"rope_theta\": 3000, \"partial_rotary_factor\": 0.25}, "
	     "\"rope_theta\": 7, \"partial_rotary_factor\": 1.0}",
		3000, 16},
	    {"{\"rope_parameters\": {\"rope_type\": null}, \"rope_theta\": 20000}", 20000, 64},
	    {"{\"rope_scaling\": {\"type\": \"default\"}, \"rope_theta\": 300}", 300, 64},
	    {"{\"rope_parameters\": null, \"rope_scaling\": null}", 10000, 64},
	};
	struct mc_rotary r;
	struct mc_error err;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		assert_true(read_rotary(cases[i].text, 64, 4096, &r, &err));
		assert_int_equal(r.kind, MC_ROTARY_NONE);
		assert_true(r.theta == cases[i].theta);
		assert_int_equal(r.dims, cases[i].dims);
		assert_true(r.attention_factor == 1);
	}
}

static void test_rotary_spellings_agree(void **state)
{
	/* one model in the spellings of both framework versions, in the oldest one, and with the
	 * factor left to 2048 / 512 */
	static const char *const texts[] = {
	    ("{\"rope_theta\": 50000.0, \"rope_scaling\": {\"rope_type\": \"yarn\", "
	     "\"factor\": 4.0, \"original_max_position_embeddings\": 512}}"),
	    ("{\"rope_parameters\": {\"rope_theta\": 50000.0, \"rope_type\": \"yarn\", "
	     "\"factor\": 4.0, \"original_max_position_embeddings\": 512}}"),
	    ("{\"rope_theta\": 50000.0, \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4, "
	     "\"beta_fast\": 0, \"beta_slow\": null, \"attention_factor\": null}, "
	     "\"original_max_position_embeddings\": 512}"),
	    ("{\"rope_theta\": 50000.0, \"rope_scaling\": {\"type\": \"yarn\", "
	     "\"original_max_position_embeddings\": 512}}")};
	float first[12], other[12];
	struct mc_rotary r;
	struct mc_error err;

	(void)state;
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		assert_true(read_rotary(texts[i], 24, 2048, &r, &err));
		assert_int_equal(r.kind, MC_ROTARY_YARN);
		assert_true(r.truncate);
		assert_true(r.factor == 4 && r.original_length == 512);
		assert_true(r.beta_fast == 32 && r.beta_slow == 1);
		assert_true(fabs(r.attention_factor - 1.138629436) < 1e-9); /* 0.1 ln 4 + 1 */
		mc_rotary_frequencies(&r, i == 0 ? first : other);
		if (i > 0)
			assert_memory_equal(first, other, sizeof first);
	}
	/* the length from before the extension: max_position_embeddings when it is not given */
	assert_true(read_rotary(
	    "{\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4}}", 24, 2048, &r, &err));
	assert_true(r.original_length == 2048);
	/* an outer entry goes before the inner one */
	assert_true(read_rotary("{\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4, "
				"\"original_max_position_embeddings\": 512}, "
				"\"original_max_position_embeddings\": 256}",
	    24, 2048, &r, &err));
	assert_true(r.original_length == 256);
}

static void test_rotary_attention_factor(void **state)
{
	struct mc_rotary r;
	struct mc_error err;

	(void)state;
	/* given; from a pair of scales; equal scales; a factor that shrinks */
	assert_true(read_rotary("{\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4, "
				"\"attention_factor\": 0.75}}",
	    24, 2048, &r, &err));
	assert_true(r.attention_factor == 0.75);
	assert_true(read_rotary("{\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 40, "
				"\"mscale\": 2.0, \"mscale_all_dim\": 0.5}}",
	    24, 2048, &r, &err));
	double want = (0.2 * log(40) + 1) / (0.05 * log(40) + 1);
	assert_true(fabs(r.attention_factor - want) < 1e-12);
	assert_true(read_rotary("{\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 40, "
				"\"mscale\": 1.0, \"mscale_all_dim\": 1.0}}",
	    24, 2048, &r, &err));
	assert_true(r.attention_factor == 1);
	assert_true(read_rotary(
	    "{\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 0.5}}", 24, 2048, &r, &err));
	assert_true(r.attention_factor == 1);
}

static void test_rotary_refuses(void **state)
{
	static const struct {
		const char *text;
		size_t head_dim;
		enum mc_code code;
		const char *part;
	} cases[] = {
	    {"{\"rope_parameters\": {\"full_attention\": {\"rope_theta\": 1e6}, "
	     "\"sliding_attention\": {\"rope_theta\": 1e4}}}",
		64, MC_UNSUPPORTED, "rope_parameters differs by layer type"},
	    {"{\"rope_scaling\": {\"rope_type\": \"longrope\"}}", 64, MC_UNSUPPORTED, "'longrope'"},
	    {"{\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2}}", 64, MC_UNSUPPORTED,
		"'dynamic'"},
	    {"{\"rope_scaling\": {\"type\": 3}}", 64, MC_INVALID, "rope_type must be a string"},
	    {"{\"rope_scaling\": [1]}", 64, MC_INVALID, "rope_scaling must be an object"},
	    {"{\"rope_parameters\": \"yarn\"}", 64, MC_INVALID,
		"rope_parameters must be an object"},
	    {"{\"rope_theta\": 0}", 64, MC_INVALID, "rope_theta is 0"},
	    {"{\"rope_theta\": \"1e6\"}", 64, MC_INVALID, "rope_theta must be a number"},
	    {"{}", 7, MC_INVALID, "7 rotated dimensions"},
	    {"{\"partial_rotary_factor\": 0.01}", 64, MC_INVALID, "0 rotated dimensions"},
	    {"{\"partial_rotary_factor\": 1.5}", 64, MC_INVALID, "partial_rotary_factor is 1.5"},
	    {"{\"rope_scaling\": {\"rope_type\": \"linear\"}}", 64, MC_INVALID, "factor"},
	    {"{\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": -2}}", 64, MC_INVALID,
		"factor"},
	    {"{\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8, "
	     "\"low_freq_factor\": 0.0}}",
		64, MC_INVALID, "low_freq_factor"},
	    {"{\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4, \"beta_fast\": -1}}", 64,
		MC_INVALID, "beta_fast"},
	    {"{\"rope_scaling\": {\"rope_type\": \"yarn\", \"factor\": 4, "
	     "\"attention_factor\": -1}}",
		64, MC_INVALID, "attention factor"},
	};
	struct mc_rotary r;
	struct mc_error err;

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		assert_false(read_rotary(cases[i].text, cases[i].head_dim, 4096, &r, &err));
		assert_error(&err, cases[i].code, cases[i].part);
	}
}

/* --- rotary: frequencies ------------------------------------------------------------------------
 */

struct check {
	size_t index;
	double value;
};

static void assert_frequencies(
    const struct mc_rotary *r, const struct check *checks, size_t count, double factor)
{
	float *f = malloc(r->dims / 2 * sizeof *f);

	assert_non_null(f);
	mc_rotary_frequencies(r, f);
	for (size_t i = 0; i < count; i++)
		if (fabs(f[checks[i].index] / checks[i].value - 1) > 2e-7)
			fail_msg("frequency %zu is %.9g, not %.9g", checks[i].index,
			    (double)f[checks[i].index], checks[i].value);
	assert_true(fabs(r->attention_factor / factor - 1) < 1e-9);
	free(f);
}

static void test_frequencies_plain_and_linear(void **state)
{
	const struct mc_rotary plain = {.theta = 10000, .dims = 128, .attention_factor = 1};
	struct mc_rotary linear = plain;
	float f[64], g[64];

	(void)state;
	mc_rotary_frequencies(&plain, f);
	assert_true(f[0] == 1);
	assert_true(fabs(f[16] / 0.1 - 1) < 2e-7);
	assert_true(fabs(f[48] / 1e-3 - 1) < 2e-7);
	linear.kind = MC_ROTARY_LINEAR;
	linear.factor = 4;
	mc_rotary_frequencies(&linear, g);
	for (size_t j = 0; j < 64; j++)
		assert_true(g[j] == f[j] / 4);
}

static void test_frequencies_yarn(void **state)
{
	/* values of released models, computed apart from the formulas */
	static const struct check oss[] = {{0, 1}, {1, 0.689044306}, {8, 0.0508132748},
	    {10, 0.0193350011}, {12, 0.00679495949}, {16, 0.000456483919}, {20, 1.81883367e-5},
	    {31, 3.02351143e-7}};
	static const struct check deepseek[] = {{0, 1}, {1, 0.749894209}, {8, 0.1},
	    {10, 0.0562341325}, {12, 0.0268793601}, {16, 0.0055}, {20, 0.000790569415},
	    {31, 3.33380358e-6}};
	static const struct check kimi[] = {{0, 1}, {1, 0.713111085}, {8, 0.0668740305},
	    {10, 0.0340072782}, {12, 0.0172936334}, {16, 0.00447213595}, {20, 3.61404677e-5},
	    {31, 8.76441291e-7}};
	struct mc_rotary r;
	struct mc_error err;

	(void)state;
	assert_true(
	    read_rotary("{\"rope_theta\": 150000, \"rope_scaling\": {\"rope_type\": \"yarn\", "
			"\"factor\": 32.0, \"beta_fast\": 32.0, \"beta_slow\": 1.0, "
			"\"truncate\": false, \"original_max_position_embeddings\": 4096}}",
		64, 131072, &r, &err));
	assert_frequencies(&r, oss, 8, 1.3465735903);
	assert_true(read_rotary("{\"rope_theta\": 10000, \"rope_scaling\": {\"type\": \"yarn\", "
				"\"factor\": 40, \"mscale\": 1.0, \"mscale_all_dim\": 1.0, "
				"\"original_max_position_embeddings\": 4096}}",
	    64, 163840, &r, &err));
	assert_frequencies(&r, deepseek, 8, 1);
	assert_true(read_rotary("{\"rope_theta\": 50000.0, \"rope_scaling\": {\"type\": \"yarn\", "
				"\"factor\": 32.0, \"beta_fast\": 1.0, \"beta_slow\": 1.0, "
				"\"mscale\": 1.0, \"mscale_all_dim\": 1.0, "
				"\"original_max_position_embeddings\": 4096}}",
	    64, 131072, &r, &err));
	assert_frequencies(&r, kimi, 8, 1);
}

static void test_frequencies_llama3(void **state)
{
	static const struct check wide[] = {{28, 0.00321144599}, {29, 0.00216657076},
	    {32, 0.000524846161}, {34, 0.000178507813}, {35, 9.55621235e-5}, {63, 3.06892599e-7}};
	static const struct check narrow[] = {
	    {34, 0.00093847387}, {35, 4.77810618e-5}, {63, 1.53446299e-7}};
	struct mc_rotary r;
	struct mc_error err;

	(void)state;
	assert_true(
	    read_rotary("{\"rope_theta\": 500000.0, \"rope_scaling\": {\"rope_type\": \"llama3\", "
			"\"factor\": 8.0, \"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, "
			"\"original_max_position_embeddings\": 8192}}",
		128, 131072, &r, &err));
	assert_frequencies(&r, wide, 6, 1);
	/* both limits equal: nothing lies between them */
	assert_true(
	    read_rotary("{\"rope_theta\": 500000.0, \"rope_scaling\": {\"rope_type\": \"llama3\", "
			"\"factor\": 16.0, \"low_freq_factor\": 1.0, \"high_freq_factor\": 1.0, "
			"\"original_max_position_embeddings\": 8192}}",
		128, 10485760, &r, &err));
	assert_frequencies(&r, narrow, 3, 1);
	/* even where a wavelength stands exactly on both */
	float edge[1];
	r.dims = 2;
	r.original_length = 2 * M_PI;
	mc_rotary_frequencies(&r, edge);
	assert_true(edge[0] == 0.0625f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_size),
	    cmocka_unit_test(test_required_size),
	    cmocka_unit_test(test_number_and_bool),
	    cmocka_unit_test(test_activation),
	    cmocka_unit_test(test_common),
	    cmocka_unit_test(test_common_refuses),
	    cmocka_unit_test(test_sparse_layers),
	    cmocka_unit_test(test_rotary_plain),
	    cmocka_unit_test(test_rotary_spellings_agree),
	    cmocka_unit_test(test_rotary_attention_factor),
	    cmocka_unit_test(test_rotary_refuses),
	    cmocka_unit_test(test_frequencies_plain_and_linear),
	    cmocka_unit_test(test_frequencies_yarn),
	    cmocka_unit_test(test_frequencies_llama3),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
