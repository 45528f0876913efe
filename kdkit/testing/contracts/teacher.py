"""What every teacher of the catalogue promises: facts that fit together, and fit the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, get_args

from kdkit.core.contracts import Distillation, DualEncoder, TeacherSpec
from kdkit.core.plugin_system.catalogue import Family
from kdkit.core.project.licenses import classify
from kdkit.core.teachers.source import parse_source, source_folder
from kdkit.testing.contract import skip
from kdkit.testing.contracts.model import ModelContract
from kdkit.testing.examples import pictures

ALLOWED = {
    "permissive": {"allowed"},
    "non-commercial": {"non-commercial", "forbidden"},
    "no-derivatives": {"forbidden"},
    "unknown": {"unknown", "forbidden"},
}
"""Class of a license -> what ``distillation`` may say; of other licenses a person has to judge."""


class TeacherContract(ModelContract):
    """Subclass with ``name``; override :meth:`folder` with a copy of what is on the Hub, to check that too."""

    family: ClassVar[Family] = "teacher"

    @property
    def spec(self) -> TeacherSpec:
        """The facts."""
        return self.catalogue.spec(TeacherSpec, self.name)

    def folder(self) -> Path:
        """The folder to load from: that of a ``package:`` or ``local:`` source."""
        if not self.spec.loader:
            raise skip(f"no loader can load it: {self.spec.unavailable}")
        if not self.spec.source:
            raise skip(f"its files are fetched from elsewhere: {self.spec.unavailable}")
        source = parse_source(self.spec.source)
        if source.kind in ("hf", "https") or self.spec.extra_sources:
            raise skip(f"its files are fetched from {source}; override folder() of TeacherContract to check a copy")
        return source_folder(source, Path.cwd())

    def load(self, folder: Path) -> Any:
        """The model, from the spec's loader with its options."""
        return self.catalogue.make("loader", self.spec.loader, folder=folder, **{**self.spec.options, **self.options})

    def test_source_and_loader(self) -> None:
        """Its sources can be understood and its loader exists, or ``unavailable`` says why it cannot be loaded."""
        spec = self.spec
        if not spec.loader or not spec.source:
            assert spec.unavailable, "expected a source and a loader, or 'unavailable' to say why there is none"
        elif spec.loader:
            self.catalogue.get("loader", spec.loader)
        for source in filter(None, (spec.source, *spec.extra_sources.values())):
            parse_source(source)

    def test_license(self) -> None:
        """``distillation`` follows from the license, and ``notes`` give the reason where it is not allowed."""
        spec = self.spec
        known = get_args(Distillation)
        assert spec.distillation in known, f"expected distillation to be one of {known}, got {spec.distillation!r}"
        allowed = ALLOWED.get(classify(spec.license), set(known))
        assert spec.distillation in allowed, (
            f"license {spec.license!r} means distillation {' or '.join(sorted(allowed))}, not {spec.distillation!r}"
        )
        if spec.distillation in ("non-commercial", "forbidden"):
            assert spec.notes, f"expected notes to say why distillation is {spec.distillation}"

    def test_sizes(self) -> None:
        """Widths, image size and context length are whole numbers above 0, or None where unknown."""
        for fact in ("image_dim", "text_dim", "image_size", "context_length"):
            value = getattr(self.spec, fact)
            fine = value is None or (isinstance(value, int) and value > 0)
            assert fine, f"expected {fact} to be a whole number above 0, or None, got {value!r}"

    def test_facts_fit_model(self) -> None:
        """``image_dim``, ``text_dim`` and ``image_size`` are those of the loaded model."""
        computed = self.compute(self.model())
        for signal in ("image", "text"):
            wanted = getattr(self.spec, f"{signal}_dim")
            if wanted is not None and signal in computed:
                width = computed[signal].shape[-1]
                assert width == wanted, f"the catalogue says {signal}_dim {wanted}, the model gives {width}"
        model = self.model()
        if isinstance(model, DualEncoder) and self.spec.image_size is not None:
            size = tuple(model.preprocess(pictures(1)[0]).shape)
            wanted = (3, self.spec.image_size, self.spec.image_size)
            assert size == wanted, f"the catalogue says image_size {wanted[1]}, preprocess gives {size}"
