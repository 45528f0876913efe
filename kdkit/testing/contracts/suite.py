"""What every suite promises: a file that this kdkit understands, and sources that can read its data sets."""

from __future__ import annotations

from typing import ClassVar

from kdkit.core.contracts import SourceSpec
from kdkit.core.evaluation.suites.definition import Suite, load_suite
from kdkit.core.plugin_system.catalogue import Family
from kdkit.testing.contract import Contract


class SuiteContract(Contract):
    """Subclass with ``name``."""

    family: ClassVar[Family] = "suite"

    def suite(self) -> Suite:
        """The suite, read and checked."""
        return load_suite(self.name, self.catalogue)

    def test_understood(self) -> None:
        """The file is a suite with at least one data set; every fact has a source or is marked as not verified."""
        assert self.suite().datasets, "expected at least one data set"

    def test_sources_exist(self) -> None:
        """The sources that read the data sets exist."""
        for name, dataset in self.suite().datasets.items():
            assert self.catalogue.spec(SourceSpec, dataset.data.source), name

    def test_prompts_differ(self) -> None:
        """No two classes of a data set have the same prompts."""
        for name, dataset in self.suite().datasets.items():
            prompts = [tuple(texts) for texts in dataset.prompts().values()]
            assert len(set(prompts)) == len(prompts), f"{name}: two classes have equal prompts"
