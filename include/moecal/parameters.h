/*
 * parameters.h - a finished job's parameters as JSON pages
 */
#ifndef MC_PARAMETERS_H
#define MC_PARAMETERS_H

#include "moecal/json.h"

/*
 * {"parameters": [{"name", "dtype", "shape", "data"}], "next_cursor"}: tensors of a safetensors
 * file in name order whose names begin with `prefix` and come after `cursor` (NULL: from the
 * start), at most `limit` of them (0: all), and after the first no more than `elements` numbers (0: any). data is row-major, floats and integers as numbers. New,
 * owned.
 */
struct mc_json *mc_parameters_json(const char *path, const char *prefix, const char *cursor,
    size_t limit, uint64_t elements, struct mc_error *err) MC_CHECKED;

#endif
