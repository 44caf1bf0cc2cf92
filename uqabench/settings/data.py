"""Settings of the data: where the log comes from, what is kept of it, and how its users are split."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Any

from uqabench.settings.schema import MAX_LENGTH, MAX_SEED, section, setting

ENGINES = ("arrow", "duckdb", "spark")


@section("engine")
class EngineConfig:
    """What works on the log. Every engine makes the same store, byte for byte."""

    name: str = setting(
        "arrow",
        "arrow: the fastest, in memory; duckdb: on disk, for logs that outgrow memory; spark: on a cluster",
        choices=ENGINES,
        in_key=False,
    )
    master: str = setting(
        "local[*]",
        "of spark: where the cluster is, or how many threads of this machine",
        pattern=(r"local(\[(\*|\d+)\])?|yarn|(spark|k8s)://\S+", "local[N], spark://HOST:PORT, k8s://… or yarn"),
        in_key=False,
    )
    memory_gb: float = setting(
        4.0, "memory of duckdb, or of spark's driver, before it goes to disk", ge=0.25, le=65_536, in_key=False
    )
    folder: str | None = setting(
        None,
        "where duckdb and spark lay the log, with users' ids, for all machines to see; null: where temporary files go",
        in_key=False,
    )


@section("prepare")
class PrepareConfig:
    """What is kept of a log and how its users are split (section 3.5.1 of the paper)."""

    min_item_interactions: int = setting(3, "items with fewer interaction rows are dropped", ge=1, le=10**9)
    min_user_length: int = setting(5, "users with fewer interactions are dropped", ge=1, le=MAX_LENGTH)
    max_user_length: int = setting(10_000, "users with more interactions are dropped", ge=1, le=10**9)
    max_sequence: int = setting(512, "each user's sequence is cut to its last N interactions", ge=1, le=MAX_LENGTH)
    exclude_items: list[str] = setting(
        default_factory=list, help="external ids of sensitive items to drop (`read_ids` reads them from a file)"
    )
    exclude_categories: list[str] = setting(
        default_factory=list, help="sensitive categories to drop, by name; letter case does not matter"
    )
    salt_file: str | None = setting(
        None, "file with the key that anonymises user ids; null: a random key, forgotten afterwards"
    )
    split_seed: int = setting(0, "seed of the user split, apart from every other seed", ge=0, le=MAX_SEED)
    evaluation_fraction: float = setting(0.1, "share of the users that evaluate", gt=0, lt=1)
    validation_seed: int = setting(0, "seed by which validation users are drawn from the others", ge=0, le=MAX_SEED)
    validation_fraction: float = setting(
        0.0, "share of the other users that neither train nor evaluate: settings are chosen on them", ge=0, lt=1
    )
    strict: bool = setting(False, "stop at the first bad row instead of counting it")
    max_tokens: int = setting(100_000, "size of the word table of item texts; rarer words are left out", ge=1, le=10**8)

    shard_rows: int = setting(
        2**27, "interactions that one file of the store may hold; more are laid into several", ge=1, le=10**12
    )
    engine: EngineConfig = setting(default_factory=EngineConfig)

    def __post_init__(self) -> None:
        for name in ("max_user_length", "max_sequence"):
            if getattr(self, name) < self.min_user_length:
                value = getattr(self, name)
                raise ValueError(f"{name} is {value}, below min_user_length {self.min_user_length}: raise it.")

    def record(self) -> dict[str, Any]:
        """The settings for a manifest: of excluded items, which are sensitive, only number and digest, of the salt
        file only whether there is one, and nothing of the engine, which leaves no trace in a store."""
        ids = sorted(set(self.exclude_items))
        excluded = {"count": len(ids), "sha256": hashlib.sha256("\n".join(ids).encode()).hexdigest()}
        values = {**asdict(self), "exclude_items": excluded, "salt_file": self.salt_file is not None}
        del values["engine"]
        if self.shard_rows == type(self).__dataclass_fields__["shard_rows"].default:
            del values["shard_rows"]  # one file, as in stores of which nothing was said about shards
        return values


@section("data")
class DataConfig:
    """Where the log comes from."""

    source: str = setting(
        "completejourney", 'a source that `uqabench prepare` knows, or "store": the prepared folder at `path`'
    )
    path: str | None = setting(None, "where the source's files are, when not in its package")
    options: dict[str, Any] = setting(default_factory=dict, help="the source's own settings")
    prepare: PrepareConfig = setting(default_factory=PrepareConfig)
