"""A downloaded release is what its record says, and says nothing that a project may not hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.sharing.release.layout import KDKIT, LOCK, RECORD, REGISTRY, SAMPLES, TASK, Record
from kdkit.core.teachers.files import PICKLES

if TYPE_CHECKING:
    from kdkit.core.sharing.hub import Downloaded

_OF_THE_HUB = (".gitattributes",)
_NEEDED = (REGISTRY, LOCK, TASK, SAMPLES)


def checked_record(got: Downloaded, repo: str) -> Record:
    """The release's record, once every file agrees with it.

    Raises:
        KdkitError: no release of kdkit, one of another format, a file that is missing, not listed or changed, or
            names in the record that cannot be a version's or a student's.
    """
    record = _read(got.folder / RECORD, repo)
    _same_files(got.files, record, repo)
    if not re.fullmatch(r"v[1-9][0-9]*", record.version) or record.lineage.version != record.version:
        raise _bad(repo, f"'{record.version}' cannot be its version's name")
    for name in record.student:
        if "/" in name or name == RECORD or name not in record.files:
            raise _bad(repo, f"'{name}' is no file at its top")
        if name.endswith((*PICKLES, ".pkl", ".ckpt")):
            raise _bad(repo, f"'{name}' is a pickle: loading it could run code")
    lacking = [name for name in _NEEDED if name not in record.files]
    if lacking or not record.student:
        raise _bad(repo, f"it has no {lacking[0] if lacking else 'student'}")
    return record


def _read(path: Path, repo: str) -> Record:
    if not path.is_file():
        raise KdkitError(
            "KD-REL-016",
            "this is no release of kdkit",
            where=repo,
            why=f"it has no {RECORD}",
            fix="to teach from it: kdkit add-teacher NAME --from hf:" + repo,
            code=ExitCode.MISSING,
        )
    try:
        return Record.load(path)
    except ValueError as error:
        raise _bad(repo, f"{type(error).__name__}: {error}") from None


def _same_files(found: Mapping[str, str], record: Record, repo: str) -> None:
    for name in sorted(found.keys() | record.files.keys()):
        if name in (RECORD, *_OF_THE_HUB):
            continue
        expected = record.files[name].sha256 if name in record.files else "nothing: it is not listed"
        if found.get(name) != expected:
            raise KdkitError(
                "KD-REL-017",
                f"'{name}' is not what was pushed; nothing was pulled",
                where=repo,
                why=f"{RECORD} has sha256 {expected}; "
                + (f"the file has {found[name]}" if name in found else "no file"),
                fix="pull what kdkit pushed, by its tag or commit: --revision R",
                code=ExitCode.FOUND,
            )


def _bad(repo: str, why: str) -> KdkitError:
    return KdkitError(
        "KD-REL-018",
        "this release cannot be pulled",
        where=repo,
        why=f"{RECORD}: {why}",
        fix="is it of a newer kdkit? pip install -U kdkit",
        code=ExitCode.FOUND,
    )


def below_kdkit(name: str) -> str:
    """``kdkit/registry.lock`` -> ``registry.lock``."""
    return name.removeprefix(f"{KDKIT}/")
