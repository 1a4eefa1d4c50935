/*
 * dequantize.h - one value of a stored quantized weight by its definition, bit by bit, in doubles
 */
#ifndef MC_REFERENCE_DEQUANTIZE_H
#define MC_REFERENCE_DEQUANTIZE_H

#include "reference/reference.h"

struct ref_stored {
	int bits; /* 0: E4M3 */
	size_t rows, cols;
	size_t band, width;    /* rows and columns that share a scale */
	const uint32_t *words; /* packed codes, whole words a row; NULL: one byte each in bytes */
	const uint8_t *bytes;
	const double *scale;         /* [ceil(rows / band), ceil(cols / width)] */
	const uint32_t *zeros;       /* packed along the rows; NULL: symmetric */
	const struct ref_format *dt; /* every operation is rounded to it; NULL: float32 */
};
/* The stored integer; for E4M3 the value of the code. */
double ref_code(const struct ref_stored *s, size_t row, size_t col);
double ref_dequantized(const struct ref_stored *s, size_t row, size_t col);

#endif
