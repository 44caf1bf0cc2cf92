"""Published names of GRU4Rec: torch's `nn.GRU` without biases, gates in the order r, z, n."""

from uqabench.encoders.published.entry import PublishedMap, same, weight_and_bias

MAP = PublishedMap(
    encoder="gru4rec",
    mark="backbone.gru_layers.weight_ih_l{i}",
    layers=(
        same("layers.{i}.weight_ih", "backbone.gru_layers.weight_ih_l{i}"),
        same("layers.{i}.weight_hh", "backbone.gru_layers.weight_hh_l{i}"),
    ),
    rest=(*weight_and_bias("dense", "backbone.dense"), *weight_and_bias("norm", "backbone.norm")),
    sizes=lambda state: {
        "width": state["backbone.dense.weight"].shape[0],
        "hidden": state["backbone.dense.weight"].shape[1],
    },
)
