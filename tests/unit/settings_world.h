/*
 * settings_world.h - settings read from a config file and words that a test gives
 */
#ifndef SETTINGS_WORLD_H
#define SETTINGS_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "settings.h"

#define DEFAULT_STATE "/var/lib/elsewhere"

static char folder[] = "/tmp/moecal-settings-XXXXXX";
static char config[64];

static inline void put(const char *path, const void *text, size_t length)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(text, 1, length, file), length);
	assert_int_equal(fclose(file), 0);
}

/* Reads settings from a config file with this text (NULL: none) and up to seven words. */
static inline bool read_with(struct settings *settings, const char *text, const char *const *words,
    enum settings_action *action, struct mc_error *err)
{
	char *argv[12] = {(char *)"moecald"};
	int argc = 1;

	if (text) {
		put(config, text, strlen(text));
		argv[argc++] = (char *)"--config";
		argv[argc++] = config;
	}
	for (; *words; words++)
		argv[argc++] = (char *)*words;
	mc_error_init(err);
	return settings_read(settings, argc, argv, DEFAULT_STATE, action, err);
}

#define WORDS(...) ((const char *const[8]){__VA_ARGS__})
#define NO_WORDS WORDS(NULL)

static inline void must_read(struct settings *settings, const char *text, const char *const *words)
{
	enum settings_action action;
	struct mc_error err;

	if (!read_with(settings, text, words, &action, &err))
		fail_msg("%s: %s", err.where, err.text);
	assert_int_equal(action, SETTINGS_SERVE);
}

/* A folder of its own for the config file, around all tests of a program. */
static inline int run_in_folder(int (*run)(void))
{
	if (!mkdtemp(folder))
		return 1;
	snprintf(config, sizeof(config), "%s/moecald.conf", folder);
	int failed = run();
	unlink(config);
	rmdir(folder);
	return failed;
}

#endif
