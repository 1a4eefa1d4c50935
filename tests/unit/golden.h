/*
 * golden.h - vectors of the reference: index.json and safetensors beside it
 *
 * Each entry names a function, its arguments and the tensors that go in and come out. Written once
 * for the test programs that read them; GOLDEN_UNITS may be another folder of the same form.
 */
#ifndef MC_TESTS_GOLDEN_H
#define MC_TESTS_GOLDEN_H

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "moecal/file.h"
#include "moecal/problems.h"
#include "moecal/safetensors.h"
#include "moecal/scheme.h"

#ifndef GOLDEN_UNITS
#define GOLDEN_UNITS "tests/golden/units"
#endif

static inline struct mc_json *golden_json(const char *path)
{
	struct mc_error err;
	struct mc_buf buf;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		fail_msg("cannot open %s", path);
	mc_error_init(&err);
	mc_buf_init(&buf, 16u << 20);
	if (!mc_file_read_all(fd, path, &buf, &err))
		fail_msg("%s: %s", path, err.text);
	close(fd);
	struct mc_json *json = mc_json_parse(mc_buf_text(&buf), buf.length, path, &err);
	if (json == NULL)
		fail_msg("%s: %s", path, err.text);
	mc_buf_release(&buf);
	return json;
}

struct golden {
	struct mc_json *index;
	size_t next;
	const struct mc_json *entry;
	const char *name;
	struct mc_st_file file; /* of the entry */
	char open[64];
};

static inline void golden_open(struct golden *g)
{
	*g = (struct golden){.index = golden_json(GOLDEN_UNITS "/index.json")};
}

static inline void golden_close(struct golden *g)
{
	if (g->open[0] != '\0')
		mc_st_close(&g->file);
	mc_json_free(g->index);
}

/* The next entry of a function; false at the end. */
static inline bool golden_next(struct golden *g, const char *function)
{
	struct mc_error err;

	while (g->next < mc_json_size(g->index)) {
		g->entry = mc_json_at(g->index, g->next++);
		if (strcmp(mc_json_string(mc_json_get(g->entry, "function"), NULL), function) != 0)
			continue;
		if (mc_json_get(g->entry, "file") == NULL)
			continue; /* what the reference refuses */
		const char *file = mc_json_string(mc_json_get(g->entry, "file"), NULL);
		g->name = mc_json_string(mc_json_get(g->entry, "name"), NULL);
		if (strcmp(file, g->open) == 0)
			return true;
		if (g->open[0] != '\0')
			mc_st_close(&g->file);
		char path[256];
		snprintf(path, sizeof path, "%s/%s", GOLDEN_UNITS, file);
		snprintf(g->open, sizeof g->open, "%s", file);
		mc_error_init(&err);
		if (!mc_st_open_fd(&g->file, open(path, O_RDONLY | O_CLOEXEC), path, &err))
			fail_msg("%s: %s", path, err.text);
		return true;
	}
	return false;
}

/* The tensor under "in" or "out"; data NULL when the entry has none. Free tensor.data. */
static inline struct mc_tensor golden_tensor(
    const struct golden *g, const char *side, const char *key)
{
	const struct mc_json *name = mc_json_get(mc_json_get(g->entry, side), key);
	struct mc_tensor tensor = {0};
	struct mc_error err;

	if (name == NULL)
		return tensor;
	const struct mc_st_entry *entry = mc_st_find(&g->file, mc_json_string(name, NULL));
	assert_non_null(entry);
	tensor.dtype = entry->dtype;
	tensor.rank = entry->rank;
	memcpy(tensor.shape, entry->shape, sizeof entry->shape);
	tensor.data = malloc(entry->bytes + 1);
	assert_non_null(tensor.data);
	mc_error_init(&err);
	if (!mc_st_read(&g->file, entry, 0, entry->bytes, tensor.data, &err))
		fail_msg("%s", err.text);
	return tensor;
}

/* Its numbers as floats; free() them. */
static inline float *golden_floats(const struct mc_tensor *tensor)
{
	size_t n = mc_tensor_elements(tensor);
	float *values = malloc((n + 1) * sizeof *values);

	assert_non_null(values);
	for (size_t i = 0; i < n; i++) {
		const void *data = tensor->data;
		if (tensor->dtype == MC_I8)
			values[i] = (float)((const int8_t *)data)[i];
		else if (tensor->dtype == MC_U8)
			values[i] = (float)((const uint8_t *)data)[i];
		else if (tensor->dtype == MC_I32)
			values[i] = (float)((const int32_t *)data)[i];
		else if (tensor->dtype == MC_I64)
			values[i] = (float)((const int64_t *)data)[i];
		else {
			mc_widen(tensor->dtype, data, values, n);
			break;
		}
	}
	return values;
}

/* A scheme with the entry's args as weights (and the inputs and format it may give). */
static inline void golden_scheme(const struct golden *g, struct mc_quant_config *config)
{
	static const char *const group_keys[] = {"format", "input_activations"};
	const struct mc_json *args = mc_json_get(g->entry, "args");
	struct mc_problems problems;
	struct mc_error err;

	mc_error_init(&err);
	mc_problems_init(&problems);
	struct mc_json *modifier = mc_json_new_object(), *groups = mc_json_new_object();
	struct mc_json *group = mc_json_new_object(), *targets = mc_json_new_array();
	struct mc_json *weights = mc_json_copy(args, &err);
	bool ok = mc_json_append(targets, mc_json_new_string("Linear"), &err) &&
		  mc_json_set(group, "targets", targets, &err);
	for (size_t i = 0; i < 2; i++) {
		const struct mc_json *value = mc_json_get(args, group_keys[i]);
		if (value == NULL)
			continue;
		ok = ok && mc_json_set(group, group_keys[i], mc_json_copy(value, &err), &err);
		mc_json_remove(weights, group_keys[i]);
	}
	ok = ok && mc_json_set(group, "weights", weights, &err) &&
	     mc_json_set(groups, "g", group, &err) &&
	     mc_json_set(modifier, "config_groups", groups, &err) &&
	     mc_quant_config_parse(config, modifier, "", &problems, &err);
	if (!ok || problems.total > 0)
		fail_msg("%s: %s %s", g->name, err.text,
		    problems.total > 0 ? problems.items[0].text : "");
	mc_json_free(modifier);
	mc_problems_release(&problems);
}

/* Where the scale of element [row, col] lies. */
static inline size_t golden_scale_at(
    const struct mc_quant_args *args, size_t cols, size_t row, size_t col)
{
	switch (args->strategy) {
	case MC_STRATEGY_TENSOR:
		return 0;
	case MC_STRATEGY_CHANNEL:
		return row;
	case MC_STRATEGY_BLOCK:
		return row / args->block_rows * ((cols + args->block_cols - 1) / args->block_cols) +
		       col / args->block_cols;
	case MC_STRATEGY_GROUP:
	case MC_STRATEGY_TENSOR_GROUP:
		return row * (cols / (size_t)args->group_size) + col / (size_t)args->group_size;
	case MC_STRATEGY_TOKEN:
	case MC_STRATEGY_ATTN_HEAD:
		break;
	}
	fail_msg("no scale for weights in strategy %d", (int)args->strategy);
	return 0;
}

#endif
