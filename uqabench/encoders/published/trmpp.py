"""Published names of Trm++. `up_proj_x` is the linear branch of SwiGLU, `up_proj_g` the one through SiLU."""

from uqabench.encoders.published.entry import Entry, PublishedMap, same

_LAYER = "backbone.layers.{i}"

MAP = PublishedMap(
    encoder="trm++",
    mark=f"{_LAYER}.attn.q_proj.weight",
    layers=(
        Entry("layers.{i}.qkv.weight", tuple(f"{_LAYER}.attn.{part}_proj.weight" for part in "qkv")),
        same("layers.{i}.out.weight", f"{_LAYER}.attn.o_proj.weight"),
        same("layers.{i}.norm1.weight", f"{_LAYER}.norm1.weight"),
        same("layers.{i}.norm2.weight", f"{_LAYER}.norm2.weight"),
        same("layers.{i}.up.weight", f"{_LAYER}.mlp.up_proj_x.weight"),
        same("layers.{i}.gate.weight", f"{_LAYER}.mlp.up_proj_g.weight"),
        same("layers.{i}.down.weight", f"{_LAYER}.mlp.down_proj.weight"),
    ),
    rest=(),
    sizes=lambda state: {
        "width": state["backbone.layers.0.attn.q_proj.weight"].shape[0],
        "inner": state["backbone.layers.0.mlp.up_proj_x.weight"].shape[0],
    },
)
