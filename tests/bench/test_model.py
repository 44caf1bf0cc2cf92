"""The cost model names the resource that binds, and its table stands beside measurements."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("triton")

from bench import model
from bench.compiled import Figures
from bench.gpu_cases import CudaCase, Work
from bench.model import DEVICES, predict

ROOT = Path(__file__).parents[2]
H100, H200 = DEVICES
FIGURES = Figures("k", "d", "c", 90, 128, 0, 64 << 10)
WAVE = 132 * 3  # blocks of 4 warps, 128 registers and 64 KiB: shared memory lets three stay


@pytest.mark.parametrize(
    ("work", "binding", "seconds"),
    [
        (Work(tensor_flops=8e12, useful_flops=8e12, blocks=WAVE), "tensor", 10e-3),
        (Work(bytes=H100.bandwidth * 1e-2, blocks=WAVE), "memory", 10e-3),
        (Work(special_ops=132 * 16 * 1.755e7, blocks=WAVE), "special", 10e-3),
        (Work(vector_flops=132 * 256 * 1.755e7, blocks=WAVE), "vector", 10e-3),
        (Work(bytes=1.0, blocks=1), "launch", 3e-6),
    ],
)
def test_the_busiest_resource_binds(work: Work, binding: str, seconds: float):
    found = predict(FIGURES, work, 4, H100)
    assert found.binding == binding and found.blocks == 3
    assert found.seconds == pytest.approx(seconds, rel=2e-3)


def test_one_warp_group_hides_nothing_and_more_hide_more():
    work = Work(tensor_flops=8e12, useful_flops=8e12, special_ops=132 * 16 * 1.755e7, blocks=132 * 12)
    times = [predict(replace(FIGURES, shared_bytes=n << 10), work, 4, H100).seconds for n in (200, 100, 40)]
    assert times[0] == pytest.approx(20e-3, rel=1e-3) and times[0] > times[1] > times[2] > 10e-3


def test_a_wave_too_many_costs_a_wave():
    work = Work(tensor_flops=8e12, useful_flops=8e12, blocks=WAVE)
    full, more = (predict(FIGURES, replace(work, blocks=n), 4, H100) for n in (WAVE, WAVE + 1))
    assert full.quantisation == 1 and more.quantisation == pytest.approx((WAVE + 1) / (2 * WAVE))
    assert full.percent == pytest.approx(100, rel=1e-3) and more.percent < 51
    assert predict(FIGURES, replace(work, blocks=33), 4, H100).quantisation == pytest.approx(0.25)


def test_memory_is_faster_on_the_newer_card():
    work = Work(bytes=1e9, blocks=WAVE)
    assert predict(FIGURES, work, 4, H100).seconds / predict(FIGURES, work, 4, H200).seconds > 1.4


def test_measurements_stand_beside_predictions(tmp_path: Path):
    prediction = predict(FIGURES, Work(bytes=1e9, blocks=WAVE), 4, H100)
    assert model.table([prediction])[1].endswith("not measured")
    content = {"machine": {"gpu": "NVIDIA H100 80GB HBM3"}, "kernels": [{"kernel": "k", "row": "r", "seconds": 1e-4}]}
    (tmp_path / "gpu-h100.json").write_text(json.dumps(content))
    times = model.measured(tmp_path)
    assert times == {("k", "H100"): {"r": 1e-4}}
    assert model.table([replace(prediction, measured=times["k", "H100"])])[1].endswith("100.0 us (r)")


def test_a_cuda_kernel_is_found_by_its_instance(tmp_path: Path):
    case = CudaCase("file:kernel", "16 states", "float, true", 4, 9 << 10, 64 << 10, Work(bytes=1e9, blocks=WAVE))
    row = replace(FIGURES, kernel="file:kernel", size="float, true", config="nvcc").to_row()
    found = model.best(case, {("file:kernel", "float, true", "nvcc", 90): row}, H100)
    assert found is not None and (found.size, found.shared_bytes, found.binding) == ("16 states", 9 << 10, "memory")
    assert (
        model.best(replace(case, instance="float, false"), {("file:kernel", "float, true", "nvcc", 90): row}, H100)
        is None
    )
    name = "void (anonymous namespace)::kernel<float, true>((anonymous namespace)::Scan<float>)"
    content = {"machine": {"gpu": "NVIDIA H100"}, "kernels": [{"kernel": name, "row": "r", "seconds": 1e-4}]}
    (tmp_path / "gpu.json").write_text(json.dumps(content))
    assert model.measured(tmp_path) == {(model.profiled_name(case), "H100"): {"r": 1e-4}}


def test_markdown_has_each_kernels_largest_size_on_one_card():
    work = Work(tensor_flops=8e10, useful_flops=8e10, blocks=WAVE)
    sizes = {"d=1 bf16": 1.0, "d=2 bf16 sm_90": 2.0, "d=4 fp32": 4.0}
    predictions = [
        predict(replace(FIGURES, size=size), replace(work, useful_flops=times * 8e10), 4, device)
        for size, times in sizes.items()
        for device in DEVICES
    ]
    head, rule, *rows = model.markdown(predictions)
    assert head.startswith("| kernel | size | registers | shared KiB |") and rule == "|---" * 7 + "|"
    assert rows == ["| `k` | d=2 | 128 | 64.0 | 194 % | tensor | not measured |"]


def test_the_document_shows_what_the_model_says():
    """In a process that does not interpret: an interpreted kernel has other configurations."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "bench.model", "--markdown"]
    table = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=True).stdout
    _, rest = (ROOT / "docs" / "gpu.md").read_text().split("<!-- table: python -m bench.model --markdown -->\n")
    assert rest.partition("<!-- end of table -->")[0] == table, "docs/gpu.md shows another table"


def test_the_command_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert model.main(["--json", str(tmp_path / "model.json")]) == 0
    assert capsys.readouterr().out.startswith("kernel ")
    assert set(json.loads((tmp_path / "model.json").read_text())) == {"schema", "machine", "commit", "rows"}
