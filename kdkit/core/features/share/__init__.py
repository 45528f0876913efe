"""Columns as a data set repository, without images, captions, labels or ids of samples; and back."""

from kdkit.core.features.share.pull import PulledColumn, pull_features
from kdkit.core.features.share.push import PushedFeatures, push_features

__all__ = ["PulledColumn", "PushedFeatures", "pull_features", "push_features"]
