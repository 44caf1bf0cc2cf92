"""What docs/extending.md shows is run as it stands: parts of one's own by name, and a kind of question in a copy of the
package."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from uqabench.cli import main
from uqabench.data import InteractionStore
from uqabench.report.results import load_experiment, load_results

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"<!-- (file|append|kind|run)(?:: (\S+))? -->\n```\w+\n(.*?)```", TEXT, re.DOTALL)
KIND_CHECK = """
import numpy as np
import uqabench
from uqabench.data import PrepareConfig, open_source, prepare
from uqabench.questions.baselines import predict
from uqabench.questions.generate import generate
from uqabench.questions.kinds import KIND_INDEX
from uqabench.questions.render import render
from uqabench.settings import QuestionConfig

store = prepare(open_source("synthetic", users=150, seed=3), "store", PrepareConfig(min_user_length=20), progress=False)
config = QuestionConfig(mix={"mf": 60}, history=64, min_history=12, seed=1)
questions, report = generate(store, "train", config)
mine = np.flatnonzero(questions.kind == KIND_INDEX["mf_distinct"])
assert len(mine) > 10, len(mine)
assert (predict("oracle", questions, store, questions) == questions.answer).all()
for i in mine[:20]:
    codes = store.catalogue.codes[("title", "category", "brand", "shop")[questions.attribute[i]]]
    h = store.sequence(int(questions.user[i]))[max(0, questions.cut[i] - 64):questions.cut[i]]
    assert questions.option(int(i), int(questions.answer[i])) == (len(set(codes[h][codes[h] >= 0])),)
assert "How many different" in render(questions, int(mine[0]), store.catalogue).question
print("kind", uqabench.__file__)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A current folder with the files that the page shows."""
    folder = tmp_path_factory.mktemp("extending")
    for what, name, text in BLOCKS:
        if what in ("file", "append"):
            with (folder / name).open("a", encoding="utf-8") as file:
                file.write(text + "\n\n")
    deterministic = torch.are_deterministic_algorithms_enabled()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder
    sys.modules.pop("my_parts", None)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(scope="module")
def commands(folder: Path) -> None:
    for what, _, text in BLOCKS:
        for line in text.splitlines() if what == "run" else ():
            program, *arguments = shlex.split(line)
            assert program == "uqabench" and main([*arguments, "--quiet"]) == 0, line


def test_an_encoder_an_integration_and_a_source_of_ones_own(commands: None):
    assert len(InteractionStore.open("data/ring")) == 80
    results = load_results("runs/mine")
    assert set(results["methods"]) == {"my_parts:Averages", "oracle"}
    assert results["methods"]["oracle"]["overall"]["accuracy"] == 100


def test_an_experiment_of_ones_own(commands: None):
    results = load_experiment("runs/mine/experiments/mine")
    assert [cell["status"] for cell in results["cells"]] == ["done"] * 4
    assert results["axes"] == {"integration": ["mean-pooling", "my_parts:First"]}


def test_a_kind_of_question_is_one_file_and_one_line(tmp_path: Path):
    package = tmp_path / "uqabench"
    shutil.copytree(ROOT / "uqabench", package, ignore=shutil.ignore_patterns("__pycache__", "assets", "*.so"))
    shutil.copytree(ROOT / "kernels", package / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    kinds = package / "questions" / "kinds"
    for what, name, text in BLOCKS:
        if what == "kind":
            (kinds / name).write_text(text, encoding="utf-8")
    listed = (kinds / "__init__.py").read_text(encoding="utf-8")
    listed = listed.replace("    direct_feature,\n", "    direct_feature,\n    distinct_values,\n", 1)
    listed = re.sub(r"(FAMILIES: .*?)\n\)", r"\1\n    distinct_values.FAMILY,\n)", listed, count=1, flags=re.DOTALL)
    (kinds / "__init__.py").write_text(listed, encoding="utf-8")
    # Isolated from the installed package, whose finder would come first: only its dependencies are on the path.
    code = (
        "import sys; sys.meta_path = [f for f in sys.meta_path if 'ScikitBuild' not in type(f).__name__];"
        f"sys.path.insert(0, {str(tmp_path)!r})\n" + KIND_CHECK
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["kind", str(package / "__init__.py")]
