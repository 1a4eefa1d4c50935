/*
 * dequantize.h - read a checkpoint that is already quantized: its weights are made from what is stored
 *
 * What can be read: compressed-tensors in every format that mc_unpack knows, and block FP8
 * (quant_method "fp8" with weight_block_size: F8_E4M3 NAME.weight, NAME.weight_scale_inv in F32, F16 or
 * BF16, value times the scale_inv of its block). Everything else is refused by name.
 *
 * The dtype of such a weight is that of its scales; where those are no F32, F16 or BF16, and for block
 * FP8, it is what config.json says as dtype (or torch_dtype), else BF16. Values are computed in that
 * dtype, as compressed-tensors does it; those of block FP8 in float32 and then rounded once, to that
 * dtype or to the precision asked for.
 * What the first quantization lost stays lost. Its scales of inputs and of the KV cache, its zero points
 * of symmetric weights and its activation_scheme are ignored.
 */
#ifndef MC_DEQUANTIZE_H
#define MC_DEQUANTIZE_H

#include "moecal/model.h"

extern const struct mc_weight_source mc_quantized_source;

/*
 * mc_model_open_with this source. Errors: those of mc_model_open; UNSUPPORTED for a quantization that
 * cannot be read, naming what was found and what can be; CORRUPT for a tensor of a quantized module that
 * is missing or has another dtype or shape, with what was found and needed.
 */
bool mc_dequantize_open(struct mc_model *model, const struct mc_roots *roots, const char *folder,
    struct mc_error *err) MC_CHECKED;

#endif
