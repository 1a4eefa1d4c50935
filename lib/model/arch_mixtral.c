/*
 * arch_mixtral.c - Mixtral: no q/k norm, experts named w1 (gate), w3 (up), w2 (down), always
 * renormalised, a sliding window on every layer when there is one
 */
#include "arch.h"

static bool parse_config(
    const struct mc_json *config, struct mc_model_config *c, struct mc_error *err)
{
	if (!mc_config_require_silu(config, err) || !mc_config_common(config, 1e-5, c, err) ||
	    !mc_config_size(config, "intermediate_size", 14336, 1, (size_t)1 << 20,
		&c->expert_intermediate, err) ||
	    !mc_config_size(config, "num_local_experts", 8, 1, 4096, &c->experts, err) ||
	    !mc_config_size(config, "num_experts_per_tok", 2, 1, 256, &c->experts_per_token, err) ||
	    !mc_config_size(
		config, "sliding_window", 0, 1, (size_t)1 << 32, &c->sliding_window, err) ||
	    !mc_config_rotary(config, 1e6, c->head_dim, c->max_positions, &c->rotary, err))
		return false;
	for (size_t l = 0; l < c->layers; l++)
		c->is_moe[l] = true;
	c->renormalise = true;
	c->router = MC_ROUTER_SOFTMAX_TOP_K;
	return true;
}

#define NAMES(block, gate_name, up_name, down_name)                                                \
	{                                                                                          \
		.model = "model", .embed = "model.embed_tokens", .final_norm = "model.norm",       \
		.lm_head = "lm_head", .layer = "model.layers.{l}",                                 \
		.attention = "model.layers.{l}.self_attn",                                         \
		.attention_norm = "model.layers.{l}.input_layernorm",                              \
		.ffn_norm = "model.layers.{l}.post_attention_layernorm",                           \
		.q = "model.layers.{l}.self_attn.q_proj",                                          \
		.k = "model.layers.{l}.self_attn.k_proj",                                          \
		.v = "model.layers.{l}.self_attn.v_proj",                                          \
		.o = "model.layers.{l}.self_attn.o_proj", .moe = "model.layers.{l}." block,        \
		.experts = "model.layers.{l}." block ".experts",                                   \
		.router = "model.layers.{l}." block ".gate",                                       \
		.expert = "model.layers.{l}." block ".experts.{e}",                                \
		.gate = "model.layers.{l}." block ".experts.{e}." gate_name,                       \
		.up = "model.layers.{l}." block ".experts.{e}." up_name,                           \
		.down = "model.layers.{l}." block ".experts.{e}." down_name                        \
	}

/* As transformers 5 names them in memory, and third parties on disk. */
static const struct mc_arch_names version_5 = NAMES("mlp", "gate_proj", "up_proj", "down_proj");

const struct mc_architecture mc_arch_mixtral = {
    .model_type = "mixtral",
    .classes = {.causal_lm = "MixtralForCausalLM",
	.model = "MixtralModel",
	.layer = "MixtralDecoderLayer",
	.attention = "MixtralAttention",
	.moe = "MixtralSparseMoeBlock",
	.experts = "MixtralExperts",
	.expert = "MixtralMLP",
	.router = "MixtralTopKRouter",
	.norm = "MixtralRMSNorm",
	.dense = "MixtralMLP"},
    .names = NAMES("block_sparse_moe", "w1", "w3", "w2"),
    .alternative = &version_5,
    .ignored_prefixes = mc_arch_ignored,
    .parse_config = parse_config,
};
