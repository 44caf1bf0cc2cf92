"""A log that lies in an engine, and the rules on its rows as Ibis expressions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uqabench.data.engines import open_engine
from uqabench.data.engines.engine import Engine, batches, stored
from uqabench.data.engines.staging import ROWS, Staged, stage
from uqabench.data.log import PartedSource, RawLog, Removal, Source, removal
from uqabench.data.rejections import Rejections
from uqabench.data.rows import Rows, Size
from uqabench.data.sources.tables import check_actions
from uqabench.errors import InputError
from uqabench.settings.data import EngineConfig


class TableRows:
    """See `Rows`. A table user, item, time, action, file, row, and the users and items that are left of it: small
    tables, so that a round of rules writes no rows. Times and actions are null where the log has none."""

    def __init__(self, engine: Engine, rows: ibis.Table, timed: bool) -> None:
        self._engine, self._rows, self._number = engine, rows, count()
        self._order = (["time"] if timed else []) + ["file", "row"]
        self._kept: dict[str, ibis.Table] = {}
        self._last: int | None = None
        self._size: Size | None = None
        self._lengths: ibis.Table | None = None

    @property
    def table(self) -> ibis.Table:
        """The rows that are left."""
        rows = self._rows
        for column, kept in self._kept.items():
            rows = rows.semi_join(kept, column)
        return rows if self._last is None else self._tail(rows, self._last)

    @property
    def sorted(self) -> ibis.Table:
        """The same by user, time, and place in the input."""
        return self.table.order_by(["user", *self._order])

    def counts(self) -> Size:
        if self._size is None:
            rows = self.table
            found = rows.aggregate(users=rows.user.nunique(), items=rows.item.nunique(), rows=rows.count())
            self._size = tuple(int(number) for number in found.to_pyarrow().to_pylist()[0].values())
        return self._size

    def keep_items(self, codes: np.ndarray) -> None:
        """All rows of other items go."""
        path = self._engine.folder / f"items-{next(self._number)}.parquet"
        pq.write_table(pa.table({"item": pa.array(codes, pa.int32())}), path)
        self._keep("item", self._engine.connection.read_parquet(path))

    def drop_rare_items(self, least: int, last: int) -> bool:
        recent = self._tail(self.table, last)
        counted = self._stored(recent.group_by("item").aggregate(n=recent.count()))
        return self._keep_all("item", counted.filter(counted.n >= least), self.counts()[1])

    def drop_users(self, least: int, most: int) -> bool:
        lengths = self._lengths_of_users()
        return self._keep_all("user", lengths.filter((lengths.n >= least) & (lengths.n <= most)), self.counts()[0])

    def cut(self, last: int) -> bool:
        before = self.counts()
        self._last, self._size = last, None
        return self.counts() != before

    def _tail(self, rows: ibis.Table, last: int) -> ibis.Table:
        """The last rows of each user; only users who have more are put in order."""
        lengths = self._lengths_of_users()
        long = lengths.filter(lengths.n > last)
        if not _number(long.count()):
            return rows
        backwards = ibis.window(group_by="user", order_by=[ibis.desc(column) for column in self._order])
        placed = rows.semi_join(long, "user").mutate(place=ibis.row_number().over(backwards))
        return rows.anti_join(long, "user").union(placed.filter(placed.place < last).drop("place"))

    def _lengths_of_users(self) -> ibis.Table:
        if self._lengths is None:
            rows = self.table
            self._lengths = self._stored(rows.group_by("user").aggregate(n=rows.count()))
        return self._lengths

    def _keep_all(self, column: str, kept: ibis.Table, present: int) -> bool:
        """Whether any of the users or items that are present was not kept."""
        if _number(kept.count()) == present:
            return False
        self._keep(column, self._stored(kept.select(column)))
        return True

    def _keep(self, column: str, kept: ibis.Table) -> None:
        self._kept[column] = kept
        self._size = self._lengths = None

    def _stored(self, expression: ibis.Table) -> ibis.Table:
        return stored(self._engine, expression, f"table-{next(self._number)}.parquet")


class EngineLog:
    """See `Log`: interactions in an engine's folder, and what is small of the log in memory."""

    def __init__(self, engine: Engine, staged: Staged, item_ids: pa.Array, attributes: dict[str, pa.Array]) -> None:
        self.item_ids, self.attributes, self.removals = item_ids, attributes, []
        self._engine, self._staged = engine, staged
        found = engine.connection.read_parquet(engine.folder / ROWS)
        distinct = found.aggregate(
            users=found.name.nunique(), known=found.item.nunique(), unknown=found.unknown.nunique(),
            actions=found.action.nunique(),
        ).to_pyarrow().to_pylist()[0]  # fmt: skip
        self.read = (distinct["users"], distinct["known"] + distinct["unknown"], staged.read)
        self.action_names: list[str] = []
        if staged.actions:
            check_actions(distinct["actions"])
            self.action_names = sorted(found.select("action").distinct().to_pyarrow()["action"].to_pylist(), key=_bytes)
        good = found.filter(found.good)
        names = good.select("name").distinct()
        self._users = stored(engine, names.mutate(user=ibis.row_number().over(order_by="name")), "users.parquet")
        self._rows = TableRows(engine, stored(engine, self._coded(good), "rows.parquet"), staged.times)
        self._present = np.ones(len(item_ids), bool)

    def _coded(self, good: ibis.Table) -> ibis.Table:
        """Users and actions as numbers."""
        action = ibis.null("int8")
        if self.action_names:
            pairs = [(name, ibis.literal(code, "int8")) for code, name in enumerate(self.action_names)]
            action = good.action.cases(*pairs)
        good = good.mutate(action=action)
        return good.join(self._users, "name").select("user", "item", "time", "action", "file", "row")

    def __len__(self) -> int:
        return self.counts()[2]

    def counts(self) -> Size:
        return self._rows.counts()

    def drop_items(self, gone: np.ndarray, rule: str) -> None:
        before = self.counts()
        self._present &= ~gone
        self._rows.keep_items(np.flatnonzero(self._present))
        self.removals.append(removal(rule, before, self.counts()))

    def filter(self, rules: Callable[[Rows], list[Removal]]) -> None:
        self.removals += rules(self._rows)

    def collect(self) -> RawLog:
        """What is left, in memory."""
        size = len(self)
        users, items = np.empty(size, np.int32), np.empty(size, np.int32)
        times = np.empty(size, np.int64) if self._staged.times else None
        actions = np.empty(size, np.int8) if self._staged.actions else None
        first = 0
        for batch in batches(self._engine, self._rows.sorted, "sorted.parquet"):
            span = slice(first, first + len(batch))
            for name, column in (("user", users), ("item", items), ("time", times), ("action", actions)):
                if column is not None:
                    column[span] = batch.column(name).to_numpy()
            first = span.stop
        present = self._users.semi_join(self._rows.table, "user").order_by("user").to_pyarrow()
        return RawLog(
            user_ids=present["name"].combine_chunks().cast(pa.string()),
            users=np.searchsorted(present["user"].to_numpy(), users).astype(np.int32),
            item_ids=self.item_ids,
            items=items,
            attributes=self.attributes,
            read=self.read,
            times=times,
            actions=actions,
            action_names=self.action_names,
            removals=self.removals,
        )


@contextmanager
def engine_log(source: Source, config: EngineConfig, rejections: Rejections) -> Iterator[EngineLog]:
    """The log of `source` in the engine of the settings, read; bad rows go to `rejections`.

    Raises InputError for a source that can only be read as a whole, for files that cannot be read, and for an engine
    that cannot be started.
    """
    if not isinstance(source, PartedSource):
        raise InputError(
            f"The source '{source.name}' is held in memory as a whole, so that the engine {config.name} would do "
            "nothing for it: leave out --engine."
        )
    item_ids, attributes = source.read_items(rejections)
    with open_engine(config) as engine:
        staged = stage(engine, source, item_ids, rejections)
        yield EngineLog(engine, staged, item_ids, attributes)


def _number(expression: ibis.Scalar) -> int:
    return int(expression.to_pyarrow().as_py())


def _bytes(name: str) -> bytes:
    return name.encode()
