"""What every source promises: the same samples in the same order, and errors that say where."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from kdkit.core.contracts import SPLITS, Sample, Skipped
from kdkit.core.plugin_system.catalogue import Family
from kdkit.testing.contract import Contract, expected_error, once, skip


class SourceContract(Contract):
    """Subclass with ``name``, and override :meth:`location` and, where it is no text file, :meth:`damaged`."""

    family: ClassVar[Family] = "source"

    def location(self) -> Path:
        """An example: what a registry gives as the path of a data entry. Write it into :meth:`scratch`."""
        raise skip("a source needs an example; override location() of SourceContract")

    def damaged(self) -> Path:
        """An example with a mistake in it. By default the text file of :meth:`location` with a broken last line."""
        good = self._location()
        if not good.is_file():
            raise skip("a source of folders needs a damaged example; override damaged() of SourceContract")
        lines = good.read_text(encoding="utf-8").rstrip("\n").splitlines()
        bad = self.scratch() / f"damaged{good.suffix}"
        bad.write_text("\n".join([*lines[:-1], '{"broken']) + "\n", encoding="utf-8")
        return bad

    def test_samples(self) -> None:
        """It gives samples, complete: an id, a domain, a text, an image that can be decoded, one of the splits."""
        from PIL import Image

        from kdkit.core.data.images import open_image

        found = self._read()
        assert found, "expected samples, got none"
        for sample in found:
            assert isinstance(sample, Sample), f"expected Sample, got {type(sample).__name__}"
            for field in ("id", "text", "domain"):
                value = getattr(sample, field)
                assert isinstance(value, str), f"{sample.id}: expected {field} to be text, got {value!r}"
            assert sample.id, f"{sample.origin}: a sample without an id"
            assert sample.domain, f"{sample.id}: a sample without a domain"
            assert sample.split in SPLITS, f"{sample.id}: expected a split of {SPLITS}, got {sample.split!r}"
            if isinstance(sample.image, Path):
                with Image.open(sample.image) as image:
                    image.convert("RGB")
            else:
                open_image(sample)

    def test_ids_are_unique(self) -> None:
        """No id occurs twice: the cache of features is keyed by it."""
        twice = [name for name, count in Counter(sample.id for sample in self._read()).items() if count > 1]
        assert not twice, f"expected unique ids, got {twice[0]!r} and {len(twice) - 1} others more than once"

    def test_same_order_and_ids(self) -> None:
        """Read twice, it gives the same samples in the same order."""
        first, second = self._read(), self._read()
        assert [s.id for s in first] == [s.id for s in second], "the ids or their order differ when read again; sort"
        assert first == second, "samples differ when read again"

    def test_origin(self) -> None:
        """Every sample says where it comes from, so that messages about it can."""
        lacking = [sample.id for sample in self._read() if not sample.origin]
        assert not lacking, f"no origin ('file:line') in the samples {', '.join(lacking[:3])}"

    def test_missing_location(self) -> None:
        """A location that does not exist is an error that names it."""
        nowhere = self._location().parent / "no-such-place" / self._location().name
        self._must_complain(nowhere)

    def test_damaged_example(self) -> None:
        """A mistake in the data is an error that names the file and, in a text file, the line."""
        bad = self.damaged()
        where = self._must_complain(bad)
        if bad.is_file():
            assert re.search(r":\d+$", where), f"expected 'file:line' in the error, got {where!r}"

    def _must_complain(self, location: Path) -> str:
        """Where the error says that it is."""
        wanted = "KdkitError with where='file:line'"
        return expected_error(lambda: list(self._open(location)), wanted, str(location)).where

    @once
    def _location(self) -> Path:
        return self.location()

    def _read(self) -> list[Sample]:
        return [item for item in self._open(self._location()) if not isinstance(item, Skipped)]

    def _open(self, location: Path) -> Iterable[Sample | Skipped]:
        from kdkit.core.data.batches import in_samples

        return in_samples(self.catalogue.make(self.family, self.name, **self.options, location=location))
