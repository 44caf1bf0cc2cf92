"""Recurrent operators, forward and backward: 802 tokens in 4 sequences of 155 to 246."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.available import backends
from bench.inputs import random
from uqabench.kernels import gru, selective_scan


@backends("gru")
def test_gru_train(benchmark: Callable, train: Callable, short_offsets: Tensor):
    width, hidden = 512, 512
    x = random(int(short_offsets[-1]), width, seed=1).requires_grad_()
    w_ih = random(3 * hidden, width, seed=2, scale=width**-0.5).requires_grad_()
    w_hh = random(3 * hidden, hidden, seed=3, scale=hidden**-0.5).requires_grad_()
    benchmark(train(lambda: gru(x, [(w_ih, w_hh, None, None)], short_offsets), [x, w_ih, w_hh]))


@backends("selective_scan")
def test_selective_scan_train(benchmark: Callable, train: Callable, short_offsets: Tensor):
    tokens, width, state = int(short_offsets[-1]), 512, 16
    u, delta, z = (random(tokens, width, seed=seed).requires_grad_() for seed in (1, 2, 3))
    b, c = (random(tokens, state, seed=seed).requires_grad_() for seed in (4, 5))
    a = (-torch.arange(1.0, state + 1).repeat(width, 1)).requires_grad_()
    d, bias = torch.ones(width, requires_grad=True), torch.full((width,), -4.0, requires_grad=True)
    leaves = [u, delta, a, b, c, d, z, bias]
    benchmark(train(lambda: selective_scan(*leaves, short_offsets, delta_softplus=True), leaves))
