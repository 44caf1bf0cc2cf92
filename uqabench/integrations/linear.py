"""Soft tokens that are linear in pooled states, and start at ridge regressions."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uqabench.errors import InputError
from uqabench.integrations.base import Integration, IntegrationSettings, TrainingHistories
from uqabench.integrations.pooling import Window, window_means, window_name
from uqabench.integrations.ridge import RidgeFit, fit_ridge


class LinearTokens(nn.Module):
    """Each pooled vector through a Linear(width → llm_width) of its own is one soft token.

    `linear.weight` (n_tokens · llm_width, width) and `linear.bias` hold the tokens' maps one below the other.

    The paper's adapter averages Linear(state) over a sequence. The mean of an affine map is the affine map of the
    mean, so the states are pooled first: one row a user instead of up to N, and the pooled vector of a frozen encoder
    is computed once. They differ for an empty sequence only, whose token here is the bias.

    Gaussian initialisation, bias included: states of unit RMS give tokens of about `token_rms`, and no token is ever
    zero. A language model whose attention has no biases (Llama) multiplies the gradient to a first token by the
    inverse of the token's size in each layer: in SmolLM2-135M its norm is 3 at the embeddings' own RMS of 0.14,
    41 at 0.02, 2,000 at 0.001, and NaN at zero.
    """

    def __init__(self, n_tokens: int, width: int, llm_width: int, token_rms: float) -> None:
        super().__init__()
        check_sizes(token_rms, n_tokens=n_tokens, width=width, llm_width=llm_width)
        self.n_tokens, self.width, self.llm_width = n_tokens, width, llm_width
        self.linear = nn.Linear(width, n_tokens * llm_width)
        nn.init.normal_(self.linear.weight, std=token_rms / math.sqrt(2 * width))
        nn.init.normal_(self.linear.bias, std=token_rms / math.sqrt(2))

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, n_tokens, width) → (B, n_tokens, llm_width)."""
        weights = self.linear.weight.view(self.n_tokens, self.llm_width, self.width)
        biases = self.linear.bias.view(self.n_tokens, self.llm_width)
        return torch.stack([F.linear(pooled[:, i], weights[i], biases[i]) for i in range(self.n_tokens)], dim=1)

    @torch.no_grad()
    def start_at(self, token: int, fit: RidgeFit) -> None:
        """Set one token's map to a regression's; InputError for one of other widths."""
        if tuple(fit.weight.shape) != (self.llm_width, self.width):
            raise InputError(
                f"The adapter maps {self.width} to {self.llm_width} numbers, but the regression {fit.weight.shape[1]} "
                f"to {fit.weight.shape[0]}: build it for this encoder and language model."
            )
        rows = slice(token * self.llm_width, (token + 1) * self.llm_width)
        self.linear.weight[rows].copy_(fit.weight)
        self.linear.bias[rows].copy_(fit.bias)


class WindowTokens(Integration):
    """One soft token for each of `windows`: the mean state of the last n items through a Linear.

    Each token starts at the ridge regression from its pooled states to the language model's own vector of the same
    items.
    """

    windows: ClassVar[tuple[Window, ...]]

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        cls.pooling = window_means(*cls.windows)

    def n_tokens(self, settings: IntegrationSettings) -> int:
        return len(self.windows)

    def build(self, width: int, llm_width: int, token_rms: float, settings: IntegrationSettings) -> LinearTokens:
        return LinearTokens(len(self.windows), width, llm_width, token_rms)

    def initialise(self, adapter: nn.Module, histories: TrainingHistories) -> dict[str, float]:
        """Metrics `ridge_*` of `RidgeFit`, with the window's name behind a dot where there are several tokens."""
        (pooled,) = histories.all_inputs()
        metrics: dict[str, float] = {}
        for token, window in enumerate(self.windows):
            fit = fit_ridge(pooled[:, token], histories.vectors(window), groups=histories.users)
            adapter.start_at(token, fit)
            suffix = f".{window_name(window)}" if len(self.windows) > 1 else ""
            metrics |= {name + suffix: value for name, value in fit.metrics().items()}
        return metrics


def check_sizes(token_rms: float, **sizes: int) -> None:
    """InputError for a size that is no positive whole number, or a token_rms that is no positive number."""
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise InputError(f"Adapter: {name} must be a positive whole number, not {size!r}.")
    if not 0 < token_rms < math.inf:
        raise InputError(f"Adapter: token_rms must be a positive number, not {token_rms}.")
