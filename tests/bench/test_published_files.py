"""The published form that `bench.scale` reads: all sequences of a store, and questions of both sides."""

from __future__ import annotations

import numpy as np

from bench.published_files import write
from tests.questions.conftest import random_store
from uqabench.data.official.factor import Texts
from uqabench.data.official.reading import Reading
from uqabench.data.rejections import Rejections

BYTES = Texts([bytes([i]) for i in range(256)])


def test_written_files_hold_all_sequences_and_as_many_questions_as_asked_for(tmp_path):
    store = random_store(5, users=120, items=90, length=60)
    write(store, tmp_path / "official", 40, lambda texts: [list(text.encode()) for text in texts])
    read, questions, _ = Reading(tmp_path / "official", Rejections(strict=True), BYTES).store()
    # Items that nobody has are not in the files, so that the numbers of the others differ; their names do not.
    ours, theirs = (np.array(each.catalogue.item_ids)[each.items] for each in (store, read))
    assert np.array_equal(read.offsets, store.offsets) and ours.tolist() == theirs.tolist()
    assert {split: len(asked.texts) for split, asked in questions.items()} == {"train": 40, "evaluation": 40}
