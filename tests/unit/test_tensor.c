/*
 * test_tensor.c - sizes and shapes as text
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "moecal/tensor.h"

static void test_sizes(void **state)
{
	(void)state;
	struct mc_tensor tensor = {.dtype = MC_BF16, .rank = 3, .shape = {128, 3, 2048}};
	assert_int_equal(mc_tensor_elements(&tensor), 128 * 3 * 2048);
	assert_int_equal(mc_tensor_bytes(&tensor), 128 * 3 * 2048 * 2);
	tensor.shape[1] = 0;
	assert_int_equal(mc_tensor_elements(&tensor), 0);
	assert_int_equal(mc_tensor_bytes(&tensor), 0);
	struct mc_tensor scalar = {.dtype = MC_F32};
	assert_int_equal(mc_tensor_elements(&scalar), 1);
	assert_int_equal(mc_tensor_bytes(&scalar), 4);
	struct mc_tensor packed = {.dtype = MC_F4, .rank = 1, .shape = {5}};
	assert_int_equal(mc_tensor_bytes(&packed), 3);
}

static void test_text(void **state)
{
	(void)state;
	const uint64_t shape[] = {128, 2048, UINT64_MAX};
	char text[64];
	assert_string_equal(mc_shape_text(2, shape, text, sizeof(text)), "[128, 2048]");
	assert_string_equal(mc_shape_text(0, shape, text, sizeof(text)), "[]");
	assert_string_equal(
	    mc_shape_text(3, shape, text, sizeof(text)), "[128, 2048, 18446744073709551615]");
	for (size_t size = 1; size <= 12; size++) {
		char small[16];
		memset(small, 'x', sizeof(small));
		mc_shape_text(2, shape, small, size);
		assert_memory_equal(small, "[128, 2048]", size - 1);
		assert_int_equal(small[size - 1], '\0');
		assert_int_equal(small[size], 'x');
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_sizes),
	    cmocka_unit_test(test_text),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
