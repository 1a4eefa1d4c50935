/*
 * alloc.c - checked sizes, small allocations, and the nearest known word
 */
#include "moecal/alloc.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/fault.h"

bool mc_mul(uint64_t a, uint64_t b, uint64_t *ret_product)
{
	return !__builtin_mul_overflow(a, b, ret_product);
}

bool mc_add(uint64_t a, uint64_t b, uint64_t *ret_sum)
{
	return !__builtin_add_overflow(a, b, ret_sum);
}

/* Far more than records need, and below where any allocator stops answering politely. */
#define MOST_BYTES ((uint64_t)1 << 39)

void *mc_alloc(size_t count, size_t size, const char *what, struct mc_error *err)
{
	uint64_t bytes;
	void *p = NULL;

	/* calloc(0, ...) may return NULL, which would read as a failure. */
	if (mc_mul(count, size, &bytes) && bytes <= MOST_BYTES && !mc_fault_here("alloc"))
		p = calloc(1, bytes ? (size_t)bytes : 1);
	if (!p)
		mc_fail(err, MC_NO_MEMORY, "", "no memory for %s: %zu times %zu bytes needed", what,
		    count, size);
	return p;
}

bool mc_grow(void **ptr, size_t *capacity, size_t need, size_t item_size, const char *what,
    struct mc_error *err)
{
	size_t new_capacity = *capacity < 8 ? 8 : *capacity;
	uint64_t bytes;
	char *p = NULL;

	if (need <= *capacity)
		return true;
	while (new_capacity < need)
		new_capacity = new_capacity > SIZE_MAX / 2 ? need : new_capacity * 2;
	if (mc_mul(new_capacity, item_size, &bytes) && bytes <= MOST_BYTES &&
	    !mc_fault_here("alloc"))
		p = realloc(*ptr, bytes ? bytes : 1);
	if (!p)
		return mc_fail(err, MC_NO_MEMORY, "",
		    "no memory for %s: %zu items of %zu bytes needed", what, need, item_size);
	memset(p + *capacity * item_size, 0, (new_capacity - *capacity) * item_size);
	*ptr = p;
	*capacity = new_capacity;
	return true;
}

char *mc_strdup(const char *text, struct mc_error *err)
{
	size_t length = strlen(text);
	char *copy = mc_alloc(length + 1, 1, "a text", err);

	if (copy)
		memcpy(copy, text, length);
	return copy;
}

char *mc_format(struct mc_error *err, const char *fmt, ...)
{
	va_list args;
	int length;
	char *text;

	va_start(args, fmt);
	length = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	if (length < 0) {
		mc_fail(err, MC_INTERNAL, "", "a text could not be formatted");
		return NULL;
	}
	text = mc_alloc((size_t)length + 1, 1, "a text", err);
	if (!text)
		return NULL;
	va_start(args, fmt);
	vsnprintf(text, (size_t)length + 1, fmt, args);
	va_end(args);
	return text;
}

/* --- the nearest word ------------------------------------------------------------------------ */

#define LONGEST_WORD 64 /* longer words are not typing errors of ours */

static unsigned least(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

/* Insertions, deletions, replacements and swaps of neighbours that lead from a to b. */
static unsigned edit_distance(const char *a, size_t a_length, const char *b, size_t b_length)
{
	unsigned rows[3][LONGEST_WORD + 1];
	unsigned *before = rows[0], *last = rows[1], *now = rows[2];

	for (size_t j = 0; j <= b_length; j++)
		last[j] = before[j] = (unsigned)j;
	for (size_t i = 1; i <= a_length; i++) {
		now[0] = (unsigned)i;
		for (size_t j = 1; j <= b_length; j++) {
			unsigned d = least(last[j], now[j - 1]) + 1;

			d = least(d, last[j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				d = least(d, before[j - 2] + 1);
			now[j] = d;
		}
		unsigned *oldest = before;
		before = last;
		last = now;
		now = oldest;
	}
	return last[b_length];
}

const char *mc_nearest(const char *word, const char *const *candidates, size_t count)
{
	size_t length = strlen(word);
	const char *nearest = NULL;
	unsigned nearest_distance = 0;

	if (length == 0 || length > LONGEST_WORD)
		return NULL;
	for (size_t i = 0; i < count; i++) {
		size_t candidate_length = strlen(candidates[i]);
		size_t longer = length > candidate_length ? length : candidate_length;

		if (candidate_length > LONGEST_WORD)
			continue;
		unsigned d = edit_distance(word, length, candidates[i], candidate_length);
		/* One slip in three letters is a typing error, more is another word. */
		if (d <= (longer + 2) / 3 && d < longer && (!nearest || d < nearest_distance)) {
			nearest = candidates[i];
			nearest_distance = d;
		}
	}
	return nearest;
}
