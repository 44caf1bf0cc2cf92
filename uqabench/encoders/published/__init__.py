"""Weights of the published encoders under their published names, both ways."""

from uqabench.encoders.published.checkpoint import from_published, read_published, to_published

__all__ = ["from_published", "read_published", "to_published"]
