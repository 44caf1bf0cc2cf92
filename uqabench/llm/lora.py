"""Low-rank adaptation of a language model (LoRA, arXiv:2106.09685) by peft: added in place, kept as safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from uqabench.errors import InputError, MissingExtra
from uqabench.files import read_json, write_json
from uqabench.llm.language_model import LanguageModel

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # peft's own names: its PeftModel reads the folder


def add_lora(lm: LanguageModel, rank: int, alpha: float) -> nn.ParameterList:
    """Give every linear layer of the model, but its head, two matrices (rank, in) and (out, rank) whose product times
    alpha / rank is added to its weight, and freeze the rest; returns the matrices, in float32.

    The second matrices are zero, so the model computes what it did. MissingExtra without peft.
    """
    peft = _import_peft()
    lm.model.requires_grad_(False)
    _inject(lm, peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", task_type="CAUSAL_LM"))
    return _matrices(lm)


def save_lora(lm: LanguageModel, folder: Path) -> None:
    """Write the added matrices and their configuration; equal ones give equal bytes."""
    peft = _import_peft()
    weights = peft.get_peft_model_state_dict(lm.model)
    folder.mkdir(parents=True)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, folder / WEIGHTS)
    config = lm.model.peft_config["default"].to_dict()
    config["target_modules"] = sorted(config["target_modules"])
    write_json(folder / CONFIG, json.loads(json.dumps(config, default=str)))


def load_lora(lm: LanguageModel, folder: Path) -> None:
    """Add what `save_lora` wrote to the model that it was trained on; InputError where it does not fit."""
    peft = _import_peft()
    saved: dict[str, Any] = read_json(folder / CONFIG)
    try:
        config = peft.LoraConfig(
            r=saved["r"], lora_alpha=saved["lora_alpha"], target_modules=saved["target_modules"], task_type="CAUSAL_LM"
        )
        lm.model.requires_grad_(False)
        _inject(lm, config)
        weights = load_file(folder / WEIGHTS)
        expected = peft.get_peft_model_state_dict(lm.model)
        if lost := sorted(expected.keys() ^ weights.keys()):
            raise ValueError(f"'{lost[0]}' is in one of them only")
        peft.set_peft_model_state_dict(lm.model, weights)
    except Exception as error:  # peft, safetensors and torch raise several types for files that are damaged
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{folder} does not fit the language model ({reason}): align again.") from error


def _import_peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise MissingExtra("peft", "lora", "align.strategy=lora") from error
    return peft


def _inject(lm: LanguageModel, config: Any) -> None:
    _import_peft().inject_adapter_in_model(config, lm.model)
    for matrix in _matrices(lm):
        matrix.data = matrix.data.float()


def _matrices(lm: LanguageModel) -> nn.ParameterList:
    found = [parameter for name, parameter in lm.model.named_parameters() if "lora_" in name]
    return nn.ParameterList(found)
