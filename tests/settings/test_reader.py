"""Settings from YAML, mappings and overrides; what is wrong is one sentence with the field's full name."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uqabench.errors import InputError
from uqabench.settings.reader import MAX_NODES, from_dict, key_dict, load_yaml, merge, nested, parse_override, to_dict
from uqabench.settings.schema import section, setting


@section("inner")
class Inner:
    rate: float = setting(0.5, "a rate", gt=0, le=10)
    names: tuple[str, ...] = setting(("a",), "names")
    flag: bool = setting(False, "a flag", in_key=False)
    sizes: tuple[int, ...] | None = setting(None, "sizes", ge=1, le=8, size=(1, 2))

    def __post_init__(self) -> None:
        if self.rate == 9:
            raise ValueError("rate is nine: take another.")


@section("outer")
class Outer:
    n: int = setting(1, "a number", ge=0, lt=100)
    title: str | None = setting(None, "a title", choices=("x", "y"))
    inner: Inner = setting(default_factory=Inner)
    weights: dict[str, float] = setting(default_factory=dict, help="weights", ge=0, le=1e6)
    ids: list[str] = setting(default_factory=list, help="ids")
    free: dict[str, Any] = setting(default_factory=dict, help="anything")
    parts: tuple[str | Inner, ...] = setting((), "names or sections")


VALUES = {
    "n": 3,
    "title": "x",
    "inner": {"rate": "1e-4", "names": ["p", "q"], "sizes": [1, 2]},
    "weights": {"df": 2},
    "ids": ["a"],
    "free": {"heads": 3, "deep": {"list": [1, None]}},
    "parts": ["p", {"rate": 2}],
}


def test_values_are_built_and_plain_again():
    config = from_dict(Outer, VALUES)
    inner = Inner(1e-4, ("p", "q"), False, (1, 2))
    assert config == Outer(3, "x", inner, {"df": 2.0}, ["a"], VALUES["free"], ("p", Inner(rate=2.0)))
    assert isinstance(config.weights["df"], float) and isinstance(config.parts[1].rate, float)
    assert from_dict(Outer, to_dict(config)) == config
    assert to_dict(from_dict(Outer, to_dict(config))) == to_dict(config)


def test_a_key_leaves_out_what_cannot_change_a_result():
    config = from_dict(Outer, VALUES)
    assert "flag" in to_dict(config)["inner"]
    key = key_dict(config)
    assert key == key_dict(dataclasses.replace(config, inner=dataclasses.replace(config.inner, flag=True)))
    assert "flag" not in key["inner"] and "flag" not in key["parts"][1]
    assert key["inner"]["rate"] == 1e-4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nn": 1}, r"Unknown setting 'nn' \(did you mean 'n'\?\): the settings here are"),
        ({"inner": {"flg": True}}, r"Unknown setting 'inner.flg' \(did you mean 'flag'\?\): .* flag, names"),
        ({"n": "three"}, "n must be of type int, not 'three'"),
        ({"n": True}, "n must be of type int, not True"),
        ({"n": 1.0}, "n must be of type int, not 1.0"),
        ({"n": None}, "n must be of type int, not None"),
        ({"n": -1}, "^n is -1: it must be at least 0 and below 100.$"),
        ({"n": 2**64}, "n is 18446744073709551616: it must be at least 0 and below 100"),
        ({"n": 10**5000}, "n is an integer of about 5,00. digits: it must be"),
        ({"inner": {"rate": "fast"}}, "inner.rate must be of type float, not 'fast'"),
        ({"inner": {"rate": True}}, "inner.rate must be of type float, not True"),
        ({"inner": {"rate": 0}}, "inner.rate is 0.0: it must be above 0 and at most 10"),
        ({"inner": {"rate": float("inf")}}, "inner.rate is inf: it must be a finite number, above 0 and at most 10"),
        ({"inner": {"rate": "nan"}}, "inner.rate is nan: it must be a finite number, above 0 and at most 10"),
        ({"inner": {"rate": 10**400}}, "inner.rate is an integer of about 401 digits: it must be a finite number"),
        ({"inner": {"rate": 9}}, "^inner.rate is nine: take another.$"),
        ({"inner": {"flag": 1}}, "inner.flag must be of type bool, not 1"),
        ({"inner": 5}, "inner must be a mapping of settings, not 5"),
        ({"inner": {"names": "pq"}}, "inner.names must be a list, not 'pq'"),
        ({"inner": {"names": {"p": 1}}}, "inner.names must be a list, not {'p': 1}"),
        ({"inner": {"names": ["p", 3]}}, r"inner.names\[1\] must be of type str, not 3"),
        ({"inner": {"sizes": ["a"]}}, r"inner.sizes\[0\] must be of type int, not 'a'"),
        ({"inner": {"sizes": [9]}}, r"inner.sizes\[0\] is 9: it must be at least 1 and at most 8"),
        ({"inner": {"sizes": [1, 2, 3]}}, r"inner.sizes is \[1, 2, 3\]: give a list of 1 to 2"),
        ({"weights": [1]}, r"weights must be a mapping, not \[1\]"),
        ({"weights": {"df": "much"}}, "weights.df must be of type float, not 'much'"),
        ({"weights": {"df": -1}}, "weights.df is -1.0: it must be at least 0"),
        ({"weights": {5: 1}}, r"weights\[5\] must be of type str, not 5"),
        ({"ids": [["a"]]}, r"ids\[0\] must be of type str"),
        ({"free": 3}, "free must be a mapping, not 3"),
        ({"free": {"a": b"x"}}, "free.a holds a value of type bytes"),
        ({"free": {"a": [float("nan")]}}, "free.a holds nan: numbers must be finite"),
        ({"free": {"a": {3: 4}}}, "free.a has the name 3, which is no text"),
        ({"title": 3}, "title must be of type str, not 3"),
        ({"title": "z"}, "title is 'z': choose one of x, y"),
        ({"parts": [3]}, r"parts\[0\] must be of type str, not 3"),
        ({"parts": [{"rate": -1}]}, r"parts\[0\].rate is -1.0: it must be above 0"),
        ({"parts": [{"rat": 1}]}, r"Unknown setting 'parts\[0\].rat' \(did you mean 'rate'\?\)"),
        ({"n": -1, "title": "z", "inner": {"rate": 0}}, "^3 settings are wrong: n is -1: .*; title is 'z': .*; inn"),
        ([1], r"The config must be a mapping of settings, not \[1\]"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(values, message):
    with pytest.raises(InputError, match=message) as error:
        from_dict(Outer, values)
    assert len(str(error.value)) < 300 and "\n" not in str(error.value)


def test_a_section_that_is_constructed_directly_is_checked_too():
    with pytest.raises(InputError, match="^outer.n is 100: it must be at least 0 and below 100.$"):
        Outer(n=100)
    with pytest.raises(InputError, match="inner.rate is nine"):
        dataclasses.replace(Inner(), rate=9)
    with pytest.raises(InputError, match=r"Unknown setting 'inner.rat' \(did you mean 'rate'"):
        Inner(rat=3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Inner().rate = 3  # type: ignore[misc]


def test_overrides_are_yaml_under_a_dotted_path():
    assert parse_override("a.b=3") == {"a": {"b": 3}}
    assert parse_override("a=[x, 2]") == {"a": ["x", 2]}
    assert parse_override("a.b=x=y") == {"a": {"b": "x=y"}}
    assert parse_override("a=") == {"a": None}
    assert parse_override("a=2024-13-45") == {"a": "2024-13-45"}
    assert parse_override("a=2024-01-05") == {"a": "2024-01-05"}
    for wrong in ("a", "=3", ""):
        with pytest.raises(InputError, match="write it as section.field=value"):
            parse_override(wrong)
    with pytest.raises(InputError, match=r"--set a=\[1: '\[1' is not a YAML value: line 1"):
        parse_override("a=[1")
    with pytest.raises(InputError, match="no setting lies 10000 levels deep"):
        parse_override("a." * 9999 + "b=1")


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


def test_dotted_names_become_nested_mappings():
    assert nested({"a.b": 1, "a.c": {"d": 2}, "e": 3}) == {"a": {"b": 1, "c": {"d": 2}}, "e": 3}


BROKEN = {
    "an open list": ("a: [1\nb: 2", "line 2, column 2"),
    "an indentation": ("a: 1\n  b: 2", "line 2, column 4"),
    "half a number": ("a: 1\nb: 0x_", "line 2, column 4: '0x_' is no number"),
    "an integer of 5,000 digits": ("a: " + "9" * 5000, "line 1, column 4: '999.*is no number"),
    "a thousand levels": ("a: " + "[" * 1000 + "]" * 1000, "line 1, column .*levels deep"),
    "a thousand levels of blocks": ("\n".join(" " * i + "a:" for i in range(1000)), "line .*levels deep"),
    "bytes": ("a: 1\nb: !!binary aGVsbG8=", "line 2, column 4: !!binary is no kind of value"),
    "a set": ("a: !!set {x, y}", "line 1.*!!set"),
    "a Python object": ("a: !!python/object:os.system {}", "line 1.*could not determine a constructor"),
    "aliases of aliases": (
        "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        + "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)),
        f"line [56].*more than {MAX_NODES:,} values",
    ),
    "merges of merges": (
        "a0: &a0 {x: 1}\n" + "\n".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 10)),
        f"line .*more than {MAX_NODES:,} values",
    ),
    "an alias of itself": ("a: &a [*a]", "line 1.*an alias that refers to what it is part of"),
    "an alias of nothing": ("a: *b", "line 1.*undefined alias"),
    "a name given twice": ("a: 1\nb: {c: 1, c: 2}", "line 2, column 11: the name 'c' is given twice"),
    "a name that is a number": ("a: 1\n3: 2", "the name 3 is no text"),
    "a name that is a list": ("? [a, b]\n: 2", "line 1.*unhashable key"),
    "a name that is true": ("a: {on: 2}", "the name True is no text"),
    "two documents": ("a: 1\n---\nb: 2", "line 2.*another document"),
    "a control character": ("a: \x07", "special characters are not allowed"),
}


@pytest.mark.parametrize("text, message", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_named_with_its_line(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=r"The config file c\.yaml.*" + message) as error:
        load_yaml("c.yaml")
    assert "\n" not in str(error.value) and len(str(error.value)) < 300
    if "\n" not in text:
        with pytest.raises(InputError) as error:
            parse_override("x." + text.replace(": ", "=", 1))
        assert "\n" not in str(error.value) and len(str(error.value)) < 300


@pytest.mark.parametrize("text", ["- 1", "", "3", "2024-01-01"])
def test_a_file_without_settings(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=r"c\.yaml holds no mapping of settings"):
        load_yaml(tmp_path / "c.yaml")


def test_dates_stay_text_and_anchors_work(tmp_path):
    (tmp_path / "c.yaml").write_text("a: 2024-01-05\nb: &b {c: 1}\nd: *b\ne: {<<: *b, c: 2}\nf: 1_000\ng: 1:30\n")
    values = load_yaml(tmp_path / "c.yaml")
    assert values == {"a": "2024-01-05", "b": {"c": 1}, "d": {"c": 1}, "e": {"c": 2}, "f": 1000, "g": 90}
    (tmp_path / "c.yaml").write_text("a: {1: x, false: y}")
    assert load_yaml(tmp_path / "c.yaml", text_keys=False) == {"a": {1: "x", False: "y"}}


@given(st.text(alphabet="ab:-[]{}&*!<,\n 0x1.e\"'|>?#%@", max_size=60))
def test_any_text_is_a_mapping_or_one_sentence(text):
    try:
        parse_override("a=" + text)
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 300


def test_a_file_that_is_missing_or_not_text(tmp_path):
    with pytest.raises(InputError, match="The config file .*c.yaml does not exist"):
        load_yaml(tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="c.yaml is not readable YAML"):
        load_yaml(tmp_path / "c.yaml")
    for wrong in (tmp_path, "a\0b"):
        with pytest.raises(InputError, match="is not readable YAML"):
            load_yaml(wrong)
