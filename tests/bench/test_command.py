"""What the commands of `bench` do with what they are given."""

from __future__ import annotations

import pytest

from bench import growth, host_time, profile, roofline, scale
from bench.command import check_positive, chosen_names
from uqabench.errors import InputError


def test_names_are_in_the_order_in_which_they_were_given():
    assert chosen_names(" b,a,, ", "abc", "--rows") == ["b", "a"]


@pytest.mark.parametrize("text", ["", " , ", "a,d"])
def test_names_that_are_not_known_or_none(text):
    with pytest.raises(InputError, match="^--rows .*: choose from a, b, c.$"):
        chosen_names(text, "abc", "--rows")


@pytest.mark.parametrize("value", [0, -1.5, float("nan")])
def test_numbers_that_are_not_above_0(value):
    check_positive(steps=0.5)
    with pytest.raises(InputError, match=r"^--first-step is (0|-1.5|nan): it must be above 0.$"):
        check_positive(steps=1, first_step=value)


@pytest.mark.parametrize(
    ("module", "arguments", "named"),
    [
        (scale, ["--fraction", "0"], "--fraction"),
        (scale, ["--json", "{folder}"], "is a folder"),
        (growth, ["{folder}/none.json"], "none.json"),
        (host_time, ["--encoders", "lstm"], "lstm"),
        (host_time, ["--steps", "0"], "--steps"),
        (roofline, ["--json", "{folder}/x.json", "--repeats", "0"], "--repeats"),
        (profile, ["--rows", "fly"], "fly"),
    ],
)
def test_a_wrong_argument_is_one_sentence(module, arguments, named, tmp_path, capsys):
    assert module.main([argument.format(folder=tmp_path) for argument in arguments]) == 2
    said = capsys.readouterr().err
    assert named in said and said.count("\n") == 1
