"""What a position of a packed sequence has to predict in pre-training."""

from __future__ import annotations

import numpy as np

Arrays = dict[str, np.ndarray]


def next_item_labels(items: np.ndarray, offsets: np.ndarray) -> Arrays:
    """label: positions int64 (M,) that have a successor in their sequence; target: that successor's item int64 (M,)."""
    is_labelled = np.ones(len(items), bool)
    is_labelled[offsets[1:][np.diff(offsets) > 0] - 1] = False
    at = np.flatnonzero(is_labelled)
    return {"label": at, "target": items[at + 1]}
