/*
 * test_weight_observer.c - searches over ranges: against the reference's vectors and against their
 * definition; arguments; powers
 */
#include "moecal/rtn.h"

#include <math.h>
#include <unistd.h>

#include "golden.h"
#include "reference/search.h"

static struct mc_arena arena;

static int open_arena(void **state)
{
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	return mc_arena_init(&arena, 64u << 20, &err) ? 0 : -1;
}

static int close_arena(void **state)
{
	(void)state;
	mc_arena_release(&arena);
	return 0;
}

/* The vector's sums of squares over its tokens; NULL when it has none. */
static float *importance_of(const struct golden *g)
{
	struct mc_tensor sum = golden_tensor(g, "in", "importance_sum"),
			 count = golden_tensor(g, "in", "importance_count");
	float *squares, *tokens;

	if (sum.data == NULL)
		return NULL;
	squares = golden_floats(&sum);
	tokens = golden_floats(&count);
	for (size_t i = 0; i < mc_tensor_elements(&sum); i++)
		squares[i] /= tokens[0];
	free(tokens), free(sum.data), free(count.data);
	return squares;
}

static void check_vector(const struct golden *g, const struct mc_quant_args *args)
{
	struct mc_tensor w = golden_tensor(g, "in", "weight"),
			 scale = golden_tensor(g, "out", "scale"),
			 zero = golden_tensor(g, "out", "zero_point"),
			 global = golden_tensor(g, "out", "global_scale");
	struct mc_weight weight = {
	    .dtype = w.dtype, .rows = w.shape[0], .cols = w.shape[1], .data = w.data};
	float *s = golden_floats(&scale), *z = golden_floats(&zero), *squares = importance_of(g);
	size_t mark = mc_arena_mark(&arena), scales = mc_tensor_elements(&scale);
	struct mc_rtn_given given = {.mean_square = squares};
	struct mc_quantized q;
	struct mc_arena small;
	struct mc_error err;

	mc_error_init(&err);
	assert_true(mc_arena_sub(
	    &arena, mc_rtn_bytes(args, weight.rows, weight.cols), "small", &small, &err));
	if (!mc_rtn_given(&weight, args, &given, g->name, &small, &q, &err))
		fail_msg("%s: %s", g->name, err.text);
	assert_int_equal(q.scale_rows * q.scale_cols, scales);
	/* the last row is zero: its zero point is not defined there */
	size_t defined = args->symmetric ? scales : scales - q.scale_cols;
	for (size_t i = 0; i < scales; i++) {
		if (memcmp(&q.scale[i], &s[i], sizeof s[i]) != 0)
			fail_msg("%s: scale %zu is %g; needed %g", g->name, i, q.scale[i], s[i]);
		if (i < defined && q.zero_point != NULL && (float)q.zero_point[i] != z[i])
			fail_msg("%s: zero point %zu is %d; needed %g", g->name, i, q.zero_point[i],
			    z[i]);
	}
	if (global.data != NULL)
		assert_memory_equal(&q.global_scale, global.data, sizeof q.global_scale);
	mc_arena_rewind(&arena, mark);
	free(s), free(z), free(squares);
	free(w.data), free(scale.data), free(zero.data), free(global.data);
}

static void vectors_are_the_references(void **state)
{
	struct golden g;
	size_t cases = 0;

	(void)state;
	golden_open(&g);
	while (golden_next(&g, "weight_observer")) {
		struct mc_quant_config config;
		struct mc_error err;
		mc_error_init(&err);
		golden_scheme(&g, &config);
		if (!mc_scheme_require_supported(&config.schemes[0], &err))
			fail_msg("%s: %s", g.name, err.text);
		check_vector(&g, &config.schemes[0].weights);
		mc_quant_config_release(&config);
		cases++;
	}
	golden_close(&g);
	assert_true(cases >= 48);
}

/* Three weights under one global scale. */
static void fused_vectors_are_the_references(void **state)
{
	static const char *const names[] = {"q_proj", "k_proj", "v_proj"};
	struct golden g;
	size_t cases = 0;

	(void)state;
	golden_open(&g);
	while (golden_next(&g, "fused_weight_observers")) {
		struct mc_quant_config config;
		struct mc_error err;
		float absmax = 0;
		char key[64];
		size_t mark = mc_arena_mark(&arena);
		struct mc_observed seen;
		mc_error_init(&err);
		golden_scheme(&g, &config);
		const struct mc_quant_args *args = &config.schemes[0].weights;
		for (size_t pass = 0; pass < 2; pass++) {
			for (size_t i = 0; i < 3; i++) {
				struct mc_rtn_given given = {.fused_absmax = absmax};
				struct mc_quantized q;
				snprintf(key, sizeof key, "%s.weight", names[i]);
				struct mc_tensor w = golden_tensor(&g, "in", key);
				struct mc_weight weight = {.dtype = w.dtype,
				    .rows = w.shape[0],
				    .cols = w.shape[1],
				    .data = w.data};
				assert_true(mc_observe_weight(
				    &weight, args, NULL, g.name, &arena, &seen, &err));
				if (pass == 0) {
					absmax = fmaxf(absmax, seen.absmax);
					free(w.data);
					continue;
				}
				assert_true(
				    mc_rtn_given(&weight, args, &given, g.name, &arena, &q, &err));
				snprintf(key, sizeof key, "%s.global_scale", names[i]);
				struct mc_tensor global = golden_tensor(&g, "out", key);
				snprintf(key, sizeof key, "%s.scale", names[i]);
				struct mc_tensor scale = golden_tensor(&g, "out", key);
				float *s = golden_floats(&scale);
				assert_memory_equal(
				    &q.global_scale, global.data, sizeof q.global_scale);
				assert_memory_equal(
				    q.scale, s, mc_tensor_elements(&scale) * sizeof *s);
				free(s), free(w.data), free(global.data), free(scale.data);
			}
		}
		mc_arena_rewind(&arena, mark);
		mc_quant_config_release(&config);
		cases++;
	}
	golden_close(&g);
	assert_int_equal(cases, 3);
}

/* --- against the definition ------------------------------------------------------------------- */

struct kind {
	const char *observer;
	int bits; /* 0: E4M3; -4: E2M1 */
	bool symmetric;
	const char *kwargs; /* or NULL */
};

static void check_definition(enum mc_dtype dt, const struct kind *kind)
{
	enum { ROWS = 7, COLS = 96, WIDTH = 16, GROUPS = ROWS * COLS / WIDTH };
	const struct ref_format *format = dt == MC_BF16  ? &ref_bf16
					  : dt == MC_F16 ? &ref_f16
							 : NULL;
	struct mc_quant_args args = {.type = kind->bits <= 0 ? MC_QUANT_FLOAT : MC_QUANT_INT,
	    .num_bits = kind->bits == 0 ? 8 : (unsigned)abs(kind->bits),
	    .symmetric = kind->symmetric,
	    .strategy = MC_STRATEGY_GROUP,
	    .group_size = WIDTH};
	struct mc_weight_observer o;
	float x[ROWS * COLS], squares[COLS];
	unsigned char data[4 * ROWS * COLS];
	unsigned steps[GROUPS];
	struct mc_weight weight = {.dtype = dt, .rows = ROWS, .cols = COLS, .data = data};
	size_t mark = mc_arena_mark(&arena);
	struct mc_observed seen;
	struct mc_error err;

	mc_error_init(&err);
	snprintf(args.observer, sizeof args.observer, "%s", kind->observer);
	if (kind->kwargs != NULL) {
		args.observer_kwargs = mc_json_parse(
		    kind->kwargs, strlen(kind->kwargs), "kwargs", &err);
		assert_non_null(args.observer_kwargs);
	}
	assert_true(mc_weight_observer_make(&o, &args, "", &err));
	for (size_t i = 0; i < ROWS * COLS; i++)
		x[i] = mc_round_to(dt, (float)(sin((double)i * 0.7) * exp(cos((double)i * 0.19))));
	for (size_t i = 0; i < COLS; i++)
		squares[i] = (float)(1.5 + sin((double)i));
	mc_narrow(x, dt, data, ROWS * COLS);
	assert_true(mc_observe_weight(&weight, &args, squares, "m", &arena, &seen, &err));
	struct ref_search how = {
	    .rtn = {.bits = kind->bits, .symmetric = kind->symmetric, .dt = format},
	    .norm = o.norm,
	    .expand = o.expand,
	    .grid = o.grid,
	    .steps = o.steps,
	    .patience = o.patience,
	    .weights = o.search == MC_SEARCH_IMATRIX ? squares : NULL,
	    .cols = COLS};
	ref_search_groups(&how, x, GROUPS, WIDTH, steps);
	for (size_t i = 0; i < GROUPS; i++)
		if (seen.step[i] != steps[i])
			fail_msg("%s of %d bits in %s: group %zu takes step %u; needed %u",
			    kind->observer, kind->bits, mc_dtype_name(dt), i, seen.step[i],
			    steps[i]);
	mc_json_free(args.observer_kwargs);
	mc_arena_rewind(&arena, mark);
}

static void searches_are_the_definitions(void **state)
{
	static const enum mc_dtype dtypes[] = {MC_F32, MC_BF16, MC_F16};
	static const struct kind kinds[] = {{"memoryless_mse", 4, true, NULL},
	    {"MSE", 4, false, NULL}, {"memoryless_mse", 0, true, NULL},
	    {"memoryless_mse", -4, true, NULL}, {"nvfp4_expanded_mse", -4, true, NULL},
	    {"imatrix_mse", 4, true, NULL}, {"imatrix_mse", 3, false, "{\"patience\": 0}"},
	    {"nvfp4-expanded-imatrix", -4, true, NULL},
	    {"mse", 8, true,
		"{\"maxshrink\": 0.9, \"grid\": 40, \"patience\": 1, \"norm\": 3, \"expand\": "
		"1.25}"},
	    {"mse", 2, true, "{\"maxshrink\": 0}"}};

	(void)state;
	for (size_t d = 0; d < 3; d++)
		for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
			check_definition(dtypes[d], &kinds[k]);
}

/* --- arguments -------------------------------------------------------------------------------- */

static void refused(const char *observer, const char *kwargs, const char *text)
{
	struct mc_quant_args args = {.num_bits = 4, .symmetric = true};
	struct mc_weight_observer o;
	struct mc_error err;

	mc_error_init(&err);
	snprintf(args.observer, sizeof args.observer, "%s", observer);
	args.observer_kwargs = mc_json_parse(kwargs, strlen(kwargs), "kwargs", &err);
	assert_non_null(args.observer_kwargs);
	assert_false(mc_weight_observer_make(&o, &args, "group_0", &err));
	assert_string_equal(err.where, "group_0");
	if (strstr(err.text, text) == NULL)
		fail_msg("'%s' lacks '%s'", err.text, text);
	mc_json_free(args.observer_kwargs);
}

static void arguments(void **state)
{
	struct mc_quant_args args = {.num_bits = 4, .symmetric = true};
	static const struct {
		const char *observer;
		enum mc_search search;
		unsigned steps, patience;
	} expected[] = {{"", MC_SEARCH_NONE, 0, 0}, {"minmax", MC_SEARCH_NONE, 0, 0},
	    {"mse", MC_SEARCH_MSE, 20, 5}, {"FourOverSix", MC_SEARCH_MSE, 111, 1000},
	    {"imatrix_mse", MC_SEARCH_IMATRIX, 20, 5},
	    {"nvfp4 expanded imatrix", MC_SEARCH_IMATRIX, 112, 1000}};
	struct mc_weight_observer o;
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
		snprintf(args.observer, sizeof args.observer, "%s", expected[i].observer);
		assert_true(mc_weight_observer_make(&o, &args, "", &err));
		assert_int_equal(o.search, expected[i].search);
		assert_int_equal(o.steps, expected[i].steps);
		if (o.search != MC_SEARCH_NONE)
			assert_int_equal(o.patience, expected[i].patience);
	}
	refused("mse", "{\"grid\": 0}", "grid of mse is 0; needed a whole number from 1");
	refused("mse", "{\"maxshrink\": 1.5}", "maxshrink of mse is 1.5; needed a number from 0");
	refused("mse", "{\"norm\": 0}", "norm of mse is 0");
	refused("mse", "{\"expand\": 0.5}", "expand of mse is 0.5; needed a number from 1");
	refused("imatrix_mse", "{\"patience\": -1}", "patience of imatrix_mse is -1");
	refused("imatrix_mse", "{\"patience\": 1.5}", "a whole number");
	refused("imatrix_mse", "{\"strict\": 1}", "strict of imatrix_mse is no true or false");
	refused("mse", "{\"grid\": \"x\"}", "grid of mse is no number");
}

/* Without mean squares that say something a search is not weighted, or refused when strict. */
static void importance_may_be_missing(void **state)
{
	float data[2 * 32], zero[32] = {0}, bad[32];
	struct mc_weight weight = {.dtype = MC_F32, .rows = 2, .cols = 32, .data = data};
	struct mc_quant_args args = {.num_bits = 3,
	    .symmetric = true,
	    .strategy = MC_STRATEGY_GROUP,
	    .group_size = 16,
	    .observer = "imatrix_mse"};
	struct mc_observed without, with;
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	for (size_t i = 0; i < 64; i++) {
		data[i] = sinf((float)i);
		bad[i % 32] = i % 32 == 3 ? -1 : 1;
	}
	assert_true(mc_observe_weight(&weight, &args, NULL, "m", &arena, &without, &err));
	assert_true(mc_observe_weight(&weight, &args, zero, "m", &arena, &with, &err));
	assert_memory_equal(without.step, with.step, 4 * sizeof *with.step);
	args.observer_kwargs = mc_json_parse("{\"strict\": true}", 16, "kwargs", &err);
	assert_false(mc_observe_weight(&weight, &args, bad, "m", &arena, &with, &err));
	assert_int_equal(err.code, MC_INVALID);
	assert_string_equal(err.where, "m");
	mc_json_free(args.observer_kwargs);
	args.observer_kwargs = NULL;
	mc_error_init(&err);
	data[33] = INFINITY;
	assert_false(mc_observe_weight(&weight, &args, NULL, "m", &arena, &with, &err));
	assert_int_equal(err.code, MC_CORRUPT);
	assert_non_null(strstr(err.text, "row 1, column 1"));
}

/* --- powers ----------------------------------------------------------------------------------- */

static void powers_are_the_librarys(void **state)
{
	static const double exponents[] = {0.5, 0.8, 1, 2, 2.4, 3, 7.5};
	static const enum mc_dtype dtypes[] = {MC_F32, MC_BF16, MC_F16};
	static uint16_t table[MC_POWER_TABLE];
	struct mc_power power;

	(void)state;
	for (size_t d = 0; d < 3; d++)
		for (size_t e = 0; e < 7; e++) {
			mc_power_init(&power, dtypes[d], exponents[e], table);
			double exponent = mc_round_to(dtypes[d], (float)exponents[e]);
			for (double v = 1e-44; v < 1e38; v *= 1.0173) {
				float x = mc_round_to(dtypes[d], (float)v), y = x;
				float want = (float)pow(x, exponent);
				mc_power_apply(&power, &y, 1);
				float up = mc_round_to(dtypes[d], nextafterf(want, INFINITY));
				float down = mc_round_to(dtypes[d], nextafterf(want, 0));
				if (y < down || y > up)
					fail_msg("%.9g to %g in %s is %.9g; needed %.9g", x,
					    exponent, mc_dtype_name(dtypes[d]), y, want);
			}
		}
	/* runs of any length give what single numbers give */
	mc_power_init(&power, MC_F32, 2.4, table);
	float run[53], one;
	for (size_t i = 0; i < 53; i++)
		run[i] = (float)i * 0.37f;
	mc_power_apply(&power, run, 53);
	for (size_t i = 0; i < 53; i++) {
		one = (float)i * 0.37f;
		mc_power_apply(&power, &one, 1);
		assert_memory_equal(&one, &run[i], sizeof one);
	}
	assert_true(run[0] == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(vectors_are_the_references),
	    cmocka_unit_test(fused_vectors_are_the_references),
	    cmocka_unit_test(searches_are_the_definitions),
	    cmocka_unit_test(arguments),
	    cmocka_unit_test(importance_may_be_missing),
	    cmocka_unit_test(powers_are_the_librarys),
	};
	return cmocka_run_group_tests_name("weight_observer", tests, open_arena, close_arena);
}
