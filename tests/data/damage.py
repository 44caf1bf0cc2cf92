"""What the fuzzed readers share: how many cases, and bytes that were damaged at random.

UQABENCH_FUZZ sets the number of cases (1,000). Of the readers (text with delimiters, Parquet, objects by the line, the
published files) each gets half of it or more, shared out among its tests.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

CASES = int(os.environ.get("UQABENCH_FUZZ", 1000))
quick = settings(suppress_health_check=list(HealthCheck))


@st.composite
def damaged(draw, content: bytes, pieces: Sequence[bytes], least: int = 1) -> bytes:
    """`content` with a few of `pieces` or random bytes inserted or written over it, and some of it removed or doubled.

    One change in ten cuts the rest off: rarely enough that most damage lies inside a file. least: fewest changes.
    """
    for _ in range(draw(st.integers(least, 6))):
        place = draw(st.integers(0, len(content)))
        length = draw(st.integers(0, 12))
        piece = draw(st.sampled_from(pieces) | st.binary(max_size=4))
        kind = draw(st.sampled_from(("insert", "remove", "double", "overwrite", "cut")))
        if kind == "insert":
            content = content[:place] + piece + content[place:]
        elif kind == "remove":
            content = content[:place] + content[place + length :]
        elif kind == "double":
            content = content[:place] + content[place : place + 10 * length] + content[place:]
        elif kind == "overwrite":
            content = content[:place] + piece + content[place + len(piece) :]
        elif draw(st.booleans()):
            content = content[:place]
    return content
