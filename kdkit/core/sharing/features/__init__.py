"""Columns as a data set repository, without images, captions, labels or ids of samples; and back."""

from kdkit.core.sharing.features.pull import PulledColumn, pull_features
from kdkit.core.sharing.features.push import PushedFeatures, push_features

__all__ = ["PulledColumn", "PushedFeatures", "pull_features", "push_features"]
