"""Loader of teachers whose features were imported: signals and identity from ``imported.json``, without a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import IMPORTED, Sample, SignalSpec

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

FILE = "imported.json"


class ImportedFeatures:
    """A signal source that declares its signals and computes none.

    Args:
        signals: of its column.
        identity: what is declared about the model that computed them.
    """

    def __init__(self, signals: tuple[SignalSpec, ...], identity: Mapping[str, str]) -> None:
        self.signals, self._identity = signals, dict(identity)

    def identity(self) -> Mapping[str, str]:
        """The declaration, and the digest of the imported files under :data:`IMPORTED`."""
        return self._identity

    def prepare(self, image: Image, sample: Sample) -> NoReturn:  # noqa: ARG002
        """Raises: KdkitError: always."""
        raise _no_model()

    def compute(self, items: Sequence[Any]) -> Mapping[str, Tensor]:  # noqa: ARG002
        """Raises: KdkitError: always."""
        raise _no_model()


def load_imported(folder: Path) -> ImportedFeatures:
    """Read ``imported.json``, which ``kdkit features import`` wrote.

    Raises:
        KdkitError: it is missing or something else.
    """
    path = folder / FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        signals = tuple(
            SignalSpec(name, tuple(int(size) for size in fact["shape"]), fact["dtype"])
            for name, fact in found["signals"].items()
        )
        stated = {name: str(found[name]) for name in ("model", "revision", "preprocessing") if found[name]}
        return ImportedFeatures(signals, {IMPORTED: f"sha256 {found['sha256']}", **stated})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise KdkitError(
            "KD-LOAD-082",
            f"no {FILE} of 'kdkit features import' here",
            where=str(folder),
            why=f"{type(error).__name__}: {error}",
            fix="run it again: kdkit features import NAME --from PATH",
            code=ExitCode.MISSING,
        ) from None


def _no_model() -> KdkitError:
    return KdkitError(
        "KD-LOAD-083",
        "imported features cannot be computed: the model is not here",
        fix="import files with features of these samples too: kdkit features import NAME --from PATH --replace",
        code=ExitCode.MISSING,
    )
