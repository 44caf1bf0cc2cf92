"""A set of questions as columns, kept in one Arrow file."""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from uqabench.errors import InputError
from uqabench.files import write_bytes
from uqabench.questions.declaration import LONGEST_ANSWER, OPTIONS
from uqabench.questions.kinds import KIND_INDEX, KINDS, kinds
from uqabench.vocabulary import GIVEN_QUESTIONS, QUESTION_VERSIONS, SUBTASKS

_COLUMNS = {
    "user": np.int32,
    "cut": np.int32,
    "subtask": np.int8,
    "kind": np.int16,
    "template": np.int16,
    "attribute": np.int8,
    "answer": np.int8,
}


@dataclass
class QuestionSet:
    """Q questions. History of question i: h = s[max(0, cut - n_history):cut] of `user`.

    user, cut int32 (Q,) · subtask int8, index in SUBTASKS · kind int16, index in KINDS · template int16, phrasing
    (modulo the phrasings that the kind has) · attribute int8, index in ATTRIBUTES, -1 none · params int32 (Q, 4),
    named by the kind · option_values int32 (Q, 4, 3), codes of the attribute or one count, padded with -1 ·
    option_lengths int8 (Q, 4) · answer int8, 0..3.
    texts: of questions that came with the data (version "official"), each one's message in full; those have no kind,
    attribute or option values (-1) and no option lengths (0), since their options are words.
    split: whose questions these are. split_hash: of the store they were made from. version: of the rules they follow.
    """

    user: np.ndarray
    cut: np.ndarray
    subtask: np.ndarray
    kind: np.ndarray
    template: np.ndarray
    attribute: np.ndarray
    params: np.ndarray
    option_values: np.ndarray
    option_lengths: np.ndarray
    answer: np.ndarray
    n_history: int
    split: str = ""
    split_hash: str = ""
    version: str = "v1"
    texts: list[str] | None = None
    extra: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.user)

    def option(self, index: int, option: int) -> tuple[int, ...]:
        """Codes (or the count) that option 0..3 of question `index` lists, in order."""
        return tuple(int(v) for v in self.option_values[index, option, : self.option_lengths[index, option]])

    def options(self, index: int) -> list[tuple[int, ...]]:
        """The four options of a question."""
        return [self.option(index, option) for option in range(OPTIONS)]

    def parameters(self, index: int) -> dict[str, int]:
        """The parameters of a question by the names that its kind gives them."""
        names = KINDS[self.kind[index]].params
        return {name: int(value) for name, value in zip(names, self.params[index], strict=False)}

    @property
    def by_basket(self) -> bool:
        """Whether the order inside a basket is no fact to these questions."""
        return self.version not in ("v1", GIVEN_QUESTIONS)

    def subtask_names(self) -> np.ndarray:
        """str (Q,): entries of SUBTASKS."""
        return np.array(SUBTASKS)[self.subtask]

    def select(self, mask: np.ndarray) -> QuestionSet:
        """The questions under a boolean mask or at the given indices."""
        columns = {name: getattr(self, name)[mask] for name in (*_COLUMNS, "params", "option_values", "option_lengths")}
        texts = None if self.texts is None else np.array(self.texts, object)[mask].tolist()
        return replace(self, **columns, texts=texts, extra=dict(self.extra))

    def rotated(self, steps: int) -> QuestionSet:
        """The same questions with every option `steps` letters further on, those past D at the beginning."""
        return replace(
            self,
            option_values=np.roll(self.option_values, steps, axis=1),
            option_lengths=np.roll(self.option_lengths, steps, axis=1),
            answer=((self.answer + steps) % OPTIONS).astype(self.answer.dtype),
            extra=dict(self.extra),
        )

    def save(self, path: Path | str) -> None:
        """Write one Arrow IPC file, aside and renamed; equal sets give equal bytes."""
        listed = np.arange(LONGEST_ANSWER) < self.option_lengths[:, :, None]
        offsets = np.concatenate([[0], np.cumsum(self.option_lengths, dtype=np.int64)]).astype(np.int32)
        lists = pa.ListArray.from_arrays(
            pa.array(offsets), pa.array(np.ascontiguousarray(self.option_values, np.int32)[listed])
        )
        names = [kind.name for kind in kinds(self.version)]
        own = {name: getattr(self, name) for name in _COLUMNS}
        if self.texts is None:
            own["kind"] = np.array([names.index(KINDS[index].name) for index in self.kind], np.int16)
        columns = {name: pa.array(np.ascontiguousarray(own[name], kind)) for name, kind in _COLUMNS.items()}
        params = pa.array(np.ascontiguousarray(self.params, np.int32).reshape(-1))
        columns["params"] = pa.FixedSizeListArray.from_arrays(params, 4)
        columns["options"] = pa.FixedSizeListArray.from_arrays(lists, OPTIONS)
        if self.texts is not None:
            columns["text"] = pa.array(self.texts, pa.string())
        batch = pa.record_batch(list(columns.values()), names=list(columns))
        metadata = {
            **{f"extra.{key}": value for key, value in sorted(self.extra.items())},
            "artefact": "uqabench-questions",
            "version": self.version.removeprefix("v"),
            "kinds": " ".join(names),
            "n_history": str(self.n_history),
            "split": self.split,
            "split_hash": self.split_hash,
        }
        batch = batch.replace_schema_metadata(metadata)
        sink = io.BytesIO()
        with pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        write_bytes(path, sink.getvalue())

    @classmethod
    def open(cls, path: Path | str) -> QuestionSet:
        """Memory-map a saved set (columns are read-only views, options are unpacked).

        Raises InputError naming the file when it is missing, truncated, altered, or of another version.
        """
        batch, metadata = _read(Path(path))
        if metadata.get("artefact") != "uqabench-questions":
            raise InputError(f"{path} is an Arrow file but holds no questions: name the file that generation wrote.")
        version = _version(metadata.get("version", ""))
        names = [kind.name for kind in kinds(version)]
        given = version == GIVEN_QUESTIONS
        if version not in (*QUESTION_VERSIONS, GIVEN_QUESTIONS) or metadata.get("kinds") != " ".join(names):
            raise InputError(f"{path} was written by another version of uqabench: generate the questions again.")
        try:
            columns = {name: batch.column(name).to_numpy(zero_copy_only=True) for name in _COLUMNS}
            options = batch.column("options").flatten()
            offsets = options.offsets.to_numpy()
            flat = options.values.to_numpy()
            params = batch.column("params").flatten().to_numpy().reshape(-1, 4)
            lengths = np.diff(offsets).reshape(-1, OPTIONS)
            texts = batch.column("text").to_pylist() if given else None
            _check(columns, lengths, None if given else len(names))
            if not given:
                columns["kind"] = np.array([KIND_INDEX[name] for name in names], np.int16)[columns["kind"]]
            n_history = int(metadata["n_history"])
        except (KeyError, ValueError, pa.ArrowInvalid, AttributeError) as error:
            raise InputError(
                f"{path} does not hold the columns of a question set ({error}): generate the questions again."
            ) from error
        values = np.full((len(batch), OPTIONS, LONGEST_ANSWER), -1, np.int32)
        values[np.arange(LONGEST_ANSWER) < lengths[:, :, None]] = flat[offsets[0] : offsets[-1]]
        extra = {key[6:]: value for key, value in metadata.items() if key.startswith("extra.")}
        return cls(
            **columns,
            params=params,
            option_values=values,
            option_lengths=lengths.astype(np.int8),
            n_history=n_history,
            split=metadata.get("split", ""),
            split_hash=metadata.get("split_hash", ""),
            version=version,
            texts=texts,
            extra=extra,
        )


def _version(written: str) -> str:
    return written if written == GIVEN_QUESTIONS else f"v{written}"


def _read(path: Path) -> tuple[pa.RecordBatch, dict[str, str]]:
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        if reader.num_record_batches != 1:
            raise InputError(f"{path} is no question set: it holds {reader.num_record_batches} record batches.")
        batch = reader.get_batch(0)
        batch.validate(full=True)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: generate the questions first.") from error
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(
            f"{path} is truncated or corrupted ({reason}): delete it and generate the questions again."
        ) from error
    metadata = {key.decode(): value.decode() for key, value in (reader.schema.metadata or {}).items()}
    return batch, metadata


def _check(columns: dict[str, Any], lengths: np.ndarray, n_kinds: int | None) -> None:
    """ValueError naming the column and row that no writer would write; n_kinds is None for given questions."""
    limits = {
        "user": (0, None),
        "cut": (1, None),
        "subtask": (0, len(SUBTASKS)),
        "kind": (-1, 0) if n_kinds is None else (0, n_kinds),
        "template": (0, None),
        "attribute": (-1, 5),
        "answer": (0, OPTIONS),
    }
    for name, (low, high) in limits.items():
        wrong = columns[name] < low
        if high is not None:
            wrong |= columns[name] >= high
        if columns[name].dtype != _COLUMNS[name] or wrong.any():
            raise ValueError(f"column '{name}', row {int(np.argmax(wrong))}")
    shortest, longest = (0, 0) if n_kinds is None else (1, LONGEST_ANSWER)
    if ((lengths < shortest) | (lengths > longest)).any():
        raise ValueError("column 'options'")
