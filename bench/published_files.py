"""Writes a store as the four published files: `python -m bench.published_files STORE FOLDER --questions 7192`.

A process of its own, so that what it needs (torch among it) is not counted as memory of those who read the files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.command import command
from uqabench.data import InteractionStore
from uqabench.data.official import write_official
from uqabench.data.official.write import Encode
from uqabench.experiments.published import in_words, qwen_encoder
from uqabench.questions.generate import generate
from uqabench.questions.templates import Templates
from uqabench.settings import QuestionConfig


def write(store: InteractionStore, folder: Path, n_questions: int, encode: Encode) -> None:
    """All users' sequences, and `n_questions` questions of version v1 a side; `encode` makes the token ids."""
    config, templates = QuestionConfig(n_questions=n_questions), Templates.load()
    sets = {split: generate(store, split, config)[0] for split in ("train", "evaluation")}
    given = {split: in_words(questions, store, templates) for split, questions in sets.items()}
    write_official(store, given, sets["evaluation"].n_history, folder, encode)


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0."""
    parser = argparse.ArgumentParser(prog="python -m bench.published_files", description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--questions", type=int, default=7_192, help="a side (default: 7192)")
    options = parser.parse_args(arguments)
    write(InteractionStore.open(options.store), options.folder, options.questions, qwen_encoder())
    return 0


if __name__ == "__main__":
    sys.exit(main())
