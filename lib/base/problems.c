/*
 * problems.c - see problems.h
 */
#include "moecal/problems.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"

void mc_problems_init(struct mc_problems *problems)
{
	*problems = (struct mc_problems){0};
}

void mc_problems_release(struct mc_problems *problems)
{
	free(problems->items);
	*problems = (struct mc_problems){0};
}

/* Bytes of the UTF-8 sequence at `text`, 0 when it is none. */
static size_t sequence(const unsigned char *text)
{
	size_t length = text[0] < 0x80   ? 1
			: text[0] < 0xc2 ? 0
			: text[0] < 0xe0 ? 2
			: text[0] < 0xf0 ? 3
			: text[0] < 0xf5 ? 4
					 : 0;

	for (size_t i = 1; i < length; i++)
		if ((text[i] & 0xc0) != 0x80)
			return 0;
	if ((text[0] == 0xe0 && text[1] < 0xa0) || (text[0] == 0xed && text[1] > 0x9f) ||
	    (text[0] == 0xf0 && text[1] < 0x90) || (text[0] == 0xf4 && text[1] > 0x8f))
		return 0;
	return length;
}

/* Texts end up in JSON, which carries UTF-8 only: a sequence that was cut in two becomes '?'. */
static void mend(char *text)
{
	while (*text != '\0') {
		size_t length = sequence((const unsigned char *)text);
		if (length == 0)
			*text = '?';
		text += length == 0 ? 1 : length;
	}
}

/* What did not fit ends in "...". */
static void cut(char *text, size_t size)
{
	size_t at = size - 4;

	while (at > 0 && ((unsigned char)text[at] & 0xc0) == 0x80)
		at--;
	memcpy(text + at, "...", 4);
}

void mc_problems_add(struct mc_problems *problems, const char *pointer, const char *fmt, ...)
{
	va_list args;

	problems->total++;
	if (problems->count == MC_MAX_PROBLEMS)
		return;
	if (problems->items == NULL) {
		struct mc_error err;
		mc_error_init(&err);
		problems->items =
		    mc_alloc(MC_MAX_PROBLEMS, sizeof *problems->items, "problems", &err);
		if (problems->items == NULL)
			return;
	}
	struct mc_problem *problem = &problems->items[problems->count++];
	if (snprintf(problem->pointer, sizeof problem->pointer, "%s", pointer) >=
	    (int)sizeof problem->pointer)
		cut(problem->pointer, sizeof problem->pointer);
	va_start(args, fmt);
	if (vsnprintf(problem->text, sizeof problem->text, fmt, args) >= (int)sizeof problem->text)
		cut(problem->text, sizeof problem->text);
	va_end(args);
	mend(problem->pointer);
	mend(problem->text);
}

void mc_problems_add_unknown_key(struct mc_problems *problems, const char *pointer, const char *key,
    const char *const *known, size_t known_count)
{
	const char *nearest;
	char where[160], list[256] = "";
	size_t used = 0;

	if (problems->count == MC_MAX_PROBLEMS) {
		problems->total++;
		return;
	}
	mc_pointer_join(where, pointer, key);
	nearest = mc_nearest(key, known, known_count);
	if (nearest != NULL) {
		mc_problems_add(
		    problems, where, "unknown key '%.64s'; did you mean '%s'?", key, nearest);
		return;
	}
	for (size_t i = 0; i < known_count && used < sizeof list; i++)
		used += (size_t)snprintf(
		    list + used, sizeof list - used, "%s%s", i > 0 ? ", " : "", known[i]);
	if (used >= sizeof list)
		cut(list, sizeof list);
	mc_problems_add(problems, where, "unknown key '%.64s'; known are %s", key, list);
}

const char *mc_pointer_join(char out[160], const char *pointer, const char *key)
{
	size_t size = 160, used = strlen(pointer);

	if (out != pointer)
		snprintf(out, size, "%s", pointer);
	used = used < size ? used : size - 1;
	if (used < size - 1)
		out[used++] = '/';
	for (; *key != '\0' && used < size - 1; key++) {
		bool escape = *key == '~' || *key == '/';
		if (escape && used + 2 >= size)
			break;
		if (escape)
			out[used++] = '~';
		out[used++] = (char)(*key == '~' ? '0' : *key == '/' ? '1' : *key);
	}
	out[used] = '\0';
	if (*key != '\0')
		cut(out, size);
	return out;
}

const char *mc_pointer_index(char out[160], const char *pointer, size_t index)
{
	char text[24];

	snprintf(text, sizeof text, "%zu", index);
	return mc_pointer_join(out, pointer, text);
}
