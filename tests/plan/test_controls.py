"""Controls differ from their methods in what they take away, and in nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from uqabench.errors import InputError
from uqabench.integrations import find_integration, integration_names
from uqabench.plan.methods import parse_method, rated
from uqabench.plan.node import in_order
from uqabench.plan.nodes import Nodes, Tools
from uqabench.plan.opened import Opened
from uqabench.plan.plan import plan, problem_of
from uqabench.settings import run_config
from uqabench.vocabulary import group

CONFIG = run_config("tiny", overrides=("questions.users=validation",))
ENCODERS = ("gru4rec", "sasrec", "mamba4rec", "hstu", "trm++", "bag-of-items")
INTEGRATIONS = ((), ("segments",), ("q-former", "adapter"))


def named(base: str, *variants: str) -> str:
    return f"{base}@{'+'.join(variants)}" if variants else base


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting by its dotted name."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{name}.{key}" if name else key)
    else:
        yield name, value


def differences(a: str, b: str) -> dict[str, tuple[Any, Any]]:
    """The settings of all nodes behind two methods' scores that are not equal, by stage and name; the name of the
    method, which is what its prediction file calls it, aside."""

    def settings(name: str) -> dict[str, Any]:
        node = Nodes(Tools(Opened())).evaluate(parse_method(name, CONFIG), [])
        found = {f"{n.stage}: {key}": value for n in in_order([node]) for key, value in leaves(n.settings)}
        assert found.pop("evaluate: method") == name
        return found

    first, second = settings(a), settings(b)
    return {
        key: (first.get(key), second.get(key))
        for key in first.keys() | second.keys()
        if first.get(key) != second.get(key)
    }


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("variants", INTEGRATIONS)
def test_an_untrained_twin_differs_in_training_alone(encoder, variants):
    assert differences(named(encoder, *variants), named(encoder, *variants, "untrained")) == {
        "pretrain: train": (True, False)
    }


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_shuffled_method_differs_in_whose_vector_is_shown_alone(encoder):
    assert differences(encoder, f"{encoder}@shuffled") == {"evaluate: shuffle": (False, True)}
    nodes = Nodes(Tools(Opened()))
    methods = [parse_method(name, CONFIG) for name in (encoder, f"{encoder}@shuffled")]
    assert nodes.align(methods[0]).key == nodes.align(methods[1]).key


@pytest.mark.parametrize("variants", INTEGRATIONS)
def test_the_bag_of_items_differs_in_the_encoder_alone(variants):
    found = differences(named("gru4rec", *variants), named("bag-of-items", *variants))
    assert found == {"pretrain: encoder.encoder": ("gru4rec", "bag-of-items")}


@pytest.mark.parametrize("variant", ["mean-pooling", "last", "mean-last", "segments"])
def test_the_history_vector_needs_no_encoder_and_is_aligned_like_one(variant):
    nodes = Nodes(Tools(Opened()))
    encoder, control = (parse_method(f"{base}@{variant}", CONFIG) for base in ("gru4rec", "history-vector"))
    assert "pretrain" not in {node.stage for node in in_order([nodes.evaluate(control, [])])}
    assert nodes.align(control).settings == nodes.align(encoder).settings
    states = nodes.states(control)
    assert set(states.inputs) == {"data", "questions", "llm"}
    assert states.settings["kept"] == nodes.states(encoder).settings["kept"]
    assert plan(CONFIG, methods=[control]).methods[0].pretrain is None


def test_the_history_vector_works_with_what_pools_windows_and_says_so_elsewhere():
    for name in integration_names():
        method = parse_method("history-vector", run_config("tiny", overrides=(f"align.integration={name}",)))
        problem = problem_of(method)
        pooling = find_integration(name).pooling
        assert (problem is None) == (pooling is not None and pooling.windows is not None and not pooling.scores)
        assert problem is None or f"the integration {name} reads more than windows" in str(problem)


def test_controls_stand_apart_and_are_never_the_best():
    names = ["sasrec@untrained", "sasrec@segments+shuffled", "bag-of-items", "bag-of-items@untrained", "history-vector"]
    assert {group(name) for name in names} == {"Controls"} and group("sasrec@segments") == "Embedding-based"
    methods = [parse_method(name, CONFIG) for name in [*names, "hstu", "text20"]]
    assert [method.name for method in rated(methods)] == ["hstu"]
    assert [method.name for method in rated(methods[:1])] == ["sasrec@untrained"]


def test_plain_shuffled_belongs_to_an_encoder_and_no_control():
    methods = [parse_method(name, CONFIG) for name in ("bag-of-items", "hstu@untrained", "hstu", "shuffled")]
    shuffled = plan(CONFIG, methods=methods).methods[-1].evaluate
    owners = [node.settings["method"] for role, node in shuffled.inputs.items() if role.startswith("evaluate")]
    assert owners == ["hstu"] and shuffled.settings["shuffle"]


def test_what_shows_no_vector_cannot_be_shuffled():
    assert "has nothing to shuffle" in str(problem_of(parse_method("text20@shuffled", CONFIG)))
    with pytest.raises(InputError, match="did you mean 'bag-of-items'"):
        parse_method("bag-of-item", CONFIG)
