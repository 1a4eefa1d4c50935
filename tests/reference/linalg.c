/*
 * linalg.c - the matrix product by its definition
 */
#include "reference/reference.h"

void ref_linear(
    const float *x, const float *w, const float *b, size_t tokens, size_t k, size_t n, double *y)
{
	for (size_t t = 0; t < tokens; t++) {
		for (size_t row = 0; row < n; row++) {
			double sum = b == NULL ? 0 : (double)b[row];
			for (size_t i = 0; i < k; i++)
				sum += (double)x[t * k + i] * (double)w[row * k + i];
			y[t * n + row] = sum;
		}
	}
}
