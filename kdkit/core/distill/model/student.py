"""The student of a run: a new one of the registry's family, or the parent version's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from kdkit.core.base.errors import KdkitError
from kdkit.core.project.registry.load import placed
from kdkit.core.project.registry.schema import InputsEntry
from kdkit.core.project.versions import Version, load_student
from kdkit.core.teachers.initial_weights import TEACHER, initial_digests, with_folders

if TYPE_CHECKING:
    from kdkit.core.plugin_system.catalogue import Catalogue
    from kdkit.core.project.project import Project
    from kdkit.core.project.registry.schema import StudentEntry


@dataclass(frozen=True)
class StudentBuilder:
    """Builds a run's student when it is first needed, and only once.

    Attributes:
        entry: the registry's student.
        registry_path: for messages; paths in the config are relative to its folder.
        parent: the version, or the result of a stage, that the run starts from; None for a new student.
        seed: of a new student's weights.
        reading: how its inputs are read; ``state`` is the folder in which they may be stored.
        with_folders: puts folders in the place of models that the config names.
    """

    entry: StudentEntry
    catalogue: Catalogue
    registry_path: Path
    parent: Version | None = None
    seed: int = 0
    reading: InputsEntry = field(default_factory=InputsEntry)
    state: Path = Path()
    with_folders: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict

    @classmethod
    def of(cls, project: Project, parent: Version | None = None, seed: int = 0) -> StudentBuilder:
        """The builder for a project."""
        registry = project.registry
        return cls(
            registry.student,
            project.catalogue,
            project.registry_path,
            parent,
            seed,
            registry.inputs,
            project.state,
            partial(with_folders, project),
        )

    @property
    def student(self) -> nn.Module:
        """The student, in training mode on the CPU until somebody moves it.

        Raises:
            KdkitError: the registry's student is not the parent's; what the family raises.
        """
        return self._built[0]

    def release(self) -> None:
        """Forget the built student: the next use builds it anew."""
        self.__dict__.pop("_built", None)

    def restore_generator(self) -> None:
        """Set torch's generator to its state right after the student was built.

        Heads and losses that are created next then get the same weights, whatever ran in between.
        """
        torch.set_rng_state(self._built[1])

    @cached_property
    def _built(self) -> tuple[nn.Module, torch.Tensor]:
        torch.manual_seed(self.seed)
        if self.parent is None:
            with placed(self.registry_path, "student"):
                config = anchored(self.with_folders(self.entry.config), self.registry_path.parent)
                student = self.catalogue.make("student", self.entry.family, **config)
        else:
            self._require_same_student(self.parent)
            student = load_student(self.parent, self.catalogue)
        return cast(nn.Module, student).train(), torch.get_rng_state()

    def _require_same_student(self, parent: Version) -> None:
        record = parent.lineage.student
        made_from = {"family": record.family, "config": record.config}
        written = {"family": self.entry.family, "config": self.entry.config}
        if written != made_from:
            raise KdkitError(
                "KD-DIST-018",
                f"the student in registry.yaml is not the one that {parent.name} was made from",
                where=str(self.registry_path),
                why=f"{parent.name} has {made_from}, the registry says {written}",
                fix="restore the entry, or run 'kdkit distill' without --incremental for a new student",
            )


def anchored(value: Any, root: Path) -> Any:
    """A copy in which every string that starts with ``./`` or ``../`` is a path below ``root``.

    A student's config names files of the project this way, whatever the family calls them. ``teacher:NAME`` is the
    folder of a teacher's files.

    Example:
        >>> anchored({"init": "./weights", "arch": "ViT-B-16"}, Path("/project"))
        {'init': '/project/weights', 'arch': 'ViT-B-16'}
        >>> anchored("teacher:biomedclip", Path("/project"))
        '/project/.kdkit/artifacts/biomedclip'
    """
    if isinstance(value, Mapping):
        return {key: anchored(item, root) for key, item in value.items()}
    if isinstance(value, list):
        return [anchored(item, root) for item in value]
    if isinstance(value, str) and value.startswith(("./", "../")):
        return str(root / value)
    if isinstance(value, str) and value.startswith(TEACHER):
        return str(root / ".kdkit" / "artifacts" / value.removeprefix(TEACHER))
    return value


def student_facts(project: Project) -> dict[str, Any]:
    """What decides a new student beside the seed, for the digest of a plan: the registry's entry, and hashes of the
    models that it starts from."""
    facts = project.registry.student.model_dump(mode="json")
    digests = initial_digests(project)
    return {**facts, "initial_weights": digests} if digests else facts
