/*
 * memory_kills.h - how many processes the kernel killed for want of memory
 */
#ifndef MOECALD_MEMORY_KILLS_H
#define MOECALD_MEMORY_KILLS_H

#include <stdint.h>

/* Since it began to count: in our control group if we can see it, else on the whole machine. 0 when
 * neither can be read. */
uint64_t memory_kills(void);

#endif
