/*
 * arch_qwen3_moe.c - Qwen3-MoE: RMSNorm per head before rotary, softmax router, renormalised when
 * the config says so
 */
#include "arch.h"

static bool parse_config(
    const struct mc_json *config, struct mc_model_config *c, struct mc_error *err)
{
	bool bias, sliding;
	size_t experts; /* as transformers 5 spells it */

	if (!mc_config_require_silu(config, err) || !mc_config_common(config, 1e-6, c, err) ||
	    !mc_config_size(
		config, "intermediate_size", 6144, 1, (size_t)1 << 20, &c->intermediate, err) ||
	    !mc_config_size(config, "moe_intermediate_size", 768, 1, (size_t)1 << 20,
		&c->expert_intermediate, err) ||
	    !mc_config_size(config, "num_local_experts", 128, 0, 4096, &experts, err) ||
	    !mc_config_size(config, "num_experts", experts, 0, 4096, &c->experts, err) ||
	    !mc_config_size(config, "num_experts_per_tok", 8, 1, 256, &c->experts_per_token, err) ||
	    !mc_config_bool(config, "norm_topk_prob", false, &c->renormalise, err) ||
	    !mc_config_bool(config, "attention_bias", false, &bias, err) ||
	    !mc_config_bool(config, "use_sliding_window", false, &sliding, err) ||
	    !mc_config_sparse_layers(config, c, err) ||
	    !mc_config_rotary(config, 10000, c->head_dim, c->max_positions, &c->rotary, err))
		return false;
	/* the releases say false; which layers would slide differs between versions of the
	 * framework */
	if (sliding)
		return mc_fail(err, MC_UNSUPPORTED, "config.json",
		    "use_sliding_window is true, which is not there yet for qwen3_moe");
	c->qk_norm = true;
	c->qkv_bias = c->o_bias = bias;
	c->router = MC_ROUTER_SOFTMAX_TOP_K;
	return true;
}

const struct mc_architecture mc_arch_qwen3_moe = {
    .model_type = "qwen3_moe",
    .classes = {.causal_lm = "Qwen3MoeForCausalLM",
	.model = "Qwen3MoeModel",
	.layer = "Qwen3MoeDecoderLayer",
	.attention = "Qwen3MoeAttention",
	.moe = "Qwen3MoeSparseMoeBlock",
	.experts = "Qwen3MoeExperts",
	.expert = "Qwen3MoeMLP",
	.router = "Qwen3MoeTopKRouter",
	.norm = "Qwen3MoeRMSNorm",
	.dense = "Qwen3MoeMLP"},
    .names = {.model = "model",
	.embed = "model.embed_tokens",
	.final_norm = "model.norm",
	.lm_head = "lm_head",
	.layer = "model.layers.{l}",
	.attention = "model.layers.{l}.self_attn",
	.attention_norm = "model.layers.{l}.input_layernorm",
	.ffn_norm = "model.layers.{l}.post_attention_layernorm",
	.q = "model.layers.{l}.self_attn.q_proj",
	.k = "model.layers.{l}.self_attn.k_proj",
	.v = "model.layers.{l}.self_attn.v_proj",
	.o = "model.layers.{l}.self_attn.o_proj",
	.q_norm = "model.layers.{l}.self_attn.q_norm",
	.k_norm = "model.layers.{l}.self_attn.k_norm",
	.moe = "model.layers.{l}.mlp",
	.experts = "model.layers.{l}.mlp.experts",
	.router = "model.layers.{l}.mlp.gate",
	.expert = "model.layers.{l}.mlp.experts.{e}",
	.gate = "model.layers.{l}.mlp.experts.{e}.gate_proj",
	.up = "model.layers.{l}.mlp.experts.{e}.up_proj",
	.down = "model.layers.{l}.mlp.experts.{e}.down_proj",
	.dense = "model.layers.{l}.mlp",
	.dense_gate = "model.layers.{l}.mlp.gate_proj",
	.dense_up = "model.layers.{l}.mlp.up_proj",
	.dense_down = "model.layers.{l}.mlp.down_proj"},
    .ignored_prefixes = mc_arch_ignored,
    .parse_config = parse_config,
};
