/*
 * power.h - float32 numbers from 0 to a real power, many at a time
 */
#ifndef MC_POWER_H
#define MC_POWER_H

#include "moecal/dtype.h"
#include "moecal/error.h"

/* How to raise: numbers are of dt, and so are the results. */
struct mc_power {
	enum mc_dtype dt;
	double exponent;       /* rounded to dt */
	const uint16_t *table; /* BF16: the power of every number, by its bits without the sign */
};

#define MC_POWER_TABLE ((size_t)1 << 15)
/* table [MC_POWER_TABLE]: to fill and keep; only BF16 needs one. */
void mc_power_init(struct mc_power *power, enum mc_dtype dt, double exponent, uint16_t *table);
/* x [n], none negative and no NaN, in place. Within one unit in the last place of float32 of the
 * exact power, then rounded to dt. Infinity where it is too large. */
void mc_power_apply(const struct mc_power *power, float *x, size_t n);

#endif
