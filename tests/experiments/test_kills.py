"""A run that is killed with SIGKILL, again and again, ends in the same results, bit for bit.

Every process is a real one and dies by a real signal: at a chosen file operation inside a stage (the audit hook of the
interpreter sees each before it happens, so also between two renames), or at a random moment. They are forked from a
server that has imported torch and transformers, which takes longer than a whole run on the small log.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from uqabench.artifact import UNHASHED
from uqabench.experiments.run import run
from uqabench.experiments.spec import load_experiments
from uqabench.report.results import load_experiment, load_results

STAGES = ("data", "questions", "lm", "pretrain", "states", "align", "evaluate", "tables")
METHODS = "trm++@q-former,text8,shuffled,majority"
# The first place within a stage at which an operation of an earlier method may already be done.
SHARED = {"align": 2, "evaluate": 4}
EXTRA = (
    "llm.train.optim.checkpoint_seconds=0",
    "pretrain.optim.checkpoint_seconds=0",
    "align.optim.checkpoint_seconds=0",
)

CHILD = r"""
import json, os, re, signal, sys
import torch
from uqabench.cli import main

folder, stage, limit, report, argv = ARGS
torch.set_num_threads(1)
sys.stdout = open(os.devnull, "w")
counts = {}

def watch(event, args):
    if event == "open":
        writes = isinstance(args[1], str) and set(args[1]) & set("wxa+")
        path = args[0] if writes else None
    elif event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"):
        path = args[0]
    else:
        return
    if not isinstance(path, (str, bytes, os.PathLike)):
        return
    parts = os.path.relpath(os.fsdecode(path), folder).split(os.sep)
    name = re.sub(r"^\.|\.(partial|old)-.*$|\.work$", "", parts[0])
    if parts[0] == ".." or not name:
        return
    counts[name] = counts.get(name, 0) + 1
    if name == stage and counts[name] >= limit:
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
code = main(argv)
stage = None  # the report's own writes
with open(report, "w") as file:
    json.dump({"code": code, "counts": counts, "threads": torch.get_num_threads()}, file)
"""


@pytest.fixture(scope="module")
def server():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["uqabench.experiments.run", "uqabench.experiments.cli_config", "transformers.models.qwen2.modeling_qwen2",
         "transformers.models.auto.modeling_auto", "torch._dynamo", "torch.optim", "tensorboard"]
    )  # fmt: skip
    first = context.Process(target=int)  # starts the server
    first.start()
    first.join(60)
    return context


@pytest.fixture(scope="module")
def launch(server, small_run, small_log, tmp_path_factory):
    """`launch(folder, stage, n)`: the run in `folder`, to be killed at the n-th file operation of a stage."""
    report = tmp_path_factory.mktemp("reports") / "report.json"
    sets = [word for setting in (*small_run, *EXTRA) for word in ("--set", setting)]
    options = [word for name, value in small_log.items() for word in ("--option", f"{name}={value}")]

    def go(folder, stage=None, limit=0, kill_after=None, command=("run", "--methods", METHODS)):
        argv = [*command, "--preset", "tiny", "--runs", str(folder.parent), "--name", folder.name, "--quiet", *sets]
        argv += ["--source", "synthetic", *options]
        report.unlink(missing_ok=True)
        values = {"ARGS": (str(folder), stage, limit, str(report), argv)}
        process = server.Process(target=exec, args=(CHILD, values))
        process.start()
        if kill_after is not None:
            process.join(kill_after)
            process.kill()
        process.join(600)
        if process.exitcode == 0:
            return json.loads(report.read_text())
        assert process.exitcode == -signal.SIGKILL
        return None

    return go


@pytest.fixture(scope="module")
def undisturbed(launch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "t"
    started = time.monotonic()
    report = launch(folder)
    assert report["code"] == 0
    # numba's OpenMP layer sets the process's threads; a run that reused its questions would then train with others.
    assert report["threads"] == 1, "generating questions changed torch's number of threads"
    return folder, report["counts"], time.monotonic() - started


def results_of(folder):
    results = load_results(folder)
    for entry in results["methods"].values():
        del entry["seconds"]
    return results


def contents(folder):
    """Content hash of every artefact."""
    found = {}
    for path in sorted(folder.rglob("manifest.json")):
        manifest = json.loads(path.read_text())
        found[str(path.relative_to(folder))] = manifest["content"]
    return found


def repeatable(manifest):
    """A manifest without the digests and sizes of files that hold clock readings: not even their length is the same."""
    told = {key: {n: v for n, v in manifest[key].items() if n not in UNHASHED} for key in ("files", "sizes")}
    return {**manifest, **told}


def assert_same(folder, other):
    assert results_of(folder) == results_of(other)
    assert contents(folder) == contents(other)
    assert [p for p in folder.rglob("*") if any(mark in p.name for mark in (".partial", ".old-", ".work"))] == []
    tables = [{p.name: p.read_text() for p in (f / "tables").glob("*.md")} for f in (folder, other)]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_killed_in_every_stage_ends_in_the_same_results(launch, undisturbed, tmp_path, seed):
    reference, counts, _ = undisturbed
    assert set(STAGES) <= set(counts), "a stage of the list writes nothing"
    rng = random.Random(seed)
    folder = tmp_path / "t"
    for stage in STAGES:
        limit = rng.randint(1, max(1, counts[stage] // SHARED.get(stage, 1)))
        assert launch(folder, stage, limit) is None, f"{stage} came to its end before operation {limit}"
        assert not (folder / "results.json").exists() or stage == "tables"
    assert launch(folder)["code"] == 0
    assert_same(folder, reference)


def test_a_run_killed_at_random_moments_ends_in_the_same_results(launch, undisturbed, tmp_path):
    reference, _, seconds = undisturbed
    rng = random.Random(7)
    kills = 0
    for _ in range(5):
        kills += launch(tmp_path / "t", kill_after=rng.uniform(0.05, 0.4) * seconds) is None
    report = launch(tmp_path / "t")
    assert kills >= 1 and report["code"] == 0
    assert_same(tmp_path / "t", reference)


def test_a_run_killed_in_every_operation_of_a_replacement(launch, undisturbed, tmp_path, stage_folder):
    """An artefact of other settings stands in the stage's place: old, new or neither, never a mixture."""
    reference, _, _ = undisturbed
    folder = Path(shutil.copytree(reference, tmp_path / "t"))
    artifact = stage_folder(folder, "pretrain", "trm++")
    manifest = json.loads((artifact / "manifest.json").read_text())
    old = json.dumps({**manifest, "key": "of other settings"})
    limit = 1
    while True:
        artifact.mkdir(exist_ok=True)
        (artifact / "manifest.json").write_text(old)
        if launch(folder, "pretrain", limit) is not None:
            break
        if (artifact / "manifest.json").exists():
            found = json.loads((artifact / "manifest.json").read_text())
            assert found == json.loads(old) or repeatable(found) == repeatable(manifest)
        limit += 3
    assert limit > 10
    assert_same(folder, reference)


@pytest.mark.slow
def test_all_experiments_killed_at_random_moments_end_in_the_same_results(launch, tmp_path):
    command = ("experiment", "all")
    started = time.monotonic()
    assert launch(tmp_path / "whole" / "t", command=command)["code"] == 0
    seconds = time.monotonic() - started
    rng = random.Random(11)
    for _ in range(5):
        assert launch(tmp_path / "killed" / "t", kill_after=rng.uniform(0.03, 0.18) * seconds, command=command) is None
    assert launch(tmp_path / "killed" / "t", command=command)["code"] == 0
    for name in (each.name for each in load_experiments(["all"])):
        whole, killed = (load_experiment(tmp_path / each / "t" / "experiments" / name) for each in ("whole", "killed"))
        for results in (whole, killed):
            for cell in results["cells"]:
                del cell["seconds"]
        assert whole == killed
    assert contents(tmp_path / "whole" / "t") == contents(tmp_path / "killed" / "t")


def test_the_same_run_in_this_process_is_the_same(undisturbed, small_config, small_log, tmp_path):
    """Forked processes and this one, with and without checkpoints."""
    reference, _, _ = undisturbed
    source = ("data.source=synthetic", "data.path=null", f"data.options={json.dumps(small_log)}")
    config = small_config(*source, methods=tuple(METHODS.split(",")))
    run(tmp_path / "t", config, progress=False)
    assert results_of(tmp_path / "t") == results_of(reference)
    for weights in reference.rglob("*.safetensors"):
        assert weights.read_bytes() == (tmp_path / "t" / weights.relative_to(reference)).read_bytes(), weights
