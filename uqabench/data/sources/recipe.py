"""A public log by its recipe: a YAML file that says which files it has, how they are written, and what columns mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ConfigDict, Field, with_config
from typing_extensions import NotRequired, TypedDict

from uqabench.data.catalogue import ATTRIBUTES
from uqabench.data.log import encode, one_chunk
from uqabench.data.rejections import REASONS, Rejections
from uqabench.data.sources.columns import as_ids, as_text, short
from uqabench.data.sources.delimited import read_header, read_records, read_text
from uqabench.data.sources.lines import read_lines
from uqabench.data.sources.readers import Rows, add_columns, guarded, present_columns
from uqabench.data.sources.remote import Fetched
from uqabench.data.sources.tables import Tables, labels_of
from uqabench.data.sources.times import parse_times
from uqabench.errors import InputError
from uqabench.files import sha256_file
from uqabench.settings.reader import load_yaml
from uqabench.settings.results import check
from uqabench.vocabulary import DOMAINS

_STRICT = with_config(ConfigDict(extra="forbid"))
_MISSING = REASONS.index("missing id")
_SEPARATOR = "\x1f"  # stands for a delimiter of several characters


@_STRICT
class Column(TypedDict):
    """Where a field comes from: the first of `column` that a file has, its part `take` between `split` (or of a list),
    nothing where the text is one of `none`."""

    column: str | list[str]
    split: NotRequired[str]
    take: NotRequired[int]
    none: NotRequired[list[str]]


@_STRICT
class Format(TypedDict):
    """How files are written: delimited text with `header` or its own first line, or one object a line."""

    kind: Literal["delimited", "json", "python"]
    delimiter: NotRequired[Annotated[str, Field(min_length=1, max_length=8)]]
    header: NotRequired[list[str]]
    encoding: NotRequired[str]
    quoting: NotRequired[Literal["none", "double", "backslash"]]


@_STRICT
class Long(TypedDict):
    """A table of one property a row: `keep` maps values of `property` to attributes; the latest `time` counts."""

    property: str
    value: str
    keep: dict[str, str]
    time: NotRequired[str]


@_STRICT
class Table(TypedDict):
    """Files (patterns), how they are written, and the field of each column. `exclude`: patterns of other files."""

    files: Annotated[list[str], Field(min_length=1)]
    format: Format
    columns: dict[str, str | list[str] | Column]
    exclude: NotRequired[list[str]]
    time_unit: NotRequired[Literal["s", "ms", "us", "ns", "iso"]]
    long: NotRequired[Long]


@_STRICT
class Recipe(TypedDict):
    """A recipe. `interactions`: the first of several tables whose files are there is read. `items`: the same, or
    columns of the interactions (`items_from_interactions`)."""

    title: str
    url: str
    download: str
    licence: str
    citation: str
    domain: NotRequired[str]
    interactions: Annotated[list[Table], Field(min_length=1)]
    items: NotRequired[list[Table]]
    items_from_interactions: NotRequired[dict[str, str | list[str] | Column]]


@cache
def packaged_recipes() -> tuple[str, ...]:
    """Names of the recipes that ship with uqabench, sorted."""
    folder = resources.files("uqabench") / "data" / "recipes"
    return tuple(sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml")))


def load_recipe(name: str | Path) -> Recipe:
    """The recipe of a packaged name or of a YAML file; InputError names what is wrong in it."""
    if str(name) in packaged_recipes():
        with resources.as_file(resources.files("uqabench") / "data" / "recipes" / f"{name}.yaml") as path:
            return _checked(load_yaml(path), path)
    return _checked(load_yaml(Path(name)), Path(name))


def _checked(content: Any, path: Path) -> Recipe:
    check(content, Recipe, str(path), "correct the recipe")
    for table in (*content["interactions"], *content.get("items", [])):
        known = ("user", "item", "time", "action") if table in content["interactions"] else ("item", *ATTRIBUTES)
        for name in table["columns"]:
            if name not in known:
                raise InputError(f"{path}: '{short(name)}' is no field of a table: it can map {', '.join(known)}.")
    if content.get("domain", "click") not in DOMAINS:
        raise InputError(f"{path}: domain must be one of {', '.join(DOMAINS)}.")
    return content


@dataclass
class _Found:
    """A table of a recipe and the files there are for it."""

    table: Table
    files: list[Path]


class RecipeSource(Tables):
    """The files that a recipe describes, below folder `path` (or one file). Subclasses name their recipe.

    Items that only interactions name have no attributes; of an item described twice the first row counts, but in
    tables of properties the latest.
    """

    name = ""
    accepts = ()
    recipe_name: str | Path = ""

    def __init__(self, path: Path | str | None = None) -> None:
        self.recipe = load_recipe(self.recipe_name)
        self.folder = Path(path) if path is not None else None
        if self.folder is None or not self.folder.exists():
            raise InputError(
                f"The source '{self.name}' needs its files: download {self.recipe['download']} from "
                f"{self.recipe['url']} and name their folder with --path."
            )
        self.notes = [f"{self.recipe['title']}: {self.recipe['licence']}", f"Cite {self.recipe['citation']}"]
        self.found = self._find("interactions", self.recipe["interactions"])
        of_items = self.recipe.get("items", [])
        self.found_items = self._find("items", of_items) if of_items else None
        files = [*self.found.files, *(self.found_items.files if self.found_items else [])]
        self.interaction_files = self.found.files
        self.item_files = self.found_items.files if self.found_items else []
        self.labels = labels_of(files)
        self.time_unit = self.found.table.get("time_unit")
        self.columns = _names(self.found.table["columns"])
        self.optional = frozenset(("time", "action"))
        self.kept, self.fetched = None, Fetched()
        self.partitions: dict[Path, dict[str, str | None]] = {}
        self._cache: dict[Path, Rows] = {}

    def options(self) -> dict[str, Any]:
        return {"recipe": self.recipe, "domain": self.recipe.get("domain", "click")}

    def inputs(self) -> dict[str, str]:
        return {label: sha256_file(path) for path, label in self.labels.items()}

    def _find(self, what: str, tables: Sequence[Table]) -> _Found:
        for table in tables:
            files = sorted(set(_matching(self.folder, table["files"], table.get("exclude", []))))
            if files:
                return _Found(table, files)
        wanted = ", ".join(pattern for table in tables for pattern in table["files"])
        raise InputError(
            f"{self.folder} holds no file of {what} ({wanted}): download {self.recipe['download']} from "
            f"{self.recipe['url']}."
        )

    def _rows(self, path: Path, mapping: Mapping[str, str], optional: frozenset[str]) -> Rows:
        if path not in self._cache:
            fields = dict(self.found.table["columns"]) | {
                f"item {name}": spec for name, spec in self.recipe.get("items_from_interactions", {}).items()
            }
            self._cache[path] = _read(path, self.found.table["format"], fields, self.optional | _item_fields(fields))
        return self._cache[path]

    def finish(self) -> None:
        super().finish()
        self._cache.clear()

    def portable(self) -> RecipeSource:
        """See `PartedSource`; the files are read again there."""
        sent = super().portable()
        sent._cache = {}
        return sent

    def read_items(self, rejections: Rejections) -> tuple[pa.Array, dict[str, pa.Array]]:
        parts = [self._described(path, rejections) for path in self.item_files]
        if self.recipe.get("items_from_interactions"):
            parts.append(_most_frequent([self._rows(path, {}, frozenset()) for path in self.interaction_files]))
        ids = [as_ids(self._rows(path, {}, frozenset()).columns["item"], str(path)) for path in self.interaction_files]
        bought = pc.unique(pa.concat_arrays(ids).drop_null()).cast(pa.string())
        parts.append(pa.table({"item": bought}))
        table = pa.concat_tables(parts, promote_options="default")
        first = _first_rows(one_chunk(table["item"]))
        table = table.take(pa.array(first))
        columns = {name: one_chunk(table[name]) for name in table.column_names if name != "item"}
        return one_chunk(table["item"]), columns

    def _described(self, path: Path, rejections: Rejections) -> pa.Table:
        """Items of one file and their attributes."""
        table = self.found_items.table
        if "long" in table:
            return self._properties(path, table, rejections)
        rows = _read(path, table["format"], table["columns"], frozenset(ATTRIBUTES))
        rows.reject_broken(["item"])
        ids = as_ids(rows.columns["item"], f"{path}: the items' ids").cast(pa.string())
        rows.reject(ids.is_null().to_numpy(zero_copy_only=False), _MISSING)
        self._report(path, rows, rejections)
        good = pa.array(rows.reasons < 0)
        named = {name: as_text(rows.columns[name]).cast(pa.string()) for name in ATTRIBUTES if name in rows.columns}
        return pa.table({"item": ids, **named}).filter(good)

    def _properties(self, path: Path, table: Table, rejections: Rejections) -> pa.Table:
        long = table["long"]
        fields = {"item": table["columns"]["item"], "property": long["property"], "value": long["value"]}
        fields |= {"time": long["time"]} if "time" in long else {}
        rows = _read(path, table["format"], fields, frozenset())
        self._report(path, rows, rejections)
        columns = {name: as_text(rows.columns[name]).cast(pa.string()) for name in ("property", "value")}
        columns["item"] = as_ids(rows.columns["item"], f"{path}: the items' ids").cast(pa.string())
        times = parse_times(rows.columns["time"], "ms", f"{path}: times")[0] if "time" in long else rows.numbers
        good = pc.and_(pa.array(rows.reasons < 0), pc.is_valid(columns["item"]))
        whole = pa.table({**columns, "time": pa.array(times)}).filter(good).sort_by([("time", "descending")])
        found = []
        for key, name in long["keep"].items():
            part = whole.filter(pc.equal(whole["property"], key))
            part = part.take(pa.array(_first_rows(one_chunk(part["item"])))) if len(part) else part
            found.append(part.select(["item", "value"]).rename_columns(["item", name]))
        return found[0] if len(found) == 1 else _joined(found)


def recipe_source(name: str | Path) -> type[RecipeSource]:
    """The source class of a packaged recipe, or of a recipe file of one's own."""
    label = Path(name).name.removesuffix(".yaml")
    return type("RecipeSource", (RecipeSource,), {"name": label, "recipe_name": name, "__doc__": RecipeSource.__doc__})


def _matching(folder: Path, patterns: Sequence[str], excluded: Sequence[str]) -> Iterator[Path]:
    """Files below `folder`, or the file itself, whose name (with or without .gz) fits a pattern and no excluded one."""
    files = [folder] if folder.is_file() else sorted(file for file in folder.rglob("*") if file.is_file())
    for file in files:
        bare = file.name.removesuffix(".gz")
        fits = any(fnmatchcase(bare, pattern) for pattern in patterns)
        if fits and not any(fnmatchcase(bare, pattern) for pattern in excluded):
            yield file


def _names(columns: Mapping[str, Any]) -> dict[str, str]:
    """For messages: the first name that a field's column may have."""
    return {name: _alternatives(spec)[0] for name, spec in columns.items()} | (
        {} if "action" in columns else {"action": "action"}
    )


def _item_fields(fields: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(name for name in fields if name.startswith("item "))


def _alternatives(spec: str | list[str] | Column) -> list[str]:
    columns = spec["column"] if isinstance(spec, dict) else spec
    return [columns] if isinstance(columns, str) else list(columns)


def _read(path: Path, form: Format, fields: Mapping[str, Any], optional: frozenset[str]) -> Rows:
    """The fields of one file."""
    changes = {name: change for name, spec in fields.items() if (change := _change(spec)) is not None}
    with guarded(path):
        if form["kind"] == "delimited":
            return _delimited(path, form, fields, optional, changes)
        mapping = {name: _alternatives(spec)[0] for name, spec in fields.items()}
        rows = read_lines(path, form["kind"], mapping, changes)
    for name, key in mapping.items():
        if name not in optional and len(rows.numbers) and rows.columns[name].null_count == len(rows.numbers):
            raise InputError(f"{path}: no object has the key '{key}': it is another file.")
    return rows


def _delimited(
    path: Path, form: Format, fields: Mapping[str, Any], optional: frozenset[str], changes: Mapping[str, Callable]
) -> Rows:
    text = read_text(path, form.get("encoding", "utf8"))
    delimiter, data = form.get("delimiter", ","), text.data
    if len(delimiter) > 1:
        data = pa.py_buffer(re.sub(re.escape(delimiter).encode(), _SEPARATOR.encode(), memoryview(data)))
        delimiter = _SEPARATOR
    quoting = form.get("quoting", "double" if delimiter == "," else "none")
    header, body = form.get("header", []), data
    if not header:
        header, body = read_header(type(text)(data, text.not_utf8), delimiter, quoting)
        if not header:
            raise InputError(f"{path} is empty: it should begin with a line of column names.")
    chosen = {name: next((c for c in _alternatives(spec) if c in header), _alternatives(spec)[0])
              for name, spec in fields.items()}  # fmt: skip
    present = present_columns(path, header, chosen, optional)
    places = {column: header.index(column) for column in present.values()}
    found = read_records(body, delimiter, quoting, len(header), sorted(set(places.values())))
    reasons = np.full(len(found.table), -1, np.int8)
    rows = Rows({}, found.numbers, found.lines, reasons, found.malformed, found.malformed_lines)
    columns = {}
    for name, column in present.items():
        values = found.table.column(str(places[column]))
        if name in changes:
            values = pa.chunked_array([pa.array(changes[name](_safe(values)), pa.large_string())])
        columns[name] = values
    add_columns(rows, columns, path, present, text.not_utf8)
    return rows


def _safe(column: pa.ChunkedArray) -> list[Any]:
    """Texts as Python has them; what is no UTF-8 is null."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        raw = column.cast(pa.binary()).to_pylist()
        return [None if value is None else value.decode("utf-8", "ignore") for value in raw]


def _change(spec: str | list[str] | Column) -> Callable[[list[Any]], list[Any]] | None:
    """What a column's values go through."""
    if not isinstance(spec, dict) or not {"split", "take", "none"} & spec.keys():
        return None
    split, take, none = spec.get("split"), spec.get("take", 0), {text.casefold() for text in spec.get("none", [])}

    def changed(value: Any) -> Any:
        if isinstance(value, str) and split is not None:
            value = value.split(split)
        if isinstance(value, list):
            value = [part for part in value if isinstance(part, str) and part.strip()]
            value = value[take].strip() if -len(value) <= take < len(value) else None
        return None if isinstance(value, str) and value.strip().casefold() in none else value

    return lambda values: [changed(value) for value in values]


def _first_rows(ids: pa.Array) -> np.ndarray:
    """int64: the first row of each id, in order."""
    codes = encode(ids)[1]
    return np.sort(np.unique(codes, return_index=True)[1])


def _most_frequent(rows: list[Rows]) -> pa.Table:
    """Items with what most of their interactions say of each attribute (of equally many, the smallest text)."""
    found = []
    names = [name for name in rows[0].columns if name.startswith("item ")]
    ids = pa.concat_arrays([as_ids(part.columns["item"], "the items' ids") for part in rows]).cast(pa.string())
    for name in names:
        texts = pa.concat_arrays([as_text(part.columns[name]) for part in rows]).cast(pa.string())
        table = pa.table({"item": ids, "value": texts}).filter(pc.and_(pc.is_valid(ids), pc.is_valid(texts)))
        counted = table.group_by(["item", "value"]).aggregate([([], "count_all")])
        counted = counted.sort_by([("count_all", "descending"), ("value", "ascending")])
        part = counted.take(pa.array(_first_rows(one_chunk(counted["item"]))))
        found.append(part.select(["item", "value"]).rename_columns(["item", name.removeprefix("item ")]))
    return _joined(found)


def _joined(parts: list[pa.Table]) -> pa.Table:
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.join(part, "item", join_type="full outer")
    return whole
