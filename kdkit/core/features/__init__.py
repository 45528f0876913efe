"""The feature store. Reading needs numpy and h5py; ``extraction`` and ``signals`` need torch as well."""

from kdkit.core.features.store.column import Column
from kdkit.core.features.store.header import Header
from kdkit.core.features.store.store import FeatureStore

__all__ = ["Column", "FeatureStore", "Header"]
