"""A published state dict as a user encoder, and back. Names decide, never shapes: q, k and v are alike."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uqabench.data.catalogue import Catalogue
from uqabench.encoders.published import gru4rec, hstu, mamba2, sasrec, trmpp
from uqabench.encoders.published.entry import Entry, PublishedMap
from uqabench.encoders.published.tables import ITEM_TABLE, NAMES, TOKEN_TABLE, export_tower, import_tower
from uqabench.encoders.user_encoder import UserEncoder
from uqabench.errors import InputError
from uqabench.settings.encoders import UserEncoderConfig

MAPS = {module.MAP.encoder: module.MAP for module in (gru4rec, sasrec, mamba2, hstu, trmpp)}
"""By the name of our encoder; the published Mamba is Mamba-2."""
_SHOWN = 6


def read_published(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a file that `torch.save` wrote; nothing but tensors is ever unpickled (InputError)."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise InputError(f"{path} cannot be read as weights alone: name a state dict that torch.save wrote.") from error
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise InputError(f"{path} holds no plain state dict of tensors by name: save model.state_dict().")
    return state


def from_published(
    state: Mapping[str, Tensor], catalogue: Catalogue, overrides: Mapping[str, Any] | None = None
) -> tuple[UserEncoder, UserEncoderConfig]:
    """(user encoder with the published weights, the settings that build it).

    Names tell the encoder and shapes its sizes; what shapes cannot tell (heads) is that of the preset `published`, or
    in `overrides`. Raises InputError for a name that is missing or unknown, listing both sides, and for shapes that
    do not fit the settings or the catalogue.
    """
    state = dict(state)
    found = _map_of(state)
    n_layers = found.count_layers(set(state))
    entries = found.entries(n_layers)
    _check_names(state, entries, [name.replace("{i}", str(i)) for name in found.unused for i in range(n_layers)])
    config = UserEncoderConfig(
        encoder=found.encoder,
        preset="published",
        overrides={**found.sizes(state), "layers": n_layers, **(overrides or {})},
        item_dim=state[ITEM_TABLE].shape[1],
        side_dim=state[TOKEN_TABLE].shape[1],
    )
    model = UserEncoder.build(config, catalogue)
    ours = {f"encoder.{entry.ours}": entry.to_ours([state[name] for name in entry.theirs]) for entry in entries}
    ours |= import_tower(model, catalogue, state)
    own = model.state_dict()
    for name, tensor in ours.items():
        if own[name].shape != tensor.shape:
            raise InputError(
                f"The weights of '{name}' have shape {tuple(tensor.shape)}, and {found.encoder} so set has "
                f"{tuple(own[name].shape)}: give the settings that the weights were trained with."
            )
    model.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in ours.items()})
    return model, config


def to_published(model: UserEncoder, catalogue: Catalogue, encoder: str) -> dict[str, Tensor]:
    """The published state dict of a user encoder called `encoder`.

    What is unused at the published settings (HSTU's biases and mask) is left out. Raises InputError for an encoder that
    was not published, or one with a bias of its own.
    """
    if encoder not in MAPS:
        raise InputError(f"There are no published names for the encoder '{encoder}': only for {', '.join(MAPS)}.")
    found, own = MAPS[encoder], {name: tensor.detach().cpu() for name, tensor in model.encoder.state_dict().items()}
    n_layers = int(model.encoder.config.layers)
    entries = found.entries(n_layers)
    extra = sorted(set(own) - {entry.ours for entry in entries})
    if extra:
        raise InputError(f"The published {encoder} has nothing for '{extra[0]}': train it without (bias: none).")
    state = export_tower(model, catalogue)
    for entry in entries:
        state |= dict(zip(entry.theirs, entry.to_theirs(own[entry.ours]), strict=True))
    return state


def _map_of(state: Mapping[str, Tensor]) -> PublishedMap:
    found = [each for each in MAPS.values() if each.mark.replace("{i}", "0") in state]
    if len(found) != 1:
        marks = ", ".join(f"{each.encoder}: {each.mark.replace('{i}', '0')}" for each in MAPS.values())
        raise InputError(
            f"The weights are those of {len(found)} published encoders, and one is needed. Names here: "
            f"{_shown(state)}. Names that tell an encoder: {marks}."
        )
    return found[0]


def _check_names(state: Mapping[str, Tensor], entries: Iterable[Entry], unused: Iterable[str]) -> None:
    wanted = {*NAMES, *(name for entry in entries for name in entry.theirs)}
    missing, unknown = sorted(wanted - set(state)), sorted(set(state) - wanted - set(unused))
    if missing or unknown:
        raise InputError(
            f"The names of the weights do not fit. Missing: {_shown(missing)}. Unknown: {_shown(unknown)}. "
            "Give a state dict of the published pre-training."
        )


def _shown(names: Iterable[str]) -> str:
    names = sorted(names)
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(name[:80] for name in names[:_SHOWN]) or "none") + rest
