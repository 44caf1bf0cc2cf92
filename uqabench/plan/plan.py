"""From settings to nodes: what a run has to build for each of its methods."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from uqabench.encoders import build_encoder
from uqabench.encoders.item_tower import INPUTS
from uqabench.encoders.registry import REGISTRY
from uqabench.errors import InputError
from uqabench.integrations import check_integration, find_integration
from uqabench.plan.methods import Method, parse_method, parse_methods, rated
from uqabench.plan.node import Node
from uqabench.plan.nodes import Nodes, Tools
from uqabench.plan.opened import Opened
from uqabench.plan.probes import probe_nodes
from uqabench.questions.baselines import check_answerable
from uqabench.settings import RunConfig
from uqabench.stages.align import check_training
from uqabench.stages.history_states import check_windows
from uqabench.vocabulary import GIVEN_QUESTIONS


@dataclass(frozen=True)
class Planned:
    """A method and its nodes; those of stages that it does not have are None."""

    method: Method
    evaluate: Node
    align: Node | None = None
    pretrain: Node | None = None
    probes: dict[str, Node] = field(default_factory=dict)

    def target(self, until: str) -> Node | None:
        """The last node of this method in a run that stops after the stage `until`."""
        return getattr(self, until)


@dataclass(frozen=True)
class Plan:
    """All that a run builds: what its methods share, and each method's nodes. checks: of the longest prompts."""

    config: RunConfig
    data: Node
    questions: Node
    language_model: Node | None
    checks: list[Node] = field(default_factory=list)
    methods: list[Planned] = field(default_factory=list)

    def essential(self, until: str = "evaluate") -> list[Node]:
        """What every method builds on, and so comes first: without it there is no run."""
        shared = [self.data, self.questions]
        if until != "pretrain" and self.language_model is not None:
            shared += [self.language_model, *self.checks]
        return shared

    def targets(self, until: str = "evaluate") -> list[Node]:
        """The last node of every method in a run that stops after the stage `until`."""
        last = [planned.target(until) for planned in self.methods]
        return [node for node in last if node is not None]

    def probes(self) -> list[Node]:
        """What is read of the embedding methods beside their answers."""
        return [node for planned in self.methods for node in planned.probes.values()]

    def pretrained(self) -> list[Node]:
        """The encoders: built one after the other, before anything is aligned."""
        return [planned.pretrain for planned in self.methods if planned.pretrain is not None]


def plan(config: RunConfig, tools: Tools | None = None, *, methods: Iterable[Method] | None = None) -> Plan:
    """The nodes of a run. Nothing is read, written or built.

    methods: in place of those that `config` names. InputError for methods and variants that do not exist.
    """
    nodes = Nodes(tools or Tools(Opened()))
    chosen = parse_methods(config) if methods is None else list(methods)
    encoders = rated(chosen) or [parse_method("trm++", config)]
    prompted = [method for method in chosen if method.kind != "baseline"]
    return Plan(
        config,
        nodes.data(config.data),
        nodes.method_questions(config),
        nodes.language_model(config) if prompted else None,
        nodes.prompt_checks(prompted + (encoders if any(method.kind == "shuffled" for method in chosen) else [])),
        [_planned(nodes, method, encoders, probe=config.probe) for method in chosen],
    )


def _planned(nodes: Nodes, method: Method, encoders: list[Method], *, probe: bool) -> Planned:
    return Planned(
        method,
        nodes.evaluate(method, encoders),
        nodes.align(method) if method.is_prompted else None,
        nodes.pretrain(method) if method.kind == "encoder" else None,
        probe_nodes(nodes, method) if probe else {},
    )


def problem_of(method: Method) -> InputError | None:
    """Why a method cannot work whatever is built for it: its encoder or its integration refuses its settings, or it
    cannot answer the questions that are asked.

    InputError for one that is not there: that is a name to be corrected, and no result of the method.
    """
    try:
        if method.is_prompted:
            align, dtype = method.config.align, method.config.llm.dtype
            check_training(str(method), align, dtype, has_states=method.has_vectors)
        if method.config.evaluate.shuffle and method.kind in ("text", "no-history"):
            raise InputError(f"{method} shows no soft prompt, so that evaluate.shuffle has nothing to shuffle.")
        if method.kind == "baseline" and method.config.questions.evaluation.version == GIVEN_QUESTIONS:
            check_answerable(method.base)
    except InputError as error:
        return error
    if method.kind == "history-vector":
        return _problem_of_windows(method)
    return _problem_of_encoder(method) if method.kind == "encoder" else None


def _problem_of_windows(method: Method) -> InputError | None:
    name = method.config.align.integration
    integration = find_integration(name)
    try:
        check_windows(name, integration)
    except InputError as error:
        return error
    return None


def _problem_of_encoder(method: Method) -> InputError | None:
    encoder = method.config.pretrain.encoder
    REGISTRY.find(encoder.encoder)
    find_integration(method.config.align.integration)
    try:
        built = build_encoder(encoder.encoder, encoder.preset, **encoder.overrides)
        check_integration(method.config.align.integration, built.width, method.config.align)
        if encoder.inputs not in INPUTS:
            raise InputError(f"The encoder's inputs are '{encoder.inputs}': choose one of {', '.join(INPUTS)}.")
    except InputError as error:
        return error
    return None
