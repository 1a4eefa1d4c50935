/*
 * test_moe_registry.c - which calibration module stands in for which class, and what is refused
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "moecal/moe_context.h"

struct fixture {
	struct mc_moe_registry registry;
};

static struct mc_error err;
static size_t restored;

static bool create(struct mc_module *original, const struct mc_model_config *config,
    bool calibrate_all_experts, struct mc_module **ret, struct mc_error *error)
{
	(void)config;
	(void)calibrate_all_experts;
	(void)ret;
	return mc_fail(error, MC_INTERNAL, original->name, "made up: nothing is created here");
}

static bool restore(struct mc_module *replacement, struct mc_module *original,
    struct mc_module **ret, struct mc_error *error)
{
	(void)replacement;
	(void)error;
	restored++;
	*ret = original;
	return true;
}

static const struct mc_moe_calibration guest = {
    .class_name = "Guest_Moe Block", .create = create, .restore = restore};
static const struct mc_moe_calibration resident = {
    .class_name = "ResidentMoe", .is_permanent = true, .create = create};

static int set_up(void **state)
{
	struct fixture *f = test_calloc(1, sizeof *f);

	mc_error_init(&err);
	restored = 0;
	*state = f;
	return mc_moe_registry_init(&f->registry, &err) &&
		       mc_moe_registry_add(&f->registry, &guest, &err) &&
		       mc_moe_registry_add(&f->registry, &resident, &err)
		   ? 0
		   : -1;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	mc_moe_registry_release(&f->registry);
	assert_null(mc_moe_registry_find(&f->registry, guest.class_name));
	test_free(f);
	return 0;
}

static void test_names_are_normalised(void **state)
{
	static const char *const same[] = {
	    "Guest_Moe Block", "guest-moe-block", "GUEST MOE_BLOCK", "guest_moe_block"};
	static const char *const other[] = {"GuestMoeBlock", "guest-moe-block-", "guest-moe", ""};
	struct fixture *f = *state;

	for (size_t i = 0; i < 4; i++) {
		const struct mc_moe_calibration *kind = mc_moe_registry_find(&f->registry, same[i]);
		assert_non_null(kind);
		assert_string_equal(kind->class_name, guest.class_name);
		assert_null(mc_moe_registry_find(&f->registry, other[i]));
	}
	assert_null(mc_moe_registry_find(&f->registry, NULL));
}

static void test_known_blocks(void **state)
{
	struct fixture *f = *state;
	const struct mc_architecture *arch;

	for (size_t i = 0; (arch = mc_architecture_at(i)) != NULL; i++) {
		if (arch->classes.moe == NULL)
			continue;
		const struct mc_moe_calibration *kind =
		    mc_moe_registry_find(&f->registry, arch->classes.moe);
		assert_non_null(kind);
		assert_true(kind->is_permanent || kind->restore != NULL);
	}
	assert_non_null(mc_moe_registry_find(&f->registry, "qwen3moesparsemoeblock"));
	assert_non_null(mc_moe_registry_find(&f->registry, "MixtralSparseMoeBlock"));
	assert_false(mc_moe_registry_find(&f->registry, "Qwen3MoeSparseMoeBlock")->is_permanent);
	/* what we put in their place is not found again */
	assert_null(mc_moe_registry_find(&f->registry, "CalibrationQwen3MoeSparseMoeBlock"));
}

static void test_registration_is_checked(void **state)
{
	struct fixture *f = *state;
	size_t count = f->registry.count;
	struct mc_moe_calibration kind = {.class_name = "Unrestorable", .create = create};

	assert_false(mc_moe_registry_add(&f->registry, &kind, &err));
	assert_int_equal(err.code, MC_UNSUPPORTED);
	assert_string_equal(err.where, "Unrestorable");
	assert_non_null(strstr(err.text, "restore"));
	assert_null(mc_moe_registry_find(&f->registry, "Unrestorable"));

	mc_error_init(&err);
	kind = guest;
	kind.class_name = "GUEST-MOE-BLOCK";
	assert_false(mc_moe_registry_add(&f->registry, &kind, &err));
	assert_int_equal(err.code, MC_CONFLICT);

	mc_error_init(&err);
	kind = (struct mc_moe_calibration){.class_name = "Uncreatable", .restore = restore};
	assert_false(mc_moe_registry_add(&f->registry, &kind, &err));
	assert_int_equal(err.code, MC_INVALID);

	mc_error_init(&err);
	kind = (struct mc_moe_calibration){.create = create, .restore = restore};
	assert_false(mc_moe_registry_add(&f->registry, &kind, &err));
	assert_int_equal(err.code, MC_INVALID);
	assert_int_equal(f->registry.count, count);
}

static void test_restore_of_a_permanent_is_itself(void **state)
{
	struct fixture *f = *state;
	struct mc_moe_calibration other = resident;
	struct mc_module replacement = {0}, original = {0}, *ret = NULL;

	other.class_name = "OtherResident";
	other.restore = restore; /* even if it brings one along */
	assert_true(mc_moe_registry_add(&f->registry, &other, &err));
	for (int i = 0; i < 2; i++) {
		const char *name = i ? "OtherResident" : "ResidentMoe";
		const struct mc_moe_calibration *kind = mc_moe_registry_find(&f->registry, name);
		assert_true(kind->restore(&replacement, &original, &ret, &err));
		assert_ptr_equal(ret, &replacement);
	}
	assert_int_equal(restored, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_names_are_normalised),
	    TEST(test_known_blocks),
	    TEST(test_registration_is_checked),
	    TEST(test_restore_of_a_permanent_is_itself),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
