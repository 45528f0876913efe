"""Sources of teachers: ``hf:ORG/REPO[@REV]``, ``local:DIR`` or ``package:PKG/DIR``.

Some models lie in a data set's repository: ``hf:datasets/ORG/REPO[@REV]``.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from kdkit.core.base.errors import ExitCode, KdkitError

_DATA_SETS = "datasets/"
_REPO = re.compile(rf"((?:{_DATA_SETS})?[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(\w[\w./-]*))?")
FORMS = "hf:ORG/REPO[@REV], local:DIR or package:PKG/DIR"


@dataclass(frozen=True)
class Source:
    """A parsed source; ``place`` is ``ORG/REPO`` (of a data set: ``datasets/ORG/REPO``), a folder, or ``PKG/DIR``."""

    kind: Literal["hf", "local", "package"]
    place: str
    revision: str | None = None

    def __str__(self) -> str:
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
        """The same source at ``commit``, if there is one."""
        return Source(self.kind, self.place, commit) if commit else self


def parse_source(text: str, where: str = "") -> Source:
    """Parse ``text``; ``where`` is for messages.

    Raises:
        KdkitError: none of the three forms.
    """
    kind, _, place = text.partition(":")
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
