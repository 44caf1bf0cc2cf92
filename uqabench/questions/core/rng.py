"""Counter-based random numbers (SplitMix64): a state depends on its keys alone, never on threads or on order.

Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014.
"""

from __future__ import annotations

import numpy as np

from uqabench.questions.core.compiled import inner

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S32 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(32)


@inner
def mix64(x):
    """SplitMix64's finaliser: a bijection of uint64."""
    x = (x ^ (x >> _S30)) * _FIRST
    x = (x ^ (x >> _S27)) * _SECOND
    return x ^ (x >> _S31)


@inner
def keyed(seed, salt, user, cut, attempt):
    """What a state for integer keys begins with, uint64."""
    x = mix64(np.uint64(seed) + _GOLDEN)
    for key in (salt, user, cut, attempt):
        x = mix64((x ^ np.uint64(key)) + _GOLDEN)
    return x


@inner
def keyed_state(seed, salt, user, cut, attempt):
    """A fresh uint64 (1,) state for integer keys."""
    state = np.empty(1, np.uint64)
    state[0] = keyed(seed, salt, user, cut, attempt)
    return state


@inner
def below(state, n):
    """Uniform int64 in 0..n-1 for 1 <= n < 2**32 (its bias is below n / 2**32)."""
    state[0] += _GOLDEN
    return np.int64(((mix64(state[0]) >> _S32) * np.uint64(n)) >> _S32)


@inner
def chance(state, p):
    """True with probability p."""
    return below(state, 1 << 30) < p * (1 << 30)
