/*
 * linalg.h - matrix products; the wall around BLAS
 *
 * Row-major float32. BLAS runs one thread; parallelism is the pool's. Tile sizes are constants, so
 * results have the same bits for any number of workers with the same kernel.
 */
#ifndef MC_LINALG_H
#define MC_LINALG_H

#include "moecal/env.h"
#include "moecal/tensor.h"

/*
 * Once a process, before any product. Refuses a BLAS that is not the pthread build of OpenBLAS
 * (the serial one returns wrong numbers from several threads, the OpenMP one ignores the thread
 * count) with UNSUPPORTED and the command that fixes it; sets one BLAS thread; makes a self-test of
 * exact integer-valued products on all workers of `pool`. INTERNAL when that differs.
 */
bool mc_linalg_init(struct mc_pool *pool, struct mc_error *err) MC_CHECKED;
/* The rule alone, for tests: parallel = what openblas_get_parallel() answers. */
bool mc_linalg_check_variant(int parallel, const char *config, struct mc_error *err) MC_CHECKED;
/* "openblas-sgemm/SkylakeX 0.3.21": goes into every manifest. Static storage after init. */
const char *mc_linalg_kernel(void);

/* One thread, for use inside pool items. ldx: elements between rows. beta 0 overwrites c.
 * nt: c[m,n] = a[m,k] b[n,k]' + beta c     nn: c[m,n] = a[m,k] b[k,n] + beta c
 * Dimensions are asserted to fit blasint. */
void mc_gemm_nt(size_t m, size_t n, size_t k, const float *a, size_t lda, const float *b, size_t ldb,
    float beta, float *c, size_t ldc);
void mc_gemm_nn(size_t m, size_t n, size_t k, const float *a, size_t lda, const float *b, size_t ldb,
    float beta, float *c, size_t ldc);

/*
 * y[T, N] = x[T, K] W' + b on the pool. Items are fixed tiles of outputs and tokens; each converts
 * its rows of W to float32 once. Scratch comes from env->arena and is given back.
 * ldx, ldy: elements between rows. Errors: NO_MEMORY, CANCELED.
 */
bool mc_linear(const float *x, size_t ldx, size_t tokens, const struct mc_weight *w, float *y,
    size_t ldy, const struct mc_env *env, struct mc_error *err) MC_CHECKED;

/* GFLOP/s of sgemm on all workers at once, m n k per call, for about `seconds`. */
bool mc_linalg_measure(size_t m, size_t n, size_t k, double seconds, const struct mc_env *env,
    double *ret_gflops, struct mc_error *err) MC_CHECKED;

#endif
