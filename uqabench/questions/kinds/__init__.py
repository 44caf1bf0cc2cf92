"""All kinds of question. A new family is one file here, one YAML file of the same name, and one line in FAMILIES."""

from __future__ import annotations

from uqabench.questions.declaration import ASKED, LONGEST_ANSWER, OPTIONS, SIDE, Family, Kind
from uqabench.questions.kinds import (
    direct_feature,
    interest_path,
    long_term_interest,
    match_feature,
    next_item,
    short_term_interest,
)

FAMILIES: tuple[Family, ...] = (
    direct_feature.FAMILY,
    match_feature.FAMILY,
    next_item.TITLE_FAMILY,
    next_item.ATTRIBUTE_FAMILY,
    long_term_interest.FAMILY,
    short_term_interest.FAMILY,
    interest_path.FAMILY,
    direct_feature.BASKETS_FAMILY,
    *next_item.LEVEL_FAMILIES,
    interest_path.BASKETS_FAMILY,
)
"""A family's index is part of its random state: append new ones, so that the questions of the others stay."""

KINDS: tuple[Kind, ...] = tuple(dict.fromkeys(kind for family in FAMILIES for kind in family.kinds))
KIND_INDEX = {kind.name: index for index, kind in enumerate(KINDS)}


def families(version: str, subtask: str | None = None) -> list[Family]:
    """The families of a question version, of one sub-task or of all."""
    return [each for each in FAMILIES if version in each.versions and subtask in (None, each.subtask)]


def kinds(version: str) -> list[Kind]:
    """The kinds of a question version, in the order of KINDS."""
    own = {kind.name for family in families(version) for kind in family.kinds}
    return [kind for kind in KINDS if kind.name in own]


def pooled(version: str) -> list[Family]:
    """Families of a version whose wrong options come from right answers of training histories, in the order of the
    pools."""
    return [family for family in families(version) if family.right_answer is not None]


__all__ = [
    "ASKED",
    "FAMILIES",
    "KINDS",
    "KIND_INDEX",
    "LONGEST_ANSWER",
    "OPTIONS",
    "SIDE",
    "families",
    "kinds",
    "pooled",
]
