"""Features of a question's options, as a probe sees them: from the labels and lengths that it predicts of a history."""

from __future__ import annotations

import numpy as np

from uqabench.questions.kinds import KINDS
from uqabench.questions.questions import QuestionSet
from uqabench.stages.probe_labels import INDEX

_NAMES = np.array([kind.name for kind in KINDS])
IS_COUNT = np.array([kind.counts for kind in KINDS], bool)
"""By kind of question, whether its options are numbers."""


def option_features(questions: QuestionSet, mean: np.ndarray, deviation: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Features float64 (Q, 4, F) of options, from predicted labels (Q, 4, 3, windows) of their values and predicted
    lengths (Q,) of the histories."""
    listed = np.arange(mean.shape[2]) < questions.option_lengths[:, :, None]
    listed &= ~IS_COUNT[questions.kind][:, None, None]
    shown_mean, shown = (np.where(listed[..., None], part, 0.0) for part in (mean, deviation))
    total = shown_mean + shown
    over_mean = shown.sum(axis=2) / (shown_mean.sum(axis=2) + 0.02)
    columns = [
        *np.moveaxis(shown.sum(axis=2), 2, 0),
        *(shown_mean.sum(axis=2)[..., INDEX[name]] for name in ("all", "last 10")),
        *(over_mean[..., INDEX[name]] for name in ("all", "last 16", "last 4")),
        *_place(questions, total, over_mean),
        *_path(questions, total),
        *_order(questions, total),
        *_counts(questions, mean + deviation, lengths),
    ]
    return np.stack(columns, axis=2)


def _place(questions: QuestionSet, total: np.ndarray, over_mean: np.ndarray) -> list[np.ndarray]:
    """The label of the place that a df question asks about, as it is and against its mean; zero for other questions."""
    names, k = _NAMES[questions.kind], questions.params[:, 0]
    out, against = np.zeros((2, *total.shape[:2]))
    items = [INDEX["last 1"], INDEX["item 2 back"], INDEX["item 3 back"]]
    for back in range(3):
        for name, window in (("df_last", items[back]), ("df_basket", INDEX[f"basket {back + 1} back"])):
            rows = (names == name) & (k == back + 1)
            out[rows], against[rows] = total[rows, :, 0, window], over_mean[rows, :, window]
        for place in range(3):
            rows = (names == "df_list") & (k - 1 - place == back)
            out[rows] += total[rows, :, place, items[back]]
    rows = np.isin(names, ["df_nth", "df_position"])
    out[rows], against[rows] = total[rows, :, 0, INDEX["first third"]], over_mean[rows, :, INDEX["first third"]]
    return [out, against]


def _path(questions: QuestionSet, total: np.ndarray) -> list[np.ndarray]:
    """First value in the first third, last value in the last, a value in the middle, and how each of the two moves."""
    first, middle, last = (total[..., INDEX[f"{name} third"]] for name in ("first", "middle", "last"))
    end = np.maximum(questions.option_lengths.astype(int) - 1, 0)[:, :, None]

    def at_end(part: np.ndarray) -> np.ndarray:
        return np.take_along_axis(part, end, axis=2)[:, :, 0]

    between = np.where(questions.option_lengths == 3, middle[:, :, 1], middle.max(axis=2))
    moves = [first[:, :, 0] - last[:, :, 0], at_end(last) - at_end(first)]
    return [first[:, :, 0], between, at_end(last), *moves]


def _order(questions: QuestionSet, total: np.ndarray) -> list[np.ndarray]:
    """How much more often each listed value is than the next one, and how often the rarest is."""
    of_all = total[..., INDEX["all"]]
    n = questions.option_lengths
    steps = [np.where(n > place + 1, of_all[:, :, place] - of_all[:, :, place + 1], 0.0) for place in range(2)]
    rarest = np.where(np.arange(3) < n[:, :, None], of_all, np.inf).min(axis=2)
    return [*steps, rarest]


def _counts(questions: QuestionSet, predicted: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
    """How far the number is from what is predicted, in logarithms, for counts and for lengths."""
    number = np.log1p(questions.option_values[:, :, 0].clip(0))
    is_count, is_length = (_NAMES[questions.kind] == name for name in ("mf_count", "mf_length"))
    target = predicted[:, :, 0, INDEX["all"]]
    length = np.log1p(lengths.clip(0))[:, None]
    return [
        np.where(is_count[:, None], np.abs(number - target), 0.0),
        np.where(is_count[:, None], number, 0.0),
        np.where(is_length[:, None], np.abs(number - length), 0.0),
    ]
