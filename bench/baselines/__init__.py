"""The published encoders as padded torch modules: what our encoders are tested against and timed against.

Each module shares the parameters of one of our encoders, so that both compute the same function and a backward pass of
the baseline leaves its gradients in that encoder's parameters. Input is (B, L, width), zeros or anything else behind
each sequence; output is (B, L, width) with zeros there. Dropout stands where the published modules have it.
"""

from __future__ import annotations

import importlib

from torch import nn

_MODULES = {
    "hstu": "hstu:PaddedHSTU",
    "trm++": "trmpp:PaddedTrmPP",
    "sasrec": "sasrec:PaddedSASRec",
    "gru4rec": "gru4rec:PaddedGRU4Rec",
    "mamba4rec": "mamba1:PaddedMamba4Rec",
    "mamba2": "mamba2:PaddedMamba2",
}
BASELINE_NAMES = tuple(_MODULES)


def build_baseline(name: str, encoder: nn.Module) -> nn.Module:
    """The padded formulation of `encoder`, whose registered name is `name`; both share their parameters.

    The result's `forward(x, lengths, timestamps=None)` takes x (B, L, width), lengths int64 (B,) and timestamps int64
    (B, L) in seconds. Raises KeyError for a name outside BASELINE_NAMES, ImportError where the Mamba ones find no
    transformers.
    """
    # Looked up when asked for: the Mamba baselines import transformers, which takes seconds and is optional.
    module, _, cls = _MODULES[name].partition(":")
    return getattr(importlib.import_module(f"bench.baselines.{module}"), cls)(encoder)
