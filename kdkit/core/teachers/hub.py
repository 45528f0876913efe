"""Files of a Hugging Face repository at one commit, from the Hub or from its cache."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from kdkit.core.base.hub import Hub, connect, hub_errors
from kdkit.core.teachers.files import DESCRIPTIONS, list_folder
from kdkit.core.teachers.resume import arrived, download_large_files
from kdkit.core.teachers.source import Source

Select = Callable[[Iterable[str], str], list[str]]
_CACHED = [f"*{suffix}" for suffix in (*DESCRIPTIONS, ".safetensors")]


@dataclass(frozen=True)
class Snapshot:
    """Files in the Hub's cache, which are links to immutable blobs.

    Attributes:
        folder: of this commit.
        names: those that were selected.
        commit: 40 hex digits.
        gated: the owner requires that terms are accepted.
    """

    folder: Path
    names: tuple[str, ...]
    commit: str
    gated: bool


@dataclass(frozen=True)
class Listing:
    """What the Hub has at one commit.

    Attributes:
        sizes: files to fetch -> bytes; None if the Hub does not say.
        hashes: sha256 of the large ones.
        commit: 40 hex digits.
        gated: the owner requires that terms are accepted.
    """

    sizes: dict[str, int | None]
    hashes: dict[str, str]
    commit: str
    gated: bool


def snapshot(source: Source, select: Select, *, offline: bool) -> Snapshot:
    """Download the selected files into the Hub's cache.

    Args:
        source: of kind ``hf``.
        select: which of the repository's files; see :mod:`kdkit.core.teachers.files`.
        offline: use only the cache, as ``HF_HUB_OFFLINE`` does.

    Raises:
        KdkitError: gated (exit 4), no such repository or revision, no network, not in the cache (exit 3).
    """
    where, hub = str(source), connect()
    with _explained(source, hub):
        if offline or offline_mode():
            folder = Path(
                hub.api.snapshot_download(
                    source.repository,
                    repo_type=source.repository_kind,
                    revision=source.revision,
                    allow_patterns=_CACHED,
                    local_files_only=True,
                )
            )
            names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
            return Snapshot(folder, tuple(select(names, where)), folder.name, gated=False)
        listing = list_remote(source, select)
        download_large_files(hub, source, listing.commit, listing.sizes, cache_folder())
        # By revision, not commit, so that the cache records the commit of the revision.
        folder = Path(
            hub.api.snapshot_download(
                source.repository,
                repo_type=source.repository_kind,
                revision=source.revision,
                allow_patterns=[glob.escape(name) for name in listing.sizes],
            )
        )
        names = list(listing.sizes) if folder.name == listing.commit else list_folder(folder, where)
        return Snapshot(folder, tuple(select(names, where)), folder.name, listing.gated)


def list_remote(source: Source, select: Select) -> Listing:
    """List what :func:`snapshot` would fetch. Raises: as :func:`snapshot`."""
    hub = connect()
    with _explained(source, hub):
        ask = hub.api.model_info if source.repository_kind == "model" else hub.api.dataset_info
        info = ask(source.repository, revision=source.revision, files_metadata=True)
    sizes = {file.rfilename: file.size for file in info.siblings or ()}
    hashes = {file.rfilename: file.lfs.sha256 for file in info.siblings or () if file.lfs}
    chosen = {name: sizes[name] for name in select(sizes, str(source))}
    return Listing(chosen, hashes, str(info.sha), gated=bool(info.gated))


def cache_folder() -> Path:
    """Where the Hub's files are kept."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def bytes_in_cache(source: Source, listing: Listing) -> int:
    """Bytes of the listed files that are in the cache, at this commit, with the parts that a download continues."""
    return sum(
        size if _in_cache(source, name, listing.commit) else min(size, _arrived(source, listing.hashes.get(name)))
        for name, size in listing.sizes.items()
        if size is not None
    )


def _arrived(source: Source, sha256: str | None) -> int:
    return arrived(source, sha256, cache_folder()) if sha256 else 0


def _in_cache(source: Source, name: str, commit: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(
        source.repository,
        name,
        cache_dir=cache_folder(),
        revision=commit,
        repo_type=source.repository_kind,
    )
    return isinstance(found, str)


def offline_mode() -> bool:
    """Whether ``HF_HUB_OFFLINE`` is set."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _explained(source: Source, hub: Hub) -> hub_errors:
    page = hub.url(source.repository, source.repository_kind)
    return hub_errors(str(source), hub, page=page, otherwise="or give a folder: --from local:DIR")
