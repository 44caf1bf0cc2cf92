"""Two figures of a run, as PNG or SVG: accuracy by method, and accuracy against prompt tokens."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uqabench.errors import InputError, MissingExtra
from uqabench.files import write_bytes
from uqabench.report.results import Results
from uqabench.report.tables import ordered
from uqabench.vocabulary import GROUPS, display_name, group

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = dict(zip(GROUPS, ("#d98c21", "#2f6db3", "#8a8a8a"), strict=True))


def plot_accuracy(results: Results, path: Path | str) -> Path:
    """Bars of overall accuracy by method with 95 % intervals as whiskers, and a line at chance (25 %)."""
    names = ordered(results["methods"])
    overall = [results["methods"][name]["overall"] for name in names]
    figure = _figure(width=2 + 0.5 * len(names))
    axes = figure.add_subplot()
    axes.bar(
        [display_name(name) for name in names],
        [cell["accuracy"] for cell in overall],
        yerr=_arms(overall),
        capsize=3,
        color=[_COLOURS[group(name)] for name in names],
    )
    axes.axhline(25, color="black", linewidth=0.8, linestyle=":")
    axes.set_ylabel("Accuracy, % (95 % interval)")
    axes.set_ylim(0, 103)
    axes.tick_params(axis="x", rotation=40)
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("right")
    _legend(axes, names)
    return _save(figure, Path(path))


def plot_tokens(results: Results, path: Path | str) -> Path:
    """Overall accuracy against the mean number of prompt tokens (log scale) of methods that prompt with a history."""
    methods = results["methods"]
    names = [name for name in ordered(methods) if group(name) != "Baselines" and methods[name].get("avg_tokens")]
    if not names:
        raise InputError("No text-based or embedding-based method has 'avg_tokens': there is nothing to plot.")
    figure = _figure(width=7)
    axes = figure.add_subplot()
    for name in names:
        method = methods[name]
        point = (method["avg_tokens"], method["overall"]["accuracy"])
        axes.errorbar(*point, yerr=_arms([method["overall"]]), fmt="o", capsize=3, color=_COLOURS[group(name)])
        axes.annotate(display_name(name), point, xytext=(6, 4), textcoords="offset points", fontsize=8)
    axes.set_xscale("log")
    axes.margins(x=0.3)
    axes.set_xlabel("Prompt tokens, mean")
    axes.set_ylabel("Accuracy, % (95 % interval)")
    _legend(axes, names)
    return _save(figure, Path(path))


def _figure(width: float) -> Figure:
    """A figure with its own canvas: pyplot would keep it alive and pick a window system."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", "train", "Drawing plots") from error
    return Figure(figsize=(width, 4.2), layout="constrained")


def _arms(cells: list[dict[str, Any]]) -> list[list[float]]:
    """Lengths below and above the accuracy; a percentile interval need not hold it, and a length is not negative."""
    below = [max(0.0, cell["accuracy"] - cell["ci95"][0]) for cell in cells]
    above = [max(0.0, cell["ci95"][1] - cell["accuracy"]) for cell in cells]
    return [below, above]


def _legend(axes: Axes, names: list[str]) -> None:
    from matplotlib.patches import Patch

    shown = [title for title in GROUPS if any(group(name) == title for name in names)]
    axes.legend(handles=[Patch(color=_COLOURS[title], label=title) for title in shown], fontsize=8)


def _save(figure: Figure, path: Path) -> Path:
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
