"""A fork copies locks in any state, and files with their positions: a child starts anew."""

from __future__ import annotations

import os
from collections.abc import Callable


def start_anew(reset: Callable[[], None]) -> None:
    """Call ``reset``, which makes a reader's locks and caches, now and in each forked child."""
    reset()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=reset)
