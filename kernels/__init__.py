"""Operators over packed, ragged sequences: one folder an operator.

An operator takes its tokens packed, `(T, ...)` with `offsets` int64 `(B+1,)`: sequence b is rows
`offsets[b]:offsets[b+1]`. `use_backend` and `backend.py` say which implementation runs.

An operator and its folder share a name, and `uqabench.kernels.NAME` is the operator; reach into a folder with
`from uqabench.kernels.NAME import reference`.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module

from .backend import use_backend

_FOLDERS = {
    "causal_attention": ("causal_attention",),
    "causal_conv1d": ("causal_conv1d",),
    "embedding_bag": ("embedding_bag_mean",),
    "gru": ("gru",),
    "hstu_attention": ("hstu_attention",),
    "info_nce": ("info_nce",),
    "layer_norm": ("layer_norm",),
    "linear_cross_entropy": ("linear_cross_entropy",),
    "linear_rank": ("linear_rank",),
    "norm_gate": ("norm_gate",),
    "selective_scan": ("selective_scan",),
    "ssd_scan": ("ssd_scan",),
    "transformer_block": ("rms_norm", "rope", "swiglu"),
}
for _folder, _names in _FOLDERS.items():
    with suppress(ImportError, AttributeError):
        for _name in _names:
            globals()[_name] = getattr(import_module(f".{_folder}", __name__), _name)

__all__ = ["use_backend", *(n for names in _FOLDERS.values() for n in names if n in globals())]
