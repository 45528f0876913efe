"""``kdkit align`` in a process of its own."""

from __future__ import annotations

import json

from tests.conftest import Cli
from tests.core.distill.alignment.project import make_project


def test_align_reports_each_aligner(kdkit_cli: Cli) -> None:
    make_project(kdkit_cli.folder)
    data = kdkit_cli("align", "narrow", "--dim", "8", "--aligner", "procrustes", "--aligner", "pca", "--json")
    assert data.code == 0, data.stderr
    reports = json.loads(data.stdout)
    assert sorted(report["aligner"] for report in reports) == ["pca", "procrustes"]
    assert all(set(report) >= {"ranking", "top1", "gap", "reconstruction", "samples"} for report in reports)

    table = kdkit_cli("align", "narrow", "--dim", "8", "--aligner", "procrustes")
    assert table.code == 0
    assert table.stdout.splitlines()[2].split()[:3] == ["procrustes", "1.000", "1.000"]

    unknown = kdkit_cli("align", "narow", "--dim", "8")
    assert (unknown.code, unknown.stdout) == (2, "")
    assert unknown.stderr.startswith("error[KD-DIST-001]")
