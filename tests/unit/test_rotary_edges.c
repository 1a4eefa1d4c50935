/*
 * test_rotary_edges.c - yarn's ramp where it would begin before the first or end behind the last
 * rotated dimension
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "moecal/config.h"

static void assert_frequencies(const struct mc_rotary *r, const double *want)
{
	float f[16];

	assert_true(r->dims / 2 <= 16);
	mc_rotary_frequencies(r, f);
	for (size_t j = 0; j < r->dims / 2; j++)
		if (!(fabs((double)f[j] / want[j] - 1) < 2e-7))
			fail_msg("frequency %zu is %.9g, not %.9g", j, (double)f[j], want[j]);
}

static void test_ramp_from_the_first_dimension(void **state)
{
	/* a short original length: the ramp would begin at dimension -2 */
	static const double want[] = {1, 0.377129092731, 0.134652168127, 0.04375, 0.011603972084,
	    0.00538608672508, 0.0025, 0.0011603972084, 0.000538608672508, 0.00025, 0.00011603972084,
	    5.38608672508e-05};
	const struct mc_rotary r = {.kind = MC_ROTARY_YARN,
	    .theta = 10000,
	    .dims = 24,
	    .factor = 4,
	    .beta_fast = 32,
	    .beta_slow = 1,
	    .original_length = 64,
	    .truncate = true};

	(void)state;
	assert_frequencies(&r, want);
}

static void test_ramp_to_the_last_dimension(void **state)
{
	/* a small base: the ramp would end at dimension 9 of 8 */
	static const double want[] = {1, 0.56234132519, 0.316227766017, 0.151153749853};
	const struct mc_rotary r = {.kind = MC_ROTARY_YARN,
	    .theta = 10,
	    .dims = 8,
	    .factor = 4,
	    .beta_fast = 32,
	    .beta_slow = 1,
	    .original_length = 738,
	    .truncate = true};

	(void)state;
	assert_frequencies(&r, want);
}

static void test_ramp_of_no_width(void **state)
{
	/* both betas alike and no rounding: a step, and never a division by zero */
	const struct mc_rotary r = {.kind = MC_ROTARY_YARN,
	    .theta = 10000,
	    .dims = 16,
	    .factor = 4,
	    .beta_fast = 1,
	    .beta_slow = 1,
	    .original_length = 256,
	    .truncate = false};
	double want[8];

	(void)state;
	/* 16 ln(256 / 2 pi) / (2 ln 10000) = 3.22 */
	for (size_t j = 0; j < 8; j++)
		want[j] = pow(10000, -(double)j / 8) / (j > 3 ? 4 : 1);
	assert_frequencies(&r, want);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_ramp_from_the_first_dimension),
	    cmocka_unit_test(test_ramp_to_the_last_dimension),
	    cmocka_unit_test(test_ramp_of_no_width),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
