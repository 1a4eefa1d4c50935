/*
 * linalg_backend.h - what linalg.c asks of a library of matrix products
 *
 * A backend turns a piece of a weight into the form that its products read best (float32 rows here;
 * a bf16 library packs them) and multiplies tokens with it. A second one is one more file
 * linalg_<library>.c and a line in linalg.c that chooses.
 */
#ifndef MC_LINALG_BACKEND_H
#define MC_LINALG_BACKEND_H

#include "moecal/tensor.h"

/* Rows row..row+rows-1, columns col..col+cols-1 of a weight, ready to be multiplied. */
struct mc_panel {
	size_t rows, cols;
	const void *data; /* in the scratch, or in the weight itself */
	size_t stride;    /* elements between rows; what it counts is the backend's affair */
};

struct mc_linalg_backend {
	/* Checks the library that was loaded and gives it one thread. */
	bool (*init)(struct mc_error *err);
	const char *(*kernel)(void); /* after init; static storage */
	/* Scratch for one panel; 0 when weights of this dtype are used where they are. */
	size_t (*panel_bytes)(enum mc_dtype dtype, size_t rows, size_t cols);
	void (*make_panel)(const struct mc_weight *w, size_t row, size_t rows, size_t col,
	    size_t cols, void *scratch, struct mc_panel *ret_panel);
	/* y[tokens, rows] = x[tokens, cols] panel' + beta y; beta is 0 or 1. One thread. */
	void (*multiply)(const float *x, size_t ldx, size_t tokens, const struct mc_panel *panel,
	    float beta, float *y, size_t ldy);
};

/* float32 by OpenBLAS' sgemm: linalg_openblas.c */
extern const struct mc_linalg_backend mc_linalg_openblas;

#endif
