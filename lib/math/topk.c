/*
 * topk.c - which experts a token goes to, and with what weights
 */
#include "moecal/ops.h"

#include "exponential.h"
#include "moecal/error.h"

/* The k largest, largest first; of equal ones the lower index first. */
static void choose_largest(const float *logits, size_t experts, size_t k, uint32_t *chosen)
{
	size_t count = 0;
	for (size_t e = 0; e < experts; e++) {
		if (count == k && !(logits[e] > logits[chosen[k - 1]]))
			continue;
		size_t place = count < k ? count++ : k - 1;
		for (; place > 0 && logits[e] > logits[chosen[place - 1]]; place--)
			chosen[place] = chosen[place - 1];
		chosen[place] = (uint32_t)e;
	}
}

static void sort_ascending(uint32_t *index, size_t k)
{
	for (size_t i = 1; i < k; i++) {
		uint32_t moving = index[i];
		size_t place = i;
		for (; place > 0 && index[place - 1] > moving; place--)
			index[place] = index[place - 1];
		index[place] = moving;
	}
}

void mc_top_k_softmax(const float *logits, size_t experts, size_t k, bool renormalise,
    uint32_t *ret_index, float *ret_weight)
{
	mc_assert(k >= 1 && k <= experts && experts <= UINT32_MAX);
	choose_largest(logits, experts, k, ret_index);
	float largest = logits[ret_index[0]];
	sort_ascending(ret_index, k);
	/* Renormalised, the sum over all experts cancels: a softmax over the chosen ones. */
	double sum = 0;
	if (renormalise) {
		for (size_t i = 0; i < k; i++)
			sum += (double)mc_exp_f32(logits[ret_index[i]] - largest);
	} else {
		for (size_t e = 0; e < experts; e++)
			sum += (double)mc_exp_f32(logits[e] - largest);
	}
	for (size_t i = 0; i < k; i++)
		ret_weight[i] = (float)((double)mc_exp_f32(logits[ret_index[i]] - largest) / sum);
}
