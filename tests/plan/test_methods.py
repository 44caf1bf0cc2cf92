"""Method names and their variants."""

from __future__ import annotations

from dataclasses import replace

import pytest

from uqabench.errors import InputError
from uqabench.integrations import integration_names
from uqabench.plan.methods import packaged_variants, parse_method, parse_methods
from uqabench.plan.nodes import Nodes, Tools
from uqabench.plan.opened import Opened
from uqabench.settings.run import DEFAULT_METHODS, MethodConfig, run_config

CONFIG = run_config("tiny")


@pytest.mark.parametrize(
    ("name", "kind", "n_text"),
    [
        ("trm++", "encoder", 0),
        ("mamba2", "encoder", 0),
        ("bag-of-items", "encoder", 0),
        ("history-vector", "history-vector", 0),
        ("my.module:Class", "encoder", 0),
        ("trm++@text5", "encoder", 5),
        ("text20", "text", 20),
        ("text7", "text", 7),
        ("no-history", "no-history", 0),
        ("shuffled", "shuffled", 0),
        ("oracle", "baseline", 0),
        ("seen-option", "baseline", 0),
        ("history-model", "baseline", 0),
    ],
)
def test_kinds(name, kind, n_text):
    method = parse_method(name, CONFIG)
    assert (method.name, method.kind, method.n_text) == (name, kind, n_text)


def test_all_seventeen_are_known():
    assert len({parse_method(name, CONFIG).name for name in DEFAULT_METHODS}) == 17


def test_a_method_without_variant_changes_its_encoder_only():
    method = parse_method("sasrec", CONFIG)
    encoder = replace(CONFIG.pretrain.encoder, encoder="sasrec")
    assert method.config == replace(CONFIG, pretrain=replace(CONFIG.pretrain, encoder=encoder))
    assert parse_method("text20", CONFIG).config == CONFIG


def test_variants_change_what_they_say():
    method = parse_method("hstu@cl+without-text", CONFIG)
    pretrain = method.config.pretrain
    assert (pretrain.objective, pretrain.encoder.inputs, pretrain.encoder.encoder) == ("cl", "without-text", "hstu")
    assert method.config.align == CONFIG.align
    method = parse_method("trm++@q-former+adapter", CONFIG)
    assert (method.config.align.integration, method.config.align.strategy) == ("q-former", "adapter")
    assert method.config.pretrain.objective == CONFIG.pretrain.objective
    assert not parse_method("text20@zero-shot", CONFIG).config.align.train
    assert parse_method("text20", CONFIG).config.align.train


def test_every_built_in_integration_has_a_variant():
    found = {parse_method(f"trm++@{variant}", CONFIG).config.align.integration for variant in packaged_variants()}
    assert found == set(integration_names())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "hstu@prefix",
            f"Method 'hstu@prefix': there is no variant 'prefix': choose among {', '.join(packaged_variants())}",
        ),
        ("hstu@cl+", "there is no variant ''"),
        (
            "hsut",
            r"There is no method 'hsut' \(did you mean 'hstu'\?\): choose among bag-of-items.*package.module:Class",
        ),
        ("text", "There is no method 'text'"),
        ("text0", "There is no method 'text0'"),
        ("", "There is no method ''"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(InputError, match=message.replace("+:", r"\+:")):
        parse_method(name, CONFIG)


def test_variants_of_alignment_share_an_encoder():
    nodes = Nodes(Tools(Opened()))
    names = ["trm++", "trm++@q-former", "trm++@cl", "trm++@q-former+cl", "trm++@adapter+cl+without-text"]
    keys = [nodes.pretrain(parse_method(name, CONFIG)).key for name in names]
    assert keys[0] == keys[1] and keys[2] == keys[3] and len(set(keys)) == 3


def test_a_method_of_ones_own_is_a_base_and_a_patch():
    entry = MethodConfig(
        "hstu-8", "hstu@cl", {"pretrain.encoder.overrides.layers": 8, "align": {"strategy": "adapter"}}
    )
    method = parse_method(entry, CONFIG)
    assert (method.name, method.base, method.kind) == ("hstu-8", "hstu", "encoder")
    assert method.config.pretrain.encoder.overrides == {"layers": 8}
    assert (method.config.pretrain.objective, method.config.align.strategy) == ("cl", "adapter")


def test_a_patch_changes_nothing_that_methods_share():
    with pytest.raises(InputError, match="Method 'x' sets 'questions': a method can change pretrain, align"):
        parse_method(MethodConfig("x", "hstu", {"questions.train.seed": 8}), CONFIG)


def test_a_user_adds_variants():
    config = run_config("tiny", overrides=("variants={long: {pretrain.length: 48}, cl: {pretrain.temperature: 0.5}}",))
    assert parse_method("hstu@long", config).config.pretrain.length == 48
    replaced = parse_method("hstu@cl", config).config.pretrain
    assert (replaced.temperature, replaced.objective) == (0.5, "sl")


def test_two_methods_of_one_name_are_refused():
    with pytest.raises(InputError, match="two methods called 'hstu'"):
        replace(CONFIG, methods=("hstu", MethodConfig("hstu", "sasrec")))
    assert len(parse_methods(replace(CONFIG, methods=("hstu", "hstu")))) == 1


def test_folder_names_hold_no_separators(tmp_path):
    node = Nodes(Tools(Opened())).pretrain(parse_method("my.pkg:Class@cl", CONFIG))
    assert node.path(tmp_path) == tmp_path / "pretrain" / f"my.pkg-Class-{node.key[:8]}"
