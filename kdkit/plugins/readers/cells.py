"""Images in cells of tables: ``at`` is the column and the number of the row, whatever the format of the file."""

from __future__ import annotations

from collections.abc import Callable

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import ImageLocation

Refuse = Callable[[ImageLocation, str], KdkitError]
"""Location and reason -> the error of a format."""


def cell_of(location: ImageLocation, refuse: Refuse) -> tuple[str, int]:
    """The column and the row, from 0, that a location names.

    Raises:
        KdkitError: of ``refuse``; ``at`` is something else.
    """
    match location.at:
        case (str(column), int(row)) if row >= 0 and not isinstance(row, bool):
            return column, row
    raise refuse(location, "at is not a column and a row")
