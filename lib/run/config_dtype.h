/*
 * config_dtype.h - the dtype that a model's config.json names for its plain tensors
 */
#ifndef MC_CONFIG_DTYPE_H
#define MC_CONFIG_DTYPE_H

#include "moecal/dtype.h"
#include "moecal/json.h"

/* "dtype" (transformers 5) or "torch_dtype" (4), also of the decoder inside a larger model; BF16 when
 * it names none of float32, float16, bfloat16. */
enum mc_dtype mc_config_dtype(const struct mc_json *config);

#endif
