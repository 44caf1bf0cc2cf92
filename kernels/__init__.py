"""Operators over packed, ragged sequences: one folder an operator.

An operator takes its tokens packed, `(T, ...)` with `offsets` int64 `(B+1,)`: sequence b is rows
`offsets[b]:offsets[b+1]`. `use_backend` and `backend.py` say which implementation runs.

An operator and its folder share a name, and `uqabench.kernels.NAME` is the operator; reach into a folder with
`from uqabench.kernels.NAME import reference`.
"""

import importlib
import sys

if __name__ != "uqabench.kernels":
    # In an editable install transformers, which looks for a package named `kernels`, finds this folder. A second copy
    # would define every torch operator again and free the first definitions while they are in use (a crash in about
    # one run of eight), so that name stands for the one copy.
    sys.modules[__name__] = importlib.import_module("uqabench.kernels")
else:
    from .backend import use_backend
    from .causal_attention import causal_attention, causal_attention_step
    from .causal_conv1d import causal_conv1d
    from .embedding_bag_mean import embedding_bag_mean
    from .gru import gru
    from .hstu_attention import hstu_attention, hstu_attention_step
    from .info_nce import info_nce
    from .layer_norm import layer_norm
    from .linear_cross_entropy import linear_cross_entropy
    from .linear_rank import linear_rank
    from .linear_silu import linear_silu
    from .norm_gate import norm_gate
    from .rms_norm import rms_norm
    from .rope import rope
    from .selective_scan import selective_scan
    from .ssd_scan import ssd_scan
    from .swiglu import swiglu

__all__ = [
    "causal_attention",
    "causal_attention_step",
    "causal_conv1d",
    "embedding_bag_mean",
    "gru",
    "hstu_attention",
    "hstu_attention_step",
    "info_nce",
    "layer_norm",
    "linear_cross_entropy",
    "linear_rank",
    "linear_silu",
    "norm_gate",
    "rms_norm",
    "rope",
    "selective_scan",
    "ssd_scan",
    "swiglu",
    "use_backend",
]
