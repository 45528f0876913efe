"""The errors of the Hub, of its client and of the network, in words that a person can act on."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from kdkit.core.errors import KdkitError

if TYPE_CHECKING:
    from kdkit.core.hub.connection import Hub


class explained:
    """A context in which what the Hub's client raises becomes :class:`KdkitError`, with a fix and an exit code.

    Args:
        where: the object, e.g. ``org/name@v1``.
        hub: to name pages, and to keep its token out of every message.
    """

    def __init__(self, where: str, hub: Hub | None = None) -> None:
        self.where, self.hub = where, hub

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, KdkitError):
            raise KdkitError(str(error), where=self.where) from error
