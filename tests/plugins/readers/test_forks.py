"""Readers start anew in a forked child."""

from __future__ import annotations

import os

import pytest

from kdkit.plugins.readers.forks import start_anew


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no forks")
def test_a_child_starts_anew() -> None:
    calls: list[int] = []
    start_anew(lambda: calls.append(os.getpid()))
    assert calls == [os.getpid()]
    if (child := os.fork()) == 0:
        os._exit(0 if calls[1:] == [os.getpid()] else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert len(calls) == 1
