"""Published names of Mamba: the Mamba-2 block of mamba-ssm 2, whose input gives z, then x, B and C, then dt."""

from uqabench.encoders.published.entry import Entry, PublishedMap, same

_LAYER = "backbone.layers.{i}"
_MIXER = f"{_LAYER}.mixer"

MAP = PublishedMap(
    encoder="mamba2",
    mark=f"{_MIXER}.in_proj.weight",
    layers=(
        same("norms.{i}.weight", f"{_LAYER}.norm.weight"),
        same("mixers.{i}.in_proj.weight", f"{_MIXER}.in_proj.weight"),
        Entry("mixers.{i}.conv.weight", (f"{_MIXER}.conv1d.weight",), "depthwise"),
        same("mixers.{i}.conv.bias", f"{_MIXER}.conv1d.bias"),
        same("mixers.{i}.dt_bias", f"{_MIXER}.dt_bias"),
        same("mixers.{i}.A_log", f"{_MIXER}.A_log"),
        same("mixers.{i}.D", f"{_MIXER}.D"),
        same("mixers.{i}.norm.weight", f"{_MIXER}.norm.weight"),
        same("mixers.{i}.out_proj.weight", f"{_MIXER}.out_proj.weight"),
    ),
    rest=(),
    sizes=lambda state: _sizes(state),
)


def _sizes(state: dict) -> dict[str, int]:
    """The inner width is a multiple of the width; the convolution is over x, B and C."""
    mixer = _MIXER.replace("{i}", "0")
    width, inner = state[f"{mixer}.out_proj.weight"].shape
    channels, _, taps = state[f"{mixer}.conv1d.weight"].shape
    heads = state[f"{mixer}.A_log"].shape[0]
    sizes = {"width": width, "expand": inner // width, "conv": taps, "state": (channels - inner) // 2}
    return {**sizes, "head_dim": inner // heads}
