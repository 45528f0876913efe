"""Archives as somebody else might make them: right, but for what a test spoils."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdkit.core.sharing.bundle.manifest import MANIFEST

PROJECT = {
    "registry.yaml": b"version: 1\n",
    "versions/current": b"v1\n",
    "versions/v1/a.safetensors": bytes(range(256)) * 5,
}


def manifest_of(files: dict[str, bytes], /, **changes: Any) -> dict[str, Any]:
    """What the manifest of ``files`` says; ``changes`` of its top level."""
    return {
        "format": 1,
        "kdkit": "1.0",
        "created": "2026-01-01T00:00:00+00:00",
        "requirements": [],
        "files": [
            {"path": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in files.items()
        ],
        **changes,
    }


def entry(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, link
    return info, data


def forge(
    path: Path,
    files: dict[str, bytes] | None = None,
    *,
    manifest: dict[str, Any] | bytes | None = None,
    extra: Sequence[tuple[tarfile.TarInfo, bytes]] = (),
    form: int = tarfile.GNU_FORMAT,
) -> Path:
    """Write an archive of ``files`` (by default :data:`PROJECT`), with ``extra`` members before them."""
    files = PROJECT if files is None else files
    body = manifest_of(files) if manifest is None else manifest
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with tarfile.open(path, "w", format=form) as out:
        for info, data in [entry(MANIFEST, raw), *extra, *(entry(name, data) for name, data in files.items())]:
            out.addfile(info, io.BytesIO(data))
    return path
