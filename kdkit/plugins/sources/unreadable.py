"""Folders that cannot be read: an error, since their samples would be missing without a word."""

from __future__ import annotations

from typing import NoReturn

from kdkit.core.base.errors import KdkitError


def raise_unreadable(error: OSError) -> NoReturn:
    """For ``onerror`` of ``os.walk``, which leaves such folders out by default.

    Raises:
        KdkitError: always; it names the folder of ``error``.
    """
    raise KdkitError(
        "KD-SRC-006",
        "this folder cannot be read",
        where=str(error.filename),
        why=error.strerror or str(error),
        fix="correct the permissions of the folder",
    ) from error
