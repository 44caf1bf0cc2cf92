"""Weights of an encoder in a folder of their own: brought in from published files, written out, started from."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from uqabench.data.store import InteractionStore
from uqabench.encoders import UserEncoder
from uqabench.encoders.published import from_published, read_published, to_published
from uqabench.errors import InputError
from uqabench.files import atomic_folder, read_json, sha256_file, write_bytes, write_json
from uqabench.settings.encoders import UserEncoderConfig
from uqabench.settings.reader import from_dict, to_dict

WEIGHTS, SETTINGS, ORIGIN = "model.safetensors", "encoder.json", "checkpoint.json"


def import_checkpoint(
    file: Path, store: InteractionStore, out: Path, overrides: Mapping[str, Any] | None = None
) -> UserEncoderConfig:
    """Write the published weights of `file` as a folder that `pretrain.checkpoint` takes; returns the settings.

    The rows of the tables are put in the order of the store. InputError as `from_published`, and for a folder
    that holds anything else.
    """
    _refuse_foreign(out)
    model, config = from_published(read_published(file), store.catalogue, overrides)
    with atomic_folder(out) as folder:
        save_file({name: tensor.contiguous() for name, tensor in unshared(model).items()}, folder / WEIGHTS)
        write_json(folder / SETTINGS, to_dict(config))
        write_json(folder / ORIGIN, {"data": store.content_hash, "file": file.name, "sha256": sha256_file(file)})
    return config


def export_checkpoint(folder: Path, store: InteractionStore, file: Path) -> int:
    """Write the weights in `folder` (a run's `pretrain/…`, or an imported one) as a published state dict; returns how
    many tensors it has."""
    config = from_dict(UserEncoderConfig, read_json(folder / SETTINGS), SETTINGS)
    model = UserEncoder.build(config, store.catalogue)
    load_weights(model, folder, store)
    state = to_published(model, store.catalogue, config.encoder)
    content = io.BytesIO()
    torch.save(state, content)
    write_bytes(file, content.getvalue())
    return len(state)


def load_weights(model: UserEncoder, folder: Path, store: InteractionStore) -> None:
    """Put the weights of a folder into `model`, whose settings and data they must fit (InputError)."""
    state = _read(folder / WEIGHTS)
    origin = folder / ORIGIN
    if origin.is_file() and read_json(origin).get("data") != store.content_hash:
        raise InputError(f"{folder} was imported for other data: import the weights again with --data of this run.")
    own = unshared(model)
    wrong = [name for name in sorted(own.keys() | state.keys()) if _shape(own, name) != _shape(state, name)]
    if wrong:
        name = wrong[0]
        raise InputError(
            f"{folder / WEIGHTS}: '{name}' has shape {_shape(state, name)} there and {_shape(own, name)} in this "
            f"encoder ({len(wrong)} differ): take the settings of {folder / SETTINGS}, and the data it was trained on."
        )
    model.load_state_dict(state, strict=False)  # second names of tied weights are not in the file


def checkpoint_digest(folder: Path) -> str:
    """Of the weights, for the key of what begins with them; InputError where there are none."""
    if not (folder / WEIGHTS).is_file():
        raise InputError(
            f"pretrain.checkpoint: {folder} holds no {WEIGHTS}: make it with `uqabench import-checkpoint`."
        )
    return sha256_file(folder / WEIGHTS)


def unshared(model: UserEncoder) -> dict[str, Tensor]:
    """The state dict without second names for tied weights, which safetensors refuses."""
    seen: dict[int, str] = {}
    state = {}
    for name, tensor in model.state_dict().items():
        if tensor.numel() and tensor.data_ptr() in seen:
            continue
        seen[tensor.data_ptr()] = name
        state[name] = tensor.detach().cpu()
    return state


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read as weights: name a folder that holds encoder weights.") from error


def _shape(state: Mapping[str, Tensor], name: str) -> tuple[int, ...] | str:
    return tuple(state[name].shape) if name in state else "none"


def _refuse_foreign(out: Path) -> None:
    if out.is_file():
        raise InputError(f"{out} is a file: name a folder to write.")
    foreign = sorted({file.name for file in out.iterdir()} - {WEIGHTS, SETTINGS, ORIGIN}) if out.is_dir() else []
    if foreign:
        raise InputError(f"{out} holds '{foreign[0]}', which is no part of a checkpoint: name another folder.")
