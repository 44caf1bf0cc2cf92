"""Method names and their variants."""

from __future__ import annotations

from dataclasses import replace

import pytest

from uqabench.errors import InputError
from uqabench.experiments.config import DEFAULT_METHODS, run_config
from uqabench.experiments.methods import VARIANTS, folder_name, parse_method
from uqabench.experiments.run import pretrain_name
from uqabench.integrations import integration_names

CONFIG = run_config("tiny")


@pytest.mark.parametrize(
    ("name", "kind", "n_text"),
    [
        ("trm++", "encoder", 0),
        ("mamba2", "encoder", 0),
        ("my.module:Class", "encoder", 0),
        ("text20", "text", 20),
        ("text7", "text", 7),
        ("no-history", "no-history", 0),
        ("shuffled", "shuffled", 0),
        ("oracle", "baseline", 0),
        ("seen-option", "baseline", 0),
    ],
)
def test_kinds(name, kind, n_text):
    method = parse_method(name, CONFIG)
    assert (method.name, method.kind, method.n_text) == (name, kind, n_text)


def test_all_fourteen_are_known():
    assert len({parse_method(name, CONFIG).name for name in DEFAULT_METHODS}) == 14


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
    found = {parse_method(f"trm++@{variant}", CONFIG).config.align.integration for variant in VARIANTS}
    assert found == set(integration_names())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hstu@lora", f"Method 'hstu@lora': there is no variant 'lora': choose among {', '.join(VARIANTS)}"),
        ("hstu@cl+", "there is no variant ''"),
        (
            "hsut",
            r"There is no method 'hsut' \(did you mean 'hstu'\?\): choose among gru4rec, hstu.*package.module:Class",
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
    names = ["trm++", "trm++@q-former", "trm++@cl", "trm++@q-former+cl", "trm++@adapter+cl+without-text"]
    folders = [pretrain_name(parse_method(name, CONFIG)) for name in names]
    assert folders == ["trm++", "trm++", "trm++@cl", "trm++@cl", "trm++@cl+without-text"]


def test_folder_names_hold_no_separators():
    assert folder_name("my.pkg/mod:Class@cl") == "my.pkg-mod-Class@cl"
