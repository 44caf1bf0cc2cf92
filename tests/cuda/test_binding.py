"""The compiled module's CUDA functions where there is no driver: it imports, and a call says why it cannot run."""

from __future__ import annotations

import pytest
import torch

from uqabench.kernels.backend import native_module

FUNCTIONS = ("selective_scan_forward_cuda", "selective_scan_backward_cuda")
SIZES = [5, 5, 2, 1, 9, 1, 1, 0, 5, 5, 5, 5, 5, 5]
ADDRESSES = [0] * 28

pytestmark = pytest.mark.skipif(not native_module().has_cuda, reason="the module was compiled without CUDA")


@pytest.mark.skipif(torch.cuda.is_available(), reason="null addresses would reach the GPU")
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_call_without_a_driver_is_an_error_of_python(function: str):
    with pytest.raises(RuntimeError, match="CUDA cannot run the selective scan: .*"):
        getattr(native_module(), function)(SIZES, ADDRESSES, device=0, stream=0)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_arguments_are_counted(function: str):
    call = getattr(native_module(), function)
    for sizes, addresses in ((SIZES[1:], ADDRESSES), (SIZES, ADDRESSES[1:])):
        with pytest.raises(ValueError, match="do not fit this module"):
            call(sizes, addresses, device=0, stream=0)
    with pytest.raises(ValueError, match="too many states"):
        call([*SIZES[:2], 257, *SIZES[3:]], ADDRESSES, device=0, stream=0)


def test_versions():
    compiled, driver = native_module().cuda_versions()
    assert compiled // 1000 >= 12 and (driver > 0 or not torch.cuda.is_available())
