"""Fitted maps between feature spaces: the common anchor, fitting on it, and judging the result."""
