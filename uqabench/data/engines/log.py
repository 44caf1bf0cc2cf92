"""A log that lies in an engine, and the rules on its rows as Ibis expressions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import count

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from uqabench.data.engines.engine import Engine, batches, stored
from uqabench.data.engines.staging import ROWS, Staged, stage
from uqabench.data.log import PartedSource, RawLog, Removal, one_chunk, removal
from uqabench.data.rejections import Rejections
from uqabench.data.rows import Rows, Size
from uqabench.data.sources.tables import check_actions


@dataclass(frozen=True)
class _Lengths:
    """Rows of each user (columns user, n), and what there is in all."""

    table: ibis.Table
    users: int
    rows: int
    shortest: int
    longest: int


class TableRows:
    """See `Rows`. A table user, item, time, action, file, row, and the users and items that are left of it: small
    tables, so that a round of rules writes no rows. Times and actions are null where the log has none."""

    def __init__(self, engine: Engine, rows: ibis.Table, timed: bool) -> None:
        self._engine, self._rows, self._number = engine, rows, count()
        self._order = (["time"] if timed else []) + ["file", "row"]
        self._kept: dict[str, ibis.Table] = {}
        self._size: Size | None = None
        self._known: _Lengths | None = None

    @property
    def table(self) -> ibis.Table:
        """The rows that are left."""
        rows = self._rows
        for column, kept in self._kept.items():
            rows = rows.semi_join(kept, column)
        return rows

    @property
    def sorted(self) -> ibis.Table:
        """The same by user, time, and place in the input."""
        return self.table.order_by(["user", *self._order])

    def counts(self) -> Size:
        if self._size is None:
            lengths = self._lengths()
            self._size = (lengths.users, _values(self.table.aggregate(n=self.table.item.nunique()))["n"], lengths.rows)
        return self._size

    def keep_items(self, codes: np.ndarray) -> None:
        """All rows of other items go."""
        path = self._engine.folder / f"items-{next(self._number)}.parquet"
        pq.write_table(pa.table({"item": pa.array(codes, pa.int32())}), path)
        self._keep("item", self._engine.connection.read_parquet(path))

    def drop_rare_items(self, least: int, last: int) -> bool:
        recent = self._tail(last)
        counted = self._stored(recent.group_by("item").aggregate(n=recent.count()))
        kept = counted.filter(counted.n >= least)
        if _values(kept.aggregate(items=kept.count()))["items"] == self.counts()[1]:
            return False
        self._keep("item", self._stored(kept.select("item")))
        return True

    def drop_users(self, least: int, most: int) -> bool:
        lengths = self._lengths()
        if lengths.shortest >= least and lengths.longest <= most:
            return False
        n = lengths.table.n
        self._keep("user", self._stored(lengths.table.filter((n >= least) & (n <= most)).select("user")))
        return True

    def cut(self, last: int) -> bool:
        if self._lengths().longest <= last:
            return False
        self._rows = self._stored(self._tail(last))
        self._kept, self._size, self._known = {}, None, None
        return True

    def _tail(self, last: int) -> ibis.Table:
        """The last rows of each user; only users who have more are put in order."""
        lengths, rows = self._lengths(), self.table
        if lengths.longest <= last:
            return rows
        long = lengths.table.filter(lengths.table.n > last)
        backwards = ibis.window(group_by="user", order_by=[ibis.desc(column) for column in self._order])
        placed = rows.semi_join(long, "user").mutate(place=ibis.row_number().over(backwards))
        return rows.anti_join(long, "user").union(placed.filter(placed.place < last).drop("place"))

    def _lengths(self) -> _Lengths:
        if self._known is None:
            rows = self.table
            table = self._stored(rows.group_by("user").aggregate(n=rows.count()))
            n = table.n
            facts = table.aggregate(users=table.count(), rows=n.sum(), shortest=n.min(), longest=n.max())
            self._known = _Lengths(table, **_values(facts))
        return self._known

    def _keep(self, column: str, kept: ibis.Table) -> None:
        self._kept[column] = kept
        self._size = self._known = None

    def _stored(self, expression: ibis.Table) -> ibis.Table:
        return stored(self._engine, expression, f"table-{next(self._number)}.parquet")


class EngineLog:
    """See `Log`: interactions in an engine's folder, and what is small of the log in memory."""

    def __init__(self, engine: Engine, staged: Staged, item_ids: pa.Array, attributes: dict[str, pa.Array]) -> None:
        self.item_ids, self.attributes, self.removals = item_ids, attributes, []
        self._engine, self._staged = engine, staged
        found = engine.connection.read_parquet(engine.folder / ROWS / "*.parquet")
        distinct = _values(
            found.aggregate(
                users=found.name.nunique(), known=found.item.nunique(), unknown=found.unknown.nunique(),
                actions=found.action.nunique(),
            )
        )  # fmt: skip
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
        left = self._users.semi_join(self._rows.table, "user").order_by("user")
        present = pa.Table.from_batches(batches(self._engine, left, "left.parquet"))
        return RawLog(
            user_ids=one_chunk(present["name"].cast(pa.string())),
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
def log_in(
    started: AbstractContextManager[Engine], source: PartedSource, rejections: Rejections
) -> Iterator[EngineLog]:
    """The log of `source`, read, in an engine that works for as long as the block."""
    with started as engine:
        with source.named():
            item_ids, attributes = source.read_items(rejections)
            staged = stage(engine, source, item_ids, rejections)
        yield EngineLog(engine, staged, item_ids, attributes)


def _values(aggregates: ibis.Table) -> dict[str, int]:
    """The numbers of a table of one row; 0 for those of nothing."""
    return {name: int(value or 0) for name, value in aggregates.to_pyarrow().to_pylist()[0].items()}


def _bytes(name: str) -> bytes:
    return name.encode()
