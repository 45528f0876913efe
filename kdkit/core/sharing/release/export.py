"""Export: a folder that stock libraries load without network and without kdkit, proved before it appears."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kdkit
from kdkit.core.base.atomic import new_folder
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hub import connect
from kdkit.core.base.result import Result, Section, code_lines, format_size
from kdkit.core.base.system_errors import system_errors
from kdkit.core.contracts import Reporter, Silent, StudentSpec
from kdkit.core.project.lineage import Lineage, Origin
from kdkit.core.project.manifest import describe_folder
from kdkit.core.project.versions import Version, Versions, load_student
from kdkit.core.sharing.release.form import publish
from kdkit.core.sharing.release.gates import write_gates
from kdkit.core.sharing.release.layout import README, RECORD, Record
from kdkit.core.sharing.release.redact import public_lineage, public_origin

if TYPE_CHECKING:
    from kdkit.core.project.project import Project


@dataclass(frozen=True)
class Exported(Result):
    """What was written.

    Attributes:
        folder: the export.
        files, size: what is in it, in bytes.
        checks: differences of stock libraries from the version; see the record.
        lines: library -> the lines that load it.
        moves: False where the folder must stay where it is (see :func:`export_student`).
    """

    folder: Path
    files: tuple[str, ...]
    size: int
    checks: Mapping[str, Mapping[str, Any]]
    lines: Mapping[str, str]
    moves: bool

    def to_json(self) -> dict[str, Any]:
        """All attributes."""
        return {
            "folder": self.folder,
            "files": list(self.files),
            "size": self.size,
            "checks": {library: dict(check) for library, check in self.checks.items()},
            "load": dict(self.lines),
            "moves": self.moves,
        }

    def sections(self) -> list[Section]:
        """Size, differences, and the code that loads it."""
        parts: list[Section] = [f"{self.folder}: {len(self.files)} files, {format_size(self.size)}"]
        for library, check in self.checks.items():
            if "missing" not in check:
                worst = max(value for name, value in check.items() if name.endswith("_difference"))
                parts.append(f"stock {library}: largest difference {worst:.1g}")
        if not self.moves:
            parts.append("do not move the folder: it contains its own path")
        return parts + [line for library, code in self.lines.items() for line in code_lines(f"With {library}:", code)]


def export_version(
    project: Project,
    name: str | None,
    to: Path,
    *,
    repo: str | None = None,
    overwrite: bool = False,
    merged: bool = False,
    reporter: Reporter | None = None,
) -> Exported:
    """Export a version (None: the current one); see :func:`export_student`.

    With ``repo`` the folder is the release that ``kdkit push`` would publish there privately: it loads from the Hub, as
    ``ORG/NAME``, and holds no path. ``merged``: whole weights where the student has adapters.
    """
    versions = Versions(project)
    version, to, reporter = versions.get(name), Path(to).absolute(), reporter or Silent()
    check_target(to, version.student_folder, version.lineage, overwrite)  # before anything slow
    version.check(hidden=True)
    if repo is not None:
        return _export_release(project, version, to, repo, overwrite=overwrite, merged=merged, reporter=reporter)
    return export_student(
        project.catalogue.spec(StudentSpec, version.lineage.student.family),
        version.student_folder,
        partial(load_student, version, project.catalogue),
        versions.history(version),
        to,
        origin=versions.origin(version),
        more=partial(write_gates, version),
        overwrite=overwrite,
        merged=merged,
        reporter=reporter,
    )


def _export_release(
    project: Project,
    version: Version,
    to: Path,
    repo: str,
    *,
    overwrite: bool,
    merged: bool,
    reporter: Reporter,
) -> Exported:
    from kdkit.core.sharing.release.release import assemble_release

    with _writing(to, overwrite) as draft:
        endpoint = connect().endpoint
        release = assemble_release(project, version, repo, draft, merged=merged, endpoint=endpoint, reporter=reporter)
        size = release.size
    for warning in release.warnings:
        reporter.warn(warning)
    return Exported(to, (*release.record.files, README, RECORD), size, release.record.checks, release.lines, moves=True)


def export_student(
    spec: StudentSpec,
    student_folder: Path,
    load: Callable[[], Any],
    history: Sequence[Lineage],
    to: Path,
    *,
    origin: Origin | None = None,
    more: Callable[[Path], None] = lambda _: None,
    overwrite: bool = False,
    merged: bool = False,
    reporter: Reporter | None = None,
) -> Exported:
    """Lay a saved student out in ``to``, with its lineage, if stock libraries compute the same from it.

    Args:
        spec: of its family, whose publisher lays it out.
        student_folder: what ``Student.save`` wrote; ``load`` gives the student, in eval mode on the CPU.
        history: lineages, oldest first, its own last; written to ``kdkit.json`` without paths.
        to: the folder to make; with ``overwrite`` it may be an earlier export, never anything else. The same export
            may be there already, whole.
        origin: the release that the project was pulled from.
        more: writes further files into the folder.

    Raises:
        KdkitError: ``to`` is in use, or stock libraries compute something else; nothing is left behind.
    """
    to = Path(to).absolute()
    check_target(to, student_folder, history[-1], overwrite)
    with _writing(to, overwrite) as draft:
        name = str(draft)
        form = publish(spec, student_folder, load, draft, name, reporter or Silent(), merged=merged)
        for file in form.published.pinned_paths:
            text = (draft / file).read_text(encoding="utf-8")
            (draft / file).write_text(text.replace(json.dumps(name)[1:-1], json.dumps(str(to))[1:-1]), encoding="utf-8")
        more(draft)
        record = Record(
            kdkit=kdkit.__version__,
            version=history[-1].version,
            repository=None,
            license=None,
            student=form.published.names,
            history=tuple(map(public_lineage, history)),
            checks=form.checks,
            environment=form.environment,
            origin=public_origin(origin),
        ).save(draft)
        size = sum(path.stat().st_size for path in draft.rglob("*") if path.is_file())
    lines = {library: code.replace(name, str(to)) for library, code in form.lines.items()}
    return Exported(to, (*record.files, RECORD), size, form.checks, lines, moves=not form.published.pinned_paths)


@contextmanager
def _writing(to: Path, overwrite: bool) -> Iterator[Path]:
    try:
        with system_errors(str(to)), new_folder(to, replace=True) as draft:
            yield draft
            if not overwrite and _in_use(to) and describe_folder(to, without=()) != describe_folder(draft, without=()):
                raise _another_export(to)
    except OSError as error:
        raise KdkitError(
            "KD-REL-008",
            "the export cannot be written",
            where=str(to),
            why=str(error),
            fix="check the disk and its permissions, or choose another --to",
        ) from error


def check_target(to: Path, student_folder: Path, lineage: Lineage, overwrite: bool) -> None:
    """``to`` must be new or empty, an earlier export that may be overwritten, or an export of this version."""
    if to.is_relative_to(student_folder.absolute()):
        raise KdkitError(
            "KD-REL-009", "a version cannot be exported into itself", where=str(to), fix="choose another --to"
        )
    if not _in_use(to):
        return
    if not (to / RECORD).is_file():
        raise KdkitError(
            "KD-REL-010",
            "this folder holds other files than an export of kdkit",
            where=str(to),
            fix="choose another folder for --to",
            code=ExitCode.FOUND,
        )
    if not overwrite:
        try:
            same = Record.load(to / RECORD).lineage.key == lineage.key
        except (OSError, ValueError):
            same = False
        if not same:
            raise _another_export(to)


def _in_use(to: Path) -> bool:
    return to.exists() and not (to.is_dir() and not any(to.iterdir()))


def _another_export(to: Path) -> KdkitError:
    return KdkitError(
        "KD-REL-011",
        "there is already another export",
        where=str(to),
        fix="add --overwrite to replace it",
        code=ExitCode.FOUND,
    )
