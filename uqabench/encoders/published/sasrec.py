"""Published names of SASRec: torch's `nn.TransformerEncoderLayer`, whose `in_proj` is q, k and v in one."""

from uqabench.encoders.published.entry import PublishedMap, same, weight_and_bias

_LAYER = "backbone.transformer.layers.{i}"

MAP = PublishedMap(
    encoder="sasrec",
    mark=f"{_LAYER}.self_attn.in_proj_weight",
    layers=(
        same("layers.{i}.qkv.weight", f"{_LAYER}.self_attn.in_proj_weight"),
        same("layers.{i}.qkv.bias", f"{_LAYER}.self_attn.in_proj_bias"),
        *weight_and_bias("layers.{i}.out", f"{_LAYER}.self_attn.out_proj"),
        *weight_and_bias("layers.{i}.up", f"{_LAYER}.linear1"),
        *weight_and_bias("layers.{i}.down", f"{_LAYER}.linear2"),
        *weight_and_bias("layers.{i}.norm1", f"{_LAYER}.norm1"),
        *weight_and_bias("layers.{i}.norm2", f"{_LAYER}.norm2"),
    ),
    rest=(
        same("position_embedding.weight", "backbone.position_embedding.weight"),
        *weight_and_bias("norm", "backbone.norm"),
    ),
    sizes=lambda state: {
        "width": state["backbone.norm.weight"].shape[0],
        "inner": state["backbone.transformer.layers.0.linear1.weight"].shape[0],
        "max_len": state["backbone.position_embedding.weight"].shape[0],
    },
)
