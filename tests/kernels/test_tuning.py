"""How a kernel's configuration is chosen: by size, from committed tables, and never by a test."""

from __future__ import annotations

import json

import pytest
import torch

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")

from uqabench.kernels import triton_tuning  # noqa: E402
from uqabench.kernels.triton_tuning import Timed, Tuned, committed, size_class, tuning_mode, write_tables  # noqa: E402

CONFIGS = [triton.Config({"BLOCK": n}, num_warps=w) for n, w in ((16, 4), (32, 4), (32, 8))]


class Function:
    """A jitted function that says with which configuration it ran."""

    arg_names = ["x", "count", "width"]

    def __init__(self):
        self.ran = []

    def run(self, *args, **kwargs):
        self.ran.append(kwargs["BLOCK"])


def scale_rows(x, count, width, BLOCK: tl.constexpr):
    pass


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    """A tuned kernel whose timings are `kernel.seconds(config, tokens)`, on the card "one", with tables in a folder."""
    function = Function()
    function.fn = scale_rows
    made = Tuned(function, CONFIGS, ["width"], "x")
    made.function, made.benched = function, []

    def bench(self, *args, config, **meta):
        tokens = self.size
        made.benched.append((tokens, str(config)))
        return [abs(config.kwargs["BLOCK"] * config.num_warps - (64 if tokens < 100 else 256)) + 1.0] * 3

    monkeypatch.setattr(triton_tuning._OfSize, "_bench", bench)
    monkeypatch.setattr(triton_tuning, "card", lambda: "one")
    monkeypatch.setattr(triton_tuning, "TABLES", tmp_path)
    monkeypatch.setattr(triton_tuning, "recorded", [])
    triton_tuning.table.cache_clear()
    yield made
    triton_tuning.table.cache_clear()


def call(kernel, tokens, width=8):
    kernel[(1,)](torch.zeros(tokens, 2), tokens, width)
    return kernel.function.ran[-1]


@pytest.mark.parametrize(("tokens", "size"), [(0, 1), (1, 1), (2, 2), (3, 4), (64, 64), (65, 128), (65_536, 65_536)])
def test_sizes_are_powers_of_two(tokens, size):
    assert size_class(tokens) == size


def test_each_size_and_key_is_timed_on_its_own(kernel):
    assert call(kernel, 60) == 16 and call(kernel, 64) == 16
    assert len(kernel.benched) == 3
    assert call(kernel, 4_000) == 32 and call(kernel, 60, width=9) == 16
    assert [one.tokens for one in triton_tuning.recorded] == [64, 4_096, 64]
    assert triton_tuning.recorded[0].key == (8, "torch.float32") and len(kernel.benched) == 9


def test_winners_are_written_and_found_again(kernel, tmp_path, monkeypatch):
    call(kernel, 60), call(kernel, 4_000)
    (path,) = write_tables(triton_tuning.recorded, tmp_path, "one", "2030-01-02")
    choices = json.loads(path.read_text())["choices"]
    assert path.name == "scale_rows.json" and {c["card"] for c in choices} == {"one"}
    assert [c["tokens"] for c in choices] == [64, 4_096] and choices[0]["date"] == "2030-01-02"
    write_tables([Timed("scale_rows", (8, "torch.float32"), 64, {CONFIGS[2]: 1.0})], tmp_path, "two", "2030-01-03")
    assert len(json.loads(path.read_text())["choices"]) == 3  # another card's stay
    triton_tuning.table.cache_clear()
    key = (8, "torch.float32")
    assert committed("scale_rows", key, 64, CONFIGS, "one") == CONFIGS[0]
    assert committed("scale_rows", key, 64, CONFIGS, "two") == CONFIGS[2]
    assert committed("scale_rows", key, 128, CONFIGS, "one") is committed("other", key, 64, CONFIGS, "one") is None
    assert committed("scale_rows", key, 64, CONFIGS[1:], "one") is None  # no longer offered
    monkeypatch.setattr(triton_tuning, "recorded", None)
    monkeypatch.setattr(triton_tuning.Autotuner, "check_disk_cache", lambda *_: pytest.fail("the cache was asked"))
    kernel._of_size.clear(), kernel.benched.clear()
    assert call(kernel, 60) == 16 and call(kernel, 4_000) == 32 and kernel.benched == []
    # What no table has is the first configuration in tests, and nothing is timed or kept.
    assert tuning_mode() == "first" and call(kernel, 500_000) == 16 and kernel.benched == []


def test_times_that_are_kept_are_kept_by_size(kernel, monkeypatch):
    monkeypatch.setattr(triton_tuning, "recorded", None)
    monkeypatch.setenv("UQABENCH_TUNING", "measure")
    kept = {}

    def check(self, key, configs, bench):
        if key in kept:
            self.cache[key] = kept[key]
            return True
        bench()
        kept[key] = next(iter(self.cache.values()))
        return False

    monkeypatch.setattr(triton_tuning.Autotuner, "check_disk_cache", check)
    assert call(kernel, 60) == 16 and call(kernel, 4_000) == 32
    assert set(kept) == {(8, "torch.float32", 64), (8, "torch.float32", 4_096)}
    kernel._of_size.clear(), kernel.benched.clear()
    assert call(kernel, 60) == 16 and call(kernel, 4_000) == 32 and kernel.benched == []


def test_a_mode_that_does_not_exist(monkeypatch):
    monkeypatch.setenv("UQABENCH_TUNING", "guess")
    with pytest.raises(ValueError, match="UQABENCH_TUNING is 'guess': choose measure or first"):
        tuning_mode()


def test_every_kernel_names_an_argument_that_it_has():
    """On a GPU only the tuned ones are made: here from the same calls."""
    import ast
    from pathlib import Path

    from uqabench import kernels

    for path in sorted(Path(kernels.__file__).parent.rglob("triton_*.py")):
        tree = ast.parse(path.read_text())
        names = {a.arg for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for a in f.args.args}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "tuned":
                given = [*node.args[2:], *(k.value for k in node.keywords if k.arg == "tokens")]
                assert all(one.value in names for one in given), (path.name, ast.dump(node))
