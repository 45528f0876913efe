"""The data source ``procedural``: draws the demo's pictures into a folder once, then reads them like any manifest."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from kdkit.core.contracts import Sample
from kdkit.core.errors import KdkitError
from kdkit.plugins.demo.dataset import write_dataset
from kdkit.plugins.sources.manifest import JsonlManifest

MANIFEST, MADE_WITH = "samples.jsonl", "procedural.json"


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
    wanted = {
        "seed": seed,
        "train": train,
        "calibration": calibration,
        "test": test,
        "domains": None if domains is None else list(domains),
    }
    if not location.exists():
        try:
            write_dataset(location, seed=seed, train=train, calibration=calibration, test=test, domains=domains)
        except ValueError as error:
            raise KdkitError(str(error), where="source 'procedural'") from None
        (location / MADE_WITH).write_text(json.dumps(wanted) + "\n", encoding="utf-8")
    try:
        found = json.loads((location / MADE_WITH).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if found != wanted:
        raise KdkitError(
            "this folder was not drawn with the options of its data entry",
            where=str(location),
            why=f"the registry says {wanted}, the folder says {found}",
            fix="give the data entry another path, or delete the folder to draw it again",
        )
    return JsonlManifest(location / MANIFEST)
