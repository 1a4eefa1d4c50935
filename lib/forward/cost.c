/*
 * cost.c - what a layer's forward costs, from the shapes alone
 */
#include "block.h"

#include "moecal/ops.h"

static uint64_t floats(uint64_t rows, uint64_t cols)
{
	return mc_arena_cost(mc_times(rows, cols), sizeof(float));
}

/*
 * Converted weights of mc_linear: it works on at most this many outputs and inputs at a time, each
 * rounded up to full kernel steps.
 */
static uint64_t linear_bytes(size_t outputs, size_t inputs, unsigned workers)
{
	size_t rows = mc_least(mc_blocks(outputs, 16) * 16, 768);
	size_t cols = mc_least(mc_blocks(inputs, 16) * 16, 2048);

	return mc_plus(mc_times(workers, mc_times(mc_times(rows, cols), sizeof(float))), 64);
}

static uint64_t attention_bytes(
    const struct mc_model_config *config, size_t tokens, size_t longest, unsigned workers)
{
	size_t group = mc_attention_group(tokens, longest), half = config->rotary.dims / 2;
	size_t q = config->heads * config->head_dim, kv = config->kv_heads * config->head_dim;
	size_t widest = q > config->hidden ? q : config->hidden;
	uint64_t rows =
	    mc_plus(mc_plus(floats(group, config->hidden), mc_times(2, floats(group, q))),
		mc_times(2, floats(group, kv)));
	uint64_t tables = mc_plus(mc_times(2, floats(longest, half)), floats(half, 1));
	uint64_t scores = mc_plus(mc_times(workers, floats(mc_attention_scratch(longest), 1)),
	    mc_arena_cost(workers, sizeof(float *)));

	return mc_plus(
	    mc_plus(rows, tables), mc_plus(scores, linear_bytes(widest, widest, workers)));
}

static uint64_t ffn_bytes(
    const struct mc_model_config *config, bool is_moe, size_t tokens, unsigned workers)
{
	size_t chunk = mc_least(tokens, MC_FORWARD_CHUNK), experts = is_moe ? config->experts : 1;
	size_t k = is_moe ? config->experts_per_token : 1;
	size_t width = is_moe ? config->expert_intermediate : config->intermediate;
	uint64_t entries = mc_times(chunk, k);
	/* Four arrays of choices, then the beginnings of the lists and where to go on in them. */
	uint64_t lists = mc_plus(mc_times(4, mc_arena_cost(entries, sizeof(uint32_t))),
	    mc_times(2, mc_arena_cost(experts + 1, sizeof(size_t))));
	uint64_t router =
	    mc_plus(floats(chunk, experts), linear_bytes(experts, config->hidden, workers));
	uint64_t pass = mc_expert_pass_bytes(config->hidden, width, tokens, k, workers);

	return mc_plus(mc_plus(mc_times(2, floats(chunk, config->hidden)), lists),
	    is_moe && router > pass ? router : pass);
}

static bool is_moe_layer(const struct mc_model *model, size_t layer)
{
	return model->layers[layer].moe != MC_NO_INDEX;
}

uint64_t mc_forward_scratch_bytes(const struct mc_model *model, size_t layer, size_t tokens,
    size_t longest_sequence, unsigned workers)
{
	uint64_t attention = attention_bytes(&model->config, tokens, longest_sequence, workers);
	uint64_t ffn = ffn_bytes(&model->config, is_moe_layer(model, layer), tokens, workers);

	return attention > ffn ? attention : ffn;
}

double mc_forward_flops(const struct mc_model *model, size_t layer, size_t tokens, bool all)
{
	const struct mc_model_config *config = &model->config;
	double D = (double)config->hidden, hd = (double)config->head_dim;
	double q = (double)config->heads * hd, kv = (double)config->kv_heads * hd;
	double each = D * (q + 2 * kv) + q * D;

	if (is_moe_layer(model, layer)) {
		double F = (double)config->expert_intermediate,
		       k = (double)config->experts_per_token;
		double E = (double)config->experts;
		each += D * E + 2 * D * F * (all ? E : k) + D * F * k;
	} else {
		each += 3 * D * (double)config->intermediate;
	}
	return 2 * each * (double)tokens;
}
