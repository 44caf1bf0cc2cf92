"""What a dry run says of a GPU's memory, against sums done by hand."""

from __future__ import annotations

import pytest

from uqabench.cli import main
from uqabench.plan.memory_needs import memory_needs
from uqabench.plan.methods import parse_methods
from uqabench.settings import run_config

pytest.importorskip("transformers")


def needs(*overrides, preset="paper"):
    return {
        (row["stage"], row["such as"]): row for row in memory_needs(parse_methods(run_config(preset, None, overrides)))
    }


def test_qwen_2_5_3b_with_the_adapter_alone_and_as_a_whole():
    found = needs("methods=[trm++,text20,oracle]")
    frozen, trained = found["align, adapter alone", "trm++"], found["align, full fine-tuning", "text20"]
    # 3.086e9 weights of two bytes and an adapter of 1.05e6 of four; of each of 16,384 tokens 36 layers keep 98,888
    # bytes, and 82 kB more are those of the last norm and of gradients.
    assert (frozen["weights"], frozen["gradients"], frozen["activations"]) == (6.18, 0.0, 59.68)
    assert frozen["80 GB card"] == "13.5 GB left"
    # Float32 weights, a bfloat16 copy of those that are multiplied, a gradient and two moments.
    assert [trained[part] for part in ("weights", "copies", "gradients", "moments")] == [12.34, 6.17, 12.34, 24.69]
    setting, _, value = trained["80 GB card"].partition(" or ")[0].partition("=")
    assert setting == "align.token_budget" and 4000 < int(value) < 4300
    assert trained["80 GB card"].endswith("align.recompute=true")
    assert set(found) >= {("evaluate", "trm++")} and not any(name == "oracle" for _, name in found)
    fits = needs("methods=[text20]", f"align.token_budget={value}")  # of fewer answers at once
    assert fits["align, full fine-tuning", "text20"]["80 GB card"] == "0.4 GB left"
    more = needs("methods=[text20]", f"align.token_budget={int(value) + 500}")
    assert more["align, full fine-tuning", "text20"]["80 GB card"].startswith("align.token_budget=")


def test_recomputed_activations_need_less_and_are_not_proposed_again():
    found = needs("methods=[text20]", "align.recompute=true")["align, full fine-tuning", "text20"]
    assert found["activations"] < 10 and "left" in found["80 GB card"]


def test_zero_shot_methods_are_only_asked():
    assert {stage for stage, _ in needs("methods=[text20@zero-shot]")} == {"evaluate"}


@pytest.mark.parametrize(
    "overrides",
    [("llm.name=demo",), ("llm.name=train",), ("llm.name=nobody/has-this",), ("llm.name=/nowhere/at/all",)],
)  # fmt: skip
def test_a_model_that_is_small_or_not_here_has_no_row(overrides):
    assert needs("methods=[trm++]", *overrides) == {}


def test_a_dry_run_prints_the_table(tmp_path, capsys):
    arguments = ["run", "--preset", "paper", "--device", "cuda", "--methods", "trm++", "--dry-run"]
    assert main([*arguments, "--runs", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "80 GB card" in printed and "141 GB card" in printed and "align, adapter alone" in printed
    assert not list(tmp_path.iterdir())
