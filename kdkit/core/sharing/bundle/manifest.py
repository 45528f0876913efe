"""The manifest: size and sha256 of every file in a bundle. Its paths are validated, never trusted."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.project.project import REGISTRY
from kdkit.core.project.registry.lock import Sha256
from kdkit.core.sharing.kinds import KINDS, is_known_kind

FORMAT: Literal[1] = 1
MANIFEST = "kdkit-bundle.json"
REQUIREMENTS = "requirements.txt"
ARTIFACTS = ".kdkit/artifacts/"
LARGEST = 64 << 20
"""Bytes of a manifest: enough for hundreds of thousands of files."""
_LONGEST_PART, _LONGEST_PATH = 255, 3800  # bytes; disks take 255 and 4096, the project's own folder included

Printable = Annotated[str, Field(pattern=r"^[ -~]*$", max_length=1000)]
"""ASCII without terminal control characters."""


def safe_path(path: str) -> str:
    """``path`` itself, if a project may hold a file of that name.

    Raises:
        ValueError: absolute, with ``..``, ``.`` or empty parts, with a backslash or an invisible character, too long,
            or hidden, which only what lies in ``.kdkit/artifacts/`` may be: a bundle writes no ``.git``, no ``.envrc``.
    """
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or "\\" in path:
        raise ValueError(f"'{path}' leads outside the project")
    if not all(parts) or "." in parts or any(unicodedata.category(c) in ("Cc", "Cf", "Cs") for c in path):
        raise ValueError(f"{path!a} is not a proper name")
    if len(path.encode()) > _LONGEST_PATH or any(len(part.encode()) > _LONGEST_PART for part in parts):
        raise ValueError(f"'{path[:40]}...' is too long for a disk")
    if any(part.startswith(".") for part in path.removeprefix(ARTIFACTS).split("/")):
        raise ValueError(f"'{path}' is hidden")
    return path


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class BundledFile(_Record):
    """One file; ``path`` is relative to the project, ``size`` in bytes."""

    path: Annotated[str, AfterValidator(safe_path)]
    size: Annotated[int, Field(ge=0)]
    sha256: Sha256


class Manifest(_Record):
    """The whole manifest. ``created``: ISO 8601; ``requirements``: the plugins, as pip reads them."""

    format: Literal[1] = FORMAT
    kdkit: Printable
    created: Printable
    requirements: tuple[Printable, ...]
    files: tuple[BundledFile, ...]

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        """Distinct also on disks that ignore case or Unicode normalization."""
        seen: dict[str, str] = {}
        for file in self.files:
            parts = file.path.split("/")
            folders = ["/".join(parts[:n]) + "/" for n in range(1, len(parts))]
            for name in (*folders, file.path):
                key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name.rstrip("/")).casefold())
                if key in seen and (seen[key] != name or name == file.path):
                    raise ValueError(f"'{name}' and '{seen[key]}' have one name, or would have on some disks")
                seen[key] = name
        if REGISTRY not in seen:
            raise ValueError(f"it has no {REGISTRY}")
        return self

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) over the manifest, which covers every file of the bundle."""
        return hashlib.sha256(self.to_json()).hexdigest()

    def to_json(self) -> bytes:
        """Equal manifests give equal bytes."""
        return (json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n").encode()


def parse_manifest(raw: bytes, where: str) -> Manifest:
    """Parse an untrusted manifest.

    Raises:
        KdkitError: not a manifest, written by a newer kdkit, or with an unsafe path.
    """
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _bad(where, f"its manifest is not JSON: {error}") from None
    if not isinstance(body, dict) or not isinstance(body.get("format"), int):
        raise _bad(where, "its manifest has no format")
    if body["format"] > FORMAT:
        raise KdkitError(
            "KD-BUNDLE-005",
            "written by a newer kdkit",
            where=where,
            why=f"it has format {body['format']} (kdkit {body.get('kdkit')!a:.20}); this kdkit reads up to {FORMAT}",
            fix="upgrade kdkit here, or bundle with an older one",
        )
    try:
        return Manifest.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise _bad(where, f"its manifest, {place}: {message}" if place else message) from None


def require_known_kinds(paths: Iterable[str], where: str, fix: str) -> None:
    """Raises: KdkitError for a file that is code, or of a kind that kdkit does not know."""
    for path in paths:
        if not is_known_kind(path):
            raise KdkitError(
                "KD-BUNDLE-022",
                f"{path!a} is no file of a project",
                where=where,
                why=f"{KINDS}; a bundle holds nothing that could be run",
                fix=fix,
                code=ExitCode.FOUND,
            )


def _bad(where: str, why: str) -> KdkitError:
    why = "".join(c if c.isprintable() else "?" for c in why)  # pydantic quotes what it found
    return KdkitError(
        "KD-BUNDLE-006", "not a bundle that kdkit unpacks", where=where, why=why, fix="nothing was unpacked"
    )


@dataclass(frozen=True)
class Share:
    """Size of one part: ``part`` is ``project``, ``teacher``, ``features``, ``version`` or ``wheels``."""

    part: str
    name: str
    files: int
    bytes: int


def shares(sizes: Iterable[tuple[str, int]]) -> tuple[Share, ...]:
    """Sum (path, bytes) of every file per part."""
    files, total = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for path, size in sizes:
        owner = _owner(path)
        files[owner] += 1
        total[owner] += size
    return tuple(Share(*owner, files[owner], total[owner]) for owner in files)


def _owner(path: str) -> tuple[str, str]:
    parts = path.split("/")
    if path.startswith(ARTIFACTS) and len(parts) > 3:
        return "teacher", parts[2]
    if parts[0] in ("features", "versions") and len(parts) > 2:
        return ("features" if parts[0] == "features" else "version"), parts[1]
    return ("wheels" if parts[0] == "wheels" and len(parts) > 1 else "project"), ""
