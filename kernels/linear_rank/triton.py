"""Ranks by Triton (triton_count.py): fp32 and bf16; scores are accumulated in fp32 and never stored."""

from .triton_count import count_in_front as forward

__all__ = ["forward"]
