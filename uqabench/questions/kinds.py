"""The question kinds, declared: which sub-task each serves, what it asks about, and what its parameters mean.

Sub-tasks follow Table 1 of the UQABench paper; h is the history s[max(0, cut - N):cut] that a question is about.
"""

from __future__ import annotations

from dataclasses import dataclass

ASKED = ("title", "category", "brand", "shop")
"""Attributes a question can ask about; their places are those in `uqabench.data.catalogue.ATTRIBUTES`."""
SIDE = ("category", "brand", "shop")

OPTIONS = 4
LONGEST_ANSWER = 3
"""No answer lists more than three values (df: k < 4; li: three; it: thirds)."""


@dataclass(frozen=True)
class Kind:
    """One way of asking.

    name: key in the template file. subtask: entry of SUBTASKS. attributes: what it may ask about (empty: none).
    params: meaning of the leading entries of a question's parameters. counts: options are numbers, not codes.
    ordered: an option lists several values and their order matters.
    """

    name: str
    subtask: str
    attributes: tuple[str, ...]
    params: tuple[str, ...] = ()
    counts: bool = False
    ordered: bool = False


KINDS = (
    Kind("df_last", "df", ASKED, ("k",)),  # attribute of the k-th most recent item, k = 1, 2, 3
    Kind("df_nth", "df", ASKED, ("n",)),  # attribute of the n-th item of h, counted from 1
    Kind("df_list", "df", ASKED, ("k",), ordered=True),  # attributes of the last k = 2, 3 items in time order
    Kind("mf_count", "mf", ASKED, ("target",), counts=True),  # how often h has the value with code `target`
    Kind("mf_length", "mf", (), (), counts=True),  # the length of h
    Kind("ip_next", "ip", ("title",)),  # title of s[cut]
    Kind("ap_next", "ap", SIDE),  # attribute of s[cut]
    Kind("li_top3", "li", SIDE, ordered=True),  # the three most frequent values of h, most frequent first
    Kind("si_recent", "si", SIDE, ("window",)),  # the most frequent value of the last `window` items of h
    Kind("it_path", "it", SIDE, ordered=True),  # the most frequent values of the thirds of h, equal neighbours merged
)
KIND_INDEX = {kind.name: index for index, kind in enumerate(KINDS)}

DF_LAST, DF_NTH, DF_LIST, MF_COUNT, MF_LENGTH, IP_NEXT, AP_NEXT, LI_TOP3, SI_RECENT, IT_PATH = range(len(KINDS))

PHRASING_CYCLE = 27720
"""A question stores a phrasing in 0..27719 and takes it modulo the phrasings its kind has: the least common multiple
of 1..12, so every phrasing is equally likely for up to twelve of them, whatever template file is used later."""
