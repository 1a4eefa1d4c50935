/*
 * test_job.c - whole jobs through the library on a real small model: results, bits, resume,
 * refusals
 */
#include "job_world.h"

#include "reference/toy.h"

/* --- tests ------------------------------------------------------------------------------------ */

static void test_bits_do_not_depend_on_workers(void **state)
{
	static const char *const recipes[] = {"W4A16", "FP8"};
	struct mc_run_result result;
	(void)state;

	for (size_t r = 0; r < 2; r++) {
		char folders[4][128];
		static const unsigned workers[] = {1, 2, 3, 5};
		for (size_t i = 0; i < 4; i++) {
			snprintf(folders[i], sizeof folders[i], "%s/bits-%s-%u", scratch,
			    recipes[r], workers[i]);
			require_job(spec_text(recipes[r], ""), folders[i], workers[i], &result);
			if (i > 0)
				assert_same_files(folders[0], folders[i]);
		}
	}
}

static void test_resume_after_every_layer(void **state)
{
	struct mc_run_result result;
	char whole[128], broken[128];
	struct mc_error err;
	(void)state;

	snprintf(whole, sizeof whole, "%s/whole", scratch);
	require_job(spec_text("FP8", ""), whole, 2, &result);
	assert_false(result.resumed);
	for (size_t stop = 1; stop < LAYERS; stop++) {
		struct control control = {.cancel_at = stop};
		snprintf(broken, sizeof broken, "%s/stopped-%zu", scratch, stop);
		mc_error_init(&err);
		assert_false(run_job(spec_text("FP8", ""), broken, 2, &control, &result, &err));
		assert_int_equal(err.code, MC_CANCELED);
		/* nothing under a final name yet */
		assert_false(mc_file_exists(path_of(broken, "model")));
		assert_false(mc_file_exists(path_of(broken, "quantization.safetensors")));
		assert_false(mc_file_exists(path_of(broken, "manifest.json")));
		require_job(spec_text("FP8", ""), broken, 3, &result);
		assert_true(result.resumed);
		assert_int_equal(result.layers_resumed, stop);
		assert_same_files(whole, broken);
		assert_false(mc_file_exists(path_of(broken, "resume")));
	}
}

static void test_resume_refuses_another_job(void **state)
{
	struct control control = {.cancel_at = 1};
	struct mc_run_result result;
	struct mc_error err;
	char out[128];
	(void)state;

	snprintf(out, sizeof out, "%s/changed", scratch);
	mc_error_init(&err);
	assert_false(run_job(spec_text("FP8", ""), out, 1, &control, &result, &err));
	control = (struct control){0};
	mc_error_init(&err);
	assert_false(run_job(spec_text("W8A8", ""), out, 1, &control, &result, &err));
	assert_int_equal(err.code, MC_CONFLICT);
	assert_non_null(strstr(err.text, "cannot go on: spec"));
	/* labels and threads may change */
	require_job(
	    spec_text("FP8", ", \"metadata\": {\"a\": 1}, \"threads\": 2"), out, 2, &result);
}

static void test_routed_experts_have_finite_parameters(void **state)
{
	struct mc_run_result result;
	struct mc_error err;
	char out[128];
	size_t unseen = 0, seen = 0;
	(void)state;

	/* few tokens, so that some experts get none */
	snprintf(out, sizeof out, "%s/routed", scratch);
	require_job(spec_text("FP8", ", \"calibrate_all_experts\": false, "
				     "\"num_calibration_samples\": 1, \"max_seq_length\": 6"),
	    out, 2, &result);
	mc_error_init(&err);
	struct mc_statistics *statistics = mc_statistics_open(
	    path_of(out, "calibration.db"), true, &err);
	assert_non_null(statistics);
	struct mc_json *rows = mc_statistics_modules_json(
	    statistics,
	    &(struct mc_module_filter){.layer = MC_NO_INDEX, .expert = MC_NO_INDEX}, &err);
	for (size_t i = 0; i < mc_json_size(rows); i++) {
		const struct mc_json *row = mc_json_at(rows, i);
		bool weights_only = strcmp(mc_json_string(mc_json_get(row, "source"), NULL),
					"weights-only") == 0;
		unseen += weights_only;
		seen += !weights_only;
		assert_int_equal(mc_json_is_null(mc_json_get(row, "input_min")), weights_only);
		assert_true(isfinite(mc_json_number(mc_json_get(row, "scale_min"))));
		assert_true(mc_json_number(mc_json_get(row, "scale_min")) > 0);
	}
	assert_true(unseen > 0);
	assert_true(seen > 0);
	mc_json_free(rows);
	mc_statistics_close(statistics);
}

static void test_all_experts_see_all_tokens(void **state)
{
	struct mc_run_result result;
	char out[128];
	(void)state;

	snprintf(out, sizeof out, "%s/all", scratch);
	require_job(spec_text("FP8", ", \"num_calibration_samples\": 1, \"max_seq_length\": 6"),
	    out, 2, &result);
	struct mc_json *verdict = read_json(out, "verdict.json");
	const struct mc_json *layers = mc_json_get(mc_json_get(verdict, "experts"), "layers");
	assert_int_equal(mc_json_size(layers), LAYERS);
	for (size_t l = 0; l < LAYERS; l++) {
		const struct mc_json *layer = mc_json_at(layers, l),
				     *experts = mc_json_get(layer, "experts");
		int64_t tokens = mc_json_integer(mc_json_get(layer, "tokens")), routed = 0;
		assert_int_equal(mc_json_size(experts), 8);
		for (size_t e = 0; e < 8; e++) {
			assert_int_equal(
			    mc_json_integer(mc_json_get(mc_json_at(experts, e), "seen")), tokens);
			routed += mc_json_integer(mc_json_get(mc_json_at(experts, e), "routed"));
		}
		assert_int_equal(routed, 2 * tokens);
		assert_true(mc_json_size(mc_json_get(layer, "starved")) > 0);
	}
	mc_json_free(verdict);
}

static void test_without_data(void **state)
{
	struct mc_run_result result;
	char out[128], with[128], a[65], b[65];
	(void)state;

	snprintf(out, sizeof out, "%s/datafree", scratch);
	snprintf(with, sizeof with, "%s/with-data", scratch);
	require_job("{\"model\": \"" MODEL "\", \"recipe\": \"W4A16\"}", out, 2, &result);
	require_job(spec_text("W4A16", ""), with, 2, &result);
	/* the text changes what is known about the experts, not the weights' parameters */
	digest(out, "model/model.safetensors", a);
	digest(with, "model/model.safetensors", b);
	assert_string_equal(a, b);
}

static void test_head_and_presets(void **state)
{
	static const char *const recipes[] = {"W8A16", "W4A16_ASYM", "W8A8", "FP8_DYNAMIC",
	    "W3A16", "FP8_BLOCK", "NVFP4", "NVFP4A16", "MXFP4", "MXFP8A16"};
	struct mc_run_result result;
	struct mc_error err;
	char out[128];
	(void)state;

	for (size_t i = 0; i < sizeof recipes / sizeof *recipes; i++) {
		snprintf(out, sizeof out, "%s/preset-%s", scratch, recipes[i]);
		require_job(
		    spec_text(recipes[i], ", \"num_calibration_samples\": 2"), out, 2, &result);
	}
	/* the head is quantized when it is not ignored, and has an input scale */
	char spec[700];
	snprintf(spec, sizeof spec,
	    "{\"model\": \"" MODEL
	    "\", \"dataset\": \"%s/data.jsonl\", \"recipe\": {\"targets\": [\"Linear\"], "
	    "\"scheme\": \"FP8\"}, \"keep_statistics\": \"channels\", \"precision\": \"float32\"}",
	    scratch);
	snprintf(out, sizeof out, "%s/head", scratch);
	require_job(spec, out, 2, &result);
	struct mc_st_file file;
	int fd;
	mc_error_init(&err);
	assert_true(mc_root_open(NULL, path_of(out, "quantization.safetensors"), &fd, &err));
	assert_true(mc_st_open_fd(&file, fd, "quantization.safetensors", &err));
	const struct mc_st_entry *entry = mc_st_find(&file, "lm_head.input_scale");
	assert_non_null(entry);
	assert_int_equal(entry->dtype, MC_F32);
	mc_st_close(&file);
}

#define FP4_GROUP "\"num_bits\": 4, \"type\": \"float\", \"strategy\": \"tensor_group\", "    \
		  "\"group_size\": 16, \"scale_dtype\": \"float8_e4m3fn\""

/* Searches over weights and inputs, averages over groups; all experts, and routed ones of which
 * some see nothing; the head too. Bits, memory and resuming as with simpler observers. */
static void test_observers(void **state)
{
	static const char *const recipes[] = {
	    "{\"scheme\": \"FP8\", \"input_observer\": \"mse\", \"weight_observer\": \"mse\"}",
	    "{\"scheme\": \"W4A16\", \"weight_observer\": \"imatrix_mse\"}",
	    "{\"config_groups\": {\"a\": {\"targets\": [\"Linear\"], \"weights\": {" FP4_GROUP
	    ", \"observer\": \"nvfp4_expanded_imatrix\"}, \"input_activations\": {" FP4_GROUP
	    ", \"dynamic\": \"local\"}}}}",
	    "{\"scheme\": \"NVFP4\", \"input_observer\": \"mse\"}"};
	struct mc_run_result result;
	struct mc_error err;
	char a[128], b[128];
	(void)state;

	for (size_t r = 0; r < sizeof recipes / sizeof *recipes; r++) {
		const char *more = r % 2 == 0
				       ? ", \"num_calibration_samples\": 3"
				       : ", \"calibrate_all_experts\": false, "
					 "\"num_calibration_samples\": 2, \"max_seq_length\": 6";
		struct control control = {.cancel_at = 2};
		snprintf(a, sizeof a, "%s/observer-%zu-a", scratch, r);
		snprintf(b, sizeof b, "%s/observer-%zu-b", scratch, r);
		require_job(spec_of(recipes[r], more), a, 1, &result);
		mc_error_init(&err);
		assert_false(run_job(spec_of(recipes[r], more), b, 3, &control, &result, &err));
		assert_int_equal(err.code, MC_CANCELED);
		require_job(spec_of(recipes[r], more), b, 2, &result);
		assert_same_files(a, b);
	}
}

/* A global scale for one of two linears that engines merge is refused before anything is read. */
static void test_fused_linears_are_quantized_alike(void **state)
{
	struct control control = {0};
	struct mc_run_result result;
	struct mc_error err;
	char out[128];
	(void)state;

	snprintf(out, sizeof out, "%s/unlike", scratch);
	mc_error_init(&err);
	assert_false(run_job(
	    spec_of("{\"config_groups\": {\"a\": {\"targets\": [\"re:.*(q|v)_proj$\"], \"weights\": {" FP4_GROUP
		    "}}, \"b\": {\"targets\": [\"re:.*k_proj$\"], \"weights\": {\"num_bits\": 8}}}}",
		""),
	    out, 1, &control, &result, &err));
	assert_int_equal(err.code, MC_INVALID);
	assert_string_equal(err.where, "model.layers.0.self_attn.q_proj");
	assert_non_null(strstr(err.text, "model.layers.0.self_attn.k_proj"));
	assert_non_null(strstr(err.text, "of group b: quantize all of them alike"));
	mc_error_init(&err);
	assert_false(run_job(
	    spec_of("{\"config_groups\": {\"a\": {\"targets\": [\"re:.*up_proj$\"], \"weights\": {" FP4_GROUP
		    "}}}}",
		""),
	    out, 1, &control, &result, &err));
	assert_int_equal(err.code, MC_INVALID);
	assert_string_equal(err.where, "model.layers.0.mlp.experts.0.up_proj");
	assert_non_null(strstr(err.text, "that one is not quantized"));
	assert_false(mc_file_exists(out));
}

/* The verdict on a checkpoint in which one number was changed. */
static void damage(const char *model, const char *tensor, const void *bytes, size_t count)
{
	struct mc_checkpoint checkpoint;
	struct mc_error err;

	mc_error_init(&err);
	assert_true(mc_checkpoint_open(&checkpoint, NULL, model, &err));
	const struct mc_ckpt_tensor *t = mc_checkpoint_find(&checkpoint, tensor);
	assert_non_null(t);
	FILE *file = fopen(path_of(model, "model.safetensors"), "r+b");
	assert_non_null(file);
	assert_int_equal(fseek(file, (long)t->entry->offset, SEEK_SET), 0);
	assert_int_equal(fwrite(bytes, 1, count, file), count);
	fclose(file);
	mc_checkpoint_close(&checkpoint);
}

static void test_verify_of_global_scales(void **state)
{
	static const float one = 1, subnormal = 1e-41f;
	static const uint8_t nan = 0x7f;
	struct mc_run_result result;
	struct mc_arena arena;
	struct mc_env env = {.arena = &arena};
	struct mc_verdict verdict;
	struct mc_error err;
	char out[128], model[160];
	(void)state;

	snprintf(out, sizeof out, "%s/global", scratch);
	require_job(spec_text("NVFP4", ", \"num_calibration_samples\": 2"), out, 1, &result);
	mc_error_init(&err);
	env.pool = mc_pool_new(1, &err);
	assert_true(mc_arena_init(&arena, (uint64_t)1 << 28, &err));
	snprintf(model, sizeof model, "%s/model", out);
	mc_verdict_init(&verdict);
	assert_true(mc_verify_checkpoint(&verdict, model, MODEL, &env, &err));
	assert_true(mc_verdict_valid(&verdict));
	assert_true(verdict.checks[MC_CHECK_FUSED].counted > 0);
	mc_verdict_release(&verdict);
	damage(model, "model.layers.1.self_attn.k_proj.weight_global_scale", &one, 4);
	damage(model, "model.layers.1.self_attn.o_proj.input_global_scale", &subnormal, 4);
	damage(model, "model.layers.0.mlp.experts.2.up_proj.weight_scale", &nan, 1);
	mc_verdict_init(&verdict);
	assert_true(mc_verify_checkpoint(&verdict, model, MODEL, &env, &err));
	assert_int_equal(verdict.checks[MC_CHECK_FUSED].failed, 1);
	assert_non_null(strstr(verdict.checks[MC_CHECK_FUSED].examples[0], "k_proj"));
	assert_int_equal(verdict.checks[MC_CHECK_POSITIVE].failed, 1);
	assert_int_equal(verdict.checks[MC_CHECK_FINITE].failed, 1);
	assert_true(verdict.checks[MC_CHECK_BOUND].failed > 0);
	mc_verdict_release(&verdict);
	mc_pool_free(env.pool);
	mc_arena_release(&arena);
}

static void test_verify_finds_damage(void **state)
{
	struct mc_run_result result;
	struct mc_arena arena;
	struct mc_env env = {.arena = &arena};
	struct mc_error err;
	char out[128], model[160];
	(void)state;

	snprintf(out, sizeof out, "%s/damage", scratch);
	require_job(spec_text("FP8", ", \"num_calibration_samples\": 2"), out, 1, &result);
	mc_error_init(&err);
	env.pool = mc_pool_new(1, &err);
	assert_true(mc_arena_init(&arena, (uint64_t)1 << 28, &err));
	snprintf(model, sizeof model, "%s/model", out);
	struct mc_verdict verdict;
	mc_verdict_init(&verdict);
	assert_true(mc_verify_checkpoint(&verdict, model, MODEL, &env, &err));
	assert_true(mc_verdict_valid(&verdict));
	mc_verdict_release(&verdict);
	/* zero one input scale in place */
	struct mc_checkpoint checkpoint;
	assert_true(mc_checkpoint_open(&checkpoint, NULL, model, &err));
	const struct mc_ckpt_tensor *t = mc_checkpoint_find(
	    &checkpoint, "model.layers.1.mlp.experts.5.up_proj.input_scale");
	assert_non_null(t);
	FILE *file = fopen(path_of(model, "model.safetensors"), "r+b");
	assert_non_null(file);
	assert_int_equal(fseek(file, (long)t->entry->offset, SEEK_SET), 0);
	assert_int_equal(fwrite("\0\0", 1, 2, file), 2);
	fclose(file);
	mc_checkpoint_close(&checkpoint);
	mc_verdict_init(&verdict);
	assert_true(mc_verify_checkpoint(&verdict, model, MODEL, &env, &err));
	assert_false(mc_verdict_valid(&verdict));
	assert_int_equal(verdict.checks[MC_CHECK_POSITIVE].failed, 1);
	assert_non_null(
	    strstr(verdict.checks[MC_CHECK_POSITIVE].examples[0], "experts.5.up_proj.input_scale"));
	mc_verdict_release(&verdict);
	mc_pool_free(env.pool);
	mc_arena_release(&arena);
}

/* Every layout of a checkpoint goes through: families, fused experts of which some keep their
 * weights, tied embeddings, layers without experts, biases, shards, stored in any dtype. */
static void test_every_layout(void **state)
{
	struct mc_toy toys[] = {mc_toy(MC_TOY_QWEN3_MOE), mc_toy(MC_TOY_MIXTRAL),
	    mc_toy(MC_TOY_QWEN3_MOE), mc_toy(MC_TOY_QWEN3_MOE), mc_toy(MC_TOY_MIXTRAL)};
	static const char *const precisions[] = {"auto", "float32", "bfloat16"};
	struct mc_run_result result;
	struct mc_error err;
	char folder[128], out[128], spec[900];
	(void)state;

	toys[0].fused = true;
	toys[1].version_5 = toys[1].fused = true;
	toys[2].tied = toys[2].attention_bias = true;
	toys[2].dense_layers = 1;
	toys[3].shards = 3;
	toys[3].dtype = MC_F32;
	toys[4].dtype = MC_F16;
	write_text(path_of(scratch, "ids.jsonl"),
	    "{\"input_ids\": [1, 2, 3, 4, 5, 6, 7]}\n{\"input_ids\": [7, 6, 5]}\n");
	for (size_t i = 0; i < sizeof toys / sizeof *toys; i++)
		for (size_t p = 0; p < 3; p++) {
			mc_error_init(&err);
			snprintf(folder, sizeof folder, "%s/toy-%zu-%zu", scratch, i, p);
			snprintf(out, sizeof out, "%s/toy-out-%zu-%zu", scratch, i, p);
			assert_true(mc_file_make_folders(folder, &err));
			assert_true(mc_toy_write(&toys[i], folder, &err));
			snprintf(spec, sizeof spec,
			    "{\"model\": \"%s\", \"dataset\": \"%s/ids.jsonl\", \"precision\": "
			    "\"%s\", \"recipe\": "
			    "{\"targets\": [\"Linear\"], \"ignore\": [\"lm_head\", "
			    "\"re:.*experts.1.*\"], "
			    "\"scheme\": \"FP8\"}}",
			    folder, scratch, precisions[p]);
			require_job(spec, out, 2, &result);
		}
}

static void test_output_folder_must_be_ours(void **state)
{
	struct control control = {0};
	struct mc_run_result result;
	struct mc_error err;
	char out[128];
	(void)state;

	snprintf(out, sizeof out, "%s/full", scratch);
	mc_error_init(&err);
	assert_true(mc_file_make_folders(out, &err));
	write_text(path_of(out, "notes.txt"), "mine");
	assert_false(run_job(spec_text("W4A16", ""), out, 1, &control, &result, &err));
	assert_int_equal(err.code, MC_CONFLICT);
	assert_non_null(strstr(err.text, "notes.txt"));
	assert_true(mc_file_exists(path_of(out, "notes.txt")));
	assert_false(mc_file_exists(path_of(out, "resume")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_bits_do_not_depend_on_workers),
	    cmocka_unit_test(test_resume_after_every_layer),
	    cmocka_unit_test(test_resume_refuses_another_job),
	    cmocka_unit_test(test_routed_experts_have_finite_parameters),
	    cmocka_unit_test(test_all_experts_see_all_tokens),
	    cmocka_unit_test(test_without_data),
	    cmocka_unit_test(test_head_and_presets),
	    cmocka_unit_test(test_observers),
	    cmocka_unit_test(test_fused_linears_are_quantized_alike),
	    cmocka_unit_test(test_verify_of_global_scales),
	    cmocka_unit_test(test_verify_finds_damage),
	    cmocka_unit_test(test_every_layout),
	    cmocka_unit_test(test_output_folder_must_be_ours),
	};
	return cmocka_run_group_tests_name("job", tests, make_scratch, remove_scratch);
}
