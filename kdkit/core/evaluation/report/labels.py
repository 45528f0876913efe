"""Places of labels beside the ends of lines."""

from __future__ import annotations

from collections.abc import Sequence


def spread_apart(values: Sequence[float], step: float) -> list[float]:
    """The values (ascending), moved as little as needed for neighbors to be ``step`` apart.

    Neighbors that would overlap become a group centered on the mean of its values.
    """
    groups: list[tuple[float, int]] = []
    for value in values:
        center, size = value, 1
        while groups and center - groups[-1][0] < step * (size + groups[-1][1]) / 2:
            before, count = groups.pop()
            center, size = (center * size + before * count) / (size + count), size + count
        groups.append((center, size))
    return [center + step * (k - (size - 1) / 2) for center, size in groups for k in range(size)]
