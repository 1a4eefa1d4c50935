/*
 * dequantize.h - what the two files that read quantized checkpoints share
 */
#ifndef MC_RUN_DEQUANTIZE_H
#define MC_RUN_DEQUANTIZE_H

#include "moecal/dequantize.h"
#include "moecal/scheme.h"

/* The old quantization as config.json tells it. */
struct mc_old_quantization {
	bool block_fp8;                /* then config has the one scheme that it amounts to */
	struct mc_quant_config config; /* owned */
	enum mc_dtype dtype;           /* of weights whose scales do not say it */
	const struct mc_json *kept;    /* block FP8: modules_to_not_convert; NULL: none. Borrowed */
};

/* Errors: UNSUPPORTED naming what was found and what can be read; CORRUPT. */
bool mc_old_quantization_read(
    struct mc_old_quantization *old, const struct mc_model *model, struct mc_error *err) MC_CHECKED;
void mc_old_quantization_release(struct mc_old_quantization *old);
/* Whether modules_to_not_convert names the module or something around it. */
bool mc_old_quantization_keeps(const struct mc_old_quantization *old, const char *module);

#endif
