"""Names of the rules by which one of several answers is chosen."""

from __future__ import annotations

PLAIN = "plain"
"""No choice: the first answer, which is the greedy one or that of the beam search."""
AGREEMENT = "agreement"
"""The answer that agrees most with the others."""
NEAREST = "nearest"
"""Texts: the answer nearest to the image by a dual encoder."""
