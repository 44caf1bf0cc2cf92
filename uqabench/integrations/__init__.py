"""From a frozen encoder's states to soft tokens: built-in integrations, and a registry that anyone can add to."""

from uqabench.integrations.base import Integration, IntegrationSettings, TrainingHistories
from uqabench.integrations.linear import LinearTokens, WindowTokens
from uqabench.integrations.mean import MeanPooling
from uqabench.integrations.pooling import Pooling, Window, span_means, window_means, window_name
from uqabench.integrations.q_former import QFormer, QFormerAdapter
from uqabench.integrations.registry import check_integration, find_integration, integration_names, register
from uqabench.integrations.ridge import RidgeFit, fit_ridge, ridge_regression

__all__ = [
    "Integration",
    "IntegrationSettings",
    "LinearTokens",
    "MeanPooling",
    "Pooling",
    "QFormer",
    "QFormerAdapter",
    "RidgeFit",
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
