"""The call of other packages' attention, held against the signatures of their published sources.

flash_attn_signatures.json has the arguments of `flash_attn_varlen_func` by version: of flash-attn those of the source
distributions on PyPI, of flash-attn 3 those of the folder `hopper` in the same distributions.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from uqabench.kernels import causal_attention, use_backend
from uqabench.kernels.causal_attention import flash

SIGNATURES: dict[str, dict[str, str]] = json.loads(
    Path(__file__).with_name("flash_attn_signatures.json").read_text(encoding="utf-8")
)
UNUSABLE = ("flash-attn 3", "2.7.4.post1")  # it asks for lengths that we do not have
VERSIONS = [(package, version) for package, versions in SIGNATURES.items() for version in versions]


def published(arguments: str, returns_sums: bool = False) -> Callable[..., Any]:
    """A function with these arguments that attends as the package says it does, by torch."""
    space: dict[str, Any] = {}
    exec(f"def flash_attn_varlen_func({arguments}): return compute(locals())", space)

    def compute(given: dict[str, Any]) -> Any:
        assert given["causal"] is True and given["deterministic"] is True
        bounds = given["cu_seqlens_q"]
        assert bounds is given["cu_seqlens_k"] and bounds.dtype == torch.int32
        assert given["max_seqlen_q"] == given["max_seqlen_k"] == int(bounds.diff().max())
        with use_backend("reference"):
            out = causal_attention(given["q"], given["k"], given["v"], bounds.long(), scale=given["softmax_scale"])
        return (out, None) if returns_sums else out

    space["compute"] = compute
    return space["flash_attn_varlen_func"]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch):
    """`install(package, function)`: the package as it would be found, with that function alone."""

    def put(package: str, function: Callable[..., Any] | None) -> None:
        name = flash._FUNCTIONS[package][0]
        module = ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        if function is not None:
            module.flash_attn_varlen_func = function
        monkeypatch.setitem(sys.modules, name, module)
        flash.problem.cache_clear()

    monkeypatch.delenv("UQABENCH_BACKEND", raising=False)
    yield put
    monkeypatch.undo()
    flash.problem.cache_clear()


@pytest.mark.parametrize(("package", "version"), VERSIONS)
def test_the_call_fits_every_published_version(install, package, version):
    install(package, published(SIGNATURES[package][version], returns_sums=version.startswith("2.7")))
    if (package, version) == UNUSABLE:
        assert "missing a required argument: 'seqused_q'" in flash.problem(package)
        return
    assert flash.problem(package) is None
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(7, 2, 8, generator=generator).bfloat16() for _ in range(3))
    offsets = torch.tensor([0, 2, 2, 7])
    found = flash.causal_attention(package, q, k, v, offsets, 0.3)
    with use_backend("reference"):
        assert_close(found, causal_attention(q, k, v, offsets, scale=0.3))


def test_the_extra_takes_the_versions_that_were_looked_at():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    low, high = re.search(r'flash = \["flash-attn>=([\d.]+),<([\d.]+)', text).groups()

    def number(version: str) -> list[int]:
        return [int(part) for part in version.split(".post")[0].split(".")]

    versions = [number(version) for version in SIGNATURES["flash-attn"]]
    assert number(low) == min(versions) and max(versions) < number(high)


def test_an_installed_package_has_a_signature_that_was_looked_at():
    if flash.problem(flash.FLASH_ATTN) == "not installed":
        pytest.skip("flash-attn is not installed")
    import flash_attn

    given = inspect.signature(flash_attn.flash_attn_varlen_func)
    known = SIGNATURES["flash-attn"][importlib.metadata.version("flash-attn")]
    assert list(given.parameters) == list(inspect.signature(published(known)).parameters)


def test_why_a_package_does_not_run(install):
    install(flash.FLASH_ATTN, published(SIGNATURES["flash-attn"]["2.8.3"].replace("deterministic=False, ", "")))
    assert flash.problem(flash.FLASH_ATTN).startswith("another version is needed")
    install(flash.FLASH_ATTN, None)
    assert flash.problem(flash.FLASH_ATTN) == "has no flash_attn_varlen_func"
    assert flash.problem(flash.FLASH_ATTN_3) in (None, "not installed")


def test_the_newest_package_comes_first(install):
    newest = SIGNATURES["flash-attn 3"]["2.8.3"]
    install(flash.FLASH_ATTN, published(SIGNATURES["flash-attn"]["2.8.3"]))
    assert flash.implementation("cuda", torch.bfloat16, 64) == flash.FLASH_ATTN
    install(flash.FLASH_ATTN_3, published(newest))
    if not torch.cuda.is_available():
        assert flash.implementation("cuda", torch.bfloat16, 64) == flash.FLASH_ATTN_3
    assert flash.implementation("cuda", torch.bfloat16, 64, 128) == flash.choose(
        "causal_attention", "cuda", torch.bfloat16
    )
