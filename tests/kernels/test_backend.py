"""How a backend is chosen, requested and reported."""

from __future__ import annotations

import threading
from types import ModuleType

import pytest
import torch

from uqabench import kernels
from uqabench.kernels import backend, use_backend
from uqabench.kernels.backend import Operator

NO_OPERATORS = ("use_backend",)
OPERATORS = [name for name in kernels.__all__ if name not in NO_OPERATORS]


@pytest.fixture
def operator(monkeypatch):
    monkeypatch.setattr(backend, "_operators", {})
    monkeypatch.delenv("UQABENCH_BACKEND", raising=False)
    return Operator(
        "probe",
        backends={name: lambda name=name: name for name in ("reference", "eager", "native")},
        default={"cpu": "native", "cuda": "eager"},
        dtypes={"native": (torch.float32,)},
    )


def test_default_follows_device_and_dtype(operator):
    assert operator("cpu", torch.float32)() == "native"
    assert operator("cuda", torch.float32)() == "eager"
    assert operator("cpu", torch.bfloat16)() == "eager"  # native takes fp32 only, and nobody asked for it


def test_a_request_overrides_the_default_and_ends_with_its_block(operator):
    with use_backend("reference"):
        assert operator("cpu")() == "reference"
        with use_backend("eager"):
            assert operator("cpu")() == "eager"
        assert operator("cpu")() == "reference"
    assert operator("cpu")() == "native"


def test_an_exception_ends_the_request_too(operator):
    with pytest.raises(KeyError), use_backend("reference"):
        raise KeyError
    assert operator("cpu")() == "native"


def test_a_request_holds_in_its_own_thread_only(operator):
    seen = []
    with use_backend("reference"):
        thread = threading.Thread(target=lambda: seen.append(operator("cpu")()))
        thread.start()
        thread.join()
    assert seen == ["native"]


def test_the_environment_requests_and_use_backend_overrides_it(operator, monkeypatch):
    monkeypatch.setenv("UQABENCH_BACKEND", "reference")
    assert operator("cpu")() == "reference"
    with use_backend("eager"):
        assert operator("cpu")() == "eager"
    monkeypatch.setenv("UQABENCH_BACKEND", "nativ")
    with pytest.raises(ValueError, match="UQABENCH_BACKEND is 'nativ'.*choose one of"):
        operator("cpu")


@pytest.mark.parametrize(
    ("name", "device", "dtype", "reason"),
    [
        ("native", "cuda", torch.float32, "CPU tensors only"),
        ("native", "cpu", torch.bfloat16, "takes float32, not bfloat16"),
        ("triton", "cpu", torch.float32, "no such implementation .it has reference, eager, native"),
        ("cuda", "cuda", torch.float32, "no such implementation"),
    ],
)
def test_a_request_that_cannot_be_met_says_why(operator, name, device, dtype, reason):
    with use_backend(name), pytest.raises(RuntimeError, match=f"'{name}' cannot run probe on {device}: .*{reason}"):
        operator(device, dtype)


def test_unknown_names_are_errors(operator):
    with pytest.raises(ValueError, match="'fast'.*choose one of reference, eager"), use_backend("fast"):
        pass
    with pytest.raises(ValueError, match="operator 'prob' is unknown: known are probe"):
        backend.choose("prob", "cpu")
    with pytest.raises(ValueError, match="does not implement: eager"):
        Operator("half", backends={"reference": print})


def test_without_the_compiled_module_eager_runs_and_a_request_says_why(operator, monkeypatch):
    monkeypatch.setattr(backend, "_import_native", lambda: (None, "the compiled module cannot be imported (no file)"))
    assert operator("cpu", torch.float32)() == "eager"
    with use_backend("native"), pytest.raises(RuntimeError, match="no file"):
        operator("cpu")
    with pytest.raises(RuntimeError, match="no file.*pip install"):
        backend.native_module()
    assert "no file" in backend.status()["probe"]["cpu"]["unavailable"]["native"]


def test_reasons_by_device(monkeypatch):
    assert backend.unavailable("native", "cpu") is None  # the suite runs on a built package
    assert "CUDA tensors only" in backend.unavailable("cuda", "cpu")
    compiled = {"has_cuda": True}
    for attributes, expected in (
        ({"has_cuda": False}, "without CUDA"),
        (compiled | {"cuda_versions": lambda: (13_000, 12_080)}, "CUDA 13, and the driver takes CUDA 12 at most"),
        (compiled | {"cuda_versions": lambda: (13_020, 13_000)}, None),
        (compiled | {"cuda_versions": lambda: (13_000, 0)}, None),  # no driver
    ):
        module = ModuleType("_native")
        vars(module).update(attributes)
        monkeypatch.setattr(backend, "_import_native", lambda module=module: (module, None))
        reason = backend.unavailable("cuda", "cuda")
        assert reason is None if expected is None else expected in reason
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: None)
    assert "'triton' is not installed" in backend.unavailable("triton", "cuda")
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: object())
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)  # set for the whole suite where there is no GPU
    assert "TRITON_INTERPRET" in backend.unavailable("triton", "cpu")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert backend.unavailable("triton", "cpu") is None


def test_status_covers_every_operator():
    report = backend.status()
    assert set(OPERATORS) <= set(report)
    for name in OPERATORS:
        assert {"reference", "eager"} <= set(report[name]["backends"])
        for device in ("cpu", "cuda"):
            entry = report[name][device]
            assert entry["runs"] in report[name]["backends"]
            assert entry["runs"] not in entry["unavailable"]
    assert report["hstu_attention"]["cpu"]["runs"] == "native"
    assert "CPU tensors only" in report["hstu_attention"]["cuda"]["unavailable"]["native"]
    with use_backend("cuda"):
        assert backend.status()["rope"]["cpu"]["runs"] is None


def test_available_gives_every_backend_a_reason_or_none(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    reasons = backend.available("linear_rank")
    assert list(reasons) == list(backend.BACKENDS)
    assert [name for name, reason in reasons.items() if reason is None] == ["reference", "eager", "native"]


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_are_functions_of_the_package(name):
    assert callable(getattr(kernels, name)) and getattr(kernels, name).__doc__


def test_a_compiled_function_keeps_the_choice_it_was_traced_with(operator):
    compiled = torch.compile(
        lambda x: x + 1 if operator.choose("cpu", x.dtype) == "native" else x, backend="eager", fullgraph=True
    )
    assert compiled(torch.zeros(1)).item() == 1
    with use_backend("eager"):
        assert compiled(torch.zeros(1)).item() == 1
