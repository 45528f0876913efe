"""Assemble and verify a release: the files of a student repository."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kdkit
from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Reporter, Silent, StudentSpec
from kdkit.core.data.prompts import templates_of
from kdkit.core.project.lineage import HUB, InitialWeights
from kdkit.core.project.recipe_file import load_recipe
from kdkit.core.project.versions import Versions, load_student
from kdkit.core.sharing.release.card import write_card
from kdkit.core.sharing.release.card_facts import CardFacts
from kdkit.core.sharing.release.card_tables import cell
from kdkit.core.sharing.release.form import ENCODES, StudentForm, publish
from kdkit.core.sharing.release.gates import write_gates
from kdkit.core.sharing.release.layout import (
    KDKIT,
    LOCK,
    RECIPE,
    REGISTRY,
    RESULTS,
    SAMPLES,
    TASK,
    AdapterBase,
    Record,
)
from kdkit.core.sharing.release.license import UNDETERMINED, StudentLicense
from kdkit.core.sharing.release.provenance import Provenance, provenance_of, with_facts
from kdkit.core.sharing.release.redact import (
    check_nothing_leaks,
    public_lineage,
    public_lock,
    public_origin,
    public_registry,
)
from kdkit.core.sharing.release.results import results_of, warn_of_split, write_results

if TYPE_CHECKING:
    from kdkit.core.project.project import Project
    from kdkit.core.project.registry.schema import Registry
    from kdkit.core.project.versions import Version

_REPOSITORY = re.compile(r"[\w][\w.-]*/[\w][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class Release:
    """Result of :func:`assemble_release`.

    Attributes:
        folder: complete, ready to push.
        record: its ``kdkit.json``.
        license: of the student.
        lines: library -> code of the card, verified on this folder.
        warnings: to show before publishing.
    """

    folder: Path
    record: Record
    license: StudentLicense
    lines: Mapping[str, str]
    warnings: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())


def assemble_release(
    project: Project,
    version: Version,
    repo: str,
    to: Path,
    *,
    public: bool = False,
    merged: bool = False,
    license: str | None = None,
    endpoint: str = HUB,
    reporter: Reporter | None = None,
) -> Release:
    """Make the release of ``version`` for the repository ``repo`` in the new or empty folder ``to``.

    The same version, registry and reports give the same bytes, so an interrupted push resumes.

    Args:
        public: forbids unknown licenses.
        merged: merge adapters into whole weights.
        license: stated by the owner; at least as strict as the teachers' licenses.
        endpoint: of the Hub, for the card's links.
        reporter: receives progress.

    Raises:
        KdkitError: a license forbids it (exit 4); stock libraries give other outputs than the version, or a file
            contains a path of this machine (exit 1); a family without a publisher; adapters with an unknown base
            repository.
    """
    check_repository(repo)
    reporter = reporter or Silent()
    version.check(hidden=True)
    provenance = provenance_of(project, version, stated=license, public=public)
    results = results_of(project, version)
    warn_of_split(results, reporter)
    family = project.catalogue.spec(StudentSpec, version.lineage.student.family)
    load = partial(load_student, version, project.catalogue)
    form = publish(family, version.student_folder, load, to, repo, reporter, merged=merged)
    write_results(to, RESULTS, results)
    _write_for_pull(project, version, [teacher.entry.name for teacher in provenance.teachers], to)
    write_gates(version, to)
    record = _record(project, version, (endpoint, repo), provenance, form)
    facts = CardFacts(
        record=record,
        form=form,
        notes=(*form.published.notes, *((templates_note(project.registry),) if form.wording is ENCODES else ())),
        license=provenance.license,
        teachers=provenance.teachers,
        results=results,
        base=_base_model(record, provenance.start),
        taught=len(version.known_samples()),
        endpoint=endpoint,
    )
    write_card(to, facts)
    record = record.save(to)
    check_nothing_leaks(to, [*_places(project), str(to)])
    return Release(to, record, provenance.license, form.lines, provenance.warnings)


def _record(
    project: Project, version: Version, place: tuple[str, str], provenance: Provenance, form: StudentForm
) -> Record:
    """The record without ``files``."""
    lineages = [public_lineage(with_facts(lineage, provenance.teachers)) for lineage in provenance.history]
    if provenance.start is not None:
        lineages[0] = replace(lineages[0], student=replace(lineages[0].student, start=provenance.start))
    if provenance.license.name != UNDETERMINED:
        lineages[-1] = replace(lineages[-1], published_under=provenance.license.name)
    return Record(
        kdkit=kdkit.__version__,
        version=version.name,
        repository=place[1],
        license=provenance.license.name,
        student=form.published.names,
        history=tuple(lineages),
        checks=form.checks,
        environment=form.environment,
        origin=public_origin(Versions(project).origin(version, place), place[0]),
        base=None if form.base is None else AdapterBase(form.base.repository, form.base.commit),
    )


def templates_note(registry: Registry) -> str:
    """The prompt templates of the zero-shot figures."""
    own = [name for name, templates in registry.prompts.items() if name != "default" and templates]
    others = f"; of its own for {', '.join(map(cell, own))} ([{REGISTRY}]({REGISTRY}))" if own else ""
    usual = ", ".join(f'"{cell(template)}"' for template in templates_of(registry))
    return f"Its figures are for classes put as sentences, each class the mean over these templates: {usual}{others}."


def check_repository(repo: str) -> None:
    """Raises: KdkitError unless ``repo`` is ``ORG/NAME`` as the Hub writes it."""
    if not _REPOSITORY.fullmatch(repo) or "--" in repo or ".." in repo or len(repo) > 96:
        raise KdkitError(
            "KD-REL-025",
            f"'{repo}' is no name of a repository",
            why="it is ORG/NAME: letters, digits, '.', '_' and '-', at most 96 characters, no '--' and no '..'",
            fix="choose such a name",
        )


def _base_model(record: Record, start: InitialWeights | None) -> str:
    """The Hub's ``base_model``: base of adapters, pulled release or initial checkpoint."""
    if record.base is not None:
        return record.base.repository
    if record.origin is not None:
        return record.origin.repository if record.origin.repository != record.repository else ""
    return start.repository if start is not None else ""


def _write_for_pull(project: Project, version: Version, teachers: list[str], to: Path) -> None:
    """Write ``kdkit/``: the files that ``kdkit pull`` needs to continue training."""
    (to / KDKIT).mkdir()
    for name in (TASK, SAMPLES):
        shutil.copyfile(version.file(Path(name).name), to / name)
    recipe, named = version.lineage.recipe, _named_recipe(project, version)
    if named is None:
        (to / RECIPE).write_text(
            _yaml(recipe.model_dump(mode="json"), f"The recipe of {version.name}."), encoding="utf-8"
        )
    data = public_registry(project.registry, recipe=named or f"./{Path(RECIPE).name}")
    lock = project.lock
    known: dict[str, Any] = {}
    for name, facts in lock.teachers.items():
        if facts.held_by_author:  # only an earlier author has its files
            known[name] = {"from": facts.source, "loader": facts.loader}
            known[name] |= {"options": facts.options} if facts.options else {}
            stated = [teacher.license_facts.asserted for teacher in version.lineage.teachers if teacher.name == name]
            known[name] |= {"license": stated[0]} if any(stated) else {}
    known |= data["teachers"]
    data["teachers"] = {name: known[name] for name in dict.fromkeys(teachers) if name in known}
    about = f"The registry of {version.name} as published: without data and paths."
    (to / REGISTRY).write_text(_yaml(data, about), encoding="utf-8")
    public_lock(lock, list(data["teachers"])).save(to / LOCK)


def _named_recipe(project: Project, version: Version) -> str | None:
    """The recipe's name if the catalogue has exactly the version's recipe."""
    registry, made_by = project.registry, version.lineage.recipe
    if made_by.name not in project.catalogue.names("recipe"):
        return None
    recipe = load_recipe(made_by.name, project.catalogue).changed_by(registry)
    same = recipe.model_dump(mode="json") == made_by.model_dump(mode="json")
    return made_by.name if same else None


def _places(project: Project) -> list[str]:
    """Paths of this machine, which no file may contain."""
    roots = {project.root, project.root.absolute(), project.root.resolve(), os.path.expanduser("~")}
    named = [*(entry.path for entry in project.registry.data), *_strings(project.registry.student.config)]
    return sorted({*map(str, roots), *(name for name in named if Path(name).is_absolute())})


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, str):
        yield value


def _yaml(data: Mapping[str, Any], about: str) -> str:
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # typed as what it is at first
    stream = io.StringIO()
    yaml.dump(dict(data), stream)
    return f"# {about}\n{stream.getvalue()}"
