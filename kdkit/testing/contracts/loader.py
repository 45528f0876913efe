"""Checks of a loader: a teacher from a folder alone, a clear error from a wrong one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from kdkit.core.contracts import LoaderSpec, TeacherSpec
from kdkit.core.plugin_system.catalogue import Family
from kdkit.core.teachers.recognize import CONFIG
from kdkit.core.teachers.source import parse_source, source_folder
from kdkit.testing.contract import expected_error, skip
from kdkit.testing.contracts.model import ModelContract


class LoaderContract(ModelContract):
    """Subclass with ``name``, and override :meth:`folder`, unless a teacher of the catalogue brings its files along."""

    family: ClassVar[Family] = "loader"

    def folder(self) -> Path:
        """An example: by default the first ``package:`` teacher of the catalogue that names this loader."""
        for spec in self.catalogue.specs(TeacherSpec):
            if spec.source.startswith("package:") and self.catalogue.get("loader", spec.loader) == self.entry:
                return source_folder(parse_source(spec.source), Path.cwd())
        raise skip("a loader needs an example; override folder() of LoaderContract")

    def load(self, folder: Path) -> Any:
        """The model, with :attr:`options`."""
        return self.catalogue.make(self.family, self.name, folder=folder, **self.options)  # its errors are its own

    def test_marks(self) -> None:
        """``marks`` are names of files that the example has, or its config has one of ``model_types``."""
        spec, config = self.catalogue.spec(LoaderSpec, self.name), self.folder() / CONFIG
        found = json.loads(config.read_text(encoding="utf-8")).get("model_type") if config.is_file() else None
        for mark in spec.marks:
            assert Path(mark).name == mark, f"expected a file's name in marks, got {mark!r}"
            there = (self.folder() / mark).is_file() or found in spec.model_types
            assert there, f"the example has no '{mark}', the file that identifies the format"
        if spec.model_types and not spec.marks:
            assert found in spec.model_types, f"the example's {CONFIG} has model_type {found!r}: not in model_types"

    def test_empty_folder(self) -> None:
        """An empty folder raises a KdkitError that names the folder."""
        empty = self.scratch() / "empty"
        empty.mkdir(exist_ok=True)
        expected_error(lambda: self._opened(empty), "KdkitError with where=", str(empty))
