/*
 * bands.h - a weight as bands of rows that share their scales
 *
 * A band is one row (channel, group), the rows of a block, or all rows (tensor); within a row,
 * segments of `width` values share a scale.
 */
#ifndef MC_QUANT_BANDS_H
#define MC_QUANT_BANDS_H

#include "moecal/qparams.h"
#include "moecal/tensor.h"

struct mc_bands {
	const struct mc_weight *weight;
	const char *name;
	size_t rows, cols, band, width, scale_rows, scale_cols;
	float *row; /* [cols], the caller's: the row read last */
};

/* Least and greatest of a run, finite. */
struct mc_band_range {
	float min, max;
};

/* Rows and columns that share a scale. */
void mc_bands_settle(const struct mc_quant_args *args, size_t rows, size_t cols, size_t *ret_band,
    size_t *ret_width);
/* All but row. Errors: as mc_scale_shape. */
bool mc_bands_init(struct mc_bands *bands, const struct mc_weight *weight,
    const struct mc_quant_args *args, const char *name, struct mc_error *err) MC_CHECKED;
void mc_bands_read(const struct mc_bands *bands, size_t row);
/* Values of a segment of a row. */
size_t mc_bands_run(const struct mc_bands *bands, size_t segment);
size_t mc_bands_height(const struct mc_bands *bands, size_t first);
/* Ranges [scale_cols] of the band that begins at row `first`; row holds its last row afterwards.
 * Errors: CORRUPT naming the first value that is not finite. */
bool mc_bands_ranges(const struct mc_bands *bands, size_t first, struct mc_band_range *ranges,
    struct mc_error *err) MC_CHECKED;

#endif
