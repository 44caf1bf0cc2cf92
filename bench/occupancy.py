"""How many blocks of a kernel a multiprocessor of an A100 or H100 holds at once.

Limits: CUDA C++ Programming Guide, "Compute Capabilities", compute capability 8.0 and 9.0
(https://docs.nvidia.com/cuda/cuda-c-programming-guide/#compute-capabilities).
"""

from __future__ import annotations

REGISTERS = 64 << 10
"""32-bit registers of a multiprocessor."""
REGISTER_UNIT = 256
"""Registers are handed out a warp in units of so many."""
WARPS, BLOCKS = 64, 32
SHARED = {80: 164 << 10, 90: 228 << 10}
"""Shared memory of a multiprocessor, bytes; each block costs 1 KiB more than it asks for."""


def blocks_a_multiprocessor(registers: int, shared_bytes: int, warps: int, arch: int) -> int:
    """Resident blocks with `registers` a thread, `shared_bytes` and `warps` a block; 0 where not one fits."""
    a_warp = -(-registers * 32 // REGISTER_UNIT) * REGISTER_UNIT
    by_registers = REGISTERS // (a_warp * warps) if registers else BLOCKS
    return min(by_registers, SHARED[arch] // (shared_bytes + 1024), WARPS // warps, BLOCKS)
