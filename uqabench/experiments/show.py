"""One question of a run: its history, its options, what each method answered, and the truth."""

from __future__ import annotations

from pathlib import Path

from uqabench.data import InteractionStore
from uqabench.errors import InputError
from uqabench.files import read_json
from uqabench.questions.messages import PromptText
from uqabench.questions.questions import QuestionSet
from uqabench.questions.render import render
from uqabench.questions.scoring import read_predictions
from uqabench.questions.templates import Templates
from uqabench.report.results import load_results
from uqabench.settings.reader import from_dict
from uqabench.settings.run import RunConfig
from uqabench.vocabulary import LETTERS, SUBTASKS


def question_card(run: Path, number: int, language: str | None = None) -> str:
    """Text for question `number` of the finished run in folder `run`."""
    config = from_dict(RunConfig, read_json(run / "config.json"), "config.json")
    results = load_results(run)
    store = InteractionStore.open(run / results["folders"]["data"])
    questions = QuestionSet.open(run / results["folders"]["questions"] / f"{config.questions.users}.arrow")
    if not 0 <= number < len(questions):
        raise InputError(f"There is no question {number}: the run has questions 0 to {len(questions) - 1}.")
    templates = Templates.load(config.questions.templates)
    language = language or config.prompt.language
    user, cut = int(questions.user[number]), int(questions.cut[number])
    prompts = PromptText(store, templates, config.prompt)
    text = prompts.history_text(user, cut, questions.n_history, by_basket=questions.by_basket)
    if questions.texts is not None:
        asked = [questions.texts[number]]
    else:
        rendered = render(questions, number, store.catalogue, language, templates)
        asked = [
            f"{rendered.question} {rendered.instruction}".strip(),
            *(f"{letter}. {option}" for letter, option in zip(LETTERS, rendered.options, strict=True)),
        ]
    lines = [
        f"question {number} ({SUBTASKS[int(questions.subtask[number])]}) about user {store.user_ids[user][:12]}, "
        f"cut {cut}, the last {min(cut, questions.n_history)} items:",
        text,
        "",
        *asked,
        f"truth: {LETTERS[int(questions.answer[number])]}",
        "",
    ]
    for name, entry in results["methods"].items():
        row = read_predictions(run / entry["predictions"])[number]
        mark = "right" if row["prediction"] == row["answer"] else "wrong"
        lines.append(f"{name:>16}: {row['prediction'] or '-'}  {mark}")
    return "\n".join(lines)
