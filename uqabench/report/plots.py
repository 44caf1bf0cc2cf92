"""Figures, as PNG or SVG: accuracy by row, accuracy against prompt tokens, and accuracy against encoder size."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.util import find_spec
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
    from matplotlib.transforms import Bbox

COLOURS = dict(zip(GROUPS, ("#d98c21", "#2f6db3", "#7aa6d6", "#8a8a8a"), strict=True))
_AXIS = "Accuracy, % (95 % interval)"


def can_draw() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


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
    axes = figure.add_subplot()
    for row in rows:
        point = (row.avg_tokens, row.scores["overall"]["accuracy"])
        axes.errorbar(*point, yerr=_arms([row]), fmt="o", capsize=3, color=COLOURS[row.group])
    axes.set_xscale("log")
    axes.margins(x=0.3)
    round_ticks(axes)
    name_points(axes, [(row.name, row.avg_tokens, row.scores["overall"]["accuracy"]) for row in rows])
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


def round_ticks(axes: Axes) -> None:
    """Mark a logarithmic x axis at 1, 2 and 5 times powers of ten, as plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def name_points(axes: Axes, names: Sequence[tuple[str, float, float]]) -> None:
    """Write each name beside its point (x, y), from the highest to the lowest, and lower where another name stands."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(axes.figure)
    canvas.draw()  # where texts stand is known once the axes have their places
    taken: list[Bbox] = []
    for name, x, y in sorted(names, key=lambda named: -named[2]):
        text = axes.annotate(name, (x, y), xytext=(6, 3), textcoords="offset points", fontsize=7)
        while any(text.get_window_extent(canvas.get_renderer()).overlaps(box) for box in taken):
            right, up = text.xyann
            text.xyann = (right, up - 1)
        taken.append(text.get_window_extent(canvas.get_renderer()))


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
