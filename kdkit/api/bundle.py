"""Results of ``kdkit bundle`` and ``kdkit unbundle``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.base.result import Result, Section, Table, format_size

if TYPE_CHECKING:
    from kdkit.core.sharing.bundle import Manifest, Packed, Share


@dataclass(frozen=True)
class Bundle(Result):
    """An archive of a project.

    Attributes:
        contents: files by part.
        packed: the archive; None after a dry run.
    """

    contents: tuple[Share, ...]
    packed: Packed | None

    @property
    def archive(self) -> Path | None:
        """Path of the archive; None after a dry run."""
        return None if self.packed is None else self.packed.archive

    def to_json(self) -> dict[str, Any]:
        """Archive, size, manifest, contents; after a dry run the contents."""
        if self.packed is None:
            return {"contents": _contents_json(self.contents)}
        facts = _manifest_json(self.packed.manifest, self.contents)
        return {"archive": self.packed.archive, "size": self.packed.size, **facts}

    def sections(self) -> list[Section]:
        """Sizes by part."""
        table = _contents_table(self.contents)
        if self.packed is None:
            return [table]
        line = f"{self.packed.archive}: {format_size(self.packed.size)}"
        return [table, "", line, f"fingerprint {self.packed.manifest.fingerprint}"]


@dataclass(frozen=True)
class Unbundled(Result):
    """A project from a bundle.

    Attributes:
        folder: of the project.
        manifest: of the bundle.
        missing: requirements that are not installed.
        absent_data: paths of registry.yaml with no data yet; unknown after a dry run.
    """

    folder: Path
    manifest: Manifest
    missing: tuple[str, ...]
    absent_data: tuple[str, ...]

    @property
    def contents(self) -> tuple[Share, ...]:
        """Files by part."""
        from kdkit.core.sharing.bundle import shares

        return shares((file.path, file.size) for file in self.manifest.files)

    @property
    def install(self) -> str | None:
        """Shell command that installs what is missing, from the wheels of the bundle if there are any."""
        if not self.missing:
            return None
        command = f"kdkit install {' '.join(self.missing)}"
        if not any(share.part == "wheels" for share in self.contents):
            return command
        return f"PIP_NO_INDEX=1 PIP_FIND_LINKS={(self.folder / 'wheels').as_uri()} {command}"

    def to_json(self) -> dict[str, Any]:
        """All attributes."""
        return {
            "folder": self.folder,
            **_manifest_json(self.manifest, self.contents),
            "missing": list(self.missing),
            "install": self.install,
            "absent_data": list(self.absent_data),
        }

    def sections(self) -> list[Section]:
        """Sizes by part, origin, and what is missing here."""
        made = f"made by kdkit {self.manifest.kdkit}, {self.manifest.created}"
        parts: list[Section] = [_contents_table(self.contents), "", made, f"fingerprint {self.manifest.fingerprint}"]
        if self.install:
            parts += [f"not installed here: {', '.join(self.missing)}", f"  {self.install}"]
        if self.absent_data:
            parts.append(f"bundles contain no data; registry.yaml expects it at: {', '.join(self.absent_data)}")
        return parts


def _manifest_json(manifest: Manifest, contents: Sequence[Share]) -> dict[str, Any]:
    from kdkit.core.sharing.bundle import senders

    return {
        "fingerprint": manifest.fingerprint,
        "kdkit": manifest.kdkit,
        "created": manifest.created,
        "requirements": list(manifest.requirements),
        "sends_samples": list(senders(manifest)),
        "contents": _contents_json(contents),
    }


def _contents_json(contents: Sequence[Share]) -> list[dict[str, Any]]:
    return [{"part": s.part, "name": s.name, "files": s.files, "bytes": s.bytes} for s in contents]


def _contents_table(contents: Sequence[Share]) -> Table:
    cells = [(s.part, s.name or "-", s.files, format_size(s.bytes)) for s in contents]
    total = ("total", "", sum(s.files for s in contents), format_size(sum(s.bytes for s in contents)))
    return Table(("part", "name", "files", "size"), [*cells, total], "llrr")
