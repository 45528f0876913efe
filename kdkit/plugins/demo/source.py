"""The data sources ``procedural`` and ``procedural-questions``: drawn into a folder once, then read as manifests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Sample
from kdkit.plugins.demo.dataset import MANIFEST, write_dataset
from kdkit.plugins.demo.questions import write_questions
from kdkit.plugins.sources.manifest import JsonlManifest

MADE_WITH = "procedural.json"


class Writer(Protocol):
    """Draws pictures into a new folder."""

    def __call__(
        self, folder: Path, *, seed: int, train: int, calibration: int, test: int, domains: Sequence[str] | None
    ) -> None: ...


def read_procedural(
    location: Path,
    *,
    seed: int = 0,
    train: int = 1000,
    calibration: int = 200,
    test: int = 300,
    domains: Sequence[str] | None = None,
) -> Iterable[Sample]:
    """Samples of ``domains`` (all nine by default); ``train``, ``calibration`` and ``test`` pictures of each.

    Raises:
        KdkitError: when the folder holds something else than pictures that were drawn with these options.
    """
    sizes = {"train": train, "calibration": calibration, "test": test}
    return _drawn_once("procedural", write_dataset, location, seed=seed, domains=domains, **sizes)


def read_questions(
    location: Path,
    *,
    seed: int = 0,
    train: int = 300,
    calibration: int = 60,
    test: int = 100,
    domains: Sequence[str] | None = None,
) -> Iterable[Sample]:
    """Questions about ``train``, ``calibration`` and ``test`` pictures of each of ``domains`` (modalities with
    findings that have a place, all seven by default): four a picture, in the domains ``vg/mri``, ``roc/mri``, ...

    Raises:
        KdkitError: as :func:`read_procedural`.
    """
    sizes = {"train": train, "calibration": calibration, "test": test}
    return _drawn_once("procedural-questions", write_questions, location, seed=seed, domains=domains, **sizes)


def _drawn_once(
    source: str, write: Writer, location: Path, *, seed: int, domains: Sequence[str] | None, **sizes: int
) -> Iterable[Sample]:
    wanted = {"seed": seed, **sizes, "domains": None if domains is None else list(domains)}
    if not location.exists():
        try:
            write(location, seed=seed, domains=domains, **sizes)
        except ValueError as error:
            raise KdkitError("KD-DEMO-001", str(error), where=f"source '{source}'") from None
        (location / MADE_WITH).write_text(json.dumps(wanted) + "\n", encoding="utf-8")
    try:
        found = json.loads((location / MADE_WITH).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise KdkitError(
            "KD-DEMO-002",
            "this folder was not drawn by the demo, or not to its end",
            where=str(location),
            fix="give the data entry the path of a folder that is not there yet",
        ) from None
    if found != wanted:
        raise KdkitError(
            "KD-DEMO-003",
            "this folder was not drawn with the options of its data entry",
            where=str(location),
            why=f"the registry says {wanted}, the folder says {found}",
            fix="give the data entry another path, or delete the folder to draw it again",
        )
    return JsonlManifest(location / MANIFEST)
