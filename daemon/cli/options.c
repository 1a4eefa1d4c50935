/*
 * options.c - options of a command by a table of rows
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

#include "moecal/alloc.h"

#define MOST_ROWS 32

static int take_integer(const struct option_row *row, const char *command, const char *text)
{
	char *end;

	errno = 0;
	long long value = strtoll(text, &end, 10);
	if (text[0] == '\0' || *end != '\0' || errno != 0 || value < row->least ||
	    value > row->most)
		return usage_error(command, "%s needs a whole number from %lld to %lld, not '%s'",
		    row->name, (long long)row->least, (long long)row->most, text);
	*(int64_t *)row->into = value;
	return EXIT_DONE;
}

static int take_value(const struct option_row *row, const char *command, const char *text)
{
	struct option_texts *texts = row->into;

	switch (row->kind) {
	case OPTION_INTEGER:
		return take_integer(row, command, text);
	case OPTION_TEXTS:
		if (texts->count == OPTION_MOST_TEXTS)
			return usage_error(command, "%s may be given %d times", row->name,
			    OPTION_MOST_TEXTS);
		texts->items[texts->count++] = text;
		return EXIT_DONE;
	case OPTION_TEXT:
	case OPTION_FLAG:
		break;
	}
	*(const char **)row->into = text;
	return EXIT_DONE;
}

int option_take(const struct option_row *table, int argc, char **argv, int *i, bool *ret_taken)
{
	const char *word = argv[*i], *value = strchr(word, '=');
	size_t length = value != NULL ? (size_t)(value - word) : strlen(word);
	const struct option_row *row = table;

	while (row->name != NULL &&
	       (strlen(row->name) != length || strncmp(row->name, word, length) != 0))
		row++;
	*ret_taken = row->name != NULL;
	if (!*ret_taken)
		return EXIT_DONE;
	if (row->kind == OPTION_FLAG) {
		*(bool *)row->into = true;
		return value == NULL ? EXIT_DONE
				     : usage_error(argv[0], "%s takes no value", row->name);
	}
	if (value != NULL)
		value++;
	else if (*i + 1 < argc)
		value = argv[++*i];
	else
		return usage_error(argv[0], "%s needs a value", row->name);
	return take_value(row, argv[0], value);
}

static int unknown_option(const struct option_row *table, const char *command, const char *word)
{
	const char *names[MOST_ROWS];
	size_t count = 0;

	for (; table[count].name != NULL && count < MOST_ROWS; count++)
		names[count] = table[count].name;
	const char *near = mc_nearest(word, names, count);
	return near != NULL
		   ? usage_error(command, "there is no option %s; did you mean %s?", word, near)
		   : usage_error(command, "there is no option %s", word);
}

int options_read(const struct option_row *table, int argc, char **argv, const char **operands,
    size_t most, size_t *ret_count)
{
	bool options = true; /* until "--" */

	*ret_count = 0;
	for (int i = 1; i < argc; i++) {
		bool taken = false;
		int code = options ? option_take(table, argc, argv, &i, &taken) : EXIT_DONE;
		if (code != EXIT_DONE)
			return code;
		if (taken)
			continue;
		if (options && strcmp(argv[i], "--") == 0) {
			options = false;
			continue;
		}
		if (options && argv[i][0] == '-')
			return unknown_option(table, argv[0], argv[i]);
		if (*ret_count == most)
			return usage_error(argv[0], "unexpected '%s'", argv[i]);
		operands[(*ret_count)++] = argv[i];
	}
	return EXIT_DONE;
}
