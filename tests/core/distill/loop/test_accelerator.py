"""The Accelerator of a run: its timeout."""

from __future__ import annotations

from datetime import timedelta

from kdkit.core.distill.loop.accelerator import make_accelerator


def test_ranks_wait_longer_than_a_day() -> None:
    """By default ranks on GPUs give up after ten minutes, while the main one may extract for hours."""
    handler = make_accelerator("no", cpu=True).init_handler
    assert handler is not None
    assert handler.timeout > timedelta(days=1)
