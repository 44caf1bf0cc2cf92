"""Judges: models of explicit features, fitted on training questions, that say what a set of questions can measure.

`no-history-model` reads options and question alone: what it gets beyond a quarter is a short cut. `history-model` reads
the history too: what it does not get beyond the other, the history hardly tells.
"""

from __future__ import annotations

from uqabench.questions.judges.model import judge_scores, predict_judge

__all__ = ["judge_scores", "predict_judge"]
