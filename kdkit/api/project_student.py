"""Methods of :class:`kdkit.Project` that teach and list the student."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from kdkit.api.opened import OpenedProject

if TYPE_CHECKING:
    from kdkit.api.student import Distillation, DistillPlan, ImportedStudent
    from kdkit.api.versions import CurrentVersion, VersionList
    from kdkit.core.contracts import Student
    from kdkit.core.distill.profiling import Profile
    from kdkit.core.project.lineage import Lineage


class StudentMethods(OpenedProject):
    """Part of :class:`kdkit.Project`."""

    def import_student(self, *, seed: int = 0, device: str = "cpu") -> ImportedStudent:
        """Make the student that ``init`` names version v0, without training; increments are compared with it.

        It is evaluated on the calibration split, which decides the domains that it knows.

        Args:
            seed: of parts that ``init`` does not decide, such as a projection between two towers.
            device: of the student during the evaluation.

        Raises:
            KdkitError: the project has a version already; the student starts from random weights.

        Example:
            >>> project.import_student().version  # doctest: +SKIP
            'v0'
        """
        from kdkit.api.student import ImportedStudent
        from kdkit.core.distill.import_student import import_student

        project = self._open()
        with project.exclusive("kdkit import-student"):
            return ImportedStudent(import_student(project, self.reporter, seed=seed, device=device))

    def pretrain(
        self,
        *,
        recipe: str = "clip",
        seed: int = 0,
        restart: bool = False,
        precision: str = "no",
        cpu: bool = False,
        checkpoint_every: float = 60.0,
        track: Sequence[str] = (),
    ) -> Distillation | None:
        """Train a new student on image-text pairs alone; ``distill(continued=True)`` then distills into it.

        Args:
            recipe: name or YAML file of a recipe that reads no teacher.
            seed: the same seed gives the same student.
            restart: discard an interrupted run of this plan.
            precision: ``no`` (float32) or ``bf16``.
            cpu: use the CPU even if there is a GPU.
            checkpoint_every: seconds between checkpoints.
            track: trackers that receive the loss curve, as in :meth:`distill`.

        Returns:
            The version; None in all processes of a distributed run but the first.

        Raises:
            KdkitError: the recipe reads teachers.

        Example:
            >>> project.pretrain().version  # doctest: +SKIP
            'v1'
        """
        from kdkit.core.distill.pretrain import require_no_teacher

        require_no_teacher(self._open(), recipe)
        done = self.distill(
            recipe=recipe,
            seed=seed,
            restart=restart,
            precision=precision,
            cpu=cpu,
            checkpoint_every=checkpoint_every,
            track=track,
        )
        return None if done is None else replace(done, next_command="kdkit distill --continue")

    def distill(
        self,
        *,
        incremental: bool = False,
        recipe: str | None = None,
        seed: int = 0,
        restart: bool = False,
        precision: str = "no",
        cpu: bool = False,
        shard: bool = False,
        replicas: int = 1,
        checkpoint_every: float = 60.0,
        track: Sequence[str] = (),
        continued: bool = False,
        stage: int | None = None,
    ) -> Distillation | None:
        """Distill the trusted teachers into the student; the result is a version.

        An increment that loses more than the guard tolerates is refused: it is kept, and the parent stays current.
        An interrupted run resumes with the same call.

        Args:
            incremental: teach the current version what is new since it was made.
            recipe: name or YAML file; by default the registry's.
            seed: the same seed gives the same student.
            restart: discard an interrupted run of this plan.
            precision: ``no`` (float32) or ``bf16``.
            cpu: use the CPU even if there is a GPU.
            shard: shard weights and optimizer states over the processes (FSDP2).
            replicas: with ``shard``, groups of processes that have all weights each (HSDP).
            checkpoint_every: seconds between checkpoints.
            track: trackers that receive the loss curve: ``tensorboard``, ``trackio``, ``wandb``, ``mlflow``.
            continued: train the current version on all samples, with the recipe's own length and rate
                (``--continue``).
            stage: train this stage of the recipe alone, from 1; by default all of them.

        Returns:
            The version; None in all processes of a distributed run but the first.

        Example:
            >>> project.distill().version
            'v1'
        """
        from kdkit.api.student import Distillation
        from kdkit.core.distill.loop.sharding import chosen_sharding
        from kdkit.core.distill.options import Options
        from kdkit.core.distill.run import distill

        project = self._open()
        options = Options(
            incremental=incremental,
            recipe=recipe,
            seed=seed,
            restart=restart,
            precision=precision,
            cpu=cpu,
            sharding=chosen_sharding(shard=shard, replicas=replicas),
            checkpoint_seconds=checkpoint_every,
            track=tuple(track),
            continued=continued,
            stage=stage,
        )
        with project.exclusive("kdkit distill"):
            outcome = distill(project, options, reporter=self.reporter)
        return None if outcome is None else Distillation(outcome)

    def plan(
        self,
        *,
        incremental: bool = False,
        recipe: str | None = None,
        seed: int = 0,
        precision: str = "no",
        cpu: bool = False,
        shard: bool = False,
        replicas: int = 1,
        gpus: int | None = None,
        continued: bool = False,
        stage: int | None = None,
        plan_for: str | None = None,
    ) -> DistillPlan:
        """What :meth:`distill` would do, with time, memory and disk (``kdkit distill --dry-run``).

        Missing features are extracted, since trust decides what is taught. A few steps are measured on a copy.

        Args:
            gpus: processes of the run, which share weights with ``shard``, in ``replicas`` groups; measured in one.
            plan_for: forecast the run there too: ``8xH100``, or ``4`` for four times this machine's device.

        Example:
            >>> project.plan().plan.parent is None
            True
        """
        from kdkit.api.student import DistillPlan
        from kdkit.core.distill.cost_estimate import dry_run
        from kdkit.core.distill.forecast.devices import parse_target
        from kdkit.core.distill.loop.sharding import chosen_sharding
        from kdkit.core.distill.options import Options

        target, project = None if plan_for is None else parse_target(plan_for), self._open()
        options = Options(
            incremental=incremental,
            recipe=recipe,
            seed=seed,
            precision=precision,
            cpu=cpu,
            sharding=chosen_sharding(shard=shard, replicas=replicas),
            processes=gpus or 1,
            continued=continued,
            stage=stage,
        )
        with project.exclusive("kdkit distill"):
            return DistillPlan(dry_run(project, options, self.reporter, target))

    def profile(
        self,
        *,
        steps: int = 30,
        incremental: bool = False,
        recipe: str | None = None,
        seed: int = 0,
        precision: str = "no",
        cpu: bool = False,
    ) -> Profile | None:
        """Where the time of a training step goes, and the one setting that would help most (``kdkit profile``).

        A copy of the student is trained; missing features are extracted.

        Args:
            steps: training steps; the first two are not counted.
            incremental: measure the training of what is new since the current version.
            recipe: name or YAML file; by default the registry's.
            seed: of the student and its batches.
            precision: ``no`` (float32) or ``bf16``.
            cpu: use the CPU even if there is a GPU.

        Returns:
            The profile; None in all processes of a distributed run but the first.

        Example:
            >>> list(project.profile(steps=4).seconds)
            ['data', 'forward', 'losses', 'backward', 'optimizer', 'sync']
        """
        from kdkit.core.distill.options import Options
        from kdkit.core.distill.profiling import profile

        project = self._open()
        options = Options(incremental=incremental, recipe=recipe, seed=seed, precision=precision, cpu=cpu)
        with project.exclusive("kdkit profile"):
            return profile(project, options, steps, self.reporter)

    def versions(self) -> VersionList:
        """The versions of the student and the refused candidates.

        Example:
            >>> [(row.version, row.status) for row in project.versions()]
            [('v1', 'current')]
        """
        from kdkit.api.versions import VersionList
        from kdkit.core.project.versions import Versions

        return VersionList.of(Versions(self._open()))

    def lineage(self, name: str | None = None) -> Lineage:
        """Teachers, data, recipe, trust, retention and environment of a version (``kdkit versions show``).

        Args:
            name: by default the current version.

        Example:
            >>> [teacher.name for teacher in project.lineage().teachers]
            ['demo-radio']
        """
        from kdkit.core.project.versions import Versions

        return Versions(self._open()).get(name).lineage

    def load_student(self, name: str | None = None) -> Student:
        """The student of a version, a ``torch.nn.Module``.

        Args:
            name: by default the current version.

        Example:
            >>> project.load_student().training
            False
        """
        from kdkit.core.project.versions import Versions, load_student

        project = self._open()
        return load_student(Versions(project).get(name), project.catalogue)

    def promote(self, name: str) -> CurrentVersion:
        """Make a refused candidate current (``kdkit versions promote``).

        Example:
            >>> project.promote("v2")  # doctest: +SKIP
        """
        from kdkit.api.versions import CurrentVersion
        from kdkit.core.project.versions import Versions

        Versions(self._open()).promote(name)
        return CurrentVersion(name)

    def rollback(self, name: str | None = None) -> CurrentVersion:
        """Make an earlier version current again; nothing is deleted.

        Args:
            name: by default the parent of the current version.

        Example:
            >>> project.rollback("v1").version
            'v1'
        """
        from kdkit.api.versions import CurrentVersion
        from kdkit.core.project.versions import Versions

        return CurrentVersion(Versions(self._open()).rollback(name).name)
