"""Methods of :class:`kdkit.Project` for its samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdkit.api.opened import OpenedProject

if TYPE_CHECKING:
    from kdkit.core.data.check import DataReport
    from kdkit.core.data.shards.plan import ShardPlan, ShardReport
    from kdkit.core.evaluation.zero_shot_labels import ZeroShotLabels


class DataMethods(OpenedProject):
    """Part of :class:`kdkit.Project`."""

    def check_data(
        self,
        *,
        skip_unreadable: bool = False,
        near_duplicates: int = 24,
        html: str | Path | None = None,
    ) -> DataReport:
        """Count domains and classes; find what is unreadable, skipped, duplicated, leaked or contradictory.

        Args:
            skip_unreadable: unreadable images are no problem.
            near_duplicates: largest distance of pictures of different splits that count as copies, in bits of 255;
                -1 switches this check off.
            html: a file for a page with pictures and histograms.

        Example:
            >>> project.check_data().problems
            ()
        """
        from kdkit.core.data.check import check_data
        from kdkit.core.distill.text_lengths import TEXT_LENGTHS
        from kdkit.core.evaluation.trust.evidence import EVIDENCE

        return check_data(
            self._open(),
            skip_unreadable=skip_unreadable,
            near_duplicates=near_duplicates,
            further=(EVIDENCE, TEXT_LENGTHS),
            page=None if html is None else Path(html),
            reporter=self.reporter,
        )

    def label_data(
        self,
        teacher: str,
        classes: str | Mapping[str, Sequence[str]],
        *,
        to: str | Path | None = None,
        threshold: float = 0.8,
        domains: Sequence[str] = (),
        device: str = "cpu",
        batch_size: int = 64,
    ) -> ZeroShotLabels:
        """Let a teacher label the training samples by zero-shot classification, with its confidence.

        The option ``teacher_labels`` of a data entry uses the file for training; trust and evaluation never do. It can
        be interrupted; the same call resumes.

        Args:
            teacher: of the registry; one with image and text features.
            classes: names with commas between them, a YAML file, or class -> prompts (none: the project's templates).
            to: the CSV file; by default ``labels/TEACHER.csv`` in the project.
            threshold: below this confidence a sample gets no label.
            domains: only samples of these.
            device: of the teacher.
            batch_size: samples per forward pass.

        Example:
            >>> project.label_data("demo-radio", "mass,clear").teacher  # doctest: +SKIP
            'demo-radio'
        """
        from kdkit.core.evaluation.zero_shot_labels import LabelRequest, label_samples, read_classes

        project = self._open()
        chosen = read_classes(classes, project.root) if isinstance(classes, str) else classes
        request = LabelRequest(teacher, chosen, threshold, tuple(domains))
        with project.exclusive("kdkit data label"):
            return label_samples(
                project,
                request,
                None if to is None else Path(to),
                device=device,
                batch_size=batch_size,
                reporter=self.reporter,
            )

    def shard_data(
        self,
        to: str | Path,
        entry: str = "",
        *,
        splits: Sequence[str] = (),
        rows_per_shard: int = 10_000,
        shard_mb: int = 500,
        shuffle: int | None = None,
        png: bool = False,
        skip_unreadable: bool = False,
        replace: bool = False,
    ) -> ShardReport:
        """Write the samples of a data entry as WebDataset shards (``kdkit data shards``).

        Parquet files behind a URL are streamed: images are never all on the disk. Image files keep their bytes, and
        training on the shards gives the same student. It can be interrupted; the same call continues.

        Args:
            to: the folder of the shards: absent, empty, or begun before.
            entry: path of the data entry as in registry.yaml, or its number from 1; not needed for the only one.
            splits: only samples of these.
            rows_per_shard: most samples of a shard.
            shard_mb: most megabytes of a shard; a sample that has more gets its own.
            shuffle: seed of a fixed random order; by default the order of the source.
            png: write DICOM, slides and arrays, which are no image files, as PNG of their pixels.
            skip_unreadable: leave out rows without an image file, and count them.
            replace: write the entry of the shards into registry.yaml, instead of this one.

        Raises:
            KdkitError: no such entry; rows that a shard cannot hold; the folder holds something else; the disk is full;
                the data changed meanwhile.

        Example:
            >>> project.shard_data("shards").written  # doctest: +SKIP
            480
        """
        from kdkit.core.data.shards import ShardRequest, write_shards

        request = ShardRequest(
            Path(to), entry, tuple(splits), rows_per_shard, shard_mb, shuffle, png, skip_unreadable, replace
        )
        return write_shards(self._open(), request, self.reporter)

    def plan_shards(
        self,
        to: str | Path,
        entry: str = "",
        *,
        splits: Sequence[str] = (),
        rows_per_shard: int = 10_000,
        shard_mb: int = 500,
        shuffle: int | None = None,
        png: bool = False,
        skip_unreadable: bool = False,
        replace: bool = False,
    ) -> ShardPlan:
        """Rows and bytes that :meth:`shard_data` would write (``kdkit data shards --dry-run``).

        Example:
            >>> project.plan_shards("shards").done
            0
        """
        from kdkit.core.data.shards import ShardRequest, plan_shards

        request = ShardRequest(
            Path(to), entry, tuple(splits), rows_per_shard, shard_mb, shuffle, png, skip_unreadable, replace
        )
        return plan_shards(self._open(), request, self.reporter)
