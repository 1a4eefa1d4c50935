/*
 * test_moe_context.c - every promise of entering and leaving the MoE calibration context
 *
 * The kinds here are made up, so that a create or restore can fail when a test wants it to. The
 * registry is in test_moe_registry.c, what the blocks compute in test_moe_block.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "moecal/alloc.h"
#include "moecal/moe_context.h"
#include "reference/hand_model.h"

enum { MAX_BLOCKS = 8, MAX_LINES = 16 };

struct fixture {
	struct mc_model model;
	struct mc_module *before[64]; /* the modules as they were */
	struct mc_moe_registry registry;
	struct mc_env env;
	/* what was logged */
	size_t lines, info_lines;
	char line[MAX_LINES][160];
	/* what progress said */
	size_t steps;
	size_t done[MAX_BLOCKS], total[MAX_BLOCKS];
	char name[MAX_BLOCKS][64];
	/* work after which the caller wants to stop; 0: never */
	size_t cancel_at, asked;
};

/* How the made-up kinds behave; reset by set_up. */
static struct {
	size_t created, restored, fail_create_at;
	bool flag, saw_config, fail_restore[MAX_BLOCKS];
	bool keep_class_name, make_nothing, other_name, return_original, replace_third;
} kinds;
static struct mc_error err;

/* --- made-up kinds ---------------------------------------------------------------------------- */

static bool forward_nothing(const struct mc_module *self, const struct mc_moe_call *call,
    const struct mc_env *env, struct mc_error *error)
{
	(void)self;
	(void)call;
	(void)env;
	(void)error;
	return true;
}
static const struct mc_moe_behaviour nothing = {.forward = forward_nothing};

static struct mc_module *copy_of(
    const struct mc_module *original, const char *class_name, struct mc_error *error)
{
	struct mc_module *module = mc_alloc(1, sizeof *module, "module", error);

	assert_non_null(module);
	*module = *original;
	module->name = mc_strdup(original->name, error);
	module->class_name = class_name;
	module->behaviour = &nothing;
	return module;
}

static bool create(struct mc_module *original, const struct mc_model_config *config,
    bool calibrate_all_experts, struct mc_module **ret, struct mc_error *error)
{
	kinds.created++;
	kinds.flag = calibrate_all_experts;
	kinds.saw_config = config->hidden == 48;
	if (kinds.created == kinds.fail_create_at)
		return mc_fail(error, MC_CORRUPT, original->name, "made up: no module today");
	*ret = NULL;
	if (kinds.make_nothing)
		return true;
	if (kinds.return_original) {
		*ret = original;
		return true;
	}
	*ret = copy_of(original, kinds.keep_class_name ? original->class_name : "Replaced", error);
	if (kinds.other_name)
		(*ret)->name[0] = 'X';
	return true;
}

static bool restore(struct mc_module *replacement, struct mc_module *original,
    struct mc_module **ret, struct mc_error *error)
{
	size_t number = kinds.restored++;

	if (kinds.fail_restore[number])
		return mc_fail(error, MC_IO, original->name, "made up: restore %zu failed", number);
	*ret = kinds.replace_third ? copy_of(original, "Third", error) : original;
	free(replacement->name);
	free(replacement);
	return true;
}

static const struct mc_moe_calibration guest = {
    .class_name = "Guest_Moe Block", .create = create, .restore = restore};
static const struct mc_moe_calibration resident = {
    .class_name = "ResidentMoe", .is_permanent = true, .create = create};

/* --- set-up ----------------------------------------------------------------------------------- */

static void keep_line(void *ctx, enum mc_log_level level, const char *text)
{
	struct fixture *f = ctx;

	assert_true(f->lines < MAX_LINES);
	f->lines++;
	if (level >= MC_LOG_INFO)
		snprintf(f->line[f->info_lines++], sizeof f->line[0], "%s", text);
}

static bool canceled(void *ctx)
{
	struct fixture *f = ctx;

	return f->cancel_at != 0 && ++f->asked >= f->cancel_at;
}

static void note(void *ctx, size_t done, size_t total, const char *name)
{
	struct fixture *f = ctx;

	assert_true(f->steps < MAX_BLOCKS);
	f->done[f->steps] = done;
	f->total[f->steps] = total;
	snprintf(f->name[f->steps++], sizeof f->name[0], "%s", name);
}

static void make_model(struct fixture *f, const char *const *classes, size_t layers)
{
	static struct mc_model_config config = {
	    .hidden = 48, .expert_intermediate = 8, .experts = 2, .experts_per_token = 1};

	hand_model_init(&f->model, &config, classes, layers);
	assert_true(f->model.modules_count <= 64);
	memcpy(f->before, f->model.modules, f->model.modules_count * sizeof f->before[0]);
}

static int set_up(void **state)
{
	struct fixture *f = test_calloc(1, sizeof *f);

	mc_error_init(&err);
	memset(&kinds, 0, sizeof kinds);
	f->env = (struct mc_env){.log = keep_line, .canceled = canceled, .hook_ctx = f};
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

	hand_model_release(&f->model);
	mc_moe_registry_release(&f->registry);
	test_free(f);
	return 0;
}

static bool enter(struct fixture *f, struct mc_calibration_context *context, bool all)
{
	return mc_calibration_context_enter(
	    context, &f->model, &f->registry, all, note, f, &f->env, &err);
}

static void assert_as_before(const struct fixture *f)
{
	for (size_t i = 0; i < f->model.modules_count; i++)
		assert_ptr_equal(f->model.modules[i], f->before[i]);
}

static struct mc_module *block(const struct fixture *f, size_t layer)
{
	return f->model.modules[f->model.layers[layer].moe];
}

static bool logged(const struct fixture *f, const char *text)
{
	for (size_t i = 0; i < f->info_lines; i++)
		if (strstr(f->line[i], text) != NULL)
			return true;
	return false;
}

/* --- entering --------------------------------------------------------------------------------- */

static const char *const guests[] = {"Guest_Moe Block", NULL, "guest_moe_block", "Guest_Moe Block"};
static const char *const mixed[] = {
    "Guest_Moe Block", "ResidentMoe", "Qwen3MoeSparseMoeBlock", "Unknown", "ResidentMoe"};

static void test_replaces_in_order(void **state)
{
	static const char *const names[] = {"layers.0.mlp", "layers.2.mlp", "layers.3.mlp"};
	struct fixture *f = *state;
	struct mc_calibration_context context;

	make_model(f, guests, 4);
	assert_true(enter(f, &context, true));
	assert_int_equal(context.found, 3);
	assert_int_equal(context.replaced_count, 3);
	assert_int_equal(context.permanent, 0);
	assert_int_equal(f->steps, 3);
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(f->done[i], i + 1);
		assert_int_equal(f->total[i], 3);
		assert_string_equal(f->name[i], names[i]);
		assert_string_equal(context.replaced[i].original->name, names[i]);
		assert_ptr_equal(
		    mc_model_find(&f->model, names[i]), context.replaced[i].replacement);
	}
	/* in place: same position, everything else untouched */
	for (size_t i = 0; i < f->model.modules_count; i++)
		assert_true(
		    (f->model.modules[i] != f->before[i]) == (f->before[i]->role == MC_ROLE_MOE));
	assert_true(mc_calibration_context_exit(&context, &f->env, &err));
	assert_as_before(f);
}

static void test_create_sees_the_flag(void **state)
{
	struct fixture *f = *state;
	struct mc_calibration_context context;

	make_model(f, guests, 1);
	for (int all = 0; all < 2; all++) {
		kinds.flag = !all;
		assert_true(enter(f, &context, all));
		assert_int_equal(kinds.flag, all);
		assert_int_equal(context.calibrate_all_experts, all);
		assert_true(kinds.saw_config);
		assert_true(mc_calibration_context_exit(&context, &f->env, &err));
	}
	assert_int_equal(kinds.created, 2);
}

static void test_says_what_it_did(void **state)
{
	struct fixture *f = *state;
	struct mc_calibration_context context;

	make_model(f, mixed, 5);
	assert_true(enter(f, &context, true));
	assert_int_equal(context.found, 4);
	assert_int_equal(context.permanent, 2);
	assert_int_equal(f->info_lines, 4);
	assert_true(logged(f, "found 4 MoE blocks"));
	assert_true(logged(f, "replaced 4 MoE blocks"));
	assert_true(logged(f, "2 of 4 replaced MoE blocks stay permanently"));
	assert_true(logged(f, "2 MoE blocks will be restored"));
	assert_true(f->lines > f->info_lines); /* a debug line on entry */
	assert_true(mc_calibration_context_exit(&context, &f->env, &err));
	assert_int_equal(f->info_lines, 4); /* leaving is silent */
}

static void test_says_nothing_without_moe(void **state)
{
	static const char *const classes[] = {NULL, "Unknown", NULL};
	struct fixture *f = *state;
	struct mc_calibration_context context;

	make_model(f, classes, 3);
	assert_true(enter(f, &context, true));
	assert_int_equal(context.found, 0);
	assert_int_equal(context.replaced_count, 0);
	assert_true(mc_calibration_context_exit(&context, &f->env, &err));
	assert_int_equal(f->info_lines, 0);
	assert_int_equal(f->steps, 0);
	assert_as_before(f);
}

static void test_progress_and_log_may_be_absent(void **state)
{
	struct fixture *f = *state;
	struct mc_env quiet = {0};
	struct mc_calibration_context context;

	make_model(f, guests, 4);
	assert_true(mc_calibration_context_enter(
	    &context, &f->model, &f->registry, true, NULL, NULL, &quiet, &err));
	assert_int_equal(context.replaced_count, 3);
	assert_true(mc_calibration_context_exit(&context, &quiet, &err));
	assert_as_before(f);
}

static void test_an_error_undoes_what_was_replaced(void **state)
{
	struct fixture *f = *state;
	struct mc_calibration_context context;

	make_model(f, mixed, 5);
	/* mixed calls our create for blocks 0, 1 and 4: guest, resident, resident */
	for (size_t at = 1; at <= 3; at++) {
		mc_error_init(&err);
		kinds.created = kinds.restored = 0;
		kinds.fail_create_at = at;
		assert_false(enter(f, &context, true));
		assert_int_equal(err.code, MC_CORRUPT);
		assert_string_equal(err.text, "made up: no module today");
		assert_as_before(f);
		assert_string_equal(block(f, 1)->class_name, "ResidentMoe");
		assert_int_equal(kinds.restored, at > 1); /* the guest only */
		assert_false(logged(f, "replaced"));
		/* leaving what was not entered does nothing */
		assert_true(mc_calibration_context_exit(&context, &f->env, &err));
		assert_as_before(f);
	}
}

static void test_undoing_hides_no_cause(void **state)
{
	struct fixture *f = *state;
	struct mc_calibration_context context;

	make_model(f, guests, 4);
	kinds.fail_create_at = 3;
	kinds.fail_restore[0] = true;
	assert_false(enter(f, &context, true));
	assert_int_equal(err.code, MC_CORRUPT);
	assert_int_equal(kinds.restored, 2);
	assert_as_before(f);
}

static void test_cancel_undoes_what_was_replaced(void **state)
{
	struct fixture *f = *state;
	struct mc_calibration_context context;

	make_model(f, mixed, 5);
	f->cancel_at = 3;
	assert_false(enter(f, &context, true));
	assert_int_equal(err.code, MC_CANCELED);
	assert_int_equal(f->steps, 2);
	assert_as_before(f);
}

static void test_a_create_that_makes_no_module(void **state)
{
	struct fixture *f = *state;
	struct mc_calibration_context context;

	make_model(f, guests, 2);
	for (int i = 0; i < 3; i++) {
		mc_error_init(&err);
		kinds.make_nothing = i == 0;
		kinds.other_name = i == 1;
		kinds.return_original = i == 2;
		assert_false(enter(f, &context, true));
		assert_int_equal(err.code, MC_INTERNAL);
		assert_string_equal(err.where, "layers.0.mlp");
		assert_as_before(f);
	}
}

static void test_a_block_without_experts_is_refused(void **state)
{
	static const char *const classes[] = {"MixtralSparseMoeBlock"};
	struct fixture *f = *state;
	struct mc_calibration_context context;

	make_model(f, classes, 1);
	f->model.config.experts_per_token = 3; /* of 2 */
	assert_false(enter(f, &context, true));
	assert_int_equal(err.code, MC_INVALID);
	assert_non_null(strstr(err.text, "3 of 2"));
	assert_as_before(f);
}

/* --- leaving ---------------------------------------------------------------------------------- */

static void test_permanent_ones_stay(void **state)
{
	struct fixture *f = *state;
	struct mc_calibration_context context;

	make_model(f, mixed, 5);
	struct mc_module *guest_block = block(f, 0), *qwen = block(f, 2);
	assert_true(enter(f, &context, false));
	struct mc_module *first = block(f, 1), *second = block(f, 4);
	assert_string_equal(block(f, 2)->class_name, "CalibrationQwen3MoeSparseMoeBlock");
	assert_string_equal(block(f, 2)->name, "layers.2.mlp");
	assert_int_equal(block(f, 2)->role, MC_ROLE_MOE);
	for (size_t i = 0; i < context.replaced_count; i++)
		assert_true((context.replaced[i].original == NULL) ==
			    context.replaced[i].kind->is_permanent);
	assert_true(mc_calibration_context_exit(&context, &f->env, &err));
	assert_ptr_equal(block(f, 0), guest_block);
	assert_ptr_equal(block(f, 2), qwen);
	assert_null(qwen->behaviour);
	assert_ptr_equal(block(f, 1), first);
	assert_ptr_equal(block(f, 4), second);
	assert_string_equal(first->class_name, "Replaced");
	assert_string_equal(block(f, 3)->class_name, "Unknown");
	assert_int_equal(kinds.restored, 1);

	/* a second calibration finds the two that can be replaced again, and no other */
	assert_true(enter(f, &context, false));
	assert_int_equal(context.found, 2);
	assert_true(mc_calibration_context_exit(&context, &f->env, &err));
	assert_ptr_equal(block(f, 1), first);
}

static void test_restores_after_an_error_of_the_body(void **state)
{
	struct fixture *f = *state;
	struct mc_calibration_context context;

	make_model(f, guests, 4);
	assert_true(enter(f, &context, true));
	(void)mc_fail(&err, MC_NO_SPACE, "layer 3", "the body failed");
	assert_true(mc_calibration_context_exit(&context, &f->env, &err));
	assert_int_equal(err.code, MC_NO_SPACE);
	assert_string_equal(err.text, "the body failed");
	assert_as_before(f);
}

static void test_restores_even_when_canceled(void **state)
{
	struct fixture *f = *state;
	struct mc_calibration_context context;

	make_model(f, guests, 4);
	assert_true(enter(f, &context, true));
	f->cancel_at = 1;
	assert_true(mc_calibration_context_exit(&context, &f->env, &err));
	assert_as_before(f);
}

static void test_leaving_twice(void **state)
{
	struct fixture *f = *state;
	struct mc_calibration_context context = {0};

	make_model(f, guests, 4);
	assert_true(mc_calibration_context_exit(&context, &f->env, &err)); /* never entered */
	assert_true(enter(f, &context, true));
	assert_true(mc_calibration_context_exit(&context, &f->env, &err));
	assert_int_equal(kinds.restored, 3);
	assert_true(mc_calibration_context_exit(&context, &f->env, &err));
	assert_int_equal(kinds.restored, 3);
	assert_as_before(f);
}

static void test_all_are_tried_and_the_first_error_told(void **state)
{
	struct fixture *f = *state;
	struct mc_calibration_context context;

	make_model(f, guests, 4);
	assert_true(enter(f, &context, true));
	kinds.fail_restore[0] = kinds.fail_restore[2] = true;
	assert_false(mc_calibration_context_exit(&context, &f->env, &err));
	assert_int_equal(kinds.restored, 3);
	assert_int_equal(err.code, MC_IO);
	assert_string_equal(err.where, "layers.0.mlp");
	assert_string_equal(err.text, "made up: restore 0 failed");
	assert_as_before(f); /* the originals are back even so */
}

static void test_restore_may_name_a_third_module(void **state)
{
	struct fixture *f = *state;
	struct mc_calibration_context context;

	make_model(f, guests, 2);
	kinds.replace_third = true;
	assert_true(enter(f, &context, true));
	assert_true(mc_calibration_context_exit(&context, &f->env, &err));
	assert_string_equal(block(f, 0)->class_name, "Third");
	assert_string_equal(block(f, 0)->name, "layers.0.mlp");
}

/* --- twice ------------------------------------------------------------------------------------ */

static void test_nesting_does_not_wrap_twice(void **state)
{
	static const char *const classes[] = {
	    "Guest_Moe Block", "Qwen3MoeSparseMoeBlock", "ResidentMoe"};
	struct fixture *f = *state;

	make_model(f, classes, 3);
	for (int keep = 0; keep < 2; keep++) {
		struct mc_calibration_context outer, inner;
		struct mc_module *replaced[3];

		/* even when a replacement keeps the name of its class */
		kinds.keep_class_name = keep;
		assert_true(enter(f, &outer, true));
		assert_int_equal(outer.found, keep ? 2 : 3);
		for (size_t l = 0; l < 3; l++)
			replaced[l] = block(f, l);
		size_t created = kinds.created, lines = f->info_lines;
		assert_true(enter(f, &inner, false));
		assert_int_equal(inner.found, 0);
		assert_int_equal(inner.replaced_count, 0);
		assert_int_equal(kinds.created, created);
		assert_int_equal(f->info_lines, lines);
		assert_true(mc_calibration_context_exit(&inner, &f->env, &err));
		for (size_t l = 0; l < 3; l++)
			assert_ptr_equal(
			    block(f, l), replaced[l]); /* the outer one is still open */
		assert_true(mc_calibration_context_exit(&outer, &f->env, &err));
		assert_ptr_equal(block(f, 0), f->before[f->model.layers[0].moe]);
		assert_ptr_equal(block(f, 1), f->before[f->model.layers[1].moe]);
		f->lines = f->info_lines = f->steps = 0;
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_replaces_in_order),
	    TEST(test_create_sees_the_flag),
	    TEST(test_says_what_it_did),
	    TEST(test_says_nothing_without_moe),
	    TEST(test_progress_and_log_may_be_absent),
	    TEST(test_an_error_undoes_what_was_replaced),
	    TEST(test_undoing_hides_no_cause),
	    TEST(test_cancel_undoes_what_was_replaced),
	    TEST(test_a_create_that_makes_no_module),
	    TEST(test_a_block_without_experts_is_refused),
	    TEST(test_permanent_ones_stay),
	    TEST(test_restores_after_an_error_of_the_body),
	    TEST(test_restores_even_when_canceled),
	    TEST(test_leaving_twice),
	    TEST(test_all_are_tried_and_the_first_error_told),
	    TEST(test_restore_may_name_a_third_module),
	    TEST(test_nesting_does_not_wrap_twice),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
