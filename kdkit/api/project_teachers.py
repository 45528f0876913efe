"""Methods of :class:`kdkit.Project` that choose teachers and look at what they know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kdkit.api.opened import OpenedProject

if TYPE_CHECKING:
    from kdkit.api.features import AlignerComparison
    from kdkit.api.teacher_facts import TeacherSheet
    from kdkit.api.teachers import LockChanges, LockCheck, RemovedTeacher, TeacherAddition, TeacherList, TeacherLock
    from kdkit.core.contracts import TrustBasis
    from kdkit.core.distill.pseudo_labels.label import LabelReport
    from kdkit.core.evaluation.trust.report import TrustReport


class TeacherMethods(OpenedProject):
    """Part of :class:`kdkit.Project`."""

    def add_teacher(
        self,
        name: str,
        *,
        source: str | None = None,
        loader: str | None = None,
        domains: Sequence[str] | None = None,
        license: str | None = None,
        live: bool = False,
        options: Mapping[str, Any] | None = None,
        offline: bool = False,
    ) -> TeacherLock:
        """Download a teacher, check that it works and may be used, lock it, and write it into registry.yaml.

        Args:
            name: of the catalogue (:meth:`teachers`), or a new one.
            source: ``hf:ORG/REPO[@REV]``, ``local:DIR``, ``package:PKG/DIR`` or ``https://HOST/FILE.zip``; required
                for a new name.
            loader: reads the files; by default recognized from them.
            domains: the only domains that it may teach; ``[]`` for none.
            license: if its files do not state one.
            live: compute its signals during training; store none of training samples.
            options: of the loader.
            offline: use the Hub's cache alone.

        Raises:
            KdkitError: unknown, not allowed, missing or broken; the project is unchanged.

        Example:
            >>> project.add_teacher("demo-radio").facts.dims
            {'image': 96, 'text': 96}
        """
        from kdkit.api.teachers import TeacherLock
        from kdkit.core.distill.plan.compatibility import compare_with_student
        from kdkit.core.teachers import add_and_measure

        short, fields = _entry(name, source, loader, domains, license, live, options)
        locked, measured = add_and_measure(self._open(), short, fields, offline=offline, reporter=self.reporter)
        compare_with_student(self._open(), short, self.reporter)
        return TeacherLock(short, locked, license, measured)

    def plan_teacher(
        self,
        name: str,
        *,
        source: str | None = None,
        loader: str | None = None,
        domains: Sequence[str] | None = None,
        license: str | None = None,
        live: bool = False,
        options: Mapping[str, Any] | None = None,
        offline: bool = False,
    ) -> TeacherAddition:
        """What :meth:`add_teacher` would download and write (``kdkit add-teacher --dry-run``).

        Example:
            >>> project.plan_teacher("demo-tissue").source
            'package:kdkit.plugins.demo/weights/tissue'
        """
        from kdkit.api.teachers import TeacherAddition
        from kdkit.core.teachers import plan_addition

        short, fields = _entry(name, source, loader, domains, license, live, options)
        return TeacherAddition.of(plan_addition(self._open(), short, fields, offline=offline, reporter=self.reporter))

    def teachers(
        self,
        *,
        available: bool = False,
        domain: str = "",
        license: str = "",
        kind: str = "",
        size: str = "",
    ) -> TeacherList:
        """The teachers of the registry, then those that can be added.

        Args:
            available: only those that can be added, with the catalogue's notes.
            domain: only those whose authors name it, or that may teach it here.
            license: only those of a license, or of a class: ``permissive``, ``share-alike``, ``non-commercial``,
                ``no-derivatives``, ``unknown``.
            kind: only ``image-text``, ``image``, ``text`` or ``answers``.
            size: only those with at most so many weights, such as ``"150M"``.

        Raises:
            KdkitError: no such kind, or no such number of weights.

        Example:
            >>> [row.name for row in project.teachers() if row.chosen]
            ['demo-radio']
        """
        from kdkit.api.teachers import TeacherList
        from kdkit.core.project.registry.filters import TeacherFilter, parse_count

        only = TeacherFilter(domain, license, kind, parse_count(size) if size else None)
        return TeacherList.of(self._open(), available=available, only=only)

    def teacher_facts(self, name: str) -> TeacherSheet:
        """What the catalogue knows about a teacher, with sources (``kdkit teachers show``).

        Raises:
            KdkitError: no such teacher (did you mean).

        Example:
            >>> project.teacher_facts("biomedclip").spec.image_size
            224
        """
        from kdkit.api.teacher_facts import teacher_sheet

        return teacher_sheet(name, self._open())

    def remove_teacher(self, name: str) -> RemovedTeacher:
        """Remove a teacher from registry.yaml and registry.lock; its features stay.

        Raises:
            KdkitError: no such teacher in the registry.

        Example:
            >>> project.remove_teacher("demo-radio").name
            'demo-radio'
        """
        from kdkit.api.teachers import RemovedTeacher
        from kdkit.core.teachers import remove_teacher

        project = self._open()
        remove_teacher(project, name)
        return RemovedTeacher(name, project.features / name)

    def lock(self, names: Sequence[str] = (), *, offline: bool = False) -> LockChanges:
        """Download, check and lock the teachers of registry.yaml, and the models that its student starts from.

        Args:
            names: models to lock afresh; by default those that are not locked yet. The name of a loss, loader ...
                is locked to the plugin that provides it now.
            offline: use the Hub's cache alone.

        Example:
            >>> len(project.lock())
            0
        """
        from kdkit.api.teachers import LockChanges, TeacherLock
        from kdkit.core.teachers import lock_teachers
        from kdkit.core.teachers.initial_weights import lock_initial_weights

        project = self._open()
        weights = lock_initial_weights(project, names, offline=offline, reporter=self.reporter)
        others = [name for name in names if name not in weights or name in project.registry.teachers]
        locked = lock_teachers(project, others, offline=offline, reporter=self.reporter) if others or not names else {}
        after = self._open()
        teachers = after.registry.teachers
        rows = tuple(TeacherLock(name, facts, teachers[name].license) for name, facts in locked.items())
        providers = tuple(
            (kind, name, found[name]) for kind, found in after.lock.providers.items() for name in names if name in found
        )
        here = "every teacher is locked" if teachers else "no teachers: kdkit add-teacher"
        nothing = "every model is locked" if after.lock.initial_weights else here
        unchanged = "" if rows or weights or names else nothing
        return LockChanges(rows, providers, unchanged, weights)

    def check_lock(self) -> LockCheck:
        """Compare registry.yaml, registry.lock and files (``kdkit lock --check``).

        Example:
            >>> project.check_lock().ok
            True
        """
        from kdkit.api.teachers import LockCheck
        from kdkit.core.teachers import check_lock

        return LockCheck(tuple(check_lock(self._open())))

    def trust(
        self,
        policy: str | None = None,
        *,
        options: Mapping[str, Any] | None = None,
        by: TrustBasis | None = None,
        per: Literal["domain", "sample"] | None = None,
        device: str = "cpu",
    ) -> TrustReport:
        """Accuracy of each teacher on each domain (missing features are extracted), and whom each policy admits.

        Args:
            policy: instead of the project's.
            options: of the policy.
            by: measure by ``label``, ``caption`` or ``list`` instead.
            per: let the policy weigh each ``domain`` or each ``sample`` instead.
            device: of the extraction.

        Example:
            >>> project.trust().table.teachers
            ('demo-radio',)
        """
        from kdkit.core.evaluation.trust.report import report_trust
        from kdkit.core.evaluation.trust.weights import warn_about_gaps

        report = report_trust(
            self._open(), policy, dict(options or {}), by=by, per=per, device=device, reporter=self.reporter
        )
        warn_about_gaps(report.chosen.domains_without_teacher, report.chosen.teachers_without_domain, self.reporter)
        return report

    def align(
        self, teacher: str, *, aligners: Sequence[str] = (), dim: int | None = None, seed: int = 0
    ) -> AlignerComparison:
        """Fit aligners on the store and measure them on other samples; for recipes with ``space: shared``.

        Args:
            teacher: with features in the store.
            aligners: by default all.
            dim: width of the common space; by default the student's.
            seed: of the choice of samples and of trained aligners.

        Example:
            >>> project.align("demo-radio", aligners=["linear"])[0].aligner
            'linear'
        """
        from kdkit.api.features import AlignerComparison
        from kdkit.core.distill.alignment.compare import compare_aligners

        reports = compare_aligners(self._open(), teacher, aligners, dim=dim, seed=seed, reporter=self.reporter)
        return AlignerComparison(tuple(reports), teacher)

    def pseudo_label(
        self,
        teacher: str,
        to: Path | str,
        *,
        domains: Sequence[str] = (),
        min_confidence: float | None = None,
        share: float | None = None,
        seed: int = 0,
        limit: int | None = None,
        dry_run: bool = False,
        device: str = "cpu",
    ) -> LabelReport:
        """Let a trusted teacher answer open questions of the training split; write a manifest.

        It answers in the domains where the trust policy admits it. It can be interrupted; the same call resumes.

        Args:
            teacher: of the registry; one that answers.
            to: the manifest, a JSON Lines file.
            domains: only these.
            min_confidence: least mean probability of an answer's tokens, 0 to 1.
            share: of each domain's questions, drawn at random by ``seed``; 0 to 1, all by default.
            seed: of the share.
            limit: number of questions.
            dry_run: count only.
            device: of the teacher.

        Example:
            >>> project.pseudo_label("reader", "pseudo.jsonl")  # doctest: +SKIP
        """
        from kdkit.core.distill.pseudo_labels.label import LabelRequest, write_pseudo_labels

        project, request = self._open(), LabelRequest(tuple(domains), min_confidence, limit, share, seed)
        with project.exclusive("kdkit pseudo-label"):
            done = write_pseudo_labels(
                project, teacher, Path(to), request, dry_run=dry_run, device=device, reporter=self.reporter
            )
        for name, count in done.not_trusted.items():
            self.reporter.warn(f"domain '{name}': {count} questions skipped, the trust policy does not admit {teacher}")
        return done


def _entry(
    name: str,
    source: str | None,
    loader: str | None,
    domains: Sequence[str] | None,
    license: str | None,
    live: bool,
    options: Mapping[str, Any] | None,
) -> tuple[str, dict[str, Any]]:
    """(short name, fields of the registry entry); ``name`` may be ``distribution:name``."""
    provider, _, short = name.rpartition(":")
    fields: dict[str, Any] = {
        "provider": provider or None,
        "from": source,
        "loader": loader,
        "options": dict(options or {}) or None,
        "domains": None if domains is None else list(domains),
        "license": license,
        "signals": "live" if live else None,
    }
    return short, {key: value for key, value in fields.items() if value is not None}
