"""The contract of results.json: what keeps it is read, what breaks it is named."""

import json
import subprocess
import sys

import pytest

from uqabench.errors import InputError
from uqabench.report import load_experiment, load_results
from uqabench.settings.results import check_experiment_results, check_run_results
from uqabench.vocabulary import display_name, group


def test_results_are_read_from_the_file_or_its_folder(results, sweep, tmp_path):
    for name, value, load in (("run", results, load_results), ("experiment", sweep, load_experiment)):
        path = tmp_path / name / "results.json"
        path.parent.mkdir()
        path.write_text(json.dumps(value))
        assert load(path) == load(path.parent) == value


def test_optional_parts_and_further_fields_are_allowed(results, sweep):
    for field in ("pretrain", "comparisons", "mix", "versions", "seed", "split_seed"):
        del results[field]
    hstu = results["methods"]["hstu"]
    del hstu["avg_tokens"], hstu["seconds"], hstu["subtasks"]["mf"]
    results["methods"]["uniform"]["avg_tokens"] = None
    results["note"] = "mine"
    assert check_run_results(results, "r") is results
    sweep["cells"][0] |= {"note": "mine", "predictions": None, "sizes": None}
    for field in ("title", "paper", "preset", "comparisons", "mix", "versions", "seeds", "split_seed"):
        del sweep[field]
    assert check_experiment_results(sweep, "e") is sweep


MISSING = object()


def _put(value, keys, new):
    for key in keys[:-1]:
        value = value[key]
    if new is MISSING:
        del value[keys[-1]]
    else:
        value[keys[-1]] = new


A_CELL = ("methods", "hstu", "overall")
WRONG = [
    (("schema",), 2, "'schema' is 2 and this version reads 1"),
    (("schema",), True, "'schema' is True"),
    (("dataset",), MISSING, "'dataset' must be a text in one line, but is missing"),
    (("dataset",), None, "'dataset' must be a text in one line, but is null"),
    (("dataset",), "\ud800", "'dataset' must be a text in one line"),
    (("methods",), [], r"'methods' must be an object with at least one method, but is \[\]"),
    (("methods",), {}, "'methods' must be an object with at least one method"),
    (("methods", "\ud800"), {}, r"'methods\..*' is unknown: names are texts in one line"),
    (("methods", "hstu"), 3, "'methods.hstu' must be an object, but is 3"),
    (A_CELL, MISSING, "'methods.hstu.overall' must be an object, but is missing"),
    ((*A_CELL, "accuracy"), 101, "'methods.hstu.overall.accuracy' must be a number from 0 to 100, but is 101"),
    ((*A_CELL, "accuracy"), float("nan"), "accuracy' must be a number from 0 to 100, but is nan"),
    ((*A_CELL, "accuracy"), 10**400, "accuracy' must be a number from 0 to 100, but is 1000.*[.]{3}:"),
    ((*A_CELL, "accuracy"), 10**5000, "but is an integer of thousands of digits"),
    ((*A_CELL, "accuracy"), True, "accuracy' must be a number from 0 to 100, but is True"),
    ((*A_CELL, "ci95"), [1], r"'methods.hstu.overall.ci95' must be two numbers \[low, high\]"),
    ((*A_CELL, "ci95"), [40, 30], r"in ascending order, but is \[40, 30\]"),
    ((*A_CELL, "ci95"), [-3, 30], r"ci95\[0\]' must be a number from 0 to 100, but is -3"),
    ((*A_CELL, "n"), 1.5, "'methods.hstu.overall.n' must be a whole number, at least 0, but is 1.5"),
    ((*A_CELL, "n"), 3.0, "'methods.hstu.overall.n'"),
    ((*A_CELL, "n"), True, "'methods.hstu.overall.n'"),
    (("methods", "hstu", "tasks", "cooking"), {}, "'methods.hstu.tasks.cooking' is unknown: known are sequence_und"),
    (("methods", "hstu", "subtasks", "df", "accuracy"), "high", "'methods.hstu.subtasks.df.accuracy'"),
    (("methods", "hstu", "avg_tokens"), -1, "avg_tokens' must be a finite number, at least 0 or null, but is -1"),
    (("methods", "hstu", "seconds", "align"), "long", "'methods.hstu.seconds.align'"),
    (("pretrain", "hstu", "recall@10"), "x", "'pretrain.hstu.recall@10'"),
    (("pretrain", "hstu"), 1, "'pretrain.hstu' must be an object"),
    (("comparisons",), {}, "'comparisons' must be a list"),
    (("comparisons", 1, "p_value"), 1.5, r"'comparisons\[1\].p_value' must be a number from 0 to 1"),
    (("comparisons", 0, "a"), None, r"'comparisons\[0\].a' must be a text"),
    (("comparisons", 2, "ci95"), [0, 101], r"'comparisons\[2\].ci95\[1\]' must be a number from -100 to 100"),
    (("best",), {"overall": "bert"}, "'best.overall' must be one of the methods, but is 'bert'"),
    (("kind",), "experiment", "holds the results of an experiment"),
]
WRONG_SWEEP = [
    (("name",), "../elsewhere", "'name' must be a text that can be the name of a file, but is '../elsewhere'"),
    (("kind",), MISSING, "no results of an experiment"),
    (("axes",), [], "'axes' must be an object"),
    (("axes", "objective"), [["SL"]], r"'axes.objective\[0\]' must be a text or a number"),
    (("cells", 1, "status"), "lost", r"'cells\[1\].status' must be one of done, failed, missing, but is 'lost'"),
    (("cells", 1, "axes"), {"speed": 1}, r"'cells\[1\].axes' must be among the axes objective, inputs, but is 'speed'"),
    (("cells", 1, "axes", "inputs"), "all", r"'cells\[1\].axes.inputs' must be one of the values of 'axes.inputs'"),
    (("cells", 0, "seed"), "0", r"'cells\[0\].seed' must be a whole number"),
    (("cells", 0, "sizes", "model_size"), float("inf"), r"'cells\[0\].sizes.model_size'"),
    (("rows", 0, "cell"), 99, r"'rows\[0\].cell' must be the index of a cell that is done, but is 99"),
    (("rows", 1, "scope"), "overall", r"'rows\[1\].scope' must be the only row of its cell and scope"),
    (("rows", 3, "accuracy"), None, r"'rows\[3\].accuracy' must be a number from 0 to 100, but is null"),
]


def _named(check, value, keys, new, match):
    _put(value, keys, new)
    with pytest.raises(InputError, match=match) as caught:
        check(value, "runs/x/results.json")
    text = str(caught.value)
    assert text.startswith("runs/x/results.json") and "\n" not in text and len(text) < 300 and text.isprintable()


@pytest.mark.parametrize("keys, new, match", WRONG, ids=range(len(WRONG)))
def test_the_first_wrong_field_of_a_run_is_named(results, keys, new, match):
    _named(check_run_results, results, keys, new, match)


@pytest.mark.parametrize("keys, new, match", WRONG_SWEEP, ids=range(len(WRONG_SWEEP)))
def test_the_first_wrong_field_of_an_experiment_is_named(sweep, keys, new, match):
    _named(check_experiment_results, sweep, keys, new, match)


@pytest.mark.parametrize("load", [load_results, load_experiment])
def test_a_broken_or_missing_file_is_named(tmp_path, load):
    path = tmp_path / "results.json"
    with pytest.raises(InputError, match="results.json does not exist"):
        load(tmp_path)
    for text in ('{"schema": 1, "methods": {', '{"schema": ' + "1" * 5000 + "}", "[" * 100_000, "\x00"):
        path.write_text(text)
        with pytest.raises(InputError, match="results.json is not readable JSON"):
            load(tmp_path)
    path.write_text("[]")
    with pytest.raises(InputError, match=r"results.json must hold an object, but holds \[\]"):
        load(tmp_path)


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
        "from uqabench.report import ScoreRow, main_table\n"
        "from uqabench.report.plots import plot_accuracy\n"
        "cell = {'accuracy': 50, 'ci95': [40, 60], 'n': 3}\n"
        "main_table({'methods': {'hstu': {'overall': cell}}})\n"
        "try: plot_accuracy([ScoreRow('hstu', 'HSTU', scores={'overall': cell})], 'x.png')\n"
        "except MissingExtra as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "uqabench[train]" in done.stdout
