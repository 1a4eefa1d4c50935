/*
 * spec_arguments.c - from the command line to a job spec
 *
 * A spec file and options may be mixed; options win. Any key of the spec is an option, with '-' for
 * '_'.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

#include "moecal/alloc.h"
#include "moecal/file.h"
#include "moecal/recipe.h"
#include "moecal/root.h"
#include "moecal/spec.h"

#define MAX_SPEC_BYTES ((size_t)4 << 20)
#define MAX_KEYS 64

/* File or standard input ("-") as text. */
static bool read_text(const char *path, struct mc_buf *text, struct mc_error *err)
{
	int fd = STDIN_FILENO;

	if (strcmp(path, "-") == 0) {
		char chunk[4096];
		ssize_t n;
		while ((n = read(fd, chunk, sizeof chunk)) > 0)
			if (!mc_buf_add(text, chunk, (size_t)n, err))
				return false;
		return n == 0 || mc_fail(err, MC_IO, "standard input", "cannot be read");
	}
	if (!mc_root_open(NULL, path, &fd, err))
		return false;
	bool ok = mc_file_read_all(fd, path, text, err);
	close(fd);
	return ok;
}

static bool read_spec_file(const char *path, struct mc_json **spec, struct mc_error *err)
{
	struct mc_buf text;
	mc_buf_init(&text, MAX_SPEC_BYTES);
	bool ok = read_text(path, &text, err);
	if (ok) {
		*spec = mc_yaml_parse(mc_buf_text(&text), text.length, path, err);
		ok = *spec != NULL;
	}
	if (ok && mc_json_type(*spec) != MC_JSON_OBJECT)
		ok = mc_fail(err, MC_INVALID, path, "a job spec must be an object");
	mc_buf_release(&text);
	return ok;
}

/* The key of the spec that "--some-key" names, or NULL. */
static const char *find_key(const char *option)
{
	char word[64];

	if (strlen(option) >= sizeof word)
		return NULL;
	strcpy(word, option);
	for (char *p = word; *p != '\0'; p++)
		*p = *p == '-' ? '_' : *p;
	for (size_t i = 0; mc_spec_key(i) != NULL; i++)
		if (strcmp(mc_spec_key(i), word) == 0)
			return mc_spec_key(i);
	return NULL;
}

/* A recipe option may be the name of a file. */
static struct mc_json *recipe_value(const char *text, struct mc_error *err)
{
	struct mc_buf content;
	struct mc_json *value = NULL;

	if (access(text, F_OK) != 0)
		return mc_json_new_string(text);
	mc_buf_init(&content, MAX_SPEC_BYTES);
	if (read_text(text, &content, err)) {
		value = mc_json_new_string(mc_buf_text(&content));
		if (mc_json_is_null(value))
			(void)mc_fail(err, MC_INVALID, text, "is not UTF-8 text");
	}
	mc_buf_release(&content);
	return value;
}

/* Numbers, true, false, null, objects and lists are what they look like; everything else is a
 * string. */
static struct mc_json *option_value(const char *key, const char *text, struct mc_error *err)
{
	struct mc_error ignored;

	if (strcmp(key, "recipe") == 0)
		return recipe_value(text, err);
	if (strcmp(key, "model") == 0 || strcmp(key, "dataset") == 0)
		return mc_json_new_string(text);
	mc_error_init(&ignored);
	struct mc_json *value = mc_json_parse(text, strlen(text), key, &ignored);
	return value != NULL ? value : mc_json_new_string(text);
}

static bool set_option(struct mc_json *spec, const char *key, const char *text,
    struct mc_json *datasets, struct mc_error *err)
{
	struct mc_json *value = option_value(key, text, err);

	if (err->code != MC_OK) {
		mc_json_free(value);
		return false;
	}
	if (strcmp(key, "dataset") == 0)
		return mc_json_append(datasets, value, err);
	return mc_json_set(spec, key, value, err);
}

static int unknown_option(const char *command, const char *option, const struct option_row *own)
{
	const char *names[MAX_KEYS], *word = option + (option[1] == '-' ? 2 : 1);
	size_t count = 0;

	for (; count < MAX_KEYS && mc_spec_key(count) != NULL; count++)
		names[count] = mc_spec_key(count);
	for (; own != NULL && own->name != NULL && count < MAX_KEYS; own++)
		names[count++] = own->name + (own->name[1] == '-' ? 2 : 1);
	const char *near = mc_nearest(word, names, count);
	return near != NULL
		   ? usage_error(command, "there is no option %s; did you mean --%s?", option, near)
		   : usage_error(command, "there is no option %s", option);
}

/* One argument, or an option and its value; *i is left at the last one used. */
static int read_argument(struct spec_arguments *a, const struct option_row *own, int argc,
    char **argv, int *i, const char **file, struct mc_json *options, struct mc_json *datasets,
    struct mc_error *err)
{
	const char *text = argv[*i];
	bool taken = false;

	if (own != NULL) {
		int code = option_take(own, argc, argv, i, &taken);
		if (taken)
			return code;
	}
	if (strcmp(text, "--json") == 0) {
		a->json = true;
		return EXIT_DONE;
	}
	if (a->derives && strcmp(text, "--plan") == 0) {
		a->plan_only = true;
		return EXIT_DONE;
	}
	if (text[0] != '-' || strcmp(text, "-") == 0) {
		if (a->derives && a->source == NULL) {
			a->source = text;
			return EXIT_DONE;
		}
		if (*file != NULL)
			return usage_error(
			    argv[0], "one SPEC is enough: '%s' and '%s' were given", *file, text);
		*file = text;
		return EXIT_DONE;
	}
	char name[64];
	const char *value = strchr(text, '=');
	size_t length = value != NULL ? (size_t)(value - text) : strlen(text);
	if (length >= sizeof name)
		return usage_error(argv[0], "there is no option %s", text);
	memcpy(name, text, length);
	name[length] = '\0';
	bool output = own == NULL && (strcmp(name, "-o") == 0 || strcmp(name, "--output") == 0);
	bool confines = own == NULL && confinement_is_option(name);
	const char *key = strncmp(name, "--", 2) == 0 ? find_key(name + 2) : NULL;
	if (!output && !confines && key == NULL)
		return unknown_option(argv[0], name, own);
	if (value != NULL)
		value++;
	else if (*i + 1 < argc)
		value = argv[++*i];
	else
		return usage_error(argv[0], "%s needs a value", name);
	if (output)
		a->output = value;
	else if (confines && !confinement_set(&a->confinement, name, value, err))
		return report_error(err, a->json, false);
	else if (!confines && !set_option(options, key, value, datasets, err))
		return report_error(err, a->json, false);
	return EXIT_DONE;
}

/* Options win over the file; several datasets become a list. */
static bool merge(struct spec_arguments *a, const struct mc_json *options,
    const struct mc_json *datasets, struct mc_error *err)
{
	for (size_t i = 0; i < mc_json_size(options); i++) {
		const char *key;
		const struct mc_json *value = mc_json_member(options, i, &key);
		if (!mc_json_set(a->spec, key, mc_json_copy(value, err), err))
			return false;
	}
	if (mc_json_size(datasets) == 0)
		return true;
	const struct mc_json *value = mc_json_size(datasets) == 1 ? mc_json_at(datasets, 0)
								  : datasets;
	return mc_json_set(a->spec, "dataset", mc_json_copy(value, err), err);
}

static int read_arguments(
    struct spec_arguments *a, const struct option_row *own, int argc, char **argv)
{
	struct mc_json *options = mc_json_new_object(), *datasets = mc_json_new_array();
	const char *file = NULL;
	struct mc_error err;
	int code = EXIT_DONE;

	mc_error_init(&err);
	for (int i = 1; code == EXIT_DONE && i < argc; i++)
		code = read_argument(a, own, argc, argv, &i, &file, options, datasets, &err);
	if (code == EXIT_DONE && a->derives && a->source == NULL)
		code = usage_error(argv[0], "DIR is needed: the folder of a finished job");
	if (code == EXIT_DONE && !a->derives && file == NULL && mc_json_size(options) == 0 &&
	    mc_json_size(datasets) == 0)
		code = usage_error(
		    argv[0], "a SPEC, or --model, --dataset and --recipe, are needed");
	if (code == EXIT_DONE) {
		bool ok = true;
		if (file != NULL)
			ok = read_spec_file(file, &a->spec, &err);
		else
			a->spec = mc_json_new_object();
		ok = ok && merge(a, options, datasets, &err);
		if (!ok)
			code = report_error(&err, a->json, false);
	}
	mc_json_free(options);
	mc_json_free(datasets);
	return code;
}

int spec_arguments_read(struct spec_arguments *a, int argc, char **argv)
{
	return spec_arguments_read_with(a, NULL, argc, argv);
}

int spec_arguments_read_with(
    struct spec_arguments *a, const struct option_row *own, int argc, char **argv)
{
	*a = (struct spec_arguments){0};
	return read_arguments(a, own, argc, argv);
}

int spec_arguments_read_derived(struct spec_arguments *a, int argc, char **argv)
{
	*a = (struct spec_arguments){.derives = true};
	return read_arguments(a, NULL, argc, argv);
}

void spec_arguments_release(struct spec_arguments *a)
{
	mc_json_free(a->spec);
	a->spec = NULL;
	confinement_release(&a->confinement);
}
