"""The nodes of probes: of an encoder's states at every scale, of what an integration pools, and of its soft tokens."""

from __future__ import annotations

from dataclasses import replace

from uqabench.artifact import Artifact, Stage
from uqabench.integrations import find_integration
from uqabench.plan.methods import Method
from uqabench.plan.node import Node
from uqabench.plan.nodes import Made, Nodes
from uqabench.stages.probe import probe_states, probe_tokens
from uqabench.vocabulary import GIVEN_QUESTIONS

WINDOWED = "segments"
"""The integration whose pooled vectors stand for all states: means of windows that double in length."""


def probe_nodes(nodes: Nodes, method: Method) -> dict[str, Node]:
    """By place (`vocabulary.PROBED`), the probes of an embedding method; other methods have none, nor has
    any where questions came with the data, whose options are words alone. A method whose integration keeps all states
    has nothing pooled."""
    if not method.has_vectors or method.config.questions.evaluation.version == GIVEN_QUESTIONS:
        return {}
    windowed = replace(method, config=replace(method.config, align=replace(method.config.align, integration=WINDOWED)))
    found = {"states": _states_probe(nodes, windowed)}
    if find_integration(method.config.align.integration).pooling is not None:
        found["pooled"] = _states_probe(nodes, method)
    return found | {"soft tokens": _tokens_probe(nodes, method)}


def _seed(method: Method) -> int:
    return method.config.evaluate.seed + method.config.seed


def _states_probe(nodes: Nodes, method: Method) -> Node:
    config, states = method.config, nodes.states(method)
    inputs = {"data": nodes.data(config.data), "questions": nodes.method_questions(config), "states": states}

    def open_(made: Made) -> Stage:
        opened = nodes.tools.opened
        train, evaluation = (opened.questions(made["questions"], split) for split in ("train", config.questions.users))
        store, content = opened.store(made["data"]), made["questions"].content
        return probe_states(store, train, evaluation, made["states"], content, _seed(method))

    settings = {"of": "states", "seed": _seed(method)}
    return Node("probe", states.label, settings, inputs, open_, title=f"{method}, {states.label}", facts=_facts)


def _tokens_probe(nodes: Nodes, method: Method) -> Node:
    align = nodes.align(method)

    def open_(made: Made) -> Stage:
        context, prompted = nodes.context(method.config, made), nodes.prompted(method, made)
        return probe_tokens(context, prompted, made["align"], method.config.align, _seed(method))

    settings = {"of": "soft tokens", "seed": _seed(method)}
    inputs = {**align.inputs, "align": align}
    title = f"{method}, soft tokens"
    return Node("probe", f"{method.base}-soft-tokens", settings, inputs, open_, title=title, facts=_facts)


def _facts(artifact: Artifact) -> str:
    return f"{artifact.json('metrics.json')['overall']['accuracy']:.2f} %, {artifact.seconds:.0f} s"
