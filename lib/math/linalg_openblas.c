/*
 * linalg_openblas.c - the wall around OpenBLAS: nobody else includes cblas.h
 *
 * Which build of the library answers is a symbolic link of the system, so it is looked at when the
 * program starts. Only the pthread build gives right numbers to several calling threads and obeys
 * the thread count.
 */
#include "moecal/linalg.h"

#include <cblas.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "linalg_backend.h"

#if defined(__x86_64__)
#define TRIPLET "x86_64-linux-gnu"
#elif defined(__aarch64__)
#define TRIPLET "aarch64-linux-gnu"
#else
#define TRIPLET "$(dpkg-architecture -qDEB_HOST_MULTIARCH)"
#endif

/* What openblas_get_parallel() answers. */
enum { SERIAL = 0, PTHREAD = 1, OPENMP = 2 };

/* Written once by init, with the same text however often it is called. */
static char kernel_name[96];

bool mc_linalg_check_variant(int parallel, const char *config, struct mc_error *err)
{
	if (parallel == PTHREAD)
		return true;
	const char *found = "of a kind that is not known";
	if (parallel == SERIAL)
		found = "the serial one, which returns wrong numbers to several threads";
	else if (parallel == OPENMP)
		found = "the OpenMP one, which ignores the thread count";
	return mc_fail(err, MC_UNSUPPORTED, "OpenBLAS",
	    "the loaded build is %s (%.120s); the pthread build is needed: "
	    "apt-get install libopenblas0-pthread, then "
	    "update-alternatives --config libopenblas.so.0-" TRIPLET,
	    found, config);
}

/* "OpenBLAS 0.3.21 NO_LAPACKE ..." -> "0.3.21" */
static void read_version(const char *config, char *version, size_t size)
{
	const char *word = strchr(config, ' ');
	size_t length = word == NULL ? 0 : strcspn(word + 1, " ");
	if (length == 0)
		snprintf(version, size, "of unknown version");
	else
		snprintf(version, size, "%.*s", (int)(length < size ? length : size - 1), word + 1);
}

static bool init(struct mc_error *err)
{
	const char *config = openblas_get_config();
	if (!mc_linalg_check_variant(openblas_get_parallel(), config, err))
		return false;
	openblas_set_num_threads(1);
	char version[32];
	read_version(config, version, sizeof(version));
	snprintf(kernel_name, sizeof(kernel_name), "openblas-sgemm/%.32s %s",
	    openblas_get_corename(), version);
	return true;
}

static const char *kernel(void)
{
	mc_assert(kernel_name[0] != '\0');
	return kernel_name;
}

/* The one place where a size becomes the library's integer. */
static blasint narrow(size_t size)
{
	mc_assert(size <= INT_MAX);
	return (blasint)size;
}

void mc_gemm_nt(size_t m, size_t n, size_t k, const float *a, size_t lda, const float *b,
    size_t ldb, float beta, float *c, size_t ldc)
{
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, narrow(m), narrow(n), narrow(k), 1.0f,
	    a, narrow(lda), b, narrow(ldb), beta, c, narrow(ldc));
}

void mc_gemm_nn(size_t m, size_t n, size_t k, const float *a, size_t lda, const float *b,
    size_t ldb, float beta, float *c, size_t ldc)
{
	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, narrow(m), narrow(n), narrow(k),
	    1.0f, a, narrow(lda), b, narrow(ldb), beta, c, narrow(ldc));
}

static size_t panel_bytes(enum mc_dtype dtype, size_t rows, size_t cols)
{
	return dtype == MC_F32 ? 0 : rows * cols * sizeof(float);
}

static void make_panel(const struct mc_weight *w, size_t row, size_t rows, size_t col, size_t cols,
    void *scratch, struct mc_panel *ret_panel)
{
	*ret_panel = (struct mc_panel){.rows = rows, .cols = cols};
	size_t first = row * w->cols + col;
	if (w->dtype == MC_F32) {
		ret_panel->data = (const float *)w->data + first;
		ret_panel->stride = w->cols;
		return;
	}
	size_t element_bytes = mc_dtype_bits(w->dtype) / 8;
	const unsigned char *from = (const unsigned char *)w->data + first * element_bytes;
	float *to = scratch;
	for (size_t r = 0; r < rows; r++)
		mc_widen(w->dtype, from + r * w->cols * element_bytes, to + r * cols, cols);
	ret_panel->data = scratch;
	ret_panel->stride = cols;
}

static void multiply(const float *x, size_t ldx, size_t tokens, const struct mc_panel *panel,
    float beta, float *y, size_t ldy)
{
	mc_gemm_nt(
	    tokens, panel->rows, panel->cols, x, ldx, panel->data, panel->stride, beta, y, ldy);
}

const struct mc_linalg_backend mc_linalg_openblas = {
    .init = init,
    .kernel = kernel,
    .panel_bytes = panel_bytes,
    .make_panel = make_panel,
    .multiply = multiply,
};
