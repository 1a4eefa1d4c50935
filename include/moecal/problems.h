/*
 * problems.h - all errors of a request at once, each with a JSON pointer
 */
#ifndef MC_PROBLEMS_H
#define MC_PROBLEMS_H

#include "moecal/error.h"

struct mc_problem {
	char pointer[160]; /* "/recipe/0/config_groups/group_0/weights/num_bits"; "" = the whole */
	char text[384];
};

#define MC_MAX_PROBLEMS 64 /* more are counted, not kept */

struct mc_problems {
	size_t count;             /* kept */
	size_t total;             /* found */
	struct mc_problem *items; /* owned */
};

void mc_problems_init(struct mc_problems *problems);
void mc_problems_release(struct mc_problems *problems);
/* Never fails; out of memory only counts. */
void mc_problems_add(struct mc_problems *problems, const char *pointer, const char *fmt, ...)
    MC_PRINTF(3, 4);
/* "unknown key 'modle'; did you mean 'model'?" */
void mc_problems_add_unknown_key(struct mc_problems *problems, const char *pointer, const char *key,
    const char *const *known, size_t known_count);
/* pointer + "/" + key with ~ and / escaped, into out; returns out. */
const char *mc_pointer_join(char out[160], const char *pointer, const char *key);
const char *mc_pointer_index(char out[160], const char *pointer, size_t index);

#endif
