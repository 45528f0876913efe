"""From what a teacher computes to the rows that are learnt from: the same whether they are stored or asked live."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import SignalSource, SignalSpec
from kdkit.core.teachers.signals import DualEncoderSignals


@dataclass(frozen=True)
class Encoder:
    """One teacher's rows, checked and rounded to the types of its column.

    Attributes:
        source: the teacher's signals.
        teacher: its name, and ``where``: the file that is written, for messages.
        signals: what the column has.
        kept: for messages, what becomes of a batch with bad values.
    """

    source: SignalSource
    teacher: str
    signals: tuple[SignalSpec, ...]
    where: str = ""
    kept: str = ""

    def begin(self) -> None:
        """Forget what earlier batches left behind, so that rows depend on those since now alone."""
        if isinstance(self.source, DualEncoderSignals):
            self.source.forget_texts()

    def __call__(self, items: Sequence[Any], ids: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Signal name -> (B, *shape) in the dtype of its spec.

        Args:
            items: B prepared samples.
            ids: their names, for messages.

        Raises:
            KdkitError: a signal that is absent, of another shape, or not finite once it is rounded.
        """
        with torch.no_grad():
            computed = self.source.compute(items)
        encoded = {}
        for spec in self.signals:
            if spec.name not in computed:
                raise self._broken(f"gave no signal '{spec.name}'", f"it gave {', '.join(computed)}")
            tensor = computed[spec.name].detach().cpu()
            full = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
            if full.shape != (len(items), *spec.shape):
                raise self._broken(f"gave '{spec.name}' of shape {full.shape}, not {(len(items), *spec.shape)}")
            with np.errstate(over="ignore"):
                encoded[spec.name] = full.astype(spec.dtype)
            self._check_finite(spec.name, full, encoded[spec.name], ids)
        return encoded

    def _check_finite(self, signal: str, full: NDArray[Any], rounded: NDArray[Any], ids: Sequence[str]) -> None:
        if np.isfinite(rounded).all():
            return
        bad = ~np.isfinite(rounded.reshape(len(rounded), -1)).all(axis=1)
        names = [name for name, wrong in zip(ids, bad, strict=True) if wrong]
        kind = f"values beyond {rounded.dtype}" if np.isfinite(full).all() else "NaN or infinite values"
        raise self._broken(f"gave {kind} in '{signal}' for {_some(names)}", self.kept)

    def _broken(self, what: str, why: str = "") -> KdkitError:
        return KdkitError(
            "KD-FEAT-001",
            f"teacher '{self.teacher}' {what}",
            where=self.where,
            why=why,
            fix="check its files and preprocessing, or remove it: kdkit remove-teacher " + self.teacher,
            code=ExitCode.FOUND,
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"sample '{names[0]}'{more}"
