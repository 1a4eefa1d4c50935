/*
 * arena.c - one mapping, handed out from the front
 *
 * The mapping reserves addresses only; a page costs memory from its first touch until a rewind
 * gives it back. Under AddressSanitizer memory that is not handed out is poisoned, so that a use
 * after a rewind or past the end of an allocation is found as with malloc.
 */
#include "moecal/arena.h"

#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "moecal/alloc.h"
#include "moecal/fault.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(WITH_ASAN)
/* Declared here: not every compiler that has the sanitizer brings its header. */
void __asan_poison_memory_region(void const volatile *p, size_t n);
void __asan_unpoison_memory_region(void const volatile *p, size_t n);
#define POISON(p, n) __asan_poison_memory_region(p, n)
#define UNPOISON(p, n) __asan_unpoison_memory_region(p, n)
#else
#define POISON(p, n) ((void)(n))
#define UNPOISON(p, n) ((void)(n))
#endif

#define ALIGNMENT 64u
/* Below this, handing pages back and touching them again costs more than it saves. */
#define GIVE_BACK_BYTES ((size_t)1 << 20)

static size_t least(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* bytes rounded up to the alignment; nothing takes one unit so that every pointer is its own. */
static bool round_up(uint64_t bytes, uint64_t *ret_rounded)
{
	if (!mc_add(bytes ? bytes : 1, ALIGNMENT - 1, ret_rounded))
		return false;
	*ret_rounded &= ~(uint64_t)(ALIGNMENT - 1);
	return true;
}

bool mc_arena_init(struct mc_arena *arena, uint64_t budget_bytes, struct mc_error *err)
{
	uint64_t size;
	void *base = MAP_FAILED;

	memset(arena, 0, sizeof(*arena));
	if (budget_bytes == 0)
		return true;
	if (round_up(budget_bytes, &size) && size <= PTRDIFF_MAX && !mc_fault_here("alloc"))
		base = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (base == MAP_FAILED)
		return mc_fail(err, MC_NO_MEMORY, "",
		    "no address space for a memory budget of %" PRIu64 " bytes", budget_bytes);
	arena->base = base;
	arena->budget = (size_t)size;
	arena->owns_mapping = true;
	return true;
}

void mc_arena_release(struct mc_arena *arena)
{
	if (arena->owns_mapping) {
		UNPOISON(arena->base, arena->peak);
		munmap(arena->base, arena->budget);
	}
	memset(arena, 0, sizeof(*arena));
}

void *mc_arena_alloc(
    struct mc_arena *arena, size_t count, size_t size, const char *what, struct mc_error *err)
{
	uint64_t bytes, rounded;
	size_t left = arena->budget - arena->used;

	if (!mc_mul(count, size, &bytes) || !round_up(bytes, &rounded)) {
		mc_fail(err, MC_NO_MEMORY, "",
		    "no memory for %s: %zu times %zu bytes is more than can be addressed", what,
		    count, size);
		return NULL;
	}
	if (rounded > left || mc_fault_here("alloc")) {
		mc_fail(err, MC_NO_MEMORY, "",
		    "no memory for %s: %" PRIu64 " bytes needed, %zu of a budget of %zu left", what,
		    bytes, left, arena->budget);
		return NULL;
	}
	unsigned char *p = arena->base + arena->used;
	/* Only what was handed out before can be poisoned; and the sanitizer's bookkeeping costs
	 * an eighth of what it is told about. */
	UNPOISON(p, least((size_t)rounded, arena->peak - arena->used));
	POISON(p + bytes, (size_t)(rounded - bytes));
	arena->used += (size_t)rounded;
	if (arena->used > arena->peak)
		arena->peak = arena->used;
	return p;
}

void *mc_arena_zalloc(
    struct mc_arena *arena, size_t count, size_t size, const char *what, struct mc_error *err)
{
	void *p = mc_arena_alloc(arena, count, size, what, err);

	if (p)
		memset(p, 0, count * size);
	return p;
}

bool mc_arena_sub(struct mc_arena *parent, size_t bytes, const char *what,
    struct mc_arena *ret_child, struct mc_error *err)
{
	size_t before = parent->used;
	uint64_t rounded;
	void *base;

	/* Whole units, so that the child may use all that is set aside for it. What cannot be
	 * rounded is refused below with the number that was asked for. */
	if (!round_up(bytes, &rounded))
		rounded = bytes;
	base = mc_arena_alloc(parent, (size_t)rounded, 1, what, err);

	memset(ret_child, 0, sizeof(*ret_child));
	if (!base)
		return false;
	ret_child->base = base;
	ret_child->budget = parent->used - before;
	return true;
}

size_t mc_arena_mark(const struct mc_arena *arena)
{
	return arena->used;
}

/* Returns whole pages of [from, to) of an arena to the system. */
static void give_back(struct mc_arena *arena, size_t from, size_t to)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	size_t first = (from + page - 1) / page * page;
	size_t end = to / page * page;

	/* Advice only: when it fails, the pages stay ours and nothing else changes. */
	if (end > first)
		madvise(arena->base + first, end - first, MADV_DONTNEED);
}

void mc_arena_rewind(struct mc_arena *arena, size_t mark)
{
	size_t used = arena->used;

	mc_assert(mark <= used && mark % ALIGNMENT == 0);
	if (mark == used)
		return;
	/* A sub-arena is a worker's scratch and is filled again at once; its pages go back with its
	 * parent's rewind. */
	if (arena->owns_mapping && used - mark >= GIVE_BACK_BYTES)
		give_back(arena, mark, used);
	POISON(arena->base + mark, used - mark);
	arena->used = mark;
}
