"""Methods of :class:`kdkit.Project` that answer open questions by trainings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kdkit.api.opened import OpenedProject
from kdkit.api.project_evaluation import split_named

if TYPE_CHECKING:
    from kdkit.core.distill.sweep.prepare import SweepOptions
    from kdkit.core.distill.sweep.run import SweepPlan
    from kdkit.core.evaluation.sweeps.report import SweepReport


class SweepMethods(OpenedProject):
    """Part of :class:`kdkit.Project`."""

    def sweep(
        self,
        question: str,
        arguments: Sequence[str] = (),
        *,
        seeds: int = 3,
        length: float = 1.0,
        split: str = "calibration",
        domains: Sequence[str] = (),
        recipe: str | None = None,
        name: str | None = None,
        job: tuple[int, int] | None = None,
        keep: bool = False,
        cpu: bool = False,
        precision: str = "no",
        checkpoint_every: float = 60.0,
    ) -> SweepReport:
        """Train variations of the project over seeds, and compare them with the project as it is.

        They make no version. Evaluations and report lie in ``sweeps/NAME``. An interrupted call resumes; a finished
        run is never repeated.

        Args:
            question: ``recipe``, ``trust``, ``teachers``, ``imbalance``, ``held-out``, ``stages`` or ``clinkd``;
                ``report`` reads what is there and trains nothing.
            arguments: of the question, such as ``["losses.1.weight=0.5,1,2"]``; of ``report`` the name.
            seeds: runs per variation.
            length: of the runs, as a share of the recipe's steps.
            split: ``calibration``, or ``test``.
            domains: only these.
            recipe: name or YAML file; by default the registry's.
            name: of the folder; by default from the question.
            job: (i, n): only every n-th run, from the i-th.
            keep: leave the students, so that another split needs no training.
            cpu: use the CPU even if there is a GPU.
            precision: ``no`` (float32) or ``bf16``.
            checkpoint_every: seconds between checkpoints.

        Example:
            >>> project.sweep("imbalance").result("sampling.domain_power=0").mean  # doctest: +SKIP
            0.87
        """
        from kdkit.core.distill.sweep.run import SweepRequest, report_sweep, sweep

        if question == "report":
            return report_sweep(self._open(), *_one_name(arguments, name), self.reporter)
        options = _options(seeds, length, split, domains, recipe, keep, cpu, precision, checkpoint_every)
        request = SweepRequest(question, tuple(arguments), name, job)
        return sweep(self._open(), request, options, self.reporter)

    def plan_sweep(
        self,
        question: str,
        arguments: Sequence[str] = (),
        *,
        seeds: int = 3,
        length: float = 1.0,
        split: str = "calibration",
        domains: Sequence[str] = (),
        recipe: str | None = None,
        name: str | None = None,
        job: tuple[int, int] | None = None,
        keep: bool = False,
        cpu: bool = False,
        precision: str = "no",
    ) -> SweepPlan:
        """What :meth:`sweep` would train, with time and disk (``kdkit sweep --dry-run``).

        Example:
            >>> project.plan_sweep("trust").trainings  # doctest: +SKIP
            15
        """
        from kdkit.core.distill.sweep.run import SweepRequest, dry_run_sweep

        options = _options(seeds, length, split, domains, recipe, keep, cpu, precision, 60.0)
        return dry_run_sweep(self._open(), SweepRequest(question, tuple(arguments), name, job), options, self.reporter)


def _options(
    seeds: int,
    length: float,
    split: str,
    domains: Sequence[str],
    recipe: str | None,
    keep: bool,
    cpu: bool,
    precision: str,
    checkpoint_every: float,
) -> SweepOptions:
    from kdkit.core.distill.sweep.prepare import SweepOptions
    from kdkit.core.distill.trials.trial import TrialOptions

    trials = TrialOptions(cpu, precision, checkpoint_every, keep)
    return SweepOptions(length, seeds, tuple(domains), split_named(split), recipe, trials)


def _one_name(arguments: Sequence[str], name: str | None) -> tuple[str | None]:
    """The sweep that is reported: the argument, or ``name``."""
    from kdkit.core.base.errors import KdkitError

    given = [*arguments, *([name] if name else [])]
    if len(given) > 1:
        raise KdkitError("KD-API-380", "a report is of one sweep", where="report", fix="name one")
    return (given[0] if given else None,)
