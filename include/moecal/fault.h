/*
 * fault.h - make the n-th allocation, read, write, sync or rename fail; test builds only
 *
 * In a normal build mc_fault_here() is the constant false. With -DMC_FAULTS a test arms it.
 */
#ifndef MC_FAULT_H
#define MC_FAULT_H

#include <stdbool.h>

#ifdef MC_FAULTS
bool mc_fault_here(const char *kind);       /* true: the caller must fail now */
void mc_fault_arm(const char *kind, long n); /* fail the n-th (from 1) point of this kind, once */
void mc_fault_disarm(void);
#else
#define mc_fault_here(kind) false
#endif

#endif
