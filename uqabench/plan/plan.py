"""From settings to nodes: what a run has to build for each of its methods."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from uqabench.encoders import build_encoder
from uqabench.encoders.item_tower import INPUTS
from uqabench.errors import InputError
from uqabench.experiments.config import RunConfig
from uqabench.plan.methods import Method, parse_method, parse_methods
from uqabench.plan.node import Node
from uqabench.plan.nodes import Nodes, Tools
from uqabench.plan.opened import Opened

UNTIL = ("pretrain", "align", "evaluate")
"""The stages that a run can stop after."""


@dataclass(frozen=True)
class Planned:
    """A method and its nodes; those of stages that it does not have are None."""

    method: Method
    evaluate: Node
    align: Node | None = None
    pretrain: Node | None = None

    def target(self, until: str) -> Node | None:
        """The last node of this method in a run that stops after the stage `until`."""
        return getattr(self, until)


@dataclass(frozen=True)
class Plan:
    """All that a run builds. shared: data, questions and language model, which come first."""

    config: RunConfig
    data: Node
    questions: Node
    language_model: Node | None
    methods: list[Planned] = field(default_factory=list)

    def targets(self, until: str = "evaluate") -> list[Node]:
        """What has to be there in the end, in the order in which it is built."""
        shared = [self.data, self.questions]
        if until != "pretrain" and self.language_model is not None:
            shared.append(self.language_model)
        pretrained = [planned.pretrain for planned in self.methods]
        last = [planned.target(until) for planned in self.methods]
        return [node for node in (*shared, *pretrained, *last) if node is not None]


def plan(config: RunConfig, tools: Tools | None = None, *, methods: Iterable[Method] | None = None) -> Plan:
    """The nodes of a run. Nothing is read, written or built.

    methods: in place of those that `config` names. InputError for methods and variants that do not exist.
    """
    nodes = Nodes(tools or Tools(Opened()))
    chosen = parse_methods(config) if methods is None else list(methods)
    encoders = [method for method in chosen if method.kind == "encoder"] or [parse_method("trm++", config)]
    prompted = [method for method in chosen if method.kind != "baseline"]
    return Plan(
        config,
        nodes.data(config.data),
        nodes.method_questions(config),
        nodes.language_model(config) if prompted else None,
        [_planned(nodes, method, encoders) for method in chosen],
    )


def _planned(nodes: Nodes, method: Method, encoders: list[Method]) -> Planned:
    has_alignment = method.kind in ("encoder", "text", "no-history")
    return Planned(
        method,
        nodes.evaluate(method, encoders),
        nodes.align(method) if has_alignment else None,
        nodes.pretrain(method) if method.kind == "encoder" else None,
    )


def problem_of(method: Method) -> InputError | None:
    """Why a method cannot work whatever is built for it: an encoder that is not there or refuses its settings."""
    if method.kind != "encoder":
        return None
    encoder = method.config.pretrain.encoder
    try:
        build_encoder(encoder.encoder, encoder.preset, **encoder.overrides)
        if encoder.inputs not in INPUTS:
            raise InputError(f"The encoder's inputs are '{encoder.inputs}': choose one of {', '.join(INPUTS)}.")
    except InputError as error:
        return error
    return None
