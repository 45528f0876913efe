"""Data behind URLs: kept in ``.kdkit/remote``, up to a limit, and read from there.

Files are fetched whole: an index reads all of a shard once, and training then reads it in any order. A file is fetched
again when the stamp that its server gives changes. What was fetched is kept, so an interrupted command continues.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count, takewhile
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hashes import sha256_of
from kdkit.core.base.locks import file_lock
from kdkit.core.base.result import format_size
from kdkit.core.contracts import Reporter, Silent, SourceSpec
from kdkit.core.data.remote_cache import LOCK, RECORD, beside, make_room, note_use
from kdkit.core.data.remote_files import (
    Files,
    RemoteFile,
    Unavailable,
    check_url,
    is_url,
    mismatch,
    open_files,
    without_query,
)

if TYPE_CHECKING:
    from kdkit.core.project.project import Project
    from kdkit.core.project.registry.schema import DataEntry

FOLDER = "remote"
PART = ".part"
WAITS = (1.0, 4.0, 15.0)
"""Seconds before the next attempt; an attempt that got bytes starts the count again."""
PATIENCE = 5.0
"""Seconds after which a storage that has not answered is named."""
POLL = 0.5
"""Seconds between two looks at the lock of another command."""
_COMMIT = re.compile(r"hf://datasets/[^/@]+(/[^/@]+)?@[0-9a-f]{40}(/|$)")
DEFAULT_LIMIT = 100
"""GiB of an entry's files."""


def location_of(project: Project, entry: DataEntry, limit: int | None, reporter: Reporter) -> Path:
    """Where the files of a data entry are; those behind a URL are fetched first.

    Args:
        limit: GiB of files behind a URL; None for :data:`DEFAULT_LIMIT`.

    Raises:
        KdkitError: the source reads no URLs; as :func:`fetch_data`.
    """
    if not is_url(entry.path):
        return Path(os.path.abspath(project.root / entry.path))
    spec = project.catalogue.spec(SourceSpec, entry.source)
    ending = spec.remote_ending
    if not ending:
        able = [spec.name for spec in project.catalogue.specs(SourceSpec) if spec.remote_ending]
        raise KdkitError(
            "KD-DATA-224",
            f"the source '{entry.source}' reads no URLs",
            where=without_query(entry.path),
            why=f"these do: {', '.join(able)}",
            fix="download the files, and write their path",
        )
    if spec.remote_pinned:
        require_commit(entry.path)
    keep = [folder_of(project.state, one.path) for one in project.registry.data if is_url(one.path)]
    return fetch_data(project.state, entry.path, ending, reporter, limit or DEFAULT_LIMIT, keep)


def require_commit(url: str) -> None:
    """Raise KdkitError if ``url`` is on the Hub and names no commit."""
    if urlsplit(url).scheme == "hf" and not _COMMIT.match(url):
        raise KdkitError(
            "KD-DATA-320",
            "this URL names no commit",
            where=without_query(url),
            why="a branch of the Hub changes; a commit always has the same files",
            fix="write hf://datasets/OWNER/NAME@COMMIT, with the 40 digits that the page 'Files' of the data set shows",
        )


def fetch_data(
    state: Path,
    url: str,
    ending: str,
    reporter: Reporter,
    limit: int = DEFAULT_LIMIT,
    keep: Sequence[Path] | None = None,
) -> Path:
    """The folder with the files of ``url``, or the file; what is missing or changed is fetched first.

    Args:
        state: the project's folder for machine state.
        url: a file, a folder, or several by braces: ``https://host/{000..099}.tar``.
        ending: of the files in a folder, such as ``.tar``.
        reporter: receives what is fetched.
        limit: GiB; more is refused before anything is fetched.
        keep: folders of the URLs that data entries name; those of others may make room
            (:mod:`~kdkit.core.data.remote_cache`). None: nothing is removed.

    Raises:
        KdkitError: a URL that is not read; nothing there; more than the limit or the disk holds; no answer.
    """
    check_url(url)
    if url.startswith("file:"):
        return Path(unquote(urlsplit(url).path))
    folder = folder_of(state, url)
    refuse_links(folder, folder, beside(folder, LOCK))
    folder.mkdir(parents=True, exist_ok=True)
    storage = open_files(url)
    files = _find(storage, url, ending, folder, reporter)
    if files is not None and any(_differences(files, folder, _read_record(folder))):
        with _alone(folder, url, reporter):
            _update(storage, files, folder, url, limit, keep, reporter)
    if keep is not None:
        note_use(folder)
    names = sorted(_read_record(folder))
    single = len(names) == 1 and without_query(url).endswith("/" + names[0])
    return folder / names[0] if single else folder


def kept_file(state: Path, url: str, ending: str) -> Path | None:
    """The file that :func:`fetch_data` has fetched from ``url``; None if it is not here. Asks no server."""
    folder = folder_of(state, url)
    refuse_links(folder, folder)
    names = [name for name in _read_record(folder) if name.endswith(ending) and (folder / name).is_file()]
    return folder / names[0] if len(names) == 1 else None


def remote_size(url: str, ending: str, reporter: Reporter | None = None) -> int:
    """Bytes of the file ``url``. Raises: KdkitError: as :func:`fetch_data`."""
    check_url(url)
    try:
        return sum(file.size for file in find_patiently(open_files(url), url, ending, reporter or Silent()))
    except Unavailable as error:
        raise no_answer(url, str(error)) from None


def folder_of(state: Path, url: str, kind: str = FOLDER) -> Path:
    """The folder of the project's state for the files of a URL."""
    name = f"{without_query(url).rpartition('/')[2] or 'data'}"[:40].translate(str.maketrans("{}", "__"))
    return state / kind / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"


@contextmanager
def _alone(folder: Path, url: str, reporter: Reporter) -> Iterator[None]:
    """Wait until no other command fetches into the folder; none begins until the block ends."""
    for attempt in count():
        with file_lock(beside(folder, LOCK)) as mine:
            if mine is not False:
                yield
                return
        if attempt == 0:
            reporter.say(f"waiting for another command, which fetches {without_query(url)}")
        time.sleep(POLL)


def _find(storage: Files, url: str, ending: str, folder: Path, reporter: Reporter) -> list[RemoteFile] | None:
    """What the storage has; None if it does not answer and all files of the last time are here."""
    try:
        files = find_patiently(storage, url, ending, reporter)
    except Unavailable as error:
        if (known := _read_record(folder)) and all((folder / name).is_file() for name in known):
            reporter.warn(f"{without_query(url)} does not answer ({error}): the files fetched before are used")
            return None
        raise no_answer(url, str(error)) from None
    require_names(files)
    return files


def find_patiently(storage: Files, url: str, ending: str, reporter: Reporter) -> list[RemoteFile]:
    """As :meth:`Files.find`; tried again until the last of :data:`WAITS`. Says what it waits for."""
    slow = Timer(PATIENCE, reporter.say, (f"waiting for an answer of {without_query(url)}",))
    slow.daemon = True
    slow.start()
    try:
        for wait in WAITS:
            try:
                return storage.find(url, ending)
            except Unavailable as error:
                reporter.say(f"{without_query(url)}: {error}; asked again in {wait:.0f} s")
                time.sleep(wait)
        try:
            return storage.find(url, ending)
        except Unavailable as error:
            raise Unavailable(f"{error}; asked {len(WAITS) + 1} times") from None
    finally:
        slow.cancel()


def _differences(
    files: Sequence[RemoteFile], folder: Path, known: Mapping[str, Any]
) -> tuple[list[RemoteFile], list[str]]:
    """Files that are to be fetched, and names of those to delete."""
    todo = [file for file in files if known.get(file.name) != file.stamp or not _is_whole(folder / file.name, file)]
    return todo, sorted(set(known) - {file.name for file in files})


def _update(
    storage: Files, files: Sequence[RemoteFile], folder: Path, url: str, limit: int, keep: Sequence[Path] | None,
    reporter: Reporter,
) -> None:  # fmt: skip
    """Make the folder hold exactly ``files``. Only one command may do so at a time."""
    known = _read_record(folder)  # another command may have fetched files while this one waited
    todo, gone = _differences(files, folder, known)
    if not todo and not gone:
        return
    total = sum(file.size for file in files)
    missing = sum(file.size for file in todo)
    _require_limit(url, total, limit)
    if keep is not None:
        make_room(folder, keep, missing, total, limit * 2**30, reporter)
    require_space(folder, missing)
    if changed := [file.name for file in todo if file.name in known]:
        reporter.warn(f"{without_query(url)}: {len(changed)} files changed and are fetched again, such as {changed[0]}")
    if gone:
        reporter.warn(f"{without_query(url)}: {len(gone)} files are gone, such as {gone[0]}")
    reporter.say(f"fetching {len(todo)} of {len(files)} files, {format_size(missing)}, from {without_query(url)}")
    refuse_links(folder, *(folder / name for name in gone))
    for name in gone:
        (folder / name).unlink(missing_ok=True)
        known.pop(name)
    done = 0
    for file in todo:
        _fetch(storage, file, folder, reporter)
        known[file.name] = file.stamp
        write_atomically(beside(folder, RECORD), json.dumps(known).encode())
        done += file.size
        reporter.progress("fetching", done, missing)
    write_atomically(beside(folder, RECORD), json.dumps(known).encode())


def _require_limit(url: str, total: int, limit: int) -> None:
    if total > limit * 2**30:
        raise KdkitError(
            "KD-DATA-226",
            f"this data has {format_size(total)}, more than the limit of {limit} GiB",
            where=without_query(url),
            why="files behind URLs are kept on the disk",
            fix=f"set max_download_gib: {-(-total // 2**30)} in the options of its data entry, or name fewer files",
        )


def require_space(folder: Path, missing: int) -> None:
    """Raises: KdkitError when the disk of ``folder`` has no room for ``missing`` bytes."""
    if missing > (free := shutil.disk_usage(folder).free):
        raise KdkitError(
            "KD-DATA-227",
            f"the disk has no room for {format_size(missing)}",
            where=str(folder),
            why=f"{format_size(free)} are free",
            fix="free some space, or name fewer files",
            code=ExitCode.MISSING,
        )


def _fetch(storage: Files, file: RemoteFile, folder: Path, reporter: Reporter) -> None:
    """Fetch one file into ``folder``, from where an earlier attempt stopped if it has not changed since."""
    path = folder / file.name
    part, mark = path.with_name(path.name + PART), path.with_name(path.name + PART + ".stamp")
    refuse_links(folder, part)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not mark.is_file() or mark.read_text(encoding="utf-8") != file.stamp:
        part.unlink(missing_ok=True)
        write_atomically(mark, file.stamp.encode())
    waits, reached = list(WAITS), -1
    with open(part, "ab") as target:
        while (start := target.seek(0, os.SEEK_END)) < file.size:
            if start > reached:
                waits, reached = list(WAITS), start
            try:
                for offset, block in storage.read(file, start):
                    if offset == 0 and target.tell():
                        target.truncate(0)
                        target.seek(0)
                    elif offset != target.tell():  # the block before had fewer bytes than asked for
                        raise Unavailable("a part of an answer is missing")
                    target.write(block)
                if target.tell() < file.size:
                    raise Unavailable("the connection ended early")
            except Unavailable as error:
                target.flush()
                if not waits:
                    raise no_answer(file.url, f"{error}; {format_size(target.tell())} are kept") from None
                reporter.say(f"{without_query(file.url)}: {error}; asked again in {waits[0]:.0f} s")
                time.sleep(waits.pop(0))
        target.flush()
        os.fsync(target.fileno())
    if part.stat().st_size != file.size or (file.sha256 and sha256_of(part) != file.sha256):
        part.unlink()
        raise mismatch(file)
    os.replace(part, path)
    mark.unlink()


def refuse_links(folder: Path, *paths: Path) -> None:
    """Raise KdkitError if a path, or a folder that it is in, is a link: a project of others may bring one.

    Args:
        folder: that of a URL; folders above it are not looked at.
        paths: the folder, and files in it or beside it.
    """
    for path in paths:
        below = takewhile(lambda parent: parent != folder.parent, path.parents) if path != folder else ()
        if link := next((one for one in (path, *below) if one.is_symlink()), None):
            fix = "remove the link"
            raise KdkitError("KD-DATA-151", "fetched files would leave the project", where=str(link), fix=fix)


def _is_whole(path: Path, file: RemoteFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size


def _read_record(folder: Path) -> dict[str, Any]:
    """Name -> stamp of what is here."""
    try:
        found = json.loads(beside(folder, RECORD).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return {name: stamp for name, stamp in found.items() if _is_name(name)} if isinstance(found, dict) else {}


def no_answer(url: str, why: str) -> KdkitError:
    """The error for a storage that does not answer, after all attempts."""
    return KdkitError(
        "KD-DATA-229",
        "the storage does not answer",
        where=without_query(url),
        why=why,
        fix="run the command again when it does: it continues with what is missing",
        code=ExitCode.MISSING,
    )


def _is_name(name: str) -> bool:
    """Whether a relative path leads nowhere else than below its folder."""
    return not any(part in ("", ".", "..") or "\0" in part or "\\" in part for part in name.split("/"))


def require_names(files: Sequence[RemoteFile]) -> None:
    """Raise KdkitError if a name leads out of a folder, or two are equal."""
    seen = set[str]()
    for name in (file.name for file in files):
        if name in seen or not _is_name(name):
            why = "two files have it" if name in seen else "no file can have it here"
            fix = "name the files in several entries, or rename them"
            raise KdkitError("KD-DATA-223", f"the storage has a file with the name {name!r}", why=why, fix=fix)
        seen.add(name)
