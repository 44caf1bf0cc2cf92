"""Figures are whole, deterministic files that show every method."""

import pytest

from uqabench.errors import InputError
from uqabench.report import plot_accuracy, plot_tokens

pytest.importorskip("matplotlib")


@pytest.mark.parametrize("plot", [plot_accuracy, plot_tokens])
def test_png_and_svg(results, tmp_path, plot):
    png = plot(results, tmp_path / "figures" / "a.png")
    assert png.read_bytes().startswith(b"\x89PNG") and png.stat().st_size > 5000
    svg = plot(results, tmp_path / "a.svg")
    first = svg.read_bytes()
    assert plot(results, svg).read_bytes() == first and b"</svg>" in first
    # matplotlib draws text as outlines and leaves the text itself in a comment
    shown = first.decode()
    assert "<!-- Trm++@q-former -->" in shown and "<!-- my_pkg.net:Tower -->" in shown
    assert ("<!-- Oracle -->" in shown) == (plot is plot_accuracy)


def test_bars_and_whiskers_are_the_results(results, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (drawn.append(figure), save(figure, *a, **k)))
    plot_accuracy(results, tmp_path / "a.png")
    axes = drawn[0].axes[0]
    heights = dict(zip([label.get_text() for label in axes.get_xticklabels()], axes.patches, strict=True))
    for name, shown in (("hstu", "HSTU"), ("oracle", "Oracle"), ("text20", "Text20")):
        assert heights[shown].get_height() == results["methods"][name]["overall"]["accuracy"]
    whiskers = axes.containers[0].lines[2][0].get_segments()
    ends = sorted(tuple(round(y, 4) for _, y in segment) for segment in whiskers)
    assert ends == sorted(tuple(m["overall"]["ci95"]) for m in results["methods"].values())


def test_unusable_paths_and_results_are_named(results, tmp_path):
    with pytest.raises(InputError, match="a.pdf must end in .png or .svg"):
        plot_accuracy(results, tmp_path / "a.pdf")
    for method in results["methods"].values():
        method["avg_tokens"] = None
    with pytest.raises(InputError, match="avg_tokens"):
        plot_tokens(results, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
