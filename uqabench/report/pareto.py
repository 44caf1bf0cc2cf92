"""Accuracy against a cost, with the methods that no other one beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from uqabench.report.plots import COLOURS, name_points, new_figure, round_ticks, save_figure

Point = tuple[str, str, float, float, Sequence[float]]
"""Label, group (of GROUPS), cost, accuracy in percent, and its interval."""


def pareto_front(costs: Sequence[float], accuracies: Sequence[float]) -> list[int]:
    """Indices, by rising cost, of points that no other has a higher accuracy than at no more cost."""
    order = sorted(range(len(costs)), key=lambda i: (costs[i], -accuracies[i]))
    front: list[int] = []
    for index in order:
        if not front or accuracies[index] > accuracies[front[-1]]:
            front.append(index)
    return front


def plot_pareto(points: Sequence[Point], axis: str, path: Path) -> Path:
    """Points with labels and 95 % intervals over a logarithmic axis of costs, and the front as steps."""
    figure = new_figure(width=8)
    from matplotlib.patches import Patch  # behind the check that it is there

    axes = figure.add_subplot()
    costs, accuracies = [point[2] for point in points], [point[3] for point in points]
    front = pareto_front(costs, accuracies)
    axes.step([costs[i] for i in front], [accuracies[i] for i in front], where="post", color="black", linewidth=0.8)
    for _, group, cost, accuracy, (low, high) in points:
        arms = [[max(0.0, accuracy - low)], [max(0.0, high - accuracy)]]
        axes.errorbar(cost, accuracy, yerr=arms, fmt="o", capsize=3, color=COLOURS[group])
    axes.set_xscale("log")
    round_ticks(axes)
    axes.margins(x=0.2)
    axes.set_xlabel(axis)
    axes.set_ylabel("Accuracy, % (95 % interval)")
    shown = dict.fromkeys(point[1] for point in points)
    axes.legend(handles=[Patch(color=COLOURS[title], label=title) for title in shown], fontsize=8)
    name_points(axes, [(label, cost, accuracy) for label, _, cost, accuracy, _ in points])
    return save_figure(figure, path)
