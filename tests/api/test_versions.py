"""Results of the commands that teach a student and list its versions."""

from __future__ import annotations

from pathlib import Path

from kdkit.api.versions import VersionList
from kdkit.core.project.project import Project
from kdkit.core.project.versions import LINEAGE, Versions
from tests.lineages import lineage, write_version


def test_a_damaged_version_hides_no_other(tmp_path: Path) -> None:
    versions = Versions(Project(tmp_path))
    for name, parent in (("v1", None), ("v2", "v1"), ("v3", "v2")):
        write_version(versions.root / name, lineage(name, parent))
    versions.make_current("v3")
    (versions.root / "v2" / LINEAGE).write_bytes(b"{}")
    listed = VersionList.of(versions)
    assert [(row.version, row.status) for row in listed] == [("v1", "promoted"), ("v2", "damaged"), ("v3", "current")]
    assert str(versions.root / "v2" / LINEAGE) in str(listed)
