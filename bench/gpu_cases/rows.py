"""The operators that go row by row (rms_norm, layer_norm, norm_gate, swiglu, rope) at the published widths, in bf16."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench import work as least_work
from uqabench.kernels import triton_norms
from uqabench.kernels.rope import triton_rotation
from uqabench.kernels.swiglu import triton_kernels as triton_swiglu

from . import KernelCase, Work

ROWS = 16_384  # tokens of a batch: 32 users of 512
NORMS = {  # operator: (its arguments beside x, widths)
    "layer_norm": (("weight", "bias"), (512, 1024)),
    "layer_norm_plain": ((), (512, 1024)),
    "rms_norm": (("weight",), (512, 1024)),
    "rms_norm_sum": (("weight", "residual"), (512, 1024)),
    "rms_norm_mixed": (("weight",), (512, 1024)),  # beside a residual stream in fp32
    "rms_norm_sum_mixed": (("weight", "residual"), (512, 1024)),
    "norm_gate": (("gate",), (2048,)),
    "norm_gate_dropout": (("gate", "seed"), (2048,)),
}


def kernel_cases() -> Iterator[KernelCase]:
    for name, (arguments, widths) in NORMS.items():
        for width in widths:
            yield _norm(name, width, arguments, is_forward=True)
            yield _norm(name, width, arguments, is_forward=False)
    for width in (1536, 2048):
        yield _swiglu(width, is_forward=True)
        yield _swiglu(width, is_forward=False)
    for heads, width in ((8, 64), (4, 128)):
        yield _rope_angles(width)
        yield _rope(heads, width, is_inverse=False)
        yield _rope(heads, width, is_inverse=True)


def _norm(name: str, width: int, arguments: tuple[str, ...], is_forward: bool) -> KernelCase:
    is_present = dict.fromkeys(("x", "y", "grad", "dx", *arguments), True)
    is_present |= dict.fromkeys(("total", "grad_sum"), "residual" in is_present)
    is_present |= {"dgate": "gate" in is_present, "seed": "seed" in is_present}
    is_present["gate_input"] = "gate" in is_present  # as the HSTU block's backward pass has it
    parameters = {"weight", "bias"} & set(arguments)
    for part in ("weight", "bias"):
        is_present |= dict.fromkeys((f"{part}_sums", f"d{part}"), part in parameters)
    is_present["counters"] = is_persistent = bool(parameters) and not is_forward
    function = triton_norms.forward_kernel if is_forward else triton_norms.backward_kernel
    fp32 = ("statistics", "weight_sums", "bias_sums")
    if name.endswith("mixed"):
        is_present["update"] = has_sum = "residual" in arguments
        fp32 += ("weight", "dweight", "dx")
        fp32 += ("residual", "total", "grad_sum") if has_sum else ()
        fp32 += () if has_sum and is_forward else ("x",)
    config = triton_norms.persistent_tile(width) if is_persistent else triton_norms.tile(width)
    tiles = -(-ROWS // config.kwargs["ROWS"])
    programs = min(tiles, 4 * 132) if is_persistent else tiles
    sums = (
        2 * programs * width * 4 * len(parameters) if is_persistent else 0
    )  # written, and read by the last of a group
    model = next(known for known in sorted(least_work.ROW_WISE, key=len, reverse=True) if name.startswith(known))
    moved = _bytes(model, width, is_forward) + 8 * ROWS + sums
    if "gate" in arguments and not is_forward:
        moved += 2 * ROWS * width  # The gate's own input, whose SiLU the kernel takes back.
    return KernelCase(
        f"{name}_{'forward' if is_forward else 'backward'}",
        f"d={width} bf16",
        function,
        *_arguments(
            function,
            is_present,
            fp32,
            {"IS_CENTRED": not name.startswith("rms"), **({} if is_forward else {"STAGES": 1})},
        ),
        (config,),
        lambda _: Work(vector_flops=10 * ROWS * width, bytes=moved, blocks=programs),
        aligned=_aligned(function),
    )


def _bytes(model: str, width: int, is_forward: bool) -> float:
    least = least_work.row_wise(model, ROWS, width, element=2)
    return (least.forward if is_forward else least.backward).bytes


def _swiglu(width: int, is_forward: bool) -> KernelCase:
    function = triton_swiglu.forward_kernel if is_forward else triton_swiglu.backward_kernel
    numbers = ROWS * width

    def work(config: Any) -> Work:
        tiles = -(-ROWS // config.kwargs["ROWS"]) * -(-width // config.kwargs["BLOCK"])
        return Work(
            vector_flops=(8 if is_forward else 20) * numbers, special_ops=2 * numbers,
            bytes=_bytes("swiglu", width, is_forward), blocks=tiles,
        )  # fmt: skip

    return KernelCase(
        f"swiglu_{'forward' if is_forward else 'backward'}",
        f"d={width} bf16",
        function,
        *_arguments(function),
        (triton_swiglu.tile(width),),
        work,
        aligned=_aligned(function),
    )


def _rope_angles(width: int) -> KernelCase:
    function, positions = triton_rotation.angles_kernel, 512

    def work(config: Any) -> Work:
        blocks = -(-ROWS // config.kwargs["TOKENS"])
        angles = blocks * config.kwargs["ROWS"] * width // 2  # those of rows that the table lacks are not written
        return Work(vector_flops=60 * angles, bytes=4 * ROWS + 4 * positions * width, blocks=blocks)

    return KernelCase(
        "rope_angles",
        f"D={width}",
        function,
        *_arguments(function, fp32=("table",), constants={}),
        (triton_rotation.angles_tile(width),),
        work,
        aligned=("half",),
    )


def _rope(heads: int, width: int, is_inverse: bool) -> KernelCase:
    function, numbers = triton_rotation.rotate_kernel, 2 * ROWS * heads * width

    def work(config: Any) -> Work:
        return Work(
            vector_flops=5 * numbers,
            bytes=_bytes("rope", heads * width, not is_inverse) + 4 * ROWS,  # the table stays in the L2 cache
            blocks=-(-ROWS // config.kwargs["TOKENS"]),
        )  # fmt: skip

    return KernelCase(
        f"rope_{'backward' if is_inverse else 'forward'}",
        f"H={heads} D={width} bf16",
        function,
        *_arguments(function, fp32=("table",), constants={"IS_INVERSE": is_inverse}),
        (triton_rotation.tile(heads, width),),
        work,
        aligned=(*_aligned(function), "half"),
    )


def _arguments(
    function: Any, is_present: dict[str, bool] | None = None, fp32: tuple[str, ...] = (), constants: dict | None = None
) -> tuple[dict[str, str], dict[str, Any]]:
    """Signature and constants: tensors bf16 unless in `fp32`, those that are not present None, sizes by their names."""
    signature: dict[str, str] = {}
    constants = dict(constants or {})
    for name in function.arg_names:
        if name in ("rows", "width", "group", "tokens", "sequences", "half", "threshold") or name.endswith(
            ("_stride", "_heads")
        ):
            signature[name] = "i32"
        elif name in ("offsets", "steps") or (name == "seed" and is_present["seed"]):
            signature[name] = "*i64"
        elif name == "positions" or (name == "counters" and is_present[name]):
            signature[name] = "*i32"
        elif name in ("eps", "scale"):
            signature[name] = "fp32"
        elif name in fp32 and (is_present is None or is_present.get(name, True)):
            signature[name] = "*fp32"
        elif name.islower() and (is_present is None or is_present.get(name, False)):
            signature[name] = "*bf16"
        elif name.islower():
            constants[name] = None
    return signature, constants


def _aligned(function: Any) -> tuple[str, ...]:
    """Every row begins at a boundary of 16 numbers: widths and strides are multiples of that."""
    return tuple(name for name in function.arg_names if name.endswith("_stride") or name == "width")
