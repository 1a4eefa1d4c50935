/*
 * toy_folder.h - a folder with a toy checkpoint, opened as a model: what tests of models share
 */
#ifndef MC_UNIT_TOY_FOLDER_H
#define MC_UNIT_TOY_FOLDER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/file.h"
#include "moecal/model.h"
#include "reference/toy.h"

#define TOY_FOLDER_SIZE 64

static inline void toy_require(bool ok, const struct mc_error *err)
{
	if (!ok)
		fail_msg("%s: %s: %s", mc_code_name(err->code), err->where, err->text);
}

static inline void toy_folder_make(char folder[TOY_FOLDER_SIZE])
{
	snprintf(folder, TOY_FOLDER_SIZE, "/tmp/moecal-test-XXXXXX");
	assert_non_null(mkdtemp(folder));
}

static inline void toy_folder_drop(const char *folder)
{
	struct mc_error err;

	mc_error_init(&err);
	toy_require(mc_file_remove_tree(folder, &err), &err);
}

/* Writes the toy into a folder of its own and opens it; the files are gone afterwards, the open
 * shards stay readable. */
static inline bool toy_open(const struct mc_toy *toy, struct mc_model *model, struct mc_error *err)
{
	char folder[TOY_FOLDER_SIZE];

	toy_folder_make(folder);
	mc_error_init(err);
	toy_require(mc_toy_write(toy, folder, err), err);
	bool ok = mc_model_open(model, NULL, folder, err);
	toy_folder_drop(folder);
	return ok;
}

static inline void toy_require_open(const struct mc_toy *toy, struct mc_model *model)
{
	struct mc_error err;

	toy_require(toy_open(toy, model, &err), &err);
}

/* Opening the toy fails with `code`; where and text hold these parts. */
static inline void toy_require_refusal(
    const struct mc_toy *toy, enum mc_code code, const char *where, const char *text)
{
	struct mc_model model;
	struct mc_error err;

	if (toy_open(toy, &model, &err))
		fail_msg("opened, though '%s' was to be said", text);
	if (err.code != code || strstr(err.where, where) == NULL || strstr(err.text, text) == NULL)
		fail_msg("%s: %s: %s, not %s: %s: ...%s...", mc_code_name(err.code), err.where,
		    err.text, mc_code_name(code), where, text);
	/* closing what never opened is harmless, and nothing is left in it */
	assert_null(model.modules);
	assert_null(model.layers);
	assert_null(model.config_json);
	mc_model_close(&model);
}

#endif
