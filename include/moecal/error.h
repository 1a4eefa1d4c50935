/*
 * error.h - one error type for the whole program
 *
 * Every fallible function returns bool (true = done) and takes a struct mc_error *err last, never
 * NULL. `return mc_fail(err, MC_CORRUPT, path, "...", ...);` is the only way to fail. The first
 * cause wins: a later failure on the way out does not overwrite it.
 */
#ifndef MC_ERROR_H
#define MC_ERROR_H

#include <stdbool.h>
#include <stddef.h>

#define MC_CHECKED __attribute__((warn_unused_result))
#define MC_PRINTF(f, a) __attribute__((format(printf, f, a)))

/* What the caller can do about it. One row = one code; names are part of the API. */
#define MC_CODES(X)                                                                                \
	X(MC_OK, "ok")                                                                             \
	X(MC_INVALID, "invalid")         /* mend the request */                                    \
	X(MC_NOT_FOUND, "not-found")     /* name something that exists */                          \
	X(MC_CONFLICT, "conflict")       /* the target is in another state than the call needs */  \
	X(MC_UNSUPPORTED, "unsupported") /* well-formed, but not something we do */                \
	X(MC_CORRUPT, "corrupt")         /* mend the file */                                       \
	X(MC_NO_MEMORY, "no-memory")     /* give more or ask for less */                           \
	X(MC_NO_SPACE, "no-space")       /* free disk */                                           \
	X(MC_CANCELED, "canceled")       /* somebody asked us to stop */                           \
	X(MC_IO, "io")                   /* the machine failed us */                               \
	X(MC_INTERNAL, "internal")       /* our bug */

enum mc_code {
#define X(code, name) code,
	MC_CODES(X)
#undef X
};

struct mc_error {
	enum mc_code code;
	char where[192]; /* the thing in the user's words: JSON pointer, file, tensor */
	char text[512];  /* a sentence: what was found and what was needed */
};

/* Empties err so that it can be used (again). */
void mc_error_init(struct mc_error *err);

/* Records the failure unless one is recorded already. `where` may be "". Always returns false. */
bool mc_fail(struct mc_error *err, enum mc_code code, const char *where, const char *fmt, ...)
    MC_PRINTF(4, 5);

/* As mc_fail, with ": <strerror(errno_value)>" appended; ENOSPC/EDQUOT become MC_NO_SPACE, ENOENT
 * MC_NOT_FOUND, ENOMEM MC_NO_MEMORY, everything else MC_IO. */
bool mc_fail_errno(struct mc_error *err, int errno_value, const char *where, const char *fmt, ...)
    MC_PRINTF(4, 5);

/* "no-space" and friends; static storage. */
const char *mc_code_name(enum mc_code code);

/* Bugs only, never file contents or requests; not compiled out. Prints and aborts. */
#define mc_assert(condition)                                                                       \
	((condition) ? (void)0 : mc_assert_failed(#condition, __FILE__, __LINE__))
_Noreturn void mc_assert_failed(const char *condition, const char *file, int line);

#endif
