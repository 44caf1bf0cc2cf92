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
)
"""A family's index is part of its random state: append new ones, so that the questions of the others stay."""

KINDS: tuple[Kind, ...] = tuple(kind for family in FAMILIES for kind in family.kinds)
KIND_INDEX = {kind.name: index for index, kind in enumerate(KINDS)}

POOLED: tuple[Family, ...] = tuple(family for family in FAMILIES if family.right_answer is not None)
"""Families whose wrong options come from right answers of training histories; their order is that of the pools."""

__all__ = ["ASKED", "FAMILIES", "KINDS", "KIND_INDEX", "LONGEST_ANSWER", "OPTIONS", "POOLED", "SIDE"]
