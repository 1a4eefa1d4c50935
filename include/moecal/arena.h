/*
 * arena.h - numeric memory with a budget
 *
 * One mapping of budget_bytes, handed out from the front; pages are touched only when used.
 * Lifetimes are marks: take a mark, allocate, rewind. Nothing in math, forward, calib or quant
 * frees. Not thread-safe: allocate before starting pool items; give each worker its own sub-arena.
 */
#ifndef MC_ARENA_H
#define MC_ARENA_H

#include <stddef.h>
#include <stdint.h>

#include "moecal/error.h"

struct mc_arena {
	unsigned char *base; /* NULL when empty */
	size_t budget;       /* bytes */
	size_t used;         /* bytes, always a multiple of 64 */
	size_t peak;         /* highest `used` so far */
	bool owns_mapping;   /* false for a sub-arena */
};

/* Errors: NO_MEMORY when the address space cannot be had. */
bool mc_arena_init(struct mc_arena *arena, uint64_t budget_bytes, struct mc_error *err) MC_CHECKED;
void mc_arena_release(struct mc_arena *arena);

/* count * size bytes aligned to 64; NOT zeroed. NULL with NO_MEMORY naming `what`, the bytes needed
 * and the bytes left. Owner: the arena; gone at a rewind below it. */
void *mc_arena_alloc(struct mc_arena *arena, size_t count, size_t size, const char *what,
    struct mc_error *err) MC_CHECKED;

/* mc_arena_alloc + memset 0. */
void *mc_arena_zalloc(struct mc_arena *arena, size_t count, size_t size, const char *what,
    struct mc_error *err) MC_CHECKED;

/* Cuts `bytes` off the parent as an arena of its own (one a worker). Released with the parent. */
bool mc_arena_sub(struct mc_arena *parent, size_t bytes, const char *what,
    struct mc_arena *ret_child, struct mc_error *err) MC_CHECKED;

size_t mc_arena_mark(const struct mc_arena *arena);
/* Gives everything allocated since the mark back; large spans go back to the system. */
void mc_arena_rewind(struct mc_arena *arena, size_t mark);

#endif
