"""Tiny models with random weights of every causal architecture that the installed transformers knows."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

VOCABULARY = 512
MOST_PARAMETERS = 30_000_000
STD = 0.2  # of weight matrices: about 1 / √32, for layers of width 32

# Sizes by the name of the setting, for any configuration that has it. Windows and chunks are shorter than the prompts
# that are compared, layers so many that every kind of them is there.
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    **dict.fromkeys(
        ("hidden_size", "n_embd", "d_model", "dim", "model_dim", "embedding_size", "word_embed_proj_dim"), 32
    ),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "decoder_ffn_dim", "encoder_ffn_dim", "dff"), 48),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "intermediate_size_mlp"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads"), 4),
    "num_key_value_heads": 2,
    "head_dim": 8,
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_target_positions"), 256),
    **dict.fromkeys(("sliding_window", "sliding_window_size", "attention_chunk_size", "window_size"), 8),
    "attention_window_size": 8,
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "top_k", "moe_topk", "moe_k"), 2),
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads"), 2),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8),
    **dict.fromkeys(("mamba_d_state", "state_size", "ssm_state_size", "mamba_state_dim"), 8),
    **dict.fromkeys(("time_step_rank", "mamba_dt_rank"), 4),
    **dict.fromkeys(("mamba_chunk_size", "chunk_size"), 8),
}


_VISION = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
_ATTENTIONS = ("sliding_attention", "full_attention")

# What the sizes above leave inconsistent, by architecture.
CHANGES: dict[str, dict[str, Any]] = {
    "bailing_hybrid": {"layer_types": ["linear_attention", "full_attention"], "num_hidden_layers": 2},
    "bamba": {"mamba_n_heads": 4, "attn_layer_indices": [1]},
    "codegen": {"rotary_dim": 4},
    "cohere_compass_text": {"layer_types": ["sliding_attention", "full_attention"], "num_hidden_layers": 2}
    | {"rope_parameters": {kind: {"rope_type": "default", "rope_theta": 1e4} for kind in _ATTENTIONS}},
    "cwm": {"bos_token_id": 1},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4},
        "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4},
    },
    "dory": {"layer_types": ["sliding_attention", "full_attention"] * 2, "num_hidden_layers": 4}
    | {"n_input_layers": 1, "n_output_layers": 1, "n_recurrent_layers": None},
    "dots3_note_text": {
        "head_dim": 16,
        "per_layer_config": {},
        "index_head_dim": 8,
        "index_n_heads": 2,
        "index_topk": 8,
    },
    "gemma3": {"vision_config": {"model_type": "siglip_vision_model"} | _VISION},
    "gemma3n_text": {"layer_types": ["sliding_attention", "full_attention"] * 2, "num_hidden_layers": 4}
    | {"num_kv_shared_layers": 2, "vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8},
    "gemma4_text": {"vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 4},
    "granitemoehybrid": {"mamba_n_heads": 4, "layer_types": ["linear_attention", "full_attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {"linear_head_dim": 8, "linear_num_heads": 4},
    **dict.fromkeys(("dots1", "laguna", "mellum", "smollm3"), {"layer_types": list(_ATTENTIONS)}),
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "longcat_flash": {"head_dim": 8, "ffn_hidden_size": 32, "expert_ffn_hidden_size": 32, "zero_expert_num": 2},
    "mamba2": {"num_heads": 8, "n_groups": 2},
    "modernbert-decoder": {"bos_token_id": 1},
    "qwen4_exp_text": {"ngram_vocab_size_base": 64, "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8}
    | {"indexer_budget": 8, "indexer_compress_ratio": 2, "split_ngram_parts": 1, "hc_lowrank": 8},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {"is_decoder": True, "axial_pos_shape": (16, 16), "axial_pos_embds_dim": (16, 16)}
    | {"attention_head_size": 8, "attn_layers": ("local", "lsh"), "num_buckets": 4},
    "xlm": {"emb_dim": 32, "n_words": VOCABULARY, "causal": True},
    "xlstm": {"num_blocks": 2, "embedding_dim": 32, "qk_dim_factor": 1.0},
    "xmod": {"default_language": "en_XX", "is_decoder": True},
    "zamba": {"num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid"] * 2},
    "zamba2": {"num_hidden_layers": 3, "layers_block_type": ["linear_attention", "hybrid", "linear_attention"]}
    | {"n_mamba_heads": 4},
    "zaya": {"num_experts_per_tok": 1},
}


# Settings that change how an architecture has to be asked, walked beside its default ones.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "falcon (ALiBi)": ("falcon", {"alibi": True}),
    "qwen2 (windows)": ("qwen2", {"use_sliding_window": True, "layer_types": list(_ATTENTIONS)}),
}


def tiny_config(name: str) -> Any:
    """The configuration of an architecture, or of one of `VARIANTS`, with small sizes and else its defaults."""
    from transformers import CONFIG_MAPPING

    name, changes = VARIANTS.get(name, (name, CHANGES.get(name, {})))
    config_class = CONFIG_MAPPING[name]
    names = {field.name for field in dataclasses.fields(config_class)}
    kinds = list(dict.fromkeys(getattr(config_class(), "layer_types", None) or ()))
    small = {name: value for name, value in SMALL.items() if name in names}
    small |= {name: True for name in ("is_decoder",) if name in names}
    small |= {name: None for name in ("bos_token_id", "eos_token_id") if name in names}
    if "pad_token_id" in names:
        small["pad_token_id"] = 0
    if "kv_lora_rank" in names:  # latent attention has as many key heads as query heads
        small["num_key_value_heads"] = small["num_attention_heads"]
    text = getattr(config_class.sub_configs.get("text_config"), "model_type", "")
    if text in CONFIG_MAPPING:  # with parts for images or sound beside it
        small["text_config"] = tiny_config(text).to_dict()
    if "vision_config" in config_class.sub_configs:
        small["vision_config"] = _VISION
    if kinds and "layer_types" in names:
        layers = kinds * 2 if len(kinds) == 1 else kinds
        small |= {"layer_types": layers, "num_hidden_layers": len(layers)}
    return config_class(**(small | changes))


def build(config: Any) -> torch.nn.Module:
    """The model of a configuration with random weights of seed 0, large enough to tell texts apart."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        size = sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())
    if size > MOST_PARAMETERS:
        raise ValueError(f"{size:,} parameters")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # The usual initial weights are so small that layers hardly change what passes them.
            if parameter.dim() > 1 and 0 < float(parameter.std()) < STD:
                parameter.mul_(STD / float(parameter.std()))
    return model
