"""Methods of :class:`kdkit.Project` that read and write the feature store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdkit.api.opened import OpenedProject

if TYPE_CHECKING:
    from kdkit.api.features import (
        ExtractedFeatures,
        ExtractionPlan,
        FeatureCheck,
        FeatureExport,
        FeatureImport,
        FeatureStatus,
        PulledFeatures,
    )
    from kdkit.core.sharing.features import PushedFeatures


class FeatureMethods(OpenedProject):
    """Part of :class:`kdkit.Project`."""

    def features(self) -> FeatureStatus:
        """The columns of the feature store.

        Example:
            >>> [column.complete for column in project.features()]
            []
        """
        from kdkit.api.features import FeatureStatus
        from kdkit.core.base.errors import KdkitError
        from kdkit.core.data import load_index
        from kdkit.core.features.extract.status import column_statuses

        project = self._open()
        try:
            index = load_index(project, self.reporter, verify=False)
        except KdkitError as error:
            self.reporter.warn(f"samples are not counted: {error.headline}")
            index = None
        return FeatureStatus(column_statuses(project, index, self.reporter))

    def extract(
        self,
        teachers: Sequence[str] = (),
        *,
        device: str | None = None,
        gpus: int | None = None,
        batch_size: int = 64,
        workers: int | None = None,
        memory: float | None = None,
        ray: str | None = None,
    ) -> ExtractedFeatures:
        """Extract missing features. It can be interrupted; the same call resumes.

        Several processes may do so at the same time, also on other machines that share the folder. They share the
        work; each returns when all is stored.

        Args:
            teachers: by default all of the registry.
            device: ``cpu``, ``cuda``, ``cuda:1`` ...; under ``torchrun``, ``cuda`` is the GPU of the process. By
                default ``cpu``, with ``gpus`` ``cuda``.
            gpus: with ``ray``: tasks there, each with one GPU, or with one CPU where ``device`` is ``cpu``.
            batch_size: samples per forward pass.
            workers: threads that decode and preprocess; by default one per processor.
            memory: gigabytes for the models of one pass over the images; by default 80 % of what is free.
            ray: address of a Ray cluster whose machines share the folder; ``local`` starts one on this machine.

        Example:
            >>> project.extract()[0].teacher
            'demo-radio'
        """
        from kdkit.api.features import ExtractedFeatures
        from kdkit.core.base.errors import KdkitError
        from kdkit.core.data import load_index
        from kdkit.core.features.extract.extraction import device_of_rank
        from kdkit.core.features.extract.missing import extract_missing

        project = self._open()
        budget = None if memory is None else int(memory * 1e9)
        place = device or ("cpu" if gpus is None else "cuda")
        if gpus is not None and ray is None:
            raise KdkitError(
                "KD-FEAT-599",
                "a method starts no processes",
                where="gpus",
                fix=f"kdkit features extract --gpus {gpus}, or name a Ray cluster",
            )
        with project.shared("kdkit features extract"):
            if ray is not None:
                from kdkit.core.features.extract.on_ray import extract_on_ray

                return ExtractedFeatures(
                    extract_on_ray(
                        project,
                        teachers,
                        address=ray,
                        tasks=gpus or 1,
                        device=place,
                        batch_size=batch_size,
                        workers=workers,
                        memory=budget,
                        reporter=self.reporter,
                    )
                )
            done = extract_missing(
                project,
                load_index(project, self.reporter),
                teachers,
                device=device_of_rank(place),
                batch_size=batch_size,
                workers=workers,
                memory=budget,
                shared=True,
                reporter=self.reporter,
            )
        return ExtractedFeatures(tuple(done))

    def plan_extraction(
        self,
        teachers: Sequence[str] = (),
        *,
        device: str | None = None,
        batch_size: int = 64,
        plan_for: str | None = None,
    ) -> ExtractionPlan:
        """What :meth:`extract` would compute, with time and disk (``kdkit features extract --dry-run``).

        Each teacher that lacks something is opened and measured on a few samples; nothing is stored.

        Args:
            teachers: by default all of the registry.
            device: of the measurement, by default ``cpu``.
            batch_size: samples per forward pass.
            plan_for: forecast the time there too: ``8xH100``, or ``4`` for four times this device.

        Example:
            >>> [cost.missing for cost in project.plan_extraction().costs.teachers]
            []
        """
        from kdkit.api.features import ExtractionPlan
        from kdkit.core.data import load_index
        from kdkit.core.distill.forecast.devices import parse_target
        from kdkit.core.distill.forecast.extraction import plan_extraction

        target = None if plan_for is None else parse_target(plan_for)
        project = self._open()
        costs = plan_extraction(
            project,
            load_index(project, self.reporter),
            teachers,
            device=device or "cpu",
            batch_size=batch_size,
            target=target,
            reporter=self.reporter,
        )
        return ExtractionPlan(costs)

    def import_features(
        self,
        name: str,
        source: Sequence[Path | str],
        *,
        ids: Path | str | None = None,
        text: Path | str | None = None,
        key: str | None = None,
        projected: bool | None = None,
        id_format: str | None = None,
        prompts: Path | str | None = None,
        model: str | None = None,
        revision: str | None = None,
        preprocessing: str | None = None,
        license: str | None = None,
        domains: Sequence[str] | None = None,
        float32: bool | None = None,
        replace: bool = False,
        dry_run: bool = False,
    ) -> FeatureImport:
        """Make a teacher from features that exist already; its model is not needed.

        What is not given stays as in an earlier import of this name.

        Args:
            name: of the catalogue, or a new one.
            source: files or folders; rows and samples are matched by id.
            ids: file of ids beside a ``.npy`` file.
            text: ``.npy`` file of text vectors beside one of image vectors.
            key: one of the teachers in a folder of MMKD-CLIP.
            projected: its features in MMKD-CLIP's common space instead of its own.
            id_format: id of a row of an HDF5 file, from ``{file}``, ``{x}``, ``{y}`` and ``{row}``.
            prompts: file whose ids are prompts; their vectors let trust be measured by zero-shot classification.
            model, revision, preprocessing: what computed the features; part of the fingerprint.
            license: of the model, unless the catalogue knows it.
            domains: the only domains that it may teach.
            float32: store float32 instead of float16.
            replace: replace an earlier, different import of this name.
            dry_run: read, check and match; write nothing.

        Raises:
            KdkitError: not allowed; files that cannot be read; no id matches; another import of this name.

        Example:
            >>> project.import_features("tiles", ["tiles.npz"], license="mit")  # doctest: +SKIP
        """
        from kdkit.api.features import FeatureImport
        from kdkit.core.distill.plan.compatibility import compare_with_student
        from kdkit.core.features.imports.importing import ImportRequest, import_features
        from kdkit.core.features.imports.rows import ReadOptions

        read = ReadOptions(
            Path(ids) if ids else None, Path(text) if text else None, key, projected=projected, id_format=id_format
        )
        request = ImportRequest(
            [Path(path) for path in source],
            read,
            Path(prompts) if prompts else None,
            model,
            revision,
            preprocessing,
            license,
            domains,
            float32=float32,
            replace=replace,
        )
        done = import_features(self._open(), name, request, dry_run=dry_run, reporter=self.reporter)
        if not dry_run:
            compare_with_student(self._open(), name, self.reporter)
        return FeatureImport(done, dry_run)

    def export_features(self, teacher: str, to: Path | str) -> FeatureExport:
        """Write ids and vectors of the project's samples to a file of another program.

        Args:
            teacher: with features in the store.
            to: a ``.npz`` or ``.parquet`` file, or a folder for ``.npy`` files.

        Raises:
            KdkitError: no features; another file is there.

        Example:
            >>> project.export_features("demo-radio", "radio.npz")  # doctest: +SKIP
        """
        from kdkit.api.features import FeatureExport
        from kdkit.core.features.imports.export import export_features

        return FeatureExport(export_features(self._open(), teacher, Path(to), reporter=self.reporter))

    def verify_features(self, teachers: Sequence[str] = (), *, quick: bool = False) -> FeatureCheck:
        """Compare every block of the feature store with its checksum.

        Args:
            teachers: by default all.
            quick: structure and ids only.

        Example:
            >>> project.verify_features().ok
            True
        """
        from kdkit.api.features import FeatureCheck
        from kdkit.core.features.extract.status import verify_columns

        found = verify_columns(self._open(), teachers, deep=not quick, reporter=self.reporter)
        return FeatureCheck({column: tuple(problems) for column, problems in found.items()})

    def push_features(
        self,
        repository: str,
        teachers: Sequence[str] = (),
        *,
        public: bool = False,
        delete: bool = False,
        dry_run: bool = False,
    ) -> PushedFeatures:
        """Publish columns as a data set: no images, captions, labels or sample ids.

        Args:
            repository: ``ORG/NAME``.
            teachers: by default all that have features.
            public: visible to everybody.
            delete: allow removing columns of other teachers from the repository.
            dry_run: compare only; send nothing.

        Example:
            >>> project.push_features("lab/features", dry_run=True)  # doctest: +SKIP
        """
        from kdkit.core.sharing.features import push_features

        project = self._open()
        with project.exclusive("kdkit features push"):
            return push_features(
                project,
                repository,
                teachers,
                public=public,
                delete=delete,
                dry_run=dry_run,
                reporter=self.reporter,
            )

    def pull_features(self, repository: str, teachers: Sequence[str] = (), *, revision: str = "main") -> PulledFeatures:
        """Add published columns to the store, verified; features that are there stay.

        Args:
            repository: ``ORG/NAME`` of a data set.
            teachers: by default all.
            revision: branch, tag or commit.

        Example:
            >>> project.pull_features("lab/features")  # doctest: +SKIP
        """
        from kdkit.api.features import PulledFeatures
        from kdkit.core.sharing.features import pull_features

        project = self._open()
        with project.exclusive("kdkit features pull"):
            columns = pull_features(project, repository, teachers, revision=revision, reporter=self.reporter)
        absent = tuple(c.teacher for c in columns if c.teacher not in project.registry.teachers)
        return PulledFeatures(tuple(columns), absent)
