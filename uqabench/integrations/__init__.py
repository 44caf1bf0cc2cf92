"""From a frozen encoder's states to soft tokens: built-in integrations, and a registry that anyone can add to."""

from uqabench.integrations.base import Integration, IntegrationSettings, TrainingHistories
from uqabench.integrations.last import Last
from uqabench.integrations.linear import LinearTokens, WindowTokens
from uqabench.integrations.mean import MeanPooling
from uqabench.integrations.mean_last import MeanAndLast
from uqabench.integrations.pooling import NEXT, Pooling, Window, span_means, window_means, window_name
from uqabench.integrations.q_former import QFormer, QFormerAdapter
from uqabench.integrations.registry import check_integration, find_integration, integration_names, register
from uqabench.integrations.ridge import RidgeFit, fit_ridge, ridge_regression
from uqabench.integrations.segments import Segments
from uqabench.integrations.segments_next import SegmentsAndNext

__all__ = [
    "NEXT",
    "Integration",
    "IntegrationSettings",
    "Last",
    "LinearTokens",
    "MeanAndLast",
    "MeanPooling",
    "Pooling",
    "QFormer",
    "QFormerAdapter",
    "RidgeFit",
    "Segments",
    "SegmentsAndNext",
    "TrainingHistories",
    "Window",
    "WindowTokens",
    "check_integration",
    "find_integration",
    "fit_ridge",
    "integration_names",
    "register",
    "ridge_regression",
    "span_means",
    "window_means",
    "window_name",
]
