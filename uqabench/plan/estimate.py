"""How long a node will take: as long as it took before, else by a model of its work.

The model counts the floating-point operations of the products that dominate a stage and divides by a rate. It knows the
settings only, not the data, so it is good to a factor of two or three; recorded seconds replace it after the first run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from uqabench.errors import InputError
from uqabench.files import read_json
from uqabench.plan.node import Node
from uqabench.vocabulary import QUESTION_USERS

ENCODER_RATE, LANGUAGE_MODEL_RATE = 1.2e11, 5e10
"""FLOP/s in float32 on two CPU cores, as the demo's stages reach them on AVX2 with all their overheads."""
GPU_RATE = 1e14
"""FLOP/s taken for a GPU: a tenth of what those of today reach in bfloat16 at best."""
LANGUAGE_MODEL_PARAMETERS = {"demo": 1.6e6, "train": 1.6e6, "smollm2": 1.1e8}
"""Parameters, embeddings aside, of the language models that are known by name; others are taken for LARGE."""
LARGE = 3e9
ENCODER_PARAMETERS = {"tiny": 2e4, "demo": 4e5, "small": 3e6, "published": 1.5e7, "paper": 2.5e7}
"""Typical parameters of an encoder without tables, by preset."""
CATALOGUE_WORK = 6 * 64 * 1e4
"""FLOPs a token of the loss over a catalogue of ten thousand items of 64 numbers."""
QUESTION_TOKENS = 30
TEXT_TOKENS_PER_ITEM = 6
SHARING = 4
"""Questions that share the tokens of one text history."""
FIXED = {"data": 20.0, "questions": 12.0, "states": 4.0, "llm": 2.0, "probe": 3.0, "efficiency": 15.0}
"""Seconds of stages that hardly depend on their settings."""
START = 1.0
"""Seconds of any stage for loading and writing."""


def seconds(node: Node, run: Path) -> tuple[float, bool]:
    """Estimated seconds of building `node` in the folder `run`, and whether they are recorded ones."""
    recorded = _recorded(node, run)
    return (recorded, True) if recorded is not None else (_modelled(node), False)


def _recorded(node: Node, run: Path) -> float | None:
    """What this node took, else the mean of what nodes of the same stage and label took here, each scaled by the work
    that the model sees in its settings: a twin that is not trained does not take as long as the one that is."""
    own = _read_seconds(node.path(run))
    if own is not None:
        return own
    work, prefix = _work(node, node.settings), node.path(run).name.rpartition("-")[0]
    siblings = [path for path in (run / node.stage).glob("*") if prefix and path.name.rpartition("-")[0] == prefix]
    times = [time for path in siblings if (time := _scaled(node, work, path)) is not None]
    return sum(times) / len(times) if times else None


def _scaled(node: Node, work: float | None, sibling: Path) -> float | None:
    """The seconds that `node` takes if it is as fast as `sibling`; None where the two cannot be compared."""
    time = _read_seconds(sibling)
    if work is None or time is None:
        return time
    try:
        done = _work(node, read_json(sibling / "manifest.json")["config"])
    except (InputError, KeyError, TypeError):
        return None
    return time * work / done if work and done else None


def _read_seconds(folder: Path) -> float | None:
    try:
        return float(read_json(folder / "seconds.json")["seconds"])
    except (InputError, KeyError, TypeError, ValueError):
        return None


def _modelled(node: Node) -> float:
    work = _work(node, node.settings)
    if work is None:
        return FIXED.get(node.stage, START)
    rate = ENCODER_RATE if node.stage == "pretrain" else LANGUAGE_MODEL_RATE
    return START + work / _rate(node.inputs.get("align", node), rate)


def _work(node: Node, settings: Any) -> float | None:
    """Floating-point operations of a node of the same inputs with `settings`, a node's or those in a manifest; None for
    stages that hardly depend on their settings."""
    if node.stage == "pretrain":
        return _pretraining(settings)
    if node.stage == "align":
        return _alignment(node, settings)
    if node.stage == "lm":
        optim = settings["train"]["optim"]
        tokens = (optim["max_steps"] or 10_000) * settings["train"]["token_budget"]
        return 6 * LANGUAGE_MODEL_PARAMETERS["train"] * tokens
    if node.stage == "evaluate" and "llm" in node.inputs:
        return _evaluation(node)
    return None


def _rate(node: Node, on_cpu: float) -> float:
    return on_cpu if node.settings.get("device", "cpu") == "cpu" else GPU_RATE


def _pretraining(settings: Any) -> float:
    if not settings["train"]:
        return 0.0
    encoder, optim = settings["encoder"], settings["optim"]
    parameters = ENCODER_PARAMETERS.get(encoder["preset"], LARGE)
    shape = encoder["overrides"]
    if {"layers", "width"} <= set(shape):
        parameters = 12.0 * shape["layers"] * shape["width"] ** 2
    tokens = settings["token_budget"] * (optim["max_steps"] or 200 * optim["epochs"])
    return tokens * (6 * parameters + CATALOGUE_WORK)


def _tokens_a_question(n_text: int) -> float:
    return QUESTION_TOKENS + n_text * TEXT_TOKENS_PER_ITEM / SHARING


def _parameters(node: Node) -> float:
    name = node.inputs["llm"].settings.get("name", "train")
    return LANGUAGE_MODEL_PARAMETERS.get(name, LARGE)


def _asked(node: Node, *splits: str) -> float:
    """How many questions are asked of the first of `splits` that there are questions about."""
    sets = node.inputs["questions"].settings
    config = next(sets[split] for split in splits if split in sets)
    return config["n_questions"] or sum((config["mix"] or config["default_mix"]).values())


def _alignment(node: Node, settings: Any) -> float:
    align = settings.get("align", settings)  # a manifest holds them beside the others
    if not align["train"]:
        return 0.0
    questions = _asked(node, "train") * align["optim"]["epochs"]
    if align["optim"]["max_steps"]:
        questions = min(questions, align["optim"]["max_steps"] * align["batch_questions"])
    return 6 * _parameters(node) * questions * _tokens_a_question(settings["n_text"])


def _evaluation(node: Node) -> float:
    n_text = node.inputs["align"].settings["n_text"] if "align" in node.inputs else 0
    return 2 * _parameters(node) * _asked(node, *QUESTION_USERS) * _tokens_a_question(n_text)
