"""Putting a page together: the template with its style, scripts, chart library and the data of each set of results."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from uqabench import __version__
from uqabench.files import write_bytes
from uqabench.report.found import Found, Stages, find
from uqabench.report.page.answers import NO_LETTER, NOT_ASKED, answered
from uqabench.report.page.columns import Columns, Texts
from uqabench.report.page.curves import curves
from uqabench.report.page.questions import Asked
from uqabench.vocabulary import GROUPS, LETTERS, TASKS, display_name

FILE_NAME = "report.html"
SCRIPTS = (
    "data", "statistics", "answers", "filters", "page", "table", "charts", "figures", "browser", "main"
)  # fmt: skip
"""Files of assets, in the order in which they stand in the page: each uses only what stands before it."""


def write_page(paths: Sequence[Path | str], out: Path | str, run: Path | str | None = None) -> Path:
    """Write the page of the results at `paths` (runs' and experiments' folders) to the file `out`; returns it.

    run: the folder of an experiment's run, where it is not one of the folders above it. Raises InputError where
    results, answers or the questions behind them are missing; nothing is written then.
    """
    found = [each for path in paths for each in find(path, run)]
    write_bytes(out, page_of(found).encode())
    return Path(out)


def page_of(found: Sequence[Found]) -> str:
    """The HTML of a page about these results."""
    title = found[0].title if len(found) == 1 else f"{len(found)} sets of results"
    data = "\n".join(
        f'<script type="application/gzip" class="results" data-title="{html.escape(each.title, quote=True)}">'
        f"{packed(each)}</script>"
        for each in found
    )
    parts = {
        "title": html.escape(title),
        "style": _text("page.css"),
        "data": data,
        "charts": _charts(),
        "script": "\n".join(_text(f"{name}.js") for name in SCRIPTS),
    }
    page = _text("page.html")
    for name, part in parts.items():
        page = page.replace(f"<!-- {name} -->", part)
    return page


def packed(found: Found) -> str:
    """The data of one set of results, as `Columns.packed` writes it."""
    stages, columns, texts = Stages(found), Columns(), Texts()
    asked = Asked(found, stages)
    rows = answered(found, stages, asked, columns)
    header: dict[str, Any] = {
        "name": found.name,
        "title": found.title,
        "facts": found.facts,
        "versions": found.results.get("versions", {}) | {"uqabench": __version__},
        "tasks": {task: {"name": display_name(task), "subtasks": list(of)} for task, of in TASKS.items()},
        "groups": list(GROUPS),
        "letters": list(LETTERS),
        "codes": {"notAsked": NOT_ASKED, "noLetter": NO_LETTER},
        "rows": rows,
        "curves": curves(found, stages),
        **asked.columns(columns, texts),
    }
    header["texts"] = texts.all()
    return columns.packed(header)


@cache
def _text(name: str) -> str:
    return (resources.files("uqabench.report.page") / "assets" / name).read_text(encoding="utf-8")


@cache
def _charts() -> str:
    """The chart library, compressed as it is kept."""
    return base64.b64encode((resources.files("uqabench.report.page") / "assets" / "charts.js.gz").read_bytes()).decode()
