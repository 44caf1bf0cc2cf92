"""The names of the package: all there, imported when asked for, and light until then."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import uqabench


def modules_after(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded after `code`."""
    script = f"import sys\n{code}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("name", uqabench.__all__)
def test_every_public_name_is_what_its_module_has(name: str):
    value = getattr(uqabench, name)
    assert name in dir(uqabench)
    if name != "__version__":
        assert value is getattr(importlib.import_module(uqabench._HOME[name]), name)
        assert value.__doc__, f"{name} has no docstring"


def test_an_unknown_name_is_an_attribute_error_and_submodules_import():
    with pytest.raises(AttributeError, match="'uqabench' has no attribute 'prepair'"):
        uqabench.prepair  # noqa: B018
    with pytest.raises(ImportError, match="prepair"):
        exec("from uqabench import prepair")
    exec("from uqabench import data, kernels")


def test_importing_the_package_loads_nothing_heavy():
    heavy = {"torch", "transformers", "numba", "numpy", "pyarrow"}
    assert not heavy & modules_after("import uqabench; uqabench.__version__; dir(uqabench)")
    assert not heavy & modules_after("import uqabench.cli; uqabench.cli.build_parser()")


@pytest.mark.parametrize(
    "code",
    [
        "from uqabench import prepare, open_source, InteractionStore, pack, windows",
        "from uqabench import generate, QuestionSet, render, score, compare, Templates",
        "from uqabench import load_results, main_table, write_tables",
        "import uqabench.questions.baselines, uqabench.questions.scoring, uqabench.data.sources",
        "import uqabench.report.plots, uqabench.report.tables",
        "import uqabench.plan.folder, uqabench.plan.executor",
    ],
)
def test_data_questions_and_report_work_without_torch(code: str):
    assert not {"torch", "transformers"} & modules_after(code)


@pytest.mark.parametrize("name", ["uqabench.kernels", "uqabench.encoders"])
def test_encoders_import_neither_transformers_nor_torchs_compiler(name: str):
    loaded = modules_after(f"import {name}; from uqabench import use_backend")
    assert "torch" in loaded
    assert not {"transformers", "torch._dynamo", "torch._inductor", "sympy"} & loaded


COMMANDS_WITHOUT_A_MODEL = (
    ["prepare", "synthetic", "--option", "users=40", "--out", "store", "--quiet"],
    ["settings", "tiny"],
    ["questions", "show", "nowhere", "3"],
    ["score", "nowhere.jsonl"],
)


@pytest.mark.parametrize("command", COMMANDS_WITHOUT_A_MODEL, ids=lambda command: command[0])
def test_commands_that_need_no_model_import_no_torch(command: list[str], tmp_path):
    """Whether they succeed or not: what they import is the same."""
    code = f"import os; os.chdir({str(tmp_path)!r})\nfrom uqabench.cli import main\nmain({command!r})"
    assert not {"torch", "transformers"} & modules_after(code)
