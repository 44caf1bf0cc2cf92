"""Figures, as PNG or SVG: accuracy by row, accuracy against prompt tokens, and accuracy against encoder size."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from uqabench.errors import InputError, MissingExtra
from uqabench.files import write_bytes
from uqabench.report.rows import ScoreRow
from uqabench.report.scaling import PowerLaw
from uqabench.vocabulary import GROUPS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = dict(zip(GROUPS, ("#d98c21", "#2f6db3", "#7aa6d6", "#8a8a8a"), strict=True))
_AXIS = "Accuracy, % (95 % interval)"


def plot_accuracy(rows: Sequence[ScoreRow], path: Path | str) -> Path:
    """Bars of the rows' overall accuracy with 95 % intervals as whiskers, and a line at chance (25 %)."""
    figure = new_figure(width=2 + 0.5 * len(rows))
    axes = figure.add_subplot()
    positions = range(len(rows))
    axes.bar(
        positions,
        [row.scores["overall"]["accuracy"] for row in rows],
        yerr=_arms(rows),
        capsize=3,
        color=[COLOURS[row.group] for row in rows],
    )
    axes.set_xticks(positions, [row.name for row in rows], rotation=40, ha="right")
    axes.axhline(25, color="black", linewidth=0.8, linestyle=":")
    axes.set_ylabel(_AXIS)
    axes.set_ylim(0, 103)
    _legend(axes, rows)
    return save_figure(figure, Path(path))


def plot_tokens(rows: Sequence[ScoreRow], path: Path | str) -> Path:
    """Overall accuracy against the mean number of prompt tokens (log scale), of rows that have both."""
    figure = new_figure(width=7)
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter  # behind the check that it is there

    axes = figure.add_subplot()
    for row in rows:
        point = (row.avg_tokens, row.scores["overall"]["accuracy"])
        axes.errorbar(*point, yerr=_arms([row]), fmt="o", capsize=3, color=COLOURS[row.group])
    axes.set_xscale("log")
    axes.margins(x=0.3)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    _name_points(axes, rows)
    axes.set_xlabel("Prompt tokens, mean")
    axes.set_ylabel(_AXIS)
    _legend(axes, rows)
    return save_figure(figure, Path(path))


def plot_scaling(laws: Sequence[PowerLaw], path: Path | str) -> Path:
    """Overall accuracy against encoder size (log scale) with each fitted law and the band of its 95 % interval.

    A law without draws, as the paper's, is drawn with hollow points, a dashed line and no band.
    """
    figure = new_figure(width=7)
    axes = figure.add_subplot()
    for law in laws:
        line = np.geomspace(law.sizes.min(), law.sizes.max(), 100)
        drawn = len(law.draws) > 0
        (curve,) = axes.plot(line, law.accuracy_at(line), linestyle="-" if drawn else "--", linewidth=1)
        colour = curve.get_color()
        if drawn:
            axes.fill_between(line, *law.band(line), color=colour, alpha=0.15, linewidth=0)
        axes.errorbar(
            law.sizes,
            law.accuracy,
            yerr=np.maximum(0, [law.accuracy - law.ci95[0], law.ci95[1] - law.accuracy]) if drawn else None,
            fmt="o",
            capsize=3,
            color=colour,
            markerfacecolor=colour if drawn else "none",
            label=f"{law.label}: error ∝ size$^{{{-law.exponent:.3f}}}$",
        )
    axes.set_xscale("log")
    axes.set_xlabel("Parameters of the encoder's blocks")
    axes.set_ylabel(_AXIS)
    axes.legend(fontsize=8)
    return save_figure(figure, Path(path))


def new_figure(width: float) -> Figure:
    """A figure with its own canvas: pyplot would keep it alive and pick a window system."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "train", "Drawing plots") from error
    return Figure(figsize=(width, 4.2), layout="constrained")


def _arms(rows: Sequence[ScoreRow]) -> list[list[float]]:
    """Lengths below and above the accuracy; a percentile interval need not hold it, and a length is not negative."""
    scores = [row.scores["overall"] for row in rows]
    below = [max(0.0, score["accuracy"] - score["ci95"][0]) for score in scores]
    above = [max(0.0, score["ci95"][1] - score["accuracy"]) for score in scores]
    return [below, above]


def _name_points(axes: Axes, rows: Sequence[ScoreRow]) -> None:
    """Write each row's name to the right of its point, moved up where the name below would touch it."""
    low, high = axes.get_ylim()
    gap = 0.045 * (high - low)  # the height of a line of text
    written: list[tuple[float, float]] = []
    for row in sorted(rows, key=lambda row: row.scores["overall"]["accuracy"]):
        x, y = row.avg_tokens, row.scores["overall"]["accuracy"]
        below = [height for tokens, height in written if 0.5 < tokens / x < 2]
        height = max([y, *(height + gap for height in below)])
        written.append((x, height))
        axes.annotate(row.name, (x, height), xytext=(8, 0), textcoords="offset points", fontsize=8, va="center")


def _legend(axes: Axes, rows: Sequence[ScoreRow]) -> None:
    from matplotlib.patches import Patch

    shown = [title for title in GROUPS if any(row.group == title for row in rows)]
    axes.legend(handles=[Patch(color=COLOURS[title], label=title) for title in shown], fontsize=8)


def save_figure(figure: Figure, path: Path) -> Path:
    """Write the figure aside and rename it; equal results give equal bytes."""
    import matplotlib

    kind = path.suffix.lower().lstrip(".")
    if kind not in ("png", "svg"):
        raise InputError(f"{path} must end in .png or .svg.")
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context({"svg.hashsalt": "uqabench"}):
        figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    write_bytes(path, buffer.getvalue())
    return path
