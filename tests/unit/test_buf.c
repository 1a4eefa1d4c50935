/*
 * test_buf.c - growing, the maximum, and that a refused addition changes nothing
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "moecal/buf.h"
#include "moecal/fault.h"

static void test_add(void **state)
{
	struct mc_error err;
	struct mc_buf buf;

	(void)state;
	mc_error_init(&err);
	mc_buf_init(&buf, 1000000);
	assert_string_equal(mc_buf_text(&buf), "");
	assert_true(mc_buf_add(&buf, NULL, 0, &err));
	assert_string_equal(mc_buf_text(&buf), "");
	for (int i = 0; i < 10000; i++) {
		assert_true(mc_buf_addf(&buf, &err, "%d,", i % 10));
		assert_int_equal(buf.data[buf.length], '\0');
	}
	assert_true(mc_buf_add(&buf, "a\0b", 3, &err));
	assert_int_equal(buf.length, 20003);
	for (size_t i = 0; i < 10000; i++)
		assert_int_equal(buf.data[2 * i], '0' + (int)(i % 10));
	assert_memory_equal(buf.data + 20000, "a\0b", 4);
	mc_buf_clear(&buf);
	assert_int_equal(buf.length, 0);
	assert_string_equal(mc_buf_text(&buf), "");
	mc_buf_release(&buf);
	assert_null(buf.data);
	mc_buf_release(&buf);
}

static void test_maximum(void **state)
{
	struct mc_error err;
	struct mc_buf buf;

	(void)state;
	mc_error_init(&err);
	mc_buf_init(&buf, 10);
	assert_true(mc_buf_add(&buf, "12345678", 8, &err));
	assert_false(mc_buf_add(&buf, "abc", 3, &err));
	assert_int_equal(err.code, MC_INVALID);
	mc_error_init(&err);
	assert_false(mc_buf_addf(&buf, &err, "%d", 100));
	assert_int_equal(err.code, MC_INVALID);
	assert_string_equal(mc_buf_text(&buf), "12345678");
	mc_error_init(&err);
	assert_false(mc_buf_add(&buf, "x", SIZE_MAX, &err));
	assert_string_equal(mc_buf_text(&buf), "12345678");
	mc_error_init(&err);
	assert_true(mc_buf_addf(&buf, &err, "%d", 90)); /* exactly full */
	assert_string_equal(mc_buf_text(&buf), "1234567890");
	mc_buf_release(&buf);
}

#ifdef MC_FAULTS
static void test_faults(void **state)
{
	struct mc_error err;
	struct mc_buf buf;
	char more[500] = {0};

	(void)state;
	mc_error_init(&err);
	mc_buf_init(&buf, 1000);
	assert_true(mc_buf_add(&buf, "abc", 3, &err));
	mc_fault_arm("alloc", 1);
	assert_false(mc_buf_add(&buf, more, sizeof(more), &err));
	assert_int_equal(err.code, MC_NO_MEMORY);
	assert_string_equal(mc_buf_text(&buf), "abc");
	assert_int_equal(buf.length, 3);
	mc_fault_disarm();
	mc_buf_release(&buf);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_add),
	    cmocka_unit_test(test_maximum),
#ifdef MC_FAULTS
	    cmocka_unit_test(test_faults),
#endif
	};

	return cmocka_run_group_tests_name("buf", tests, NULL, NULL);
}
