"""``kdkit data check``: counts the data and finds its problems. Each file has the checks of one idea."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from kdkit.core.base.atomic import require_place
from kdkit.core.contracts import Reporter
from kdkit.core.data.check.examined import Examined, examine
from kdkit.core.data.check.files import check_entries, check_folders, check_ids, check_images, check_skipped
from kdkit.core.data.check.finding import Check, Finding
from kdkit.core.data.check.labels import check_classes, check_names, check_questions
from kdkit.core.data.check.near_duplicates import DISTANCE, check_near_duplicates
from kdkit.core.data.check.page import write_page
from kdkit.core.data.check.pictures import check_sizes, check_storage
from kdkit.core.data.check.report import DataReport
from kdkit.core.data.check.shared_images import check_contradictions, check_leaks, check_repeated
from kdkit.core.project.project import Project

__all__ = ["DISTANCE", "Check", "DataReport", "Examined", "Finding", "check_data"]

CHECKS = (
    Check("skipped files", "files and records that sources skip", check_skipped),
    Check("images", "whether every image can be decoded", check_images),
    Check("entries", "data entries without images", check_entries),
    Check("ids", "repeated ids", check_ids),
    Check("folders", "folders named as splits", check_folders),
    Check("storage", "depth and frames of images", check_storage),
    Check("sizes", "sizes of images, and blank ones", check_sizes),
    Check("leaks", "equal files, equal pixels and groups in several splits", check_leaks),
    Check("contradictions", "images with several labels", check_contradictions),
    Check("repeated images", "images repeated in a split", check_repeated),
    Check("names", "names of domains and classes, and missing values", check_names),
    Check("classes", "classes per split", check_classes),
    Check("questions", "questions per split", check_questions),
)
"""The checks that need nothing but the data, besides near duplicates, which have a choice."""


def check_data(
    project: Project,
    *,
    skip_unreadable: bool = False,
    near_duplicates: int = DISTANCE,
    further: Sequence[Check] = (),
    page: Path | None = None,
    reporter: Reporter | None = None,
) -> DataReport:
    """Read all data, decode every image, and run every check.

    Args:
        project: the project.
        skip_unreadable: count unreadable images of all entries as skipped, not as problems.
        near_duplicates: largest distance of pictures of different splits that count as copies, in bits of 255; a
            negative number switches this check off.
        further: checks of other rooms, such as text lengths.
        page: an HTML file with pictures and histograms, which is written too.
        reporter: shows progress.

    Raises:
        KdkitError: a manifest cannot be read, or no page can be at ``page``.
    """
    if page is not None:
        require_place(page)
    data = examine(project, skip_unreadable=skip_unreadable, reporter=reporter)
    near = partial(check_near_duplicates, distance=near_duplicates)
    checks = (*CHECKS, Check("near-duplicates", "nearly equal pictures in several splits", near), *further)
    found = [(check, tuple(check.run(data))) for check in checks]
    report = DataReport(
        samples=len(data.samples),
        counts=data.counts,
        findings=tuple(finding for _, findings in found for finding in findings),
        looked_at={
            check.name: check.looks_at
            for check, findings in found
            if not any(finding.level == "skipped" for finding in findings)
        },
    )
    if page is not None:
        write_page(page, data, report)
    return report
