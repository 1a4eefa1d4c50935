/*
 * test_dtype.c - every code of the small formats, every tie between two of them
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "moecal/dtype.h"
#include "reference/reference.h"

static void same_float(float found, float needed)
{
	uint32_t a, b;
	memcpy(&a, &found, sizeof(a));
	memcpy(&b, &needed, sizeof(b));
	if (a != b)
		fail_msg("found %a, needed %a", (double)found, (double)needed);
}

static float from_bits(uint32_t bits)
{
	float v;
	memcpy(&v, &bits, sizeof(v));
	return v;
}

static void test_names(void **state)
{
	(void)state;
	for (unsigned i = 0; i < MC_DTYPE_COUNT; i++) {
		enum mc_dtype found = MC_DTYPE_COUNT;
		assert_true(mc_dtype_find(mc_dtype_name((enum mc_dtype)i), &found));
		assert_int_equal(found, i);
	}
	enum mc_dtype untouched = MC_I8;
	assert_false(mc_dtype_find("bf16", &untouched));
	assert_false(mc_dtype_find("", &untouched));
	assert_int_equal(untouched, MC_I8);
	assert_string_equal(mc_dtype_name(MC_F8_E4M3), "F8_E4M3");
	assert_int_equal(mc_dtype_bits(MC_F4), 4);
	assert_int_equal(mc_dtype_bits(MC_BF16), 16);
	assert_int_equal(mc_dtype_bits(MC_I64), 64);
	assert_true(mc_dtype_is_weight(MC_F32) && mc_dtype_is_weight(MC_F16) &&
		    mc_dtype_is_weight(MC_BF16));
	assert_false(mc_dtype_is_weight(MC_F8_E4M3));
}

static void test_every_code_widens(void **state)
{
	(void)state;
	for (unsigned code = 0; code < 65536; code++) {
		float bf16 = mc_bf16_to_f32((uint16_t)code), f16 = mc_f16_to_f32((uint16_t)code);
		unsigned fraction = code & 0x7f;
		if ((code & 0x7f80) != 0x7f80)
			same_float(bf16, (float)ref_decode(&ref_bf16, code));
		else
			assert_true(fraction != 0 ? isnan(bf16) : isinf(bf16));
		fraction = code & 0x3ff;
		if ((code & 0x7c00) != 0x7c00)
			same_float(f16, (float)ref_decode(&ref_f16, code));
		else
			assert_true(fraction != 0 ? isnan(f16) : isinf(f16));
		assert_int_equal(signbit(bf16) != 0, code >> 15);
		assert_int_equal(signbit(f16) != 0, code >> 15);
	}
	for (unsigned code = 0; code < 256; code++) {
		if ((code & 0x7f) == 0x7f)
			assert_true(isnan(mc_e4m3_to_f32((uint8_t)code)));
		else
			same_float(
			    mc_e4m3_to_f32((uint8_t)code), (float)ref_decode(&ref_e4m3, code));
	}
	for (unsigned code = 0; code < 16; code++)
		same_float(mc_e2m1_to_f32((uint8_t)code), (float)ref_decode(&ref_e2m1, code));
	for (int code = 0; code < 255; code++)
		same_float(mc_e8m0_to_f32((uint8_t)code), (float)ldexp(1, code - 127));
	assert_true(isnan(mc_e8m0_to_f32(255)));
}

/* One value through all four formats, against the definition. */
static void check_value(float v)
{
	same_float(mc_bf16_to_f32(mc_f32_to_bf16(v)), (float)ref_round(&ref_bf16, (double)v));
	same_float(mc_f16_to_f32(mc_f32_to_f16(v)), (float)ref_round(&ref_f16, (double)v));
	same_float(mc_e4m3_to_f32(mc_f32_to_e4m3(v)), (float)ref_round(&ref_e4m3, (double)v));
	float e2m1 = (float)ref_round(&ref_e2m1, (double)v);
	same_float(mc_e2m1_to_f32(mc_f32_to_e2m1(v)), v == 0 ? 0.0f : e2m1);
}

/* The values of a format, the ties between neighbours, and what is one float beside a tie. */
static void check_ties(const struct ref_format *format, unsigned codes)
{
	for (unsigned code = 0; code + 1 < codes; code++) {
		double a = ref_decode(format, code), b = ref_decode(format, code + 1);
		float tie = (float)((a + b) / 2);
		assert_true((double)tie == (a + b) / 2);
		float around[] = {
		    (float)a, nextafterf(tie, 0), tie, nextafterf(tie, INFINITY), (float)b};
		for (size_t i = 0; i < sizeof(around) / sizeof(around[0]); i++) {
			check_value(around[i]);
			check_value(-around[i]);
		}
	}
}

static void test_every_tie(void **state)
{
	(void)state;
	check_ties(&ref_bf16, 0x7f80);
	check_ties(&ref_f16, 0x7c00);
	check_ties(&ref_e4m3, 0x7f);
	check_ties(&ref_e2m1, 8);
}

static void test_any_bits(void **state)
{
	(void)state;
	uint32_t bits = 1;
	for (int i = 0; i < 300000; i++) {
		bits = bits * 1664525u + 1013904223u;
		float v = from_bits(bits);
		if (!isnan(v))
			check_value(v);
	}
}

static void test_limits(void **state)
{
	(void)state;
	assert_int_equal(mc_f32_to_bf16(INFINITY), 0x7f80);
	assert_int_equal(mc_f32_to_bf16(from_bits(0x7f7fffff)), 0x7f80);
	assert_int_equal(mc_f32_to_f16(65519.996f), 0x7bff);
	assert_int_equal(mc_f32_to_f16(65520.0f), 0x7c00);
	assert_int_equal(mc_f32_to_f16(-INFINITY), 0xfc00);
	assert_int_equal(mc_f32_to_e4m3(INFINITY), 0x7e);
	assert_int_equal(mc_f32_to_e4m3(-1e30f), 0xfe);
	assert_int_equal(mc_f32_to_e2m1(INFINITY), 7);
	assert_int_equal(mc_f32_to_e2m1(-INFINITY), 15);
	assert_int_equal(mc_f32_to_e2m1(NAN), 0);
	/* every NaN stays one, whatever its payload, and keeps its sign */
	const uint32_t nans[] = {
	    0x7f800001, 0x7fc00000, 0x7fffffff, 0xff800001, 0xffffffff, 0x7f80ffff};
	for (size_t i = 0; i < sizeof(nans) / sizeof(nans[0]); i++) {
		float v = from_bits(nans[i]);
		unsigned sign = nans[i] >> 31;
		assert_true(isnan(mc_bf16_to_f32(mc_f32_to_bf16(v))));
		assert_true((mc_f32_to_bf16(v) & 0x40) != 0);
		assert_true(isnan(mc_f16_to_f32(mc_f32_to_f16(v))));
		assert_int_equal(mc_f32_to_bf16(v) >> 15, sign);
		assert_int_equal(mc_f32_to_f16(v) >> 15, sign);
		assert_int_equal(mc_f32_to_e4m3(v), sign != 0 ? 0xff : 0x7f);
	}
}

static void test_e4m3_table(void **state)
{
	(void)state;
	const struct {
		float v;
		unsigned code;
	} rows[] = {{448, 0x7e}, {447, 0x7e}, {432, 0x7e}, {431.9f, 0x7d}, {500, 0x7e}, {17, 0x58},
	    {18, 0x59}, {1, 0x38}, {3.1f, 0x44}, {0.1f, 0x1d}, {0.3f, 0x2a}, {-0.3f, 0xaa},
	    {0x1p-6f, 0x08}, {0x1p-9f, 0x01}, {0x1.8p-9f, 0x02}, {0x1p-10f, 0x00},
	    {-0x1p-10f, 0x80}, {0, 0x00}, {-0.0f, 0x80}};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		assert_int_equal(mc_f32_to_e4m3(rows[i].v), rows[i].code);
}

static void test_e2m1_table(void **state)
{
	(void)state;
	const struct {
		float v;
		unsigned code;
	} rows[] = {{0, 0}, {-0.0f, 0}, {0.25f, 0}, {0.2500001f, 1}, {0.7499999f, 1}, {0.75f, 2},
	    {1.25f, 2}, {1.2500001f, 3}, {1.7499999f, 3}, {1.75f, 4}, {2.5f, 4}, {2.5000002f, 5},
	    {3.4999998f, 5}, {3.5f, 6}, {5, 6}, {5.0000005f, 7}, {6, 7}, {1e9f, 7}};
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_int_equal(mc_f32_to_e2m1(rows[i].v), rows[i].code);
		/* a negative value that rounds to zero keeps its sign, a zero does not */
		assert_int_equal(mc_f32_to_e2m1(-rows[i].v), rows[i].v == 0 ? 0 : rows[i].code | 8);
	}
}

/* The loops against the single conversions: all lengths, no alignment, nothing past the end. */
static void test_many(void **state)
{
	(void)state;
	enum { MOST = 70 };
	const enum mc_dtype dtypes[] = {MC_F32, MC_F16, MC_BF16, MC_F8_E4M3};
	for (size_t d = 0; d < 4; d++) {
		size_t width = mc_dtype_bits(dtypes[d]) / 8;
		for (size_t n = 0; n <= MOST; n++) {
			float from[MOST], back[MOST + 1];
			unsigned char packed[MOST * 4 + 2];
			for (size_t i = 0; i < n; i++)
				from[i] = (float)i * 17.37f - (float)(i * i) * 0.61f;
			memset(packed, 0xa5, sizeof(packed));
			mc_narrow(from, dtypes[d], packed + 1, n);
			assert_int_equal(packed[0], 0xa5);
			assert_int_equal(packed[1 + n * width], 0xa5);
			back[n] = 3;
			mc_widen(dtypes[d], packed + 1, back, n);
			assert_true(back[n] == 3);
			for (size_t i = 0; i < n; i++)
				same_float(back[i], mc_round_to(dtypes[d], from[i]));
		}
	}
	same_float(mc_round_to(MC_F32, 0.1f), 0.1f);
	same_float(mc_round_to(MC_BF16, 21.4375f), 21.5f);
	same_float(mc_round_to(MC_F8_E4M3, -1000), -448);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_names),
	    cmocka_unit_test(test_every_code_widens),
	    cmocka_unit_test(test_every_tie),
	    cmocka_unit_test(test_any_bits),
	    cmocka_unit_test(test_limits),
	    cmocka_unit_test(test_e4m3_table),
	    cmocka_unit_test(test_e2m1_table),
	    cmocka_unit_test(test_many),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
