"""Run folders with made-up answers to real questions, and Chromium to open their pages in."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uqabench.data.store import InteractionStore
from uqabench.questions.kinds import KINDS
from uqabench.questions.questions import QuestionSet
from uqabench.questions.scoring import score, write_predictions
from uqabench.vocabulary import LETTERS, SUBTASKS

METHODS = {"text20": 0.5, "hstu": 0.55, "trm++@q-former": 0.45, "uniform": 0.25, "oracle": 1.0}
"""Methods and how often they are right."""
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


def _stage(folder: Path, stage: str, content: str, inputs: dict[str, str]) -> Path:
    folder.mkdir(parents=True)
    manifest = {"stage": stage, "format": 1, "key": content, "content": content, "config": {}, "inputs": inputs}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "files": {}}))
    return folder


def make_run(folder: Path, store: InteractionStore, questions: QuestionSet, seed: int = 0) -> Path:
    """A finished run's folder, whose methods answer at random: right in a share of METHODS, more often for some users."""
    folder.mkdir(parents=True)
    (folder / "uqabench-run.json").write_text("{}")
    shutil.copytree(store.path, folder / "data" / "synthetic-0")
    asked = _stage(folder / "questions" / "methods-0", "questions", "asked", {})
    questions.save(asked / "evaluation.arrow")
    rng = np.random.default_rng(seed)
    luck = rng.normal(0, 0.15, len(store))
    n, methods = len(questions), {}
    for name, share in METHODS.items():
        label = name.replace("@", "-")
        right = rng.random(n) < (share if share == 1 else np.clip(share + luck[questions.user], 0, 1))
        given = np.where(right, questions.answer, (questions.answer + rng.integers(1, 4, n)) % 4)
        inputs = {"data": store.content_hash, "questions": "asked"}
        if name not in ("uniform", "oracle"):
            aligned = _stage(folder / "align" / label, "align", f"align {name}", {})
            lines = [{"step": step, "loss": 3 / step, "lr": 0.1} for step in range(1, 9)]
            (aligned / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            inputs["align"] = f"align {name}"
        evaluated = _stage(folder / "evaluate" / label, "evaluate", f"evaluate {name}", inputs)
        rows = [
            {
                **{"id": i, "user": int(questions.user[i]), "cut": int(questions.cut[i])},
                **{"subtask": SUBTASKS[questions.subtask[i]], "level": KINDS[questions.kind[i]].level},
                **{
                    "prediction": LETTERS[given[i]],
                    "answer": LETTERS[questions.answer[i]],
                    "tokens": 20,
                    "method": name,
                },
            }
            for i in range(n)
        ]
        rows = [{key: value for key, value in row.items() if value != ""} for row in rows]
        if "align" in inputs:
            logits = rng.normal(0, 1, (n, 4))
            logits[np.arange(n), given] = logits.max(axis=1) + rng.random(n)
            rows = [{**row, "logits": [round(float(x), 4) for x in of]} for row, of in zip(rows, logits, strict=True)]
        write_predictions(evaluated / "predictions.jsonl", rows)
        entry = score(rows, seed=0)
        path = f"evaluate/{label}/predictions.jsonl"
        methods[name] = {key: entry[key] for key in ("overall", "tasks", "subtasks")} | {
            "avg_tokens": 20,
            "predictions": path,
        }
    results: dict[str, Any] = {"schema": 1, "dataset": "synthetic", "llm": "made up", "seed": seed}
    results |= {"methods": methods, "folders": {"data": "data/synthetic-0", "questions": "questions/methods-0"}}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


@pytest.fixture(scope="session")
def made() -> Callable[..., Path]:
    """`make_run`."""
    return make_run


@pytest.fixture(scope="session")
def made_run(small_store, small_evaluation, tmp_path_factory) -> Path:
    """A run of five methods on the small log's evaluation questions."""
    return make_run(tmp_path_factory.mktemp("made") / "mine", small_store, small_evaluation)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless Chromium, driven by Playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (Debian: apt install chromium)")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses its sandbox to root
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium) -> Iterator[Callable[..., Any]]:
    """`opened(file, width=…, dark=…)`: the page, ready; that it asks the network for nothing and no script fails is
    checked at the end."""
    pages, complaints = [], []

    def go(file: Path, width: int = 1200, dark: bool = False) -> Any:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
        )
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("request", lambda asked: complaints.append(asked.url) if asked.url.startswith(("http", "ws")) else None)
        page.goto(file.as_uri())
        page.wait_for_function("document.documentElement.dataset.ready")
        pages.append(context)
        return page

    yield go
    for context in pages:
        context.close()
    assert not complaints
