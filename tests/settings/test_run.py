"""Settings of a run: presets, what follows `history_length`, methods of one's own, and every value that cannot be."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from typing import Any

import pytest
import yaml

from uqabench.data.sources.planted import SyntheticConfig
from uqabench.errors import InputError
from uqabench.settings import ENCODER_PRESETS as ENCODERS
from uqabench.settings.encoders import UserEncoderConfig, encoder_config
from uqabench.settings.reader import from_dict, key_dict, merge, nested, to_dict
from uqabench.settings.run import PRESETS, MethodConfig, RunConfig, patched, preset_mapping, run_config
from uqabench.settings.schema import Leaf, is_section, leaves
from uqabench.settings.stages import PretrainConfig


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_complete_and_survive_their_own_dump(name):
    config = run_config(name)
    assert config.questions.train.seed != config.questions.evaluation.seed
    assert config.questions.train.history == config.questions.evaluation.history <= config.data.prepare.max_sequence
    dumped = to_dict(config)
    assert from_dict(RunConfig, yaml.safe_load(yaml.safe_dump(dumped))) == config
    assert to_dict(from_dict(RunConfig, dumped)) == dumped and repr(to_dict(patched(config, {}))) == repr(dumped)


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


def test_paper_is_published_and_a_patch():
    change = {"pretrain": {"encoder": {"preset": "paper"}}}
    assert preset_mapping("paper") == merge(preset_mapping("published"), change)


def test_preset_file_and_overrides_are_laid_over_each_other(tmp_path):
    (tmp_path / "c.yaml").write_text("pretrain:\n  optim: {lr: 0.5}\n  length: 16\nseed: 4\n")
    config = run_config("tiny", tmp_path / "c.yaml", ("pretrain.length=8", "methods=[oracle]"))
    assert config.pretrain.optim.lr == 0.5 and config.pretrain.length == 8 and config.seed == 4
    assert config.methods == ("oracle",)
    assert config.pretrain.optim.epochs == preset_mapping("tiny")["pretrain"]["optim"]["epochs"]


def test_a_file_can_name_the_preset_that_it_is_based_on(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("base: paper\nseed: 3\n")
    assert run_config("tiny", path) == dataclasses.replace(run_config("paper"), seed=3)
    for text, message in (("base: huge", "no preset 'huge'"), ("base: [tiny]", "base must be the name of a preset")):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            run_config("tiny", path)
    with pytest.raises(InputError, match="Unknown setting 'base'"):
        run_config("tiny", overrides=("base=demo",))


def test_an_unknown_preset_is_named():
    with pytest.raises(InputError, match="There is no preset 'huge': choose one of tiny, demo"):
        run_config("huge")


# What follows the history's length


def lengths(config: RunConfig) -> tuple[int, ...]:
    questions = config.questions
    return (
        config.pretrain.length,
        questions.train.history,
        questions.evaluation.history,
        config.llm.questions.history,
    )


def test_question_sets_follow_the_version_of_the_questions():
    def versions(config):
        return [part.version for part in (config.questions.train, config.questions.evaluation, config.llm.questions)]

    assert versions(run_config("tiny")) == ["v1"] * 3
    assert versions(run_config("tiny", overrides=("questions.version=v2",))) == ["v2"] * 3
    mixed = run_config("tiny", overrides=("questions.version=v2", "questions.train.version=v1"))
    assert versions(mixed) == ["v1", "v2", "v2"]
    assert versions(patched(mixed, {"questions.version": "v1"})) == ["v1"] * 3
    with pytest.raises(InputError, match="version is 'v3': choose one of v1, v2"):
        run_config("tiny", overrides=("questions.version=v3",))


def test_windows_and_histories_follow_the_history_length():
    assert lengths(run_config("tiny")) == (32,) * 4
    assert lengths(run_config("tiny", overrides=("history_length=48",))) == (48,) * 4
    assert lengths(run_config("tiny", overrides=("history_length=48", "pretrain.length=16"))) == (16, 48, 48, 48)
    assert lengths(run_config("tiny", overrides=("history_length=null",))) == (512,) * 4
    overrides = ("questions.train={history: 8, n_questions: 9, recent_window: 5}",)
    assert lengths(run_config("tiny", overrides=overrides)) == (32, 8, 32, 32)
    assert lengths(RunConfig(history_length=40)) == (40,) * 4
    assert lengths(RunConfig(history_length=40, pretrain=PretrainConfig(length=9)))[0] == 9


def test_a_built_in_encoder_is_as_long_as_what_it_is_shown():
    for name in PRESETS:
        assert run_config(name).pretrain.encoder.overrides == {}  # nothing is raised in a preset
    assert run_config("tiny", overrides=("history_length=64",)).pretrain.encoder.overrides == {}
    raised = run_config("tiny", overrides=("history_length=65",))
    assert raised.pretrain.encoder.overrides == {"max_len": 65} and raised.longest_history == 65
    assert (
        run_config("tiny", overrides=("questions.evaluation.history=99",)).pretrain.encoder.overrides["max_len"] == 99
    )
    given = run_config("tiny", overrides=("history_length=65", "pretrain.encoder.overrides={max_len: 80, heads: 4}"))
    assert given.pretrain.encoder.overrides == {"max_len": 80, "heads": 4}
    own = run_config("tiny", overrides=("history_length=65", "pretrain.encoder.encoder=my.module:Class"))
    assert own.pretrain.encoder.overrides == {}


def test_a_patch_is_followed_too():
    config = run_config("tiny", overrides=("history_length=65",))
    longer = patched(config, {"history_length": 100})
    assert lengths(longer) == (100,) * 4 and longer.pretrain.encoder.overrides == {"max_len": 100}
    own = patched(config, {"pretrain.encoder.encoder": "my.module:Class"})
    assert own.pretrain.encoder.overrides == {} and own.pretrain.length == 65
    assert patched(dataclasses.replace(config, seed=7), {"align.seed": 2}).seed == 7
    again = patched(patched(config, {"align.seed": 2}), {"history_length": 70})
    assert again.align.seed == 2 and lengths(again) == (70,) * 4


# Methods and variants of one's own


def test_methods_of_ones_own():
    entry = {"name": "hstu-8", "base": "hstu", "set": {"pretrain.encoder.overrides.layers": 8, "seed": 2}}
    config = from_dict(RunConfig, {"methods": ["text20", entry], "variants": {"long": {"history_length": 512}}})
    assert config.methods == ("text20", MethodConfig("hstu-8", "hstu", entry["set"]))
    assert config.variants == {"long": {"history_length": 512}}
    assert from_dict(RunConfig, to_dict(config)) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"methods": [{"name": "x", "base": "hstu", "set": {"pretrain.optm.lr": 1}}]},
         r"methods\[0\].set: Unknown setting 'pretrain.optm' \(did you mean 'optim'\?\)"),
        ({"methods": [{"name": "x", "base": "hstu", "set": {"pretrain": 1}}]}, "pretrain is a section: name one"),
        ({"methods": [{"name": "x"}]}, r"methods\[0\].base is missing"),
        ({"methods": [{"name": "../x", "base": "hstu"}]}, r"methods\[0\].name is '../x': choose a name of letters"),
        ({"methods": [{"name": "x", "base": "hstu", "sets": {}}]}, r"'methods\[0\].sets' \(did you mean 'set'"),
        ({"methods": ["x", {"name": "x", "base": "hstu"}]}, "methods has two methods called 'x'"),
        ({"variants": {"long": {"pretrain": {"lenght": 3}}}}, r"variants.long: Unknown setting 'pretrain.lenght'"),
        ({"variants": {"long": 3}}, "variants.long must be a mapping, not 3"),
    ],
)  # fmt: skip
def test_methods_and_variants_that_make_no_sense(values, message):
    with pytest.raises(InputError, match=message):
        from_dict(RunConfig, values)


# Settings that cannot be


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=-1", "seed is -1: it must be at least 0"),
        ("seed=18446744073709551616", "seed is 18446744073709551616: it must be at least 0 and at most 4,294,967,295"),
        ("pretrain.seed=-1", "pretrain.seed is -1"),
        ("align.seed=-1", "align.seed is -1"),
        ("evaluate.seed=-1", "evaluate.seed is -1"),
        ("llm.train.seed=-1", "llm.train.seed is -1"),
        ("pretrain.objective=bpr", "pretrain.objective is 'bpr': choose one of sl, cl"),
        ("pretrain.windows=all", "pretrain.windows is 'all'"),
        ("pretrain.length=1", "pretrain.length is 1: it must be at least 2"),
        ("pretrain.token_budget=8", r"pretrain.token_budget \(8\) is below length"),
        (
            "pretrain.token_budget=1" + "0" * 26,
            "pretrain.token_budget is 1.*0: it must be at least 2 and at most 1,000",
        ),
        ("pretrain.temperature=0", "pretrain.temperature is 0.0: it must be above 0"),
        ("pretrain.optim.lr=0", "pretrain.optim.lr is 0.0: it must be above 0"),
        (
            "pretrain.optim.clip=.inf",
            "pretrain.optim.clip is inf: it must be a finite number, above 0 and at most 1,000,000,000",
        ),
        (
            "pretrain.optim.warmup=.inf",
            "pretrain.optim.warmup is inf: it must be a finite number, at least 0 and at most 1",
        ),
        ("pretrain.optim.warmup=2", "pretrain.optim.warmup is 2.0: it must be at least 0 and at most 1"),
        (
            "pretrain.optim.checkpoint_seconds=.nan",
            "pretrain.optim.checkpoint_seconds is nan: it must be a finite number, at least 0",
        ),
        ("pretrain.optim.epochs=0", "pretrain.optim.epochs is 0: it must be at least 1"),
        ("pretrain.optim.betas=[0.9]", r"pretrain.optim.betas is \[0.9\]: give a list of 2"),
        ("pretrain.optim.betas=[0.9, 1.5]", r"pretrain.optim.betas\[1\] is 1.5: it must be at least 0 and below 1"),
        ("pretrain.optim.betas=[a, b]", r"pretrain.optim.betas\[0\] must be of type float"),
        ("pretrain.encoder.preset=vast", "pretrain.encoder.preset is 'vast': choose one of tiny, demo"),
        ("pretrain.encoder.inputs=none", "pretrain.encoder.inputs is 'none': choose one of full, without-text"),
        ("align.strategy=prefix", "align.strategy is 'prefix': choose one of adapter, full, lora"),
        ("align.lora_rank=0", "align.lora_rank is 0: it must be at least 1"),
        ("align.adapter_lr=-1", "align.adapter_lr is -1.0: it must be at least 0"),
        ("align.n_queries=0", "align.n_queries is 0"),
        ("align.batch_questions=0", "align.batch_questions is 0"),
        ("evaluate.token_budget=0", "evaluate.token_budget is 0"),
        ("evaluate.max_new_tokens=0", "evaluate.max_new_tokens is 0"),
        ("llm.dtype=float33", "llm.dtype is 'float33': choose one of float32, bfloat16, float16"),
        ("llm.train.model.width=0", "llm.train.model.width is 0: it must be at least 1"),
        ("llm.train.model.layers=0", "llm.train.model.layers is 0: it must be at least 1"),
        ("llm.train.model.width=31", r"llm.train.model.head_size \(31\) must be even"),
        ("llm.train.text_lengths=[]", r"llm.train.text_lengths is \[\]: give a list of 1 to 64"),
        ("llm.train.soft_share=0.97", r"llm.train.soft_share \(0.97\) and empty_share \(0.05\)"),
        ("data.prepare.max_sequence=7", "data.prepare.max_sequence is 7, below min_user_length 8"),
        ("data.options.users=1" + "0" * 30, "data.options.users holds 1000.*beyond 64 bits"),
        ("device=abacus", "device is 'abacus': choose cpu, cuda or cuda:N"),
        ("states_token_budget=0", "states_token_budget is 0"),
        ("questions.train.history=9223372036854775807", "questions.train.history is 9223372036854775807: it must be"),
        ("questions.train.recent_window=99", r"questions.train.recent_window \(99\) is longer than history \(32\)"),
        ("questions.train.mix.df=often", "questions.train.mix.df must be of type float, not 'often'"),
        ("questions.train.mix.xx=1", "questions.train.mix names no sub-task 'xx': choose from df"),
        ("prompt.soft_prompt_place=inside", "prompt.soft_prompt_place is 'inside'"),
        ("prompt.language=3", "prompt.language must be of type str, not 3"),
    ],
)
def test_settings_that_make_no_sense(override, message):
    with pytest.raises(InputError, match=message):
        run_config("tiny", overrides=(override,))


def test_seeds_that_are_added_stay_in_range():
    run_config("tiny", overrides=("seed=1", "align.seed=4294967294"))
    with pytest.raises(
        InputError, match=r"^seed \(2\) and align.seed \(4294967294\) are added and exceed 4,294,967,295"
    ):
        run_config("tiny", overrides=("seed=2", "align.seed=4294967294"))


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(
        InputError, match="^3 settings are wrong: pretrain.windows is .*; align.adapter_lr is -1.*; seed is -1.*$"
    ):
        run_config("tiny", overrides=("align.adapter_lr=-1", "seed=-1", "pretrain.windows=all"))


def number_types(hint: Any) -> set[type]:
    arguments = [number_types(argument) for argument in getattr(hint, "__args__", ())]
    return set().union({hint} & {int, float}, *arguments)


SCHEMA = [*leaves(RunConfig), *leaves(MethodConfig, "methods[0].")]
ENCODER_SCHEMA = [(name, leaf) for name in ENCODERS for leaf in leaves(type(ENCODERS[name]["tiny"]))]


@pytest.mark.parametrize(
    "leaf", [*SCHEMA, *(leaf for _, leaf in ENCODER_SCHEMA), *leaves(SyntheticConfig)], ids=lambda leaf: leaf.name
)
def test_every_setting_explains_itself_and_every_number_has_a_finite_range(leaf: Leaf):
    about = leaf.about
    assert about.help and len(about.help) < 140 and "\n" not in about.help and not about.help.endswith(".")
    if number_types(leaf.hint):
        lower = [bound for bound in (about.ge, about.gt) if bound is not None]
        upper = [bound for bound in (about.le, about.lt) if bound is not None]
        assert len(lower) == len(upper) == 1 and -math.inf < lower[0] < upper[0] < math.inf
    else:
        assert not about.bounds


WRONG = [-1, 0, 1, 1e-300, 1e300, math.inf, -math.inf, math.nan, 2**63, 2**64, 10**400, 10**5000, 3.0, True]
WRONG += ["text", "", "1e-4", "nan", "a\0b", "\ud800", "x" * 10_000, b"bytes", object()]
WRONG += [[], [1], [[1]], ["a"], [math.nan], {}, {"a": 1}, {"a": {"b": [1]}}, {1: 2}, {"x" * 10_000: 1}, None]


def numbers(value: Any) -> list[float]:
    if dataclasses.is_dataclass(value):
        value = vars(value)
    if isinstance(value, dict):
        return [number for element in value.values() for number in numbers(element)]
    if isinstance(value, (list, tuple)):
        return [number for element in value for number in numbers(element)]
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


def in_range(leaf: Leaf, value: Any) -> bool:
    about = leaf.about
    return all(
        math.isfinite(number)
        and (about.ge is None or number >= about.ge)
        and (about.gt is None or number > about.gt)
        and (about.le is None or number <= about.le)
        and (about.lt is None or number < about.lt)
        for number in numbers(value)
    )


def check(make: Any, get: Any, leaf: Leaf, value: Any) -> bool:
    """Whether `make()` took the value; an InputError of one short sentence is the only other outcome."""
    try:
        config = make()
    except InputError as error:
        assert len(str(error)) < 300 and "\n" not in str(error), (leaf.name, value)
        assert str(error).isprintable()
        return False
    assert in_range(leaf, get(config)), (leaf.name, value)
    assert all(math.isfinite(number) for number in numbers(config))
    return True


def test_no_value_of_any_setting_is_anything_but_valid_or_one_sentence():
    tiny = to_dict(run_config("tiny"))
    taken = dict.fromkeys((leaf.name for leaf in leaves(RunConfig)), 0)
    for leaf in leaves(RunConfig):
        *sections, name = leaf.name.split(".")

        def get(config: Any, path=(*sections, name)) -> Any:
            for part in path:
                config = getattr(config, part)
            return config

        for value in [*WRONG, get(run_config("tiny"))]:
            values = merge(tiny, nested({leaf.name: None}))
            level = values
            for part in sections:
                level = level[part]
            level[name] = value
            taken[leaf.name] += check(lambda values=values: from_dict(RunConfig, values), get, leaf, value)
    assert all(0 < count < len(WRONG) for count in taken.values()), taken


def test_no_section_can_be_anything_but_a_mapping():
    for field in dataclasses.fields(RunConfig):
        if is_section(RunConfig.__hints__[field.name]):
            for value in WRONG:
                try:
                    from_dict(RunConfig, {field.name: value})
                except InputError as error:
                    assert len(str(error)) < 300 and "\n" not in str(error)
                else:
                    assert value == {}


def test_no_override_of_an_encoder_is_anything_but_valid_or_one_sentence():
    for name, leaf in ENCODER_SCHEMA:
        for value in WRONG:
            check(
                lambda name=name, leaf=leaf, value=value: encoder_config(name, "tiny", {leaf.name: value}),
                lambda config, leaf=leaf: getattr(config, leaf.name),
                leaf,
                value,
            )


@pytest.mark.parametrize(
    "text",
    ["2024-13-45", "0x", "0x_", "9" * 5000, "[" * 200, "2024-01-01", "!!binary aGk=", "&a [*a]", "{a: 1, a: 2}"],
)
def test_values_that_yaml_resolves_are_one_sentence_too(text):
    for leaf in {str(leaf.hint): leaf for leaf in leaves(RunConfig)}.values():
        try:
            run_config("tiny", overrides=(f"{leaf.name}={text}",))
        except InputError as error:
            assert len(str(error)) < 300 and "\n" not in str(error)
        else:
            assert str in (leaf.hint, *getattr(leaf.hint, "__args__", ()))


def test_keys_hold_all_but_what_changes_no_result():
    left_out = {leaf.name.rpartition(".")[2] for leaf in leaves(RunConfig) if not leaf.about.in_key}
    engine = {"name", "master", "memory_gb", "folder"}
    assert left_out == {"checkpoint_seconds", "recompute", *engine}
    config = run_config("tiny").pretrain
    again = dataclasses.replace(config, optim=dataclasses.replace(config.optim, checkpoint_seconds=1))
    assert key_dict(config) == key_dict(again) != to_dict(config) != to_dict(again)


def test_sizes_of_the_item_tower_are_the_preset_s():
    assert UserEncoderConfig().item_dim == 64
    assert UserEncoderConfig(preset="paper", side_dim=9).side_dim == 9


def test_settings_are_light():
    code = "import sys, uqabench.settings, uqabench.settings.run; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "numba", "pyarrow", "transformers"} & set(loaded)
