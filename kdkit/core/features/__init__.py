"""Cached features of teachers: ``store`` keeps them on disk, ``extract`` computes them (and needs torch)."""

from kdkit.core.features.store.column import Column
from kdkit.core.features.store.header import Header
from kdkit.core.features.store.store import FeatureStore

__all__ = ["Column", "FeatureStore", "Header"]
