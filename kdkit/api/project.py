""":class:`kdkit.Project`: the command line as an object."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kdkit.api.project_answers import AnswerMethods
from kdkit.api.project_data import DataMethods
from kdkit.api.project_evaluation import EvaluationMethods
from kdkit.api.project_features import FeatureMethods
from kdkit.api.project_sharing import SharingMethods
from kdkit.api.project_student import StudentMethods
from kdkit.api.project_sweeps import SweepMethods
from kdkit.api.project_teachers import TeacherMethods

if TYPE_CHECKING:
    from kdkit.core.contracts import Reporter


class Project(
    TeacherMethods,
    DataMethods,
    FeatureMethods,
    StudentMethods,
    AnswerMethods,
    EvaluationMethods,
    SweepMethods,
    SharingMethods,
):
    """A project: the folder of a ``registry.yaml``.

    Each method is a command of the same name and options. It reads the project's files, so edits of
    ``registry.yaml`` count from the next call. Results print as the command prints; notebooks show tables;
    ``to_json()`` returns what ``--json`` prints.

    Args:
        folder: the project's folder, or one below it.
        reporter: receives messages and progress; by default lines on stderr. ``kdkit.Silent()`` drops them.

    Raises:
        KdkitError: there is no ``registry.yaml`` in ``folder`` or above.

    Example:
        >>> project = kdkit.Project("my-project")
        >>> project
        Project(root=PosixPath('/.../my-project'))
    """

    @classmethod
    def create(
        cls, folder: str | Path = ".", *, source: str | Path | None = None, reporter: Reporter | None = None
    ) -> Project:
        """Make a project: write a commented ``registry.yaml`` (``kdkit init``).

        Args:
            folder: of the project; it is created if necessary.
            source: a file or folder with images: the registry reads it (``kdkit init --from``). What it was taken for
                and some samples go to the reporter, a contact sheet to ``reports/samples.png``.
            reporter: as of the project.

        Raises:
            KdkitError: there is one already; no data source recognizes ``source``, or one does and cannot read it.

        Example:
            >>> kdkit.Project.create("another-project").root.name
            'another-project'
        """
        if source is not None:
            from kdkit.api.reporter import Lines
            from kdkit.core.data.start import start_project

            made = start_project(Path(folder), Path(source), reporter or Lines())
            return cls(made.root, reporter=reporter)
        from kdkit.core.project.registry.create import create_project

        return cls(create_project(Path(folder)).root, reporter=reporter)


__all__ = ["Project"]
