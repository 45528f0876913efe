"""Sources of teachers: ``hf:ORG/REPO[@REV]``, ``https://HOST/FILE.zip``, ``local:DIR`` or ``package:PKG/DIR``.

Some models lie in a data set's repository: ``hf:datasets/ORG/REPO[@REV]``. An archive may be pinned:
``https://HOST/FILE.zip#sha256=HEX``.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.data.remote_files import check_url, is_loopback

_DATA_SETS = "datasets/"
_REPO = re.compile(rf"((?:{_DATA_SETS})?[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(\w[\w./-]*))?")
_ARCHIVE = re.compile(r"(https?://[^#{}\s]+\.zip)(?:#sha256=([0-9a-f]{64}))?", re.IGNORECASE)
FORMS = "hf:ORG/REPO[@REV], local:DIR, package:PKG/DIR or https://HOST/FILE.zip"


@dataclass(frozen=True)
class Source:
    """A parsed source.

    Attributes:
        kind: which of the forms.
        place: ``ORG/REPO`` (of a data set: ``datasets/ORG/REPO``), a folder, ``PKG/DIR``, or a whole address.
        revision: of a repository; of an archive its sha256.
    """

    kind: Literal["hf", "local", "package", "https"]
    place: str
    revision: str | None = None

    def __str__(self) -> str:
        if self.kind == "https":
            return self.place + (f"#sha256={self.revision}" if self.revision else "")
        return f"{self.kind}:{self.place}" + (f"@{self.revision}" if self.revision else "")

    @property
    def repository(self) -> str:
        """``ORG/REPO`` on the Hub."""
        return self.place.removeprefix(_DATA_SETS) if self.repository_kind == "dataset" else self.place

    @property
    def repository_kind(self) -> Literal["model", "dataset"]:
        """What the Hub calls it; the names of both kinds are independent."""
        return "dataset" if self.place.startswith(_DATA_SETS) and self.place.count("/") == 2 else "model"

    def pinned(self, commit: str | None) -> Source:
        """The same source at ``commit`` (of an archive: with this sha256), if there is one."""
        return Source(self.kind, self.place, commit) if commit else self


def parse_source(text: str, where: str = "") -> Source:
    """Parse ``text``; ``where`` is for messages.

    Raises:
        KdkitError: none of the forms; an address that is not read, such as ``http://`` of another machine.
    """
    kind, _, place = text.partition(":")
    if archive := _ARCHIVE.fullmatch(text):
        if archive[1].lower().startswith("http://") and not is_loopback(text):
            raise KdkitError(
                "KD-TEACH-302",
                "models are fetched by https:// alone",
                where=where or archive[1],
                why="anyone on the way could replace what comes by http://",
                fix=f"write https{archive[1][4:]}, or download it yourself and give --from local:DIR",
            )
        check_url(archive[1])
        return Source("https", archive[1], archive[2].lower() if archive[2] else None)
    if kind == "hf":
        match = _REPO.fullmatch(place)
        if match and ".." not in place:
            return Source("hf", match[1], match[2])
    elif kind == "local" and place:
        return Source("local", place)
    elif kind == "package" and re.fullmatch(r"[\w.]+(/[^/\\]+)+", place) and ".." not in place.split("/"):
        return Source("package", place)
    fix = f"write {'local' if Path(text).is_dir() else 'hf'}:{text}"
    raise KdkitError(
        "KD-TEACH-020",
        f"'{text}' is no source of a teacher",
        where=where,
        why=f"a source is {FORMS}",
        fix=fix if _REPO.fullmatch(text) or Path(text).is_dir() else "see 'kdkit add-teacher --help'",
    )


def source_folder(source: Source, root: Path) -> Path:
    """The folder of a ``local:`` (relative to ``root``, the project) or ``package:`` source.

    Raises:
        KdkitError: the folder or the package is missing.
    """
    if source.kind == "local":
        folder = root / os.path.expanduser(source.place)
        fix = "a local: path is relative to the folder of registry.yaml"
    else:
        package, _, inner = source.place.partition("/")
        folder = _package_folder(package) / inner
        fix = f"check the version of '{package}': pip show {package}"
    if not folder.is_dir():
        raise KdkitError(
            "KD-TEACH-021", "no such folder", where=str(source), why=str(folder), fix=fix, code=ExitCode.MISSING
        )
    return folder


def _package_folder(package: str) -> Path:
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise KdkitError(
            "KD-TEACH-022",
            f"the package '{package}' is not installed",
            where=f"package:{package}",
            fix="install the distribution that contains it",
            code=ExitCode.MISSING,
        )
    return Path(spec.submodule_search_locations[0])
