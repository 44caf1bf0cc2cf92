"""Typed settings from YAML, mappings and overrides; what is wrong is said with the field's full name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from uqabench.config import from_dict, load_yaml, merge, parse_override, to_dict
from uqabench.errors import InputError
from uqabench.experiments.config import PRESETS, RunConfig, preset_mapping, run_config


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    names: tuple[str, ...] = ("a",)
    flag: bool = False
    sizes: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Outer:
    n: int = 1
    title: str | None = None
    path: Path = Path(".")
    inner: Inner = field(default_factory=Inner)
    weights: dict[str, float] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    free: Mapping[str, Any] = field(default_factory=dict)


def test_values_are_built_and_plain_again():
    values = {
        "n": 3,
        "title": None,
        "path": "x/y",
        "inner": {"rate": "1e-4", "names": ["p", "q"], "sizes": [1, 2]},
        "weights": {"df": 2},
        "ids": ["a"],
        "free": {"heads": 3},
    }
    config = from_dict(Outer, values)
    assert config == Outer(
        3, None, Path("x/y"), Inner(1e-4, ("p", "q"), False, (1, 2)), {"df": 2.0}, ["a"], {"heads": 3}
    )
    assert from_dict(Outer, to_dict(config)) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nn": 1}, r"Unknown setting 'nn' \(did you mean 'n'\?\): the settings here are"),
        ({"inner": {"flg": True}}, r"Unknown setting 'inner.flg' \(did you mean 'flag'\?\)"),
        ({"n": "three"}, "n must be of type int, not 'three'"),
        ({"n": True}, "n must be of type int, not True"),
        ({"n": 1.0}, "n must be of type int, not 1.0"),
        ({"n": None}, "n must be of type int, not None"),
        ({"inner": {"rate": "fast"}}, "inner.rate must be of type float, not 'fast'"),
        ({"inner": {"rate": True}}, "inner.rate must be of type float, not True"),
        ({"inner": {"flag": 1}}, "inner.flag must be of type bool, not 1"),
        ({"inner": 5}, "inner must be a mapping of settings, not 5"),
        ({"inner": {"names": "pq"}}, "inner.names must be a list, not 'pq'"),
        ({"inner": {"names": ["p", 3]}}, r"inner.names\[1\] must be of type str, not 3"),
        ({"inner": {"sizes": ["a"]}}, r"inner.sizes\[0\] must be of type int, not 'a'"),
        ({"weights": [1]}, r"weights must be a mapping, not \[1\]"),
        ({"weights": {"df": "much"}}, "weights.df must be of type float, not 'much'"),
        ({"ids": [["a"]]}, r"ids\[0\] must be of type str"),
        ({"free": 3}, "free must be a mapping, not 3"),
        ({"title": 3}, "title must be of type str, not 3"),
        ([1], r"The config must be a mapping of settings, not \[1\]"),
    ],
)
def test_what_is_wrong_is_named(values, message):
    with pytest.raises(InputError, match=message):
        from_dict(Outer, values)


def test_overrides_are_yaml_under_a_dotted_path():
    assert parse_override("a.b=3") == {"a": {"b": 3}}
    assert parse_override("a=[x, 2]") == {"a": ["x", 2]}
    assert parse_override("a.b=x=y") == {"a": {"b": "x=y"}}
    assert parse_override("a=") == {"a": None}
    for wrong in ("a", "=3", ""):
        with pytest.raises(InputError, match="write it as section.field=value"):
            parse_override(wrong)
    with pytest.raises(InputError, match=r"--set a=\[1: '\[1' is not a YAML value"):
        parse_override("a=[1")


keys = st.sampled_from("abc")
trees = st.recursive(st.integers(), lambda inner: st.dictionaries(keys, inner, max_size=3), max_leaves=8)


@given(st.dictionaries(keys, trees), st.dictionaries(keys, trees))
def test_merge_lays_one_mapping_over_the_other(base, change):
    before = repr(base), repr(change)
    merged = merge(base, change)
    assert (repr(base), repr(change)) == before
    assert set(merged) == set(base) | set(change)
    for key, value in merged.items():
        if key not in change:
            assert value == base[key]
        elif isinstance(change[key], dict) and isinstance(base.get(key), dict):
            assert value == merge(base[key], change[key])
        else:
            assert value == change[key]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\nb: 2", r"c\.yaml is not readable YAML: .*line 2"),
        ("a: 1\n  b: 2", r"c\.yaml is not readable YAML: .*line 2"),
        ("- 1", r"c\.yaml holds no mapping of settings"),
        ("", r"c\.yaml holds no mapping"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        load_yaml(tmp_path / "c.yaml")
    assert "\n" not in str(error.value)


def test_a_file_that_is_missing_or_not_text(tmp_path):
    with pytest.raises(InputError, match="The config file .*c.yaml does not exist"):
        load_yaml(tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="c.yaml is not readable YAML"):
        load_yaml(tmp_path / "c.yaml")
    with pytest.raises(InputError, match="is not readable YAML"):
        load_yaml(tmp_path)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_complete_and_survive_their_own_dump(name):
    config = run_config(name)
    assert config.questions.train.seed != config.questions.evaluation.seed
    assert config.questions.train.history == config.questions.evaluation.history <= config.data.prepare.max_sequence
    assert from_dict(RunConfig, yaml.safe_load(yaml.safe_dump(to_dict(config)))) == config
    for questions in (config.questions.train, config.questions.evaluation, config.llm.questions):
        questions.check()


@pytest.mark.parametrize("name", ["published", "paper"])
def test_the_papers_settings(name):
    """Section 4.1.3: N = 512, learning rate 1e-4, batches of 256, 10 epochs and 3 of alignment, clipping at 1.5."""
    config = run_config(name)
    assert config.data.prepare.max_sequence == config.pretrain.length == config.questions.evaluation.history == 512
    assert config.pretrain.optim.lr == config.align.optim.lr == 1e-4
    assert config.pretrain.batch_size == config.align.batch_questions == 256
    assert (config.pretrain.optim.epochs, config.align.optim.epochs) == (10, 3)
    assert config.align.optim.clip == 1.5 and config.align.strategy == "adapter"
    assert config.llm.name == "Qwen/Qwen2.5-3B-Instruct" and config.prompt.language == "zh"
    assert config.questions.evaluation.n_questions == 7192


def test_preset_file_and_overrides_are_laid_over_each_other(tmp_path):
    (tmp_path / "c.yaml").write_text("pretrain:\n  optim: {lr: 0.5}\n  length: 16\nseed: 4\n")
    config = run_config("tiny", tmp_path / "c.yaml", ("pretrain.length=8", "methods=[oracle]"))
    assert config.pretrain.optim.lr == 0.5 and config.pretrain.length == 8 and config.seed == 4
    assert config.methods == ("oracle",)
    assert config.pretrain.optim.epochs == preset_mapping("tiny")["pretrain"]["optim"]["epochs"]


def test_an_unknown_preset_is_named():
    with pytest.raises(InputError, match="There is no preset 'huge': choose one of tiny, demo"):
        run_config("huge")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=-1", "seed is -1"),
        ("pretrain.seed=-1", "pretrain.seed is -1"),
        ("align.seed=-1", "align.seed is -1"),
        ("evaluate.seed=-1", "evaluate.seed is -1"),
        ("llm.train.seed=-1", "llm.train.seed is -1"),
        ("pretrain.objective=bpr", "pretrain.objective is 'bpr': choose 'sl' or 'cl'"),
        ("pretrain.windows=all", "pretrain.windows is 'all'"),
        ("pretrain.length=1", "pretrain.length is 1: it must be at least 2"),
        ("pretrain.token_budget=8", r"pretrain.token_budget \(8\) is below length"),
        ("pretrain.temperature=0", "pretrain.temperature is 0.0: it must be above 0"),
        ("pretrain.optim.lr=0", "lr is 0.0: it must be above 0"),
        ("pretrain.optim.epochs=0", "epochs is 0: it must be at least 1"),
        ("pretrain.optim.betas=[0.9]", r"betas is \(0.9,\)"),
        ("pretrain.optim.betas=[0.9, 1.5]", r"betas is \(0.9, 1.5\)"),
        ("pretrain.optim.betas=[a, b]", r"pretrain.optim.betas\[0\] must be of type float"),
        ("pretrain.encoder.preset=vast", "The preset 'vast' is unknown"),
        ("align.strategy=lora", "align.strategy is 'lora': choose one of adapter, full"),
        ("align.n_queries=0", "align.n_queries is 0"),
        ("align.batch_questions=0", "align.batch_questions is 0"),
        ("evaluate.token_budget=0", "evaluate.token_budget is 0"),
        ("evaluate.max_new_tokens=0", "evaluate.max_new_tokens is 0"),
        ("llm.dtype=float33", "llm.dtype is 'float33': choose one of float32, bfloat16, float16"),
        ("device=abacus", "device is 'abacus': choose cpu or cuda"),
        ("states_token_budget=0", "states_token_budget is 0"),
        ("questions.train.mix.df=often", "questions.train.mix.df must be of type float, not 'often'"),
        ("prompt.soft_prompt_place=inside", "soft_prompt_place is 'inside'"),
        ("prompt.language=3", "prompt.language must be of type str, not 3"),
    ],
)
def test_settings_that_make_no_sense(override, message):
    with pytest.raises(InputError, match=message):
        run_config("tiny", overrides=(override,))
