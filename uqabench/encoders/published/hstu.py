"""Published names of HSTU. `_uvqk` is used as x @ _uvqk, columns in the order u, v, q, k."""

from uqabench.encoders.published.entry import Entry, PublishedMap, weight_and_bias

_LAYER = "backbone._hstu._attention_layers.{i}"

MAP = PublishedMap(
    encoder="hstu",
    mark=f"{_LAYER}._uvqk",
    layers=(
        Entry("blocks.{i}.uvqk.weight", (f"{_LAYER}._uvqk",), "transposed"),
        *weight_and_bias("blocks.{i}.out", f"{_LAYER}._o"),
    ),
    rest=(),
    sizes=lambda state: {"width": state[f"{_LAYER}._uvqk".replace("{i}", "0")].shape[0], "bias": "none"},
    unused=(f"{_LAYER}._rel_attn_bias._ts_w", f"{_LAYER}._rel_attn_bias._pos_w", "backbone._attn_mask"),
)
