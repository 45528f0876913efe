"""Files of a Hugging Face repository at one commit, from the Hub or from its cache."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from kdkit.core.artifacts.files import list_folder
from kdkit.core.artifacts.select import DESCRIPTIONS
from kdkit.core.artifacts.source import Source
from kdkit.core.errors import ExitCode, KdkitError

Select = Callable[[Iterable[str], str], list[str]]
_CACHED = [f"*{suffix}" for suffix in (*DESCRIPTIONS, ".safetensors")]


@dataclass(frozen=True)
class Snapshot:
    """Files in the Hub's cache; links to blobs that never change.

    Attributes:
        folder: of this commit.
        names: those that were selected.
        commit: 40 hex digits.
        gated: the owner asks to accept terms.
    """

    folder: Path
    names: tuple[str, ...]
    commit: str
    gated: bool


@dataclass(frozen=True)
class Listing:
    """What would be fetched: file -> bytes (None where the Hub does not say)."""

    sizes: dict[str, int | None]
    commit: str
    gated: bool


def snapshot(source: Source, select: Select, *, offline: bool) -> Snapshot:
    """Bring the selected files into the Hub's cache.

    Args:
        source: of kind ``hf``.
        select: which of the repository's files; see :mod:`kdkit.core.artifacts.select`.
        offline: use the cache alone (also where ``HF_HUB_OFFLINE`` is set).

    Raises:
        KdkitError: gated (exit 4), no such repository or revision, no network, not in the cache (exit 3).
    """
    from huggingface_hub import snapshot_download

    where = str(source)
    with _Explained(source):
        if offline or _offline_mode():
            folder = Path(
                snapshot_download(source.place, revision=source.revision, allow_patterns=_CACHED, local_files_only=True)
            )
            names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
            return Snapshot(folder, tuple(select(names, where)), folder.name, gated=False)
        listing = look(source, select)
        # The revision as asked for, not the commit: the cache then remembers what the name stands for.
        folder = Path(
            snapshot_download(
                source.place,
                revision=source.revision,
                allow_patterns=[glob.escape(name) for name in listing.sizes],
            )
        )
        names = list(listing.sizes) if folder.name == listing.commit else list_folder(folder, where)
        return Snapshot(folder, tuple(select(names, where)), folder.name, listing.gated)


def look(source: Source, select: Select) -> Listing:
    """What :func:`snapshot` would fetch. Raises: as :func:`snapshot`."""
    from huggingface_hub import HfApi

    with _Explained(source):
        info = HfApi().model_info(source.place, revision=source.revision, files_metadata=True)
    sizes = {file.rfilename: file.size for file in info.siblings or ()}
    return Listing({name: sizes[name] for name in select(sizes, str(source))}, str(info.sha), gated=bool(info.gated))


def _offline_mode() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


class _Explained:
    """A context that turns the Hub's errors into ours."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, KdkitError):
            explained = _explain(self.source, error)
            if explained is not None:
                raise explained from error


def _explain(source: Source, error: Exception) -> KdkitError | None:
    """The error that a person can act on; None for what is not the Hub's."""
    from huggingface_hub import constants
    from huggingface_hub import errors as hub

    where, url = str(source), f"{constants.ENDPOINT}/{source.place}"
    if isinstance(error, hub.GatedRepoError):
        return KdkitError(
            "its owner asks to accept terms before the files can be fetched",
            where=where,
            fix=f"accept the terms at {url}, then 'hf auth login', and run the command again",
            code=ExitCode.DENIED,
        )
    if isinstance(error, hub.RevisionNotFoundError):
        why = f"'{source.revision}' is no branch, tag or commit of {source.place}"
        return KdkitError("no such revision", where=where, why=why, fix=f"see {url}", code=ExitCode.MISSING)
    if isinstance(error, hub.RepositoryNotFoundError):
        why = "no such repository, or a private one that this token may not see"
        fix = f"check the name at {url}; for a private one 'hf auth login'"
        return KdkitError("not found on the Hub", where=where, why=why, fix=fix, code=ExitCode.MISSING)
    if isinstance(error, hub.LocalEntryNotFoundError | hub.OfflineModeIsEnabled):
        if _offline_mode() or "local_files_only" in str(error):
            return KdkitError(
                "not (completely) in the Hub's cache, and this is offline",
                where=where,
                why=f"the cache is {constants.HF_HUB_CACHE}",
                fix="run the command once with network, or give a folder: --from local:DIR",
                code=ExitCode.MISSING,
            )
        return _no_network(where, error)
    if isinstance(error, hub.HfHubHTTPError):
        return KdkitError("the Hub refused", where=where, why=_line(error), code=ExitCode.MISSING)
    # Which HTTP library the Hub's client uses changes between its versions.
    if isinstance(error, ConnectionError) or type(error).__module__.startswith(("httpx", "httpcore", "requests")):
        return _no_network(where, error)
    return None


def _no_network(where: str, error: Exception) -> KdkitError:
    return KdkitError(
        "the Hub cannot be reached",
        where=where,
        why=_line(error),
        fix="check the network or HF_ENDPOINT; with --offline only the cache is used; or --from local:DIR",
        code=ExitCode.MISSING,
    )


def _line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:300]
