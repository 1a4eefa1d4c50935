/*
 * activation.c - exponentials and the gated activation
 */
#include "moecal/ops.h"

#include <math.h>

#include "exponential.h"

/*
 * silu(z) = z s(z) with the logistic s written in e = exp(-|z|), which cannot overflow: 1 / (1 + e)
 * for z >= 0 and e / (1 + e) below. At z = -inf the product would be inf * 0: z is held at -200
 * there, where e is 0 already.
 */
MC_INLINE float silu(float z)
{
	float e = mc_exp_f32(-fabsf(z));
	float numerator = z >= 0.0f ? 1.0f : e;
	float held = z < -200.0f ? -200.0f : z;
	return held * (numerator / (1.0f + e));
}

/* act may be gate: element i is read before it is written. */
MC_SIMD void mc_silu_mul(const float *gate, const float *up, float *act, size_t n)
{
	for (size_t i = 0; i < n; i++)
		act[i] = silu(gate[i]) * up[i];
}

MC_SIMD void mc_exp_many(const float *in, float *out, size_t n)
{
	for (size_t i = 0; i < n; i++)
		out[i] = mc_exp_f32(in[i]);
}
