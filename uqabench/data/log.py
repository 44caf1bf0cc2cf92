"""What a source hands to preprocessing: a log, and the account of what was dropped on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from uqabench.data.rejections import Rejections
from uqabench.data.rows import CodedRows, Rows, Size, counts

if TYPE_CHECKING:
    from uqabench.data.sources.kept import Part
    from uqabench.settings.data import PrepareConfig

MICROSECONDS = 1_000_000


@dataclass(frozen=True)
class Removal:
    """One rule's toll: how many users, items and interactions went with it."""

    rule: str
    users: int
    items: int
    interactions: int


def removal(rule: str, before: Size, after: Size) -> Removal:
    """What a rule took, by what there was before and after it."""
    return Removal(rule, *(b - a for b, a in zip(before, after, strict=True)))


class Log(Protocol):
    """A log on its way through preprocessing, wherever its interactions lie. The fields are those of `RawLog`."""

    item_ids: pa.Array
    attributes: dict[str, pa.Array]
    read: Size
    removals: list[Removal]

    def __len__(self) -> int:
        """How many interactions are left."""

    def counts(self) -> Size:
        """What is left."""

    def drop_items(self, gone: np.ndarray, rule: str) -> None:
        """Leave out the items where `gone` (bool, one an item id) is True and account for them under `rule`."""

    def filter(self, rules: Callable[[Rows], list[Removal]]) -> None:
        """Let `rules` work on the rows in their order by user, time, and place in the input, and keep their account."""


@dataclass
class RawLog:
    """R interactions over distinct raw users and items; row order is (sorted path, row) and breaks ties in time.

    users int32 (R,) index user_ids; items int32 (R,) index item_ids and every array of attributes (null: lacking).
    times int64 (R,) microseconds since 1970 in UTC, finer than what is stored so that order survives; None without.
    actions int8 (R,) index action_names; None without. read: users, items, interactions in the input files, rejected
    rows included (those without ids count as interactions only). removals: what the source left out, in order.
    truth: one row a user with its raw id in column "user", for logs whose law is known.
    """

    user_ids: pa.Array
    users: np.ndarray
    item_ids: pa.Array
    items: np.ndarray
    attributes: dict[str, pa.Array]
    read: tuple[int, int, int]
    times: np.ndarray | None = None
    actions: np.ndarray | None = None
    action_names: list[str] = field(default_factory=list)
    removals: list[Removal] = field(default_factory=list)
    truth: pa.Table | None = None

    def __len__(self) -> int:
        return len(self.users)

    def select(self, rows: np.ndarray) -> None:
        """Keep these rows, by mask or by index, in the order given."""
        self.users, self.items = self.users[rows], self.items[rows]
        self.times = None if self.times is None else self.times[rows]
        self.actions = None if self.actions is None else self.actions[rows]

    def drop(self, mask: np.ndarray, rule: str) -> None:
        """Leave out the rows where `mask` (bool (R,)) is True and account for them under `rule`."""
        before = self.counts()
        self.select(~mask)
        self.removals.append(removal(rule, before, self.counts()))

    def counts(self) -> Size:
        """What is left."""
        return counts(self.users, self.items)

    def drop_items(self, gone: np.ndarray, rule: str) -> None:
        """See `Log`."""
        self.drop(gone[self.items], rule)

    def filter(self, rules: Callable[[Rows], list[Removal]]) -> None:
        """See `Log`; the rows that stay are then in that order."""
        order = np.argsort(self.users, kind="stable") if self.times is None else np.lexsort((self.times, self.users))
        self.select(order)
        rows = CodedRows(self.users, self.items)
        self.removals += rules(rows)
        self.select(rows.keep)


class Source(Protocol):
    """Where a log comes from. `name` is what the user typed; `notes` are caveats to print
    wherever it is named."""

    name: str
    accepts: tuple[str, ...]
    notes: list[str]

    def __init__(self, path: Path | str | None = None, **options: Any) -> None:
        """`path` is where the files are; `options` are those named in `accepts`."""

    def options(self) -> dict[str, Any]:
        """The settings that shape the log, as JSON."""

    def inputs(self) -> dict[str, str]:
        """SHA-256 of each input file by name."""

    def read(self, rejections: Rejections) -> RawLog:
        """The whole log; bad rows go to `rejections`."""


@runtime_checkable
class PartedSource(Protocol):
    """A source that an engine can read (`engines`): it hands over its interactions file by file, a part at a time."""

    interaction_files: list[Path]

    def named(self) -> AbstractContextManager[None]:
        """Within the block, an InputError calls files what the user calls them."""

    def read_items(self, rejections: Rejections) -> tuple[pa.Array, dict[str, pa.Array]]:
        """Distinct item ids, and an array aligned with them for every attribute there is."""

    def parts(self, path: Path, item_ids: pa.Array, rejections: Rejections) -> Iterator[Part]:
        """The rows of one of the files in their order, the bad ones marked and reported."""

    def finish(self) -> None:
        """All files were read."""

    def portable(self) -> PartedSource:
        """A copy that can be sent to another process, to read files there."""


@runtime_checkable
class FinishedSource(Protocol):
    """A source whose files are filtered and split already: it writes the store's files itself."""

    def write_store(self, folder: Path, config: PrepareConfig) -> None:
        """Write all files of a store (`InteractionStore.write_files`) and rejected.jsonl into `folder`."""


def encode(column: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, np.ndarray]:
    """(distinct values as strings, int32 codes) of a column; -1 where it is null."""
    encoded = one_chunk(pc.dictionary_encode(column))
    return encoded.dictionary.cast(pa.string()), encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)


def one_chunk(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The column as one array."""
    if isinstance(column, pa.Array):
        return column
    if pa.types.is_dictionary(column.type):
        column = column.unify_dictionaries()
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [pa.array([], column.type)])
