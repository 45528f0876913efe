"""What every trust policy promises: a weight in [0, 1] for each teacher and domain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from kdkit.core.contracts import TrustTable
from kdkit.core.plugin_system.catalogue import Family
from kdkit.testing.contract import Contract

Array = np.ndarray[Any, Any]


class TrustPolicyContract(Contract):
    """Subclass with ``name``.

    Attributes:
        unmeasured: whether, with :attr:`options`, teachers may teach where their accuracy was not measured.
    """

    family: ClassVar[Family] = "policy"
    unmeasured: ClassVar[bool] = False

    def table(self) -> TrustTable:
        """Five teachers, good, bad, tied and unmeasured; four domains, one of them without measurements."""
        nan = np.nan
        accuracy = np.array(
            [
                [0.95, 0.40, nan, nan],
                [0.95, 0.52, 0.91, nan],
                [0.30, 0.48, 1.00, nan],
                [0.00, 0.50, 0.35, nan],
                [nan, nan, nan, nan],
            ]
        )
        names = tuple("abcde"), ("ct", "mri", "xray", "oct")
        lower, upper = np.clip(accuracy - 0.08, 0, 1), np.clip(accuracy + 0.08, 0, 1)
        return TrustTable(*names, accuracy, lower, upper, np.array([50, 60, 40, 0]), np.array([0.25, 0.5, 0.33, nan]))

    def test_shape(self) -> None:
        """The weights have the shape of the table, with one teacher and with none as well."""
        full = self.table()
        for table in (full, _teachers(full, [0]), _teachers(full, [])):
            weights = self._weights(table)
            wanted = table.accuracy.shape
            assert weights.shape == wanted, f"expected (teachers, domains) = {wanted}, got {weights.shape}"

    def test_range(self) -> None:
        """Weights are finite and in [0, 1], whatever is NaN in the table."""
        weights = self._weights(self.table())
        assert np.isfinite(weights).all(), "expected finite weights, got NaN or infinity; NaN scores need a decision"
        low, high = weights.min(), weights.max()
        assert 0 <= low <= high <= 1, f"expected weights in [0, 1], got {low:g} to {high:g}"

    def test_unmeasured(self) -> None:
        """Where a teacher was not measured its weight is 0 (unless ``unmeasured`` says that it need not be)."""
        table = self.table()
        taught = self._weights(table)[np.isnan(table.accuracy)].any()
        assert self.unmeasured or not taught, "expected weight 0 where the accuracy is NaN"

    def test_order_does_not_matter(self) -> None:
        """Teachers and domains in another order get the same weights."""
        table, weights = self.table(), self._weights(self.table())
        rows = list(range(len(table.teachers)))[::-1]
        np.testing.assert_allclose(self._weights(_teachers(table, rows)), weights[rows], atol=1e-12)
        columns = [2, 0, 3, 1]
        np.testing.assert_allclose(self._weights(_domains(table, columns)), weights[:, columns], atol=1e-12)

    def test_deterministic(self) -> None:
        """The same table gives the same weights, and is not changed."""
        table, policy = self.table(), self.make()
        first, second = policy(table), policy(table)
        assert np.array_equal(first, second), "two calls on the same table gave different weights"
        assert np.array_equal(table.accuracy, self.table().accuracy, equal_nan=True), "the policy changed the table"

    def _weights(self, table: TrustTable) -> Array:
        weights = self.make()(table)
        assert isinstance(weights, np.ndarray), f"expected a numpy array, got {type(weights).__name__}"
        return weights


def _teachers(table: TrustTable, rows: list[int]) -> TrustTable:
    """Those teachers, in that order."""
    chosen = {name: getattr(table, name)[rows] for name in ("accuracy", "lower", "upper")}
    return replace(table, teachers=tuple(table.teachers[row] for row in rows), **chosen)


def _domains(table: TrustTable, columns: list[int]) -> TrustTable:
    """Those domains, in that order."""
    chosen = {name: getattr(table, name)[:, columns] for name in ("accuracy", "lower", "upper")}
    count, chance = table.count[columns], table.chance[columns]
    return replace(table, domains=tuple(table.domains[c] for c in columns), count=count, chance=chance, **chosen)
