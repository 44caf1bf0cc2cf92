"""From command-line arguments to settings."""

from __future__ import annotations

import argparse
from typing import Any

from uqabench.data import PrepareConfig, open_source, read_ids
from uqabench.data.log import Source
from uqabench.data.sources.tables import INTERACTION_COLUMNS, ITEM_COLUMNS
from uqabench.errors import InputError
from uqabench.settings.reader import from_dict, merge, parse_override, to_dict
from uqabench.settings.run import RunConfig, made_from, patched, run_layers, run_mapping


def _pairs(text: str | None, flag: str) -> dict[str, str]:
    pairs = {}
    for part in text.split(",") if text else []:
        name, equals, value = part.partition("=")
        if not equals or not value:
            raise InputError(f"{flag} {text}: '{part}' is not name=value, for example user=uid,item=sku.")
        pairs[name.strip()] = value.strip()
    return pairs


def _source(args: argparse.Namespace, name: str | None) -> tuple[str, str | None, dict[str, Any]] | None:
    """(source, path, options) that the arguments name, or None when they name none."""
    options = {key: value for text in args.option for key, value in parse_override(text, "--option").items()}
    kept = {name: str(path) for name in ("keep", "append") if (path := getattr(args, name, None)) is not None}
    if args.interactions is None and "append" not in kept:
        if kept:
            raise InputError("--keep keeps a log of your own: give --interactions FILE too.")
        if args.items or args.columns:
            raise InputError("--items and --columns describe a log of your own: give --interactions FILE too.")
        return (name, args.path, options) if name else None
    if name not in (None, "tables"):
        raise InputError(f"--interactions replaces the source '{name}': give one of the two.")
    if args.items is None:
        raise InputError("--interactions needs --items FILE, the catalogue: an item column, and title, category, …")
    columns, item_columns = _columns(args.columns)
    if args.interactions is not None and "append" in kept:
        raise InputError("--append adds to the interactions that were kept: leave out --interactions.")
    files = {"items": str(args.items), **kept}
    files |= {} if args.interactions is None else {"interactions": str(args.interactions)}
    return "tables", None, {**options, **files, "columns": columns, "item_columns": item_columns}


def _columns(text: str | None) -> tuple[dict[str, str], dict[str, str]]:
    """The columns of the interactions and of the items; `item` is the id's column in both, `items.item` in the items
    where it is called otherwise there."""
    pairs = _pairs(text, "--columns")
    known = dict.fromkeys((*INTERACTION_COLUMNS, *ITEM_COLUMNS, "items.item"))
    for name in pairs:
        if name not in known:
            raise InputError(f"--columns maps '{name}', which is no field: it can map {', '.join(known)}.")
    items = {name: column for name, column in pairs.items() if name in ITEM_COLUMNS}
    if "items.item" in pairs:
        items["item"] = pairs["items.item"]
    return {name: column for name, column in pairs.items() if name in INTERACTION_COLUMNS}, items


def source_of(args: argparse.Namespace) -> Source:
    """The source that `prepare` was asked for."""
    found = _source(args, args.source)
    if found is None:
        raise InputError("Name a source (completejourney, movielens-100k, synthetic) or give --interactions FILE.")
    name, path, options = found
    return open_source(name, path, **options)


def _preparation(args: argparse.Namespace) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in (
        "salt_file", "split_seed", "min_item_interactions", "min_user_length", "max_user_length", "max_sequence",
        "shard_rows",
    ):  # fmt: skip
        if getattr(args, name, None) is not None:
            values[name] = getattr(args, name)
    if engine := _engine(args):
        values["engine"] = engine
    if args.strict:
        values["strict"] = True
    if args.exclude_items is not None:
        values["exclude_items"] = read_ids(args.exclude_items)
    if args.exclude_category:
        values["exclude_categories"] = list(args.exclude_category)
    return values


def _engine(args: argparse.Namespace) -> dict[str, str]:
    name, master = getattr(args, "engine", None), getattr(args, "master", None)
    if master is not None and name != "spark":
        raise InputError(f"--master {master} says where Spark is: give --engine spark too.")
    return {key: value for key, value in (("name", name), ("master", master)) if value is not None}


def prepare_settings(args: argparse.Namespace) -> PrepareConfig:
    """The settings that `prepare` was given."""
    return from_dict(PrepareConfig, _preparation(args), "prepare")


def settings_of(args: argparse.Namespace) -> RunConfig:
    """The settings of a run: preset, file, overrides, then the options that have a flag of their own."""
    mapping = run_mapping(args.preset, args.config, tuple(args.overrides))
    found = _source(args, args.source)
    if found is not None:
        name, path, options = found
        if name != mapping.get("data", {}).get("source"):
            mapping["data"] = {**mapping.get("data", {}), "options": {}}
        mapping = merge(mapping, {"data": {"source": name, "path": path, "options": options}})
    mapping = merge(mapping, {"data": {"prepare": _preparation(args)}})
    for name in ("device", "seed"):
        if getattr(args, name) is not None:
            mapping[name] = getattr(args, name)
    if args.questions is not None:
        mapping = merge(mapping, {"questions": {"version": args.questions}})
    if args.llm is not None:
        mapping = merge(mapping, {"llm": {"name": args.llm}})
    if args.generate:
        mapping = merge(mapping, {"evaluate": {"generate": True}})
    if args.validation:
        mapping = merge(mapping, {"questions": {"users": "validation"}})
    if getattr(args, "shape", None):
        mapping = merge(mapping, {"efficiency": {"shape": args.shape}})
    config = made_from(mapping)
    if args.command == "experiment":
        return config
    methods = args.methods.split(",") if args.methods else to_dict(config)["methods"]
    if not args.methods and not _names_methods(args):
        from uqabench.plan.methods import fitting  # methods know encoders, and those torch, which takes seconds

        methods = fitting(methods, config)
    return patched(config, {"methods": [*methods, *args.encoder]})


def _names_methods(args: argparse.Namespace) -> bool:
    """Whether the user's file or overrides say which methods are compared."""
    layers = run_layers(args.preset, args.config, tuple(args.overrides))
    return any("methods" in mapping for origin, mapping in layers if not origin.startswith("preset "))


def numbers(option: str, text: str | None) -> tuple[int, ...]:
    """The whole numbers that an option such as `--seeds 0,1,2` names; none without it."""
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise InputError(f"{option} {text}: give whole numbers with commas between, for example 0,1,2.") from error
