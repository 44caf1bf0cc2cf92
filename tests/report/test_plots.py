"""Figures are whole, deterministic files that show every row."""

from itertools import combinations

import numpy as np
import pytest

from uqabench.errors import InputError
from uqabench.report.plots import plot_accuracy, plot_scaling, plot_tokens
from uqabench.report.rows import run_rows
from uqabench.report.scaling import PowerLaw, paper_scaling

pytest.importorskip("matplotlib")


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    from matplotlib.figure import Figure

    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (figures.append(figure), save(figure, *a, **k)))
    return figures


@pytest.mark.parametrize("plot", [plot_accuracy, plot_tokens])
def test_png_and_svg(results, tmp_path, plot):
    rows = run_rows(results)
    png = plot(rows, tmp_path / "figures" / "a.png")
    assert png.read_bytes().startswith(b"\x89PNG") and png.stat().st_size > 5000
    svg = plot(rows, tmp_path / "a.svg")
    first = svg.read_bytes()
    assert plot(rows, svg).read_bytes() == first and b"</svg>" in first
    # matplotlib draws text as outlines and leaves the text itself in a comment
    shown = first.decode()
    assert "<!-- Trm++@q-former -->" in shown and "<!-- my_pkg.net:Tower -->" in shown and "<!-- Oracle -->" in shown


def test_bars_and_whiskers_are_the_results(results, tmp_path, drawn):
    plot_accuracy(run_rows(results), tmp_path / "a.png")
    axes = drawn[0].axes[0]
    heights = dict(zip([label.get_text() for label in axes.get_xticklabels()], axes.patches, strict=True))
    for name, shown in (("hstu", "HSTU"), ("oracle", "Oracle"), ("text20", "Text20")):
        assert heights[shown].get_height() == results["methods"][name]["overall"]["accuracy"]
    whiskers = axes.containers[0].lines[2][0].get_segments()
    ends = sorted(tuple(round(y, 4) for _, y in segment) for segment in whiskers)
    assert ends == sorted(tuple(m["overall"]["ci95"]) for m in results["methods"].values())


def test_names_of_points_at_one_token_count_do_not_touch(results, tmp_path, drawn):
    rows = [row for row in run_rows(results) if row.group == "Embedding-based"]
    plot_tokens(rows, tmp_path / "a.png")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    axes = drawn[0].axes[0]
    canvas = FigureCanvasAgg(drawn[0])
    canvas.draw()
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in axes.texts]
    assert len(boxes) == len(rows)
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))


def test_scaling_shows_points_law_band_and_the_paper(tmp_path, drawn):
    sizes, accuracy = np.array([1e4, 1e5, 1e6]), np.array([40.0, 46.0, 51.4])
    draws = np.stack([np.full(50, 91.0), np.linspace(0.04, 0.05, 50)], axis=1)
    law = PowerLaw(
        "HSTU", sizes, accuracy, np.stack([accuracy - 1, accuracy + 1]), 91.0, 0.045, draws, "users resampled"
    )
    assert plot_scaling([law, paper_scaling()], tmp_path / "a.png").stat().st_size > 5000
    axes = drawn[0].axes[0]
    assert [len(points.lines[0].get_xdata()) for points in axes.containers] == [3, 8]
    assert len(axes.collections) == 2  # whiskers and band of ours: the paper has neither
    assert "HSTU" in axes.get_legend().get_texts()[0].get_text()


def test_a_path_of_another_kind_is_refused(results, tmp_path):
    with pytest.raises(InputError, match="a.pdf must end in .png or .svg"):
        plot_accuracy(run_rows(results), tmp_path / "a.pdf")
    assert not list(tmp_path.iterdir())
