"""From the signals that a teacher computes to the rows of its column, stored or live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Sample, SignalSource, SignalSpec
from kdkit.core.data.images import UnreadableImage
from kdkit.core.plugin_system.failures import plugin_errors
from kdkit.core.teachers.signals import TextSignals

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Encoder:
    """Computes one teacher's rows, checks them and rounds them to the dtypes of its column.

    Attributes:
        source: the teacher's signals.
        teacher: its name, for messages.
        signals: those of the column.
        where: the file that receives the rows, for messages; empty for a live teacher.
    """

    source: SignalSource
    teacher: str
    signals: tuple[SignalSpec, ...]
    where: str = ""

    def begin(self) -> None:
        """Forget cached text features, so that rows depend only on the batches that follow."""
        if isinstance(self.source, TextSignals):
            self.source.forget_texts()

    @property
    def _model(self) -> object:
        return getattr(self.source, "model", self.source)

    def prepare(self, image: Image, sample: Sample) -> Any:
        """The teacher's input. Adds the teacher's name to its errors, since several teachers share a pass."""
        try:
            with plugin_errors(f"failed on sample '{sample.id}'", self._model):
                return self.source.prepare(image, sample)
        except UnreadableImage:
            raise
        except KdkitError as error:
            raise KdkitError(
                "KD-FEAT-019",
                f"teacher '{self.teacher}': {error.what}",
                where=error.where,
                why=error.why,
                fix=error.fix,
                code=error.code,
            ) from error

    def __call__(self, items: Sequence[Any], ids: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Signal name -> (B, *shape) in the dtype of its spec.

        Args:
            items: B prepared samples.
            ids: their ids, for messages.

        Raises:
            KdkitError: a signal is absent, has another shape, or is not finite after rounding.
        """
        with torch.no_grad(), plugin_errors(f"teacher '{self.teacher}' failed on {_names(ids)}", self._model):
            computed = self.source.compute(items)
        if not isinstance(computed, Mapping):
            raise self._wrong_type(f"returned a {type(computed).__name__}, not a mapping of tensors", ids)
        encoded = {}
        for spec in self.signals:
            if spec.name not in computed:
                raise self._error(f"returned no signal '{spec.name}'", f"it returned {', '.join(computed)}")
            found = computed[spec.name]
            if not isinstance(found, torch.Tensor):
                raise self._wrong_type(f"returned a {type(found).__name__} as '{spec.name}', not a tensor", ids)
            tensor = found.detach().cpu()
            full = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
            if full.shape != (len(items), *spec.shape):
                raise self._error(f"returned '{spec.name}' of shape {full.shape}, not {(len(items), *spec.shape)}")
            with np.errstate(over="ignore"):
                encoded[spec.name] = full.astype(spec.dtype)
            self._check_finite(spec.name, full, encoded[spec.name], ids)
        return encoded

    def _check_finite(self, signal: str, full: NDArray[Any], rounded: NDArray[Any], ids: Sequence[str]) -> None:
        if np.isfinite(rounded).all():
            return
        bad = ~np.isfinite(rounded.reshape(len(rounded), -1)).all(axis=1)
        names = [name for name, wrong in zip(ids, bad, strict=True) if wrong]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        kind = f"values beyond {rounded.dtype}" if np.isfinite(full).all() else "NaN or infinity"
        why = "this block is not stored; earlier blocks are kept" if self.where else ""
        raise self._error(f"returned {kind} in '{signal}' for sample '{names[0]}'{more}", why)

    def _wrong_type(self, what: str, ids: Sequence[str]) -> KdkitError:
        return KdkitError(
            "KD-FEAT-021",
            f"teacher '{self.teacher}' {what}, for {_names(ids)}",
            where=f"{type(self._model).__module__}.{type(self._model).__qualname__}",
            fix="report this to the authors of the plugin; 'kdkit plugins verify NAME' checks it",
            code=ExitCode.PLUGIN,
        )

    def _error(self, what: str, why: str = "") -> KdkitError:
        return KdkitError(
            "KD-FEAT-001",
            f"teacher '{self.teacher}' {what}",
            where=self.where,
            why=why,
            fix=f"check its files and preprocessing, or remove it: kdkit remove-teacher {self.teacher}",
            code=ExitCode.FOUND,
        )


def _names(ids: Sequence[str]) -> str:
    """The sample, or the first and last of a batch."""
    return f"sample '{ids[0]}'" if len(ids) == 1 else f"a batch of {len(ids)} samples, '{ids[0]}' to '{ids[-1]}'"
