/*
 * bench_ops.c - elements a second of the loops that stand beside the matrix products, one core
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "moecal/dtype.h"
#include "moecal/linalg.h"
#include "moecal/ops.h"

#define N 8192 /* fits the second cache, as tiles do */

static float a[N], b[N], c[N];
static uint16_t half[N];
static unsigned char byte[N];
static double sum[N], squares[N];

static double now_seconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void widen(void)
{
	mc_widen(MC_BF16, half, c, N);
}
static void widen_f16(void)
{
	mc_widen(MC_F16, half, c, N);
}
static void narrow(void)
{
	mc_narrow(a, MC_BF16, half, N);
}
static void narrow_e4m3(void)
{
	mc_narrow(a, MC_F8_E4M3, byte, N);
}
static void exponential(void)
{
	mc_exp_many(a, c, N);
}
static void silu(void)
{
	mc_silu_mul(a, b, c, N);
}
static void norm(void)
{
	mc_rms_norm(a, N, b, 1e-6f, 1, N, c, N);
}
static void range(void)
{
	mc_range(a, N, c, c + 1);
}
static void sums(void)
{
	mc_sums(a, N, sum, squares);
}
static void channels(void)
{
	mc_channel_stats_add(a, 1024, 8, 1024, sum, squares, c);
}
static void softmax(void)
{
	mc_softmax(c, N);
}
static void entropy(void)
{
	sum[0] += mc_cross_entropy(a, N, 3);
}

static const struct {
	const char *name;
	void (*run)(void);
} rows[] = {
    {"widen bf16", widen},
    {"widen f16", widen_f16},
    {"narrow bf16", narrow},
    {"narrow e4m3", narrow_e4m3},
    {"exp", exponential},
    {"silu_mul", silu},
    {"rms_norm", norm},
    {"range", range},
    {"sums", sums},
    {"channel stats", channels},
    {"softmax", softmax},
    {"cross entropy", entropy},
};

static void bench_attention(void)
{
	enum { T = 2048, HD = 128 };
	float *q = calloc(4 * T * HD + mc_attention_scratch(T), sizeof(float));
	if (q == NULL)
		return;
	for (size_t i = 0; i < 3 * T * HD; i++)
		q[i] = (float)(i * 7919 % 1000) / 500.0f - 1.0f;
	double begin = now_seconds();
	for (int round = 0; round < 10; round++)
		mc_attention_head(q, HD, q + T * HD, q + 2 * T * HD, HD, T, HD, 0.088f, 0,
		    q + 3 * T * HD, HD, q + 4 * T * HD);
	printf(
	    "attention head, T %d, head_dim %d: %.2f ms\n", T, HD, (now_seconds() - begin) * 100);
	free(q);
}

int main(void)
{
	for (size_t i = 0; i < N; i++) {
		a[i] = (float)(i * 7919 % 1000) / 100.0f - 5.0f;
		b[i] = (float)(i * 104729 % 1000) / 500.0f - 1.0f;
	}
	for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
		double begin = now_seconds(), seconds = 0;
		size_t rounds = 0;
		for (; seconds < 0.2; seconds = now_seconds() - begin)
			for (int i = 0; i < 100; i++, rounds++)
				rows[row].run();
		printf("%-14s %6.2f Gelem/s\n", rows[row].name, (double)rounds * N / seconds / 1e9);
	}
	struct mc_error err;
	mc_error_init(&err);
	struct mc_pool *pool = mc_pool_new(1, &err);
	if (pool == NULL || !mc_linalg_init(pool, &err)) {
		fprintf(stderr, "%s: %s\n", err.where, err.text);
		return 1;
	}
	bench_attention();
	mc_pool_free(pool);
	return 0;
}
