"""What the README and the pages for users show is run as it stands, in a folder of its own; the rest is checked."""

from __future__ import annotations

import csv
import fnmatch
import glob
import io
import json
import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import uqabench
from uqabench.cli import build_parser, main
from uqabench.data import InteractionStore, open_source, prepare
from uqabench.plan.methods import packaged_variants
from uqabench.questions.kinds import KIND_INDEX
from uqabench.questions.questions import QuestionSet
from uqabench.report import load_results
from uqabench.settings import PrepareConfig

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/install.md", "docs/running.md", "docs/own.md", "docs/kernels.md")
TEXTS = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
README = TEXTS["README.md"]
BLOCK = re.compile(r"(?:<!-- (test|file|check): (\S+) -->\n)?```(\w*)\n(.*?)```", re.DOTALL)
BLOCKS = [match.groups() for text in TEXTS.values() for match in BLOCK.finditer(text)]
RUN_BELOW = {"python", "own-data", "own-encoder", "own-templates", "own-llm", "layout", "results", "kernels"}


def block(name: str) -> str:
    found = [text for _, label, _, text in BLOCKS if label == name]
    assert len(found) == 1, f"the pages have {len(found)} blocks called {name}"
    return found[0]


def commands(text: str) -> list[list[str]]:
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


def call(text: str) -> str:
    """Run a block of uqabench commands in this process; returns what they print."""
    output = io.StringIO()
    with redirect_stdout(output):
        for program, *arguments in commands(text):
            assert program == "uqabench"
            expanded = [name for word in arguments for name in (sorted(glob.glob(word)) or [word])]  # as a shell does
            assert main(expanded) == 0, expanded
    return output.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty current folder, with the README's files in it and the search path as it was afterwards."""
    folder = tmp_path_factory.mktemp("readme")
    for kind, name, _, text in BLOCKS:
        if kind == "file":
            (folder / name).write_text(text, encoding="utf-8")
    path, deterministic = list(sys.path), torch.are_deterministic_algorithms_enabled()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder
    sys.path[:] = path
    sys.modules.pop("my_encoder", None)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(scope="module")
def own(folder: Path) -> dict[str, Any]:
    """The run of the README's own encoder: what it printed and its results, before later runs of that name."""
    printed = call(block("own-encoder"))
    return {"printed": printed, "results": load_results("runs/own")}


def project_extras() -> list[str]:
    """Names in pyproject's optional-dependencies (Python 3.10 has no TOML reader)."""
    text = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
    return re.findall(r"^(\w+) = \[", text.partition("\n[")[0], re.MULTILINE)


def test_every_block_is_run_or_checked():
    assert all(kind for kind, *_ in BLOCKS), "a block of a page has no marker"
    assert {name for kind, name, *_ in BLOCKS if kind == "test"} == RUN_BELOW


def test_commands_that_are_too_long_to_run_exist():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    extras = project_extras()
    found = 0
    for kind, _, _, text in BLOCKS:
        for program, *arguments in commands(text) if kind == "check" else ():
            found += 1
            if program == "make":
                assert arguments[0] in targets
            elif program == "pip":
                assert arguments[0] == "install"
                asked = re.fullmatch(r"\.\[([\w,]+)\]", arguments[1])
                assert asked is None or set(asked[1].split(",")) <= set(extras)
            else:
                assert program == "uqabench"
                assert callable(build_parser().parse_args(arguments).handler)
    assert found >= 15


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 200


def test_links_paths_and_lists_are_true():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
    for path in re.findall(r"`((?:uqabench|docs|tests)/[^`]*)`", README):
        assert (ROOT / path).exists(), path
    assert f"torch {re.search(r'TORCH .= (.*)', (ROOT / 'Makefile').read_text())[1]}+cpu" in TEXTS["docs/install.md"]
    listed = re.search(r"after `@` are (.*?),\s+joined", TEXTS["docs/running.md"], re.DOTALL)[1]
    assert re.findall(r"`([^`]+)`", listed) == list(packaged_variants())
    listed = re.search(r"^# Kernels\n(.*?)\. Each", TEXTS["docs/kernels.md"], re.DOTALL | re.MULTILINE)[1]
    from uqabench import kernels

    assert set(re.findall(r"`([^`]+)`", listed)) == set(kernels.__all__) - {"use_backend"}
    shown = re.findall(r"^\| `(\w+)` \|", TEXTS["docs/install.md"], re.MULTILINE)
    assert shown == project_extras()


def test_the_python_example(folder: Path):
    output = io.StringIO()
    with redirect_stdout(output):
        exec(compile(block("python"), "README.md", "exec"), {"__name__": "readme"})
    assert len([line for line in block("python").splitlines() if line.strip()]) <= 10
    assert output.getvalue().startswith("299 users, ") and "HSTU" in output.getvalue()
    assert load_results("runs/python")["methods"]["oracle"]["overall"]["accuracy"] == 100


def test_the_kernel_example():
    output = io.StringIO()
    with redirect_stdout(output):
        exec(compile(block("kernels"), "README.md", "exec"), {"__name__": "readme"})
    assert float(output.getvalue().split(":")[1]) < 1e-5


def test_own_encoder_goes_through_all_stages(folder: Path, own: dict[str, Any]):
    assert len(block("my_encoder.py").splitlines()) <= 30
    method = "my_encoder:MyEncoder"
    assert method in own["printed"]
    assert set(own["results"]["methods"]) == {method, "uniform", "shuffled", "oracle"}
    assert own["results"]["methods"][method]["overall"]["n"] == 140
    from safetensors.numpy import load_file

    weights = load_file(glob.glob("runs/own/pretrain/my_encoder-MyEncoder-*/model.safetensors")[0])
    assert weights["encoder.taps.1"].shape == (32, 8)


def test_own_encoder_takes_its_arguments_from_settings(folder: Path):
    from uqabench.encoders import build_encoder
    from uqabench.plan.methods import parse_method
    from uqabench.settings import run_config

    override = re.search(r"`--set\s+(pretrain\.encoder\.overrides\S+)`", TEXTS["docs/own.md"])[1]
    sys.path.insert(0, str(folder))
    encoder = parse_method("my_encoder:MyEncoder", run_config("tiny", None, (override,))).config.pretrain.encoder
    built = build_encoder(encoder.encoder, encoder.preset, **encoder.overrides)
    assert built.taps[0].shape == (32, 4)


def test_layout_of_a_run(folder: Path, own: dict[str, Any]):
    run, *lines = block("layout").splitlines()
    shown = set()
    for line in lines:
        for name in re.match(r"  ((?:\S+ )*\S+)", line)[1].split(" "):
            assert (Path(run) / name).exists(), name
            shown.add(name.split("/")[0])
    assert shown == {path.name for path in Path(run).iterdir()}
    inside = {
        "data": ["rejected.jsonl", "catalogue"],
        "questions": ["train.arrow", "evaluation.arrow", "metrics.json"],
        "pretrain": ["model.safetensors", "encoder.json", "metrics.json"],
        "align": ["adapter.safetensors", "llm"],
        "evaluate": ["predictions.jsonl", "metrics.json"],
    }
    for stage, names in inside.items():
        label = {"data": "synthetic", "questions": "methods"}.get(stage, "my_encoder-MyEncoder")
        (base,) = Path(run, stage).glob(f"{label}*-????????")
        for name in (*names, "manifest.json"):
            assert (base / name).exists() and (name in TEXTS["docs/running.md"]), base / name
    names = {"table2", "pretrain", "comparisons", "intervals", "letters", "calibration", "reliability"} | (
        {"accuracy", "tokens"} if find_spec("matplotlib") else set()
    )
    assert {path.stem for path in Path(run, "tables").iterdir()} <= names
    assert all(name in TEXTS["docs/running.md"] for name in names)
    assert not [path for path in Path(run).rglob(".*partial*")]


def same_form(shown: Any, found: Any, where: str = "results") -> None:
    """Every key of the example is in the real file, with a value of the same type."""
    if isinstance(shown, dict):
        assert isinstance(found, dict), where
        for key, value in shown.items():
            assert key in found, f"{where}.{key}"
            same_form(value, found[key], f"{where}.{key}")
    elif isinstance(shown, list):
        assert isinstance(found, list) and (found or not shown), where
        if shown:
            same_form(shown[0], found[0], where)
    else:
        assert type(shown) is type(found), where


def test_results_have_the_form_shown(own: dict[str, Any]):
    shown = json.loads(block("results"))
    same_form(shown, own["results"])
    assert set(shown) == set(own["results"])
    for name, entry in shown["methods"].items():
        assert set(entry) == set(own["results"]["methods"][name])
    pairs = {(row["a"], row["b"], row["scope"]) for row in own["results"]["comparisons"]}
    assert {(row["a"], row["b"], row["scope"]) for row in shown["comparisons"]} <= pairs


def test_a_run_is_scored_again_and_shown(folder: Path, own: dict[str, Any]):
    again = json.loads(call("uqabench score runs/own/evaluate/shuffled-*/predictions.jsonl"))
    assert again["shuffled"]["overall"] == own["results"]["methods"]["shuffled"]["overall"]
    card = call("uqabench questions show runs/own 17")
    assert "my_encoder:MyEncoder" in card and "truth: " in card


def test_own_language_model_from_a_folder(folder: Path, own: dict[str, Any]):
    call(block("own-llm"))
    found = load_results("runs/own")
    assert fnmatch.fnmatch(found["llm"], "runs/own/lm/trained-*/model")
    assert found["methods"]["my_encoder:MyEncoder"]["avg_tokens"] > 0


def test_own_templates_are_asked(folder: Path, own: dict[str, Any]):
    call(block("own-templates"))
    phrasings = yaml.safe_load(block("my_templates.yaml"))["en"]["kinds"]["ip_next"]["phrasings"]
    questions = QuestionSet.open(Path("runs/own", load_results("runs/own")["folders"]["questions"], "evaluation.arrow"))
    number = int(np.flatnonzero(questions.kind == KIND_INDEX["ip_next"])[0])
    card = call(f"uqabench questions show runs/own {number}")
    assert any(phrasing in card for phrasing in phrasings)


def write_log(folder: Path) -> tuple[int, int]:
    """More rows under the headers that the README shows; returns how many users and rows both files then hold."""
    store = prepare(
        open_source("synthetic", users=120, items=300, categories=10, mean_length=50.0, seed=5),
        folder / "source",
        PrepareConfig(),
        progress=False,
    )
    catalogue = store.catalogue
    with (folder / "items.csv").open("a", newline="", encoding="utf-8") as file:
        names = ("title", "category", "brand")
        for item in range(len(catalogue)):
            texts = [catalogue.text(name, int(catalogue.codes[name][item])) for name in names]
            csv.writer(file).writerow([f"i{item}", *texts])
    with (folder / "log.csv").open("a", newline="", encoding="utf-8") as file:
        for user in range(len(store)):
            times = store.timestamps[store.offsets[user] : store.offsets[user + 1]]
            for item, time in zip(store.sequence(user), times, strict=True):
                stamp = np.datetime64(int(time), "s").astype(str).replace("T", " ")
                csv.writer(file).writerow([f"u{user}", f"i{item}", stamp])
    return len(store) + 2, len(store.items) + 3


def test_own_data(folder: Path):
    users, rows = write_log(folder)
    printed = call(block("own-data"))
    store = InteractionStore.open("data/mine")
    assert store.manifest["counts"]["read"]["users"] == users
    assert store.manifest["counts"]["read"]["interactions"] == rows and not store.manifest["rejected"]
    assert store.catalogue.attributes() == ("title", "category", "brand") and store.timestamps is not None
    assert "items with fewer than 3 interactions" in printed  # what Ann and Bob took
    results = load_results("runs/mine")
    assert results["methods"]["oracle"]["overall"]["accuracy"] == 100
    assert "gru4rec" in results["pretrain"]


def test_run_takes_the_options_of_a_log_too():
    text = block("own-data").splitlines()[0]
    options = text.partition("--interactions")[2].partition("--out")[0]
    args = build_parser().parse_args(shlex.split(f"run --preset tiny --interactions {options}"))
    assert str(args.interactions) == "log.csv" and args.columns.startswith("user=uid")


def test_version_is_the_project_s():
    assert f'version = "{uqabench.__version__}"' in (ROOT / "pyproject.toml").read_text()
