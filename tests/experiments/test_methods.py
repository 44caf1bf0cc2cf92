"""Method names and their variants."""

from __future__ import annotations

from dataclasses import replace

import pytest

from uqabench.errors import InputError
from uqabench.experiments.methods import VARIANTS, folder_name, parse_method
from uqabench.experiments.run import pretrain_name
from uqabench.settings import MethodConfig, patched, to_dict
from uqabench.settings.run import DEFAULT_METHODS, run_config

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


def test_methods_and_variants_of_ones_own():
    entry = MethodConfig("sasrec-3", "sasrec@cl", {"pretrain.encoder.overrides.layers": 3, "history_length": 65})
    config = patched(CONFIG, {"methods": [to_dict(entry)], "variants": {"slow": {"align.optim.lr": 0.0001}}})
    method = parse_method(config.methods[0], config)
    assert (method.name, method.base, method.kind) == ("sasrec-3", "sasrec", "encoder")
    assert method.config.pretrain.encoder.overrides == {"layers": 3, "max_len": 65}
    assert method.config.pretrain.objective == "cl" and method.config.pretrain.length == 65
    slow = parse_method("sasrec@slow", config)
    assert slow.config.align.optim.lr == 0.0001
    assert pretrain_name(method) == "sasrec-3" and pretrain_name(slow) == "sasrec@slow"
    # A built-in encoder's raised max_len is no argument of somebody's own class.
    own = parse_method("my.module:Class", patched(config, {"history_length": 65}))
    assert own.config.pretrain.encoder.overrides == {}


def test_folder_names_hold_no_separators():
    assert folder_name("my.pkg/mod:Class@cl") == "my.pkg-mod-Class@cl"
