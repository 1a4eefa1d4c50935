/*
 * verify_world.h - a small checkpoint in every format, and what verify must say of it: shared by
 * its tests
 */
#ifndef MC_UNIT_VERIFY_WORLD_H
#define MC_UNIT_VERIFY_WORLD_H

#include "quantized_folder.h"

#include <math.h>

#include "moecal/verdict.h"

static char scratch[] = "/tmp/moecal-test-verify-XXXXXX";
static char original[QF_PATH];
static struct lab lab;

static const struct format {
	const char *name, *recipe;
	const char *module; /* that is damaged, besides attention */
} formats[] = {
    {"w4a16", "\"W4A16\"", "mlp.experts.1.up_proj"},
    {"w3a16", "\"W3A16\"", "mlp.experts.1.down_proj"},
    {"w4a16-asym", "\"W4A16_ASYM\"", "mlp.experts.2.gate_proj"},
    {"w8a8", "\"W8A8\"", "mlp.experts.0.up_proj"},
    {"w4a8", "\"W4A8\"", "mlp.experts.3.up_proj"},
    {"w8a8-static-asym",
	"{\"config_groups\": {\"g\": {\"targets\": [\"Linear\"], \"weights\": {\"num_bits\": 8, "
	"\"strategy\": \"channel\", \"symmetric\": false}, \"input_activations\": {\"num_bits\": "
	"8, "
	"\"strategy\": \"tensor\", \"symmetric\": false}}}, \"ignore\": [\"lm_head\"]}",
	"mlp.experts.3.down_proj"},
    {"fp8", "\"FP8\"", "mlp.experts.1.up_proj"},
    {"fp8-dynamic", "\"FP8_DYNAMIC\"", "mlp.experts.1.gate_proj"},
    {"fp8-block", "\"FP8_BLOCK\"", "mlp.experts.1.down_proj"},
    {"naive",
	"{\"config_groups\": {\"g\": {\"targets\": [\"Linear\"], \"weights\": {\"num_bits\": 8, "
	"\"type\": \"float\", \"strategy\": \"channel\"}}}, \"ignore\": [\"lm_head\"]}",
	"mlp.experts.0.down_proj"},
    {"nvfp4", "\"NVFP4\"", "mlp.experts.2.up_proj"},
    {"nvfp4a16", "\"NVFP4A16\"", "mlp.experts.2.up_proj"},
    {"mxfp4", "\"MXFP4\"", "mlp.experts.2.down_proj"},
    {"mxfp8", "\"MXFP8A16\"", "mlp.experts.0.gate_proj"},
    {"mixed",
	"{\"config_groups\": {\"a\": {\"targets\": [\"re:.*experts.*\"], \"weights\": "
	"{\"num_bits\": "
	"4, \"strategy\": \"group\", \"group_size\": 32}}, \"b\": {\"targets\": "
	"[\"re:.*self_attn.*_proj\"], \"weights\": {\"num_bits\": 8, \"type\": \"float\", "
	"\"strategy\": \"channel\"}, \"input_activations\": {\"num_bits\": 8, \"type\": \"float\", "
	"\"dynamic\": true, \"strategy\": \"token\"}}}, \"ignore\": [\"lm_head\"]}",
	"mlp.experts.1.down_proj"},
    {"kv",
	"{\"targets\": [\"Linear\"], \"scheme\": \"W8A8\", \"ignore\": [\"lm_head\"], "
	"\"kv_cache_scheme\": {\"num_bits\": 8, \"type\": \"float\", \"strategy\": \"tensor\", "
	"\"dynamic\": false, \"symmetric\": true}}",
	"mlp.experts.1.up_proj"},
    {"dense",
	"{\"kv_cache_scheme\": {\"num_bits\": 8, \"type\": \"float\", \"strategy\": \"tensor\", "
	"\"dynamic\": false, \"symmetric\": true}}",
	NULL},
};
#define FORMATS (sizeof formats / sizeof *formats)

static inline const char *place(const char *name, const char *more)
{
	static char paths[8][QF_PATH];
	static unsigned next;
	char *p = paths[next++ % 8];

	snprintf(p, QF_PATH, "%s/%s%s", scratch, name, more);
	return p;
}

/* --- one verdict ------------------------------------------------------------------------------ */

/* Whether an example of a failed check holds the name. */
static inline bool names(const struct mc_verdict *verdict, const char *name)
{
	for (size_t c = 0; c < MC_CHECK_COUNT; c++)
		for (size_t i = 0; i < verdict->checks[c].examples_count; i++)
			if (strstr(verdict->checks[c].examples[i], name) != NULL)
				return true;
	return false;
}

/* name NULL: the folder is good. Otherwise verify finds something and names it. */
static inline void require(
    const char *folder, const char *from, const char *name, const char *damage)
{
	struct mc_verdict verdict;
	struct mc_error err;

	mc_error_init(&err);
	mc_verdict_init(&verdict);
	if (!mc_verify_checkpoint(&verdict, folder, from, &lab.env, &err))
		fail_msg("%s of %s: %s: %s", damage, folder, err.where, err.text);
	bool found = name == NULL ? mc_verdict_valid(&verdict)
				  : !mc_verdict_valid(&verdict) && names(&verdict, name);
	if (!found)
		for (size_t c = 0; c < MC_CHECK_COUNT; c++)
			for (size_t i = 0; i < verdict.checks[c].examples_count; i++)
				print_error("  %s: %s\n", verdict.checks[c].name,
				    verdict.checks[c].examples[i]);
	if (!found)
		fail_msg("%s of %s: %s is not named%s", damage, folder, name == NULL ? "-" : name,
		    from == NULL ? "" : " (with the original)");
	struct mc_json *json = mc_verdict_json(&verdict, &err);
	assert_non_null(json);
	mc_json_free(json);
	mc_verdict_release(&verdict);
	assert_int_equal(mc_arena_mark(lab.env.arena), 0);
}

/* Of a family that is known, alone and against the original; and of one that is not. */
static inline void require_found(const char *good, const struct qf_edit *edits, size_t count,
    const char *name, const char *damage, bool also_unknown)
{
	const char *folder = place("damaged", "");
	struct mc_error err;

	mc_error_init(&err);
	qf_rewrite(good, folder, edits, count, NULL);
	require(folder, NULL, name, damage);
	require(folder, original, name, damage);
	if (also_unknown) {
		qf_rewrite(good, folder, edits, count,
		    "{\"model_type\": \"other_moe\", \"architectures\": "
		    "[\"OtherMoeForCausalLM\"]}");
		require(folder, NULL, name, damage);
	}
	toy_require(mc_file_remove_tree(folder, &err), &err);
}

/* --- the formats ------------------------------------------------------------------------------ */

static inline const char *good_of(const struct format *format)
{
	static char model[QF_PATH];
	char more[QF_PATH + 64];

	snprintf(model, sizeof model, "%s/model", place(format->name, ""));
	snprintf(more, sizeof more, ", \"dataset\": \"%s\", \"max_seq_length\": 64",
	    place("ids.jsonl", ""));
	if (!mc_file_exists(model))
		qf_run(original, format->recipe, more, place(format->name, ""), 1);
	return model;
}

static inline void edit_config(const char *folder, const char *from, const char *to)
{
	char path[QF_PATH + 16], *text, *whole;
	struct mc_checkpoint checkpoint;
	struct mc_error err;
	struct mc_buf buf;

	mc_error_init(&err);
	mc_buf_init(&buf, 1 << 24);
	toy_require(mc_checkpoint_open(&checkpoint, NULL, folder, &err), &err);
	toy_require(mc_checkpoint_read_file(&checkpoint, "config.json", &buf, &err), &err);
	text = strstr(mc_buf_text(&buf), from);
	if (text == NULL)
		fail_msg("no '%s' in %s", from, mc_buf_text(&buf));
	whole = mc_format(&err, "%.*s%s%s", (int)(text - mc_buf_text(&buf)), mc_buf_text(&buf), to,
	    text + strlen(from));
	assert_non_null(whole);
	snprintf(path, sizeof path, "%s/config.json", folder);
	toy_require(mc_file_write_durable(path, whole, strlen(whole), &err), &err);
	free(whole);
	mc_buf_release(&buf);
	mc_checkpoint_close(&checkpoint);
}

/* --- the group -------------------------------------------------------------------------------- */

static inline int world_set_up(void **state)
{
	struct mc_toy toy = mc_toy(MC_TOY_QWEN3_MOE);
	struct mc_error err;
	(void)state;

	mc_error_init(&err);
	assert_non_null(mkdtemp(scratch));
	lab_open(&lab, 1);
	snprintf(original, sizeof original, "%s/original", scratch);
	toy_require(mc_file_make_folders(original, &err), &err);
	toy.hidden = toy.expert_intermediate = 128;
	toy.heads = 4;
	toy.kv_heads = 2;
	toy.head_dim = 32;
	toy_require(mc_toy_write(&toy, original, &err), &err);
	qf_write_text(scratch, "ids.jsonl",
	    "{\"input_ids\": [1, 2, 3, 4, 5, 6, 7]}\n{\"input_ids\": [7, 6, 5]}\n");
	return 0;
}

static inline int world_tear_down(void **state)
{
	struct mc_error err;
	(void)state;

	mc_error_init(&err);
	lab_close(&lab);
	return mc_file_remove_tree(scratch, &err) ? 0 : 1;
}

#endif
