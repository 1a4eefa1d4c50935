/*
 * name.h - how names of kinds are compared: any case, '_' and ' ' count as '-'
 */
#ifndef MC_CALIB_NAME_H
#define MC_CALIB_NAME_H

#include <stdbool.h>

/* ASCII only, so that the locale has no say. */
static inline char mc_name_fold(char c)
{
	if (c >= 'A' && c <= 'Z')
		return (char)(c - 'A' + 'a');
	return c == '_' || c == ' ' ? '-' : c;
}

static inline bool mc_name_same(const char *a, const char *b)
{
	while (*a != '\0' && mc_name_fold(*a) == mc_name_fold(*b)) {
		a++;
		b++;
	}
	return *a == '\0' && *b == '\0';
}

#endif
