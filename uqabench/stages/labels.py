"""What a position of a packed sequence has to predict in pre-training: the next item, or the next basket."""

from __future__ import annotations

import numpy as np

Arrays = dict[str, np.ndarray]


def next_item_labels(items: np.ndarray, offsets: np.ndarray) -> Arrays:
    """label: positions int64 (M,) that have a successor in their sequence; target: that successor's item int64 (M,)."""
    is_labelled = np.ones(len(items), bool)
    is_labelled[offsets[1:][np.diff(offsets) > 0] - 1] = False
    at = np.flatnonzero(is_labelled)
    return {"label": at, "target": items[at + 1]}


def next_basket_labels(items: np.ndarray, offsets: np.ndarray, timestamps: np.ndarray) -> Arrays:
    """label: positions int64 (M,) of the last item of each basket that another one follows; target int64 (M,): the
    first item of that basket; member int64 (K,), member_offsets int64 (M+1,): all of its items.

    A basket are the items of one sequence with one timestamp; timestamps (T,) ascend in each sequence.
    """
    begins = np.ones(len(items), bool)
    begins[1:] = timestamps[1:] != timestamps[:-1]
    sequence_starts = offsets[:-1][np.diff(offsets) > 0]
    begins[sequence_starts] = True
    starts = np.append(np.flatnonzero(begins), len(items))
    follows = ~np.isin(starts[:-1], sequence_starts)
    first, end = starts[:-1][follows], starts[1:][follows]
    sizes = end - first
    member_offsets = np.concatenate([[0], np.cumsum(sizes)])
    within = np.arange(member_offsets[-1]) - np.repeat(member_offsets[:-1], sizes)
    return {
        "label": first - 1,
        "target": items[first],
        "member": items[np.repeat(first, sizes) + within],
        "member_offsets": member_offsets,
    }
