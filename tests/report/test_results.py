"""The contract of results.json: what keeps it is read, what breaks it is named."""

import json
import subprocess
import sys

import pytest

from uqabench.errors import InputError
from uqabench.report import load_results, validate_results
from uqabench.vocabulary import display_name, group


def test_results_are_read_from_the_file_or_its_folder(results, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    assert load_results(path) == load_results(tmp_path) == results


def test_optional_parts_and_further_fields_are_allowed(results):
    for field in ("pretrain", "comparisons", "mix", "versions"):
        del results[field]
    hstu = results["methods"]["hstu"]
    del hstu["avg_tokens"], hstu["seconds"], hstu["subtasks"]["mf"]
    results["methods"]["uniform"]["avg_tokens"] = None
    results["note"] = "mine"
    assert validate_results(results) is results


def _at(value, *keys):
    for key in keys[:-1]:
        value = value[key]
    return value, keys[-1]


WRONG = [
    (("schema",), 2, "'schema' is 2"),
    (("dataset",), None, "'dataset' must be a text, but is missing"),
    (("methods",), [], "'methods' must be an object"),
    (("methods",), {}, "'methods' must be a table of at least one method"),
    (("methods", "hstu"), 3, "'methods.hstu' must be an object"),
    (("methods", "hstu", "overall"), None, "'methods.hstu.overall'.*missing"),
    (("methods", "hstu", "overall", "accuracy"), 101, "'methods.hstu.overall.accuracy' must be a number from 0 to 100"),
    (("methods", "hstu", "overall", "accuracy"), float("nan"), "accuracy' must be a finite number"),
    (("methods", "hstu", "overall", "ci95"), [1], r"'methods.hstu.overall.ci95' must be two numbers \[low, high\]"),
    (("methods", "hstu", "overall", "ci95"), [40, 30], "ascending"),
    (("methods", "hstu", "overall", "ci95"), [-3, 30], r"ci95 \(low end\)' must be a number from 0"),
    (("methods", "hstu", "overall", "n"), 1.5, "'methods.hstu.overall.n'"),
    (("methods", "hstu", "overall", "n"), True, "'methods.hstu.overall.n'"),
    (("methods", "hstu", "tasks", "cooking"), {}, "'methods.hstu.tasks.cooking' is unknown"),
    (("methods", "hstu", "subtasks", "df", "accuracy"), "high", "'methods.hstu.subtasks.df.accuracy'"),
    (("methods", "hstu", "avg_tokens"), -1, "'methods.hstu.avg_tokens' must be a number at least 0"),
    (("methods", "hstu", "seconds", "align"), "long", "'methods.hstu.seconds.align'"),
    (("pretrain", "hstu", "recall@10"), "x", "'pretrain.hstu.recall@10'"),
    (("pretrain", "hstu"), 1, "'pretrain.hstu' must be an object"),
    (("comparisons",), {}, "'comparisons' must be a list"),
    (("comparisons", 1, "p_value"), 1.5, r"'comparisons\[1\].p_value'"),
    (("comparisons", 0, "a"), None, r"'comparisons\[0\].a' must be a text"),
    (("comparisons", 2, "ci95"), [0, 101], r"'comparisons\[2\].ci95 \(high end\)'"),
]


@pytest.mark.parametrize("keys, value, match", WRONG, ids=[f"{'.'.join(map(str, k))}={v}" for k, v, _ in WRONG])
def test_the_first_wrong_field_is_named(results, keys, value, match):
    parent, key = _at(results, *keys)
    parent[key] = value
    with pytest.raises(InputError, match=match) as caught:
        validate_results(results, "runs/x/results.json")
    assert str(caught.value).startswith("runs/x/results.json: ") and "\n" not in str(caught.value)


def test_a_broken_or_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="results.json does not exist"):
        load_results(tmp_path)
    (tmp_path / "results.json").write_text('{"schema": 1, "methods": {')
    with pytest.raises(InputError, match="results.json is not readable JSON"):
        load_results(tmp_path)
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(InputError, match="'the file' must be an object"):
        load_results(tmp_path)


@pytest.mark.parametrize(
    "name, shown, of_group",
    [
        ("trm++", "Trm++", "Embedding-based"),
        ("trm++@q-former", "Trm++@q-former", "Embedding-based"),
        ("text20@zero-shot", "Text20@zero-shot", "Text-based"),
        ("seen-option", "Seen-option", "Baselines"),
        ("my_pkg.net:Tower", "my_pkg.net:Tower", "Embedding-based"),
    ],
)
def test_names_and_groups(name, shown, of_group):
    assert (display_name(name), group(name)) == (shown, of_group)


def test_reports_need_neither_torch_nor_matplotlib():
    code = (
        "import sys; sys.modules['torch'] = sys.modules['matplotlib'] = None\n"
        "from uqabench.errors import MissingExtra\n"
        "from uqabench.report import plot_tokens, plot_accuracy\n"
        "cell = {'accuracy': 50, 'ci95': [40, 60], 'n': 3}\n"
        "try: plot_accuracy({'methods': {'hstu': {'overall': cell}}}, 'x.png')\n"
        "except MissingExtra as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "uqabench[train]" in done.stdout
