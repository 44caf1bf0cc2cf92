"""Whatever is done to a valid results file, it still makes its tables or is refused in one sentence."""

import copy
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from uqabench.errors import InputError
from uqabench.report import (
    comparison_table,
    experiment_table,
    load_experiment,
    load_results,
    main_table,
    pretrain_table,
)
from uqabench.report.render import FORMATS

OTHERS = [
    None,
    True,
    -1,
    0,
    1.5,
    10**400,
    -(10**400),
    float("nan"),
    float("inf"),
    "",
    "x",
    "\ud800",
    "a\nb",
    [],
    [1, 2],
    {},
    {"a": 1},
]
SETTINGS = settings(max_examples=150)


def _spots(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [spot for key in keys for spot in ((value, key), *_spots(value[key]))]


def _mutate(value: dict, data: st.DataObject) -> dict:
    value = copy.deepcopy(value)
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(_spots(value)))
        action = data.draw(st.sampled_from(("drop", "replace", "rename")))
        if action == "replace" or isinstance(container, list) and action == "rename":
            container[key] = copy.deepcopy(data.draw(st.sampled_from(OTHERS)))
        else:
            old = container.pop(key)
            if action == "rename":
                container[data.draw(st.sampled_from(("", "other", "df", "overall", "recall@²", "a\nb", "\ud800")))] = (
                    old
                )
    return value


def _render(tables: list) -> None:
    for table in tables:
        for render in FORMATS.values() if table else ():
            assert render(table)


@SETTINGS
@given(data=st.data())
def test_run_results(results, tmp_path, data):
    results["methods"] = {name: results["methods"][name] for name in ("oracle", "hstu", "text20")}
    results["best"] = {"overall": "hstu"}
    (tmp_path / "results.json").write_text(json.dumps(_mutate(results, data)))
    try:
        found = load_results(tmp_path)
    except InputError as error:
        assert len(str(error)) < 400 and "\n" not in str(error)
    else:
        _render([main_table(found, "paper"), pretrain_table(found), comparison_table(found.get("comparisons", []))])


@SETTINGS
@given(data=st.data())
def test_experiment_results(sweep, tmp_path, data):
    (tmp_path / "results.json").write_text(json.dumps(_mutate(sweep, data)))
    try:
        found = load_experiment(tmp_path)
    except InputError as error:
        assert len(str(error)) < 400 and "\n" not in str(error)
    else:
        _render([experiment_table(found, "paper"), comparison_table(found.get("comparisons", []))])
