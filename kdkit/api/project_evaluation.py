"""Methods of :class:`kdkit.Project` that evaluate and explain the student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.api.opened import OpenedProject

if TYPE_CHECKING:
    from kdkit.core.contracts import Split
    from kdkit.core.distill.explain.runs import ExplanationPlan
    from kdkit.core.evaluation.leave_one_out import Explanation
    from kdkit.core.evaluation.page import WrittenPage
    from kdkit.core.evaluation.report import WrittenReport


class EvaluationMethods(OpenedProject):
    """Part of :class:`kdkit.Project`."""

    def evaluate(
        self,
        version: str | None = None,
        *,
        task: str | None = None,
        options: Mapping[str, Any] | None = None,
        split: str = "test",
        alone: bool = False,
        by: Sequence[str] = (),
        html: Path | str | None = None,
        suite: str | None = None,
        datasets: Sequence[str] = (),
        data: Path | str | None = None,
        no_teachers: bool = False,
        device: str = "cpu",
    ) -> WrittenReport:
        """Scores of the student, beside its ancestors, every teacher and the oracle; written to ``reports/``.

        Args:
            version: or a refused candidate; by default the current version.
            task: ``zero-shot``, ``retrieval``, ``linear-probe``, or another of ``kdkit plugins --json``. By default the
                task of the student's family, or ``retrieval`` where the split has captions and no labels.
            options: of the task.
            split: ``train``, ``calibration`` or ``test``.
            alone: without ancestors.
            by: columns of the data, for scores of subgroups: ``["sex", "scanner"]``.
            html: write the page of :meth:`report` to this file too.
            suite: evaluate on the data sets of a benchmark suite that are present, instead of the project's data.
            datasets: only these of the suite.
            data: folder of the suite's data sets; by default ``suites`` in the project.
            no_teachers: do not extract what teachers lack of the suite, and compare with none.
            device: of the student, and of an extraction.

        Raises:
            KdkitError: ``datasets``, ``data`` or ``no_teachers`` without ``suite``; see
                :func:`~kdkit.core.evaluation.evaluate.evaluate_version`.

        Example:
            >>> print(project.evaluate().file)
            reports/evaluation-v1-test.json
        """
        from kdkit.core.base.atomic import require_place
        from kdkit.core.evaluation.evaluate import evaluate_version
        from kdkit.core.evaluation.evaluator import TaskChoice, own_task
        from kdkit.core.evaluation.page import write_page
        from kdkit.core.evaluation.report import write_report
        from kdkit.core.evaluation.suites.run import FOLDER, SuiteChoice, evaluate_suite

        if suite is None:
            _refuse_of_suites({"datasets": datasets, "data": data, "no_teachers": no_teachers})
        project, page = self._open(), None if html is None else Path(html)
        if page is not None:
            require_place(page)
        name = task or (own_task(project) if options else None)
        choice = None if name is None else TaskChoice(name, options or {})
        if suite is None:
            report = evaluate_version(
                project,
                version,
                task=choice,
                split=split_named(split),
                ancestors=not alone,
                by=by,
                device=device,
                reporter=self.reporter,
            )
        else:
            folder = project.root / FOLDER if data is None else Path(data).absolute()
            report = evaluate_suite(
                project,
                SuiteChoice(suite, tuple(datasets), folder, teachers=not no_teachers),
                version,
                task=choice,
                split=split_named(split),
                ancestors=not alone,
                by=by,
                device=device,
                reporter=self.reporter,
            )
        written = write_report(project.reports, report)
        if written.saved:
            self.reporter.say(f"report: {written.file}, picture: {written.picture}")
        if page is not None:
            made = write_page(project, written.report.version, page, self.reporter)
            self.reporter.say(f"page: {made.file}; 'kdkit report' writes it again")
        return written

    def report(self, version: str | None = None, *, html: Path | str | None = None) -> WrittenPage:
        """One self-contained HTML page about a version, from what is stored; nothing is evaluated.

        It shows the version's evaluations, trust, retention, single samples, and the course of training. What is
        absent is named, with the command that makes it.

        Args:
            version: or a refused candidate; by default the current version.
            html: the file; by default ``reports/<version>.html``.

        Example:
            >>> project.report().parts[0]
            'Summary'
        """
        from kdkit.core.evaluation.page import write_page

        return write_page(self._open(), version, None if html is None else Path(html), self.reporter)

    def explain(
        self,
        version: str | None = None,
        *,
        length: float = 0.25,
        seeds: int = 3,
        domains: Sequence[str] = (),
        cpu: bool = False,
        checkpoint_every: float = 60.0,
    ) -> Explanation:
        """What the student would be without each source: its teachers, and the captions or answers of its samples.

        Short runs from scratch, one with all sources and one without each, are compared on the calibration split. They
        make no version. An interrupted call resumes; a repeated one trains nothing.

        Args:
            version: or a refused candidate; by default the current version.
            length: of the runs, as a share of the recipe's steps.
            seeds: runs per source; their outcomes are averaged.
            domains: only these.
            cpu: use the CPU even if there is a GPU.
            checkpoint_every: seconds between checkpoints.

        Example:
            >>> project.explain().sources[0].mean.points  # doctest: +SKIP
            -21.5
        """
        from kdkit.core.distill.explain.explain import explain
        from kdkit.core.distill.explain.runs import ExplainOptions

        options = ExplainOptions(length, seeds, tuple(domains), cpu, checkpoint_every)
        return explain(self._open(), version, options, self.reporter)

    def plan_explanation(
        self,
        version: str | None = None,
        *,
        length: float = 0.25,
        seeds: int = 3,
        domains: Sequence[str] = (),
        cpu: bool = False,
    ) -> ExplanationPlan:
        """What :meth:`explain` would train, with the time (``kdkit explain --dry-run``).

        Example:
            >>> project.plan_explanation().sources  # doctest: +SKIP
            ('demo-radio', 'captions')
        """
        from kdkit.core.distill.explain.explain import plan_explanation
        from kdkit.core.distill.explain.runs import ExplainOptions

        options = ExplainOptions(length, seeds, tuple(domains), cpu)
        return plan_explanation(self._open(), version, options, self.reporter)


def _refuse_of_suites(arguments: Mapping[str, object]) -> None:
    """Raises: KdkitError for one that was given; without a suite it would be ignored."""
    from kdkit.core.base.errors import KdkitError

    if given := [name for name, value in arguments.items() if value]:
        raise KdkitError(
            "KD-API-285",
            "these arguments are of suites, and no suite is given",
            where=", ".join(given),
            why="the project's own data would be evaluated, and the arguments ignored",
            fix="name the suite (--suite NAME; 'kdkit suites' lists them), or leave them out",
        )


def split_named(name: str) -> Split:
    """A split by its name. Raises: KdkitError for another name."""
    from kdkit.core.base.errors import KdkitError, did_you_mean
    from kdkit.core.contracts import SPLITS

    for split in SPLITS:
        if split == name:
            return split
    raise KdkitError("KD-API-004", f"there is no split '{name}'", where="split", fix=did_you_mean(name, SPLITS))
