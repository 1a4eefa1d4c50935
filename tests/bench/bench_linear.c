/*
 * bench_linear.c - what share of the measured sgemm speed mc_linear reaches
 *
 *   bench_linear [T K N [WORKERS]]
 *
 * bf16 weights, T 4096 tokens, K 2048 inputs, N 1536 outputs unless given; one worker, then two.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "moecal/linalg.h"

static double now_seconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static bool run_linear(const struct mc_env *env, size_t t, size_t k, size_t n, double *ret_gflops,
    struct mc_error *err)
{
	float *x = mc_arena_alloc(env->arena, t * k, sizeof(float), "x", err);
	float *y = x == NULL ? NULL : mc_arena_alloc(env->arena, t * n, sizeof(float), "y", err);
	uint16_t *data =
	    y == NULL ? NULL : mc_arena_alloc(env->arena, n * k, sizeof(*data), "w", err);
	if (data == NULL)
		return false;
	for (size_t i = 0; i < t * k; i++)
		x[i] = (float)(i % 13) - 6.0f;
	for (size_t i = 0; i < n * k; i++)
		data[i] = mc_f32_to_bf16((float)(i % 7) * 0.125f - 0.375f);
	struct mc_weight w = {.dtype = MC_BF16, .rows = n, .cols = k, .data = data};
	double best = 0;
	for (int round = 0; round < 8; round++) {
		double begin = now_seconds();
		if (!mc_linear(x, k, t, &w, y, n, env, err))
			return false;
		double gflops =
		    2.0 * (double)t * (double)k * (double)n / (now_seconds() - begin) / 1e9;
		best = gflops > best ? gflops : best;
	}
	*ret_gflops = best;
	return true;
}

static bool bench(unsigned workers, size_t t, size_t k, size_t n, struct mc_error *err)
{
	struct mc_pool *pool = mc_pool_new(workers, err);
	struct mc_arena arena = {0};
	struct mc_env env = {.arena = &arena, .pool = pool};
	double peak, reached;
	bool done = pool != NULL && mc_arena_init(&arena, (uint64_t)4 << 30, err) &&
		    mc_linalg_init(pool, err) &&
		    mc_linalg_measure(t, n, k, 2.0, &env, &peak, err) &&
		    run_linear(&env, t, k, n, &reached, err);
	if (done)
		printf("%s, %u workers, T %zu K %zu N %zu: peak %.1f, mc_linear %.1f GFLOP/s = "
		       "%.1f %%\n",
		    mc_linalg_kernel(), workers, t, k, n, peak, reached, 100 * reached / peak);
	mc_arena_release(&arena);
	mc_pool_free(pool);
	return done;
}

int main(int argc, char **argv)
{
	size_t size[4] = {4096, 2048, 1536, 0};
	for (int i = 1; i < argc && i <= 4; i++)
		size[i - 1] = strtoull(argv[i], NULL, 10);
	unsigned first = size[3] > 0 ? (unsigned)size[3] : 1, last = size[3] > 0 ? first : 2;
	struct mc_error err;
	mc_error_init(&err);
	for (unsigned workers = first; workers <= last; workers++) {
		if (!bench(workers, size[0], size[1], size[2], &err)) {
			fprintf(stderr, "%s: %s\n", err.where, err.text);
			return 1;
		}
	}
	return 0;
}
