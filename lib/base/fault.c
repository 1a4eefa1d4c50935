/*
 * fault.c - the counter behind mc_fault_here(); empty unless built with -DMC_FAULTS
 *
 * The one place in the library with state of its own: the points lie where no context reaches.
 */
#include "moecal/fault.h"

#ifdef MC_FAULTS

#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

static _Atomic(const char *) armed_kind; /* NULL: nothing armed */
static atomic_long points_left;

bool mc_fault_here(const char *kind)
{
	const char *armed = atomic_load(&armed_kind);

	return armed && strcmp(armed, kind) == 0 && atomic_fetch_sub(&points_left, 1) == 1;
}

void mc_fault_arm(const char *kind, long n)
{
	atomic_store(&points_left, n);
	atomic_store(&armed_kind, kind);
}

void mc_fault_disarm(void)
{
	atomic_store(&armed_kind, NULL);
}

#endif
