"""A student's features on disk, so that an evaluation encodes only what no earlier one has."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkit.core.base.atomic import new_file
from kdkit.core.base.system_errors import optional_write
from kdkit.core.contracts import ModelFeatures, Sample

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex

Array = np.ndarray[Any, Any]
Integers = np.ndarray[Any, np.dtype[np.int64]]
CHECKSUM = "sha256"


class CachedFeatures:
    """The features of a model, read from ``folder`` where they are there; the model is opened for the others.

    Images are known by their samples' content digests. Files are added, never changed; people may delete them. A
    damaged file counts as absent.

    Args:
        name: in the evaluation.
        folder: of this model on this kind of device.
        fingerprint: of the model and what encodes it.
        table: index of the samples.
        open_model: called at most once.
    """

    def __init__(
        self, name: str, folder: Path, fingerprint: str, table: SampleIndex, open_model: Callable[[], ModelFeatures]
    ) -> None:
        self._name, self._fingerprint, self._open = name, fingerprint, open_model
        self._digest = dict(zip(table.ids, table.digests.view(np.int64).tolist(), strict=True))
        self._images, self._texts = _Rows(folder, "image"), _Rows(folder, "text")

    @property
    def name(self) -> str:
        return self._name

    def fingerprint(self) -> str:
        """Digest of everything that its features depend on."""
        return self._fingerprint

    def image(self, samples: Sequence[Sample]) -> Array:
        """(N, D) float32, unit rows. Raises: as the model's own."""
        keys = np.array([self._digest[sample.id] for sample in samples], dtype=np.int64)
        return self._images.get(keys, lambda rows: self._model.image([samples[row] for row in rows]))

    def text(self, texts: Sequence[str]) -> Array:
        """(N, D) float32, unit rows. Raises: as the model's own."""
        keys = np.array([_text_key(text) for text in texts], dtype=np.int64)
        return self._texts.get(keys, lambda rows: self._model.text([texts[row] for row in rows]))

    def captions(self, samples: Sequence[Sample]) -> Array:
        """(N, D) float32, unit rows. Raises: as the model's own."""
        return self.text([sample.text for sample in samples])

    @cached_property
    def _model(self) -> ModelFeatures:
        return self._open()


class _Rows:
    """Rows of one kind, by key, in files ``<kind>-<digest of the keys>.safetensors``."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._folder, self._kind = folder, kind
        self._keys: Integers | None = None
        self._rows = np.zeros((0, 0), dtype=np.float32)

    def get(self, keys: Integers, compute: Callable[[Integers], Array]) -> Array:
        """(n, D) rows of ``keys`` (n,); ``compute`` gives those of the positions (m,) that are not known."""
        known = self._load()
        absent = np.flatnonzero(~np.isin(keys, known))
        first = absent[np.unique(keys[absent], return_index=True)[1]]
        if len(first):
            rows = compute(first)
            self._write(keys[first], rows)
            known = self._add(keys[first], rows)
        order = np.argsort(known, kind="stable")
        return np.asarray(self._rows[order[np.searchsorted(known, keys, sorter=order)]])

    def _load(self) -> Integers:
        if self._keys is None:
            self._keys = np.zeros(0, dtype=np.int64)
            for path in sorted(self._folder.glob(f"{self._kind}-*.safetensors")):
                part = _read(path)
                if part is not None:
                    self._add(*part)
        return self._keys

    def _add(self, keys: Integers, rows: Array) -> Integers:
        known = np.zeros(0, dtype=np.int64) if self._keys is None else self._keys
        self._rows = np.concatenate([self._rows, rows]) if len(known) else rows
        self._keys = np.concatenate([known, keys])
        return self._keys

    def _write(self, keys: Integers, rows: Array) -> None:
        from safetensors.numpy import save_file

        path = self._folder / f"{self._kind}-{hashlib.sha256(keys.tobytes()).hexdigest()[:16]}.safetensors"
        with optional_write("the cache of the student's features"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with new_file(path) as draft:
                save_file({"keys": keys, "rows": rows}, draft, metadata={CHECKSUM: _checksum(keys, rows)})


def _read(path: Path) -> tuple[Integers, Array] | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            keys, rows, found = file.get_tensor("keys"), file.get_tensor("rows"), file.metadata() or {}
    except (SafetensorError, OSError, ValueError):
        return None
    return (keys, rows) if found.get(CHECKSUM) == _checksum(keys, rows) else None


def _checksum(keys: Integers, rows: Array) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(keys).tobytes())
    digest.update(np.ascontiguousarray(rows).data)
    return digest.hexdigest()


def _text_key(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)
