"""Sequence encoders over packed batches, the item tower before them, and a registry that anyone can add to."""

from uqabench.encoders.bag_of_items import BagOfItems
from uqabench.encoders.gru4rec import GRU4Rec
from uqabench.encoders.hstu import HSTU
from uqabench.encoders.item_tower import ItemTower
from uqabench.encoders.mamba4rec import Mamba2, Mamba4Rec
from uqabench.encoders.registry import build_encoder, encoder_names, register
from uqabench.encoders.sasrec import SASRec
from uqabench.encoders.trmpp import TrmPP
from uqabench.encoders.user_encoder import UserEncoder
from uqabench.settings.encoders import (
    ENCODER_PRESETS,
    INPUTS,
    PRESET_NAMES,
    EncoderConfig,
    GRU4RecConfig,
    HSTUConfig,
    Mamba2Config,
    Mamba4RecConfig,
    SASRecConfig,
    TrmPPConfig,
    UserEncoderConfig,
)

__all__ = [
    "HSTU",
    "INPUTS",
    "ENCODER_PRESETS",
    "PRESET_NAMES",
    "BagOfItems",
    "EncoderConfig",
    "GRU4Rec",
    "GRU4RecConfig",
    "HSTUConfig",
    "ItemTower",
    "Mamba2",
    "Mamba2Config",
    "Mamba4Rec",
    "Mamba4RecConfig",
    "SASRec",
    "SASRecConfig",
    "TrmPP",
    "TrmPPConfig",
    "UserEncoder",
    "UserEncoderConfig",
    "build_encoder",
    "encoder_names",
    "register",
]
