"""Downloads of large files that continue where an interrupted command stopped.

``huggingface_hub`` 2 begins each file again, because several processes might write to one partial file. Here a lock
keeps others away, and the file arrives in the Hub's cache under its final name, where ``huggingface_hub`` finds it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from kdkit.core.base.hashes import sha256_of
from kdkit.core.base.hub import Hub
from kdkit.core.base.locks import file_lock
from kdkit.core.teachers.source import Source

LARGE = 32 * 10**6
"""Bytes from which a file is worth continuing."""
PARTIAL = ".kdkit-incomplete"


def download_large_files(hub: Hub, source: Source, commit: str, sizes: Mapping[str, int | None], cache: Path) -> None:
    """Bring files of at least :data:`LARGE` bytes into the Hub's cache.

    Left to ``huggingface_hub`` are a file that another process is downloading, and one that is too large for a plain
    download.

    Args:
        hub: the endpoint and its token.
        source: the repository.
        commit: 40 hex digits.
        sizes: file -> bytes; None if unknown.
        cache: the Hub's cache.

    Raises:
        Exception: as ``huggingface_hub`` raises; what has arrived stays for the next call.
    """
    from huggingface_hub import constants

    blobs = _blobs(source, cache)
    for name, size in sizes.items():
        if size is not None and LARGE <= size <= constants.MAX_HTTP_DOWNLOAD_SIZE:
            _download(hub, source, commit, name, blobs)


def arrived(source: Source, sha256: str, cache: Path) -> int:
    """Bytes of a file that an interrupted :func:`download_large_files` has left; the next one continues them."""
    partial = _blobs(source, cache) / f"{sha256}{PARTIAL}"
    return partial.stat().st_size if partial.is_file() else 0


def _blobs(source: Source, cache: Path) -> Path:
    from huggingface_hub.file_download import repo_folder_name

    return cache / repo_folder_name(repo_id=source.repository, repo_type=source.repository_kind) / "blobs"


def _download(hub: Hub, source: Source, commit: str, name: str, blobs: Path) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get

    url = hf_hub_url(source.repository, name, repo_type=source.repository_kind, revision=commit, endpoint=hub.endpoint)
    found = hub.api.get_hf_file_metadata(url=url, token=hub.token or False)
    if found.etag is None or not re.fullmatch(r"[0-9a-f]{40,64}", found.etag) or (blobs / found.etag).exists():
        return
    partial = blobs / f"{found.etag}{PARTIAL}"
    blobs.mkdir(parents=True, exist_ok=True)
    elsewhere = urlsplit(found.location)[:2] != urlsplit(hub.endpoint)[:2]  # scheme, host and port
    headers = {"authorization": f"Bearer {hub.token}"} if hub.token and not elsewhere else {}  # others are signed
    with file_lock(partial) as mine:
        if mine is False:
            return
        start = partial.stat().st_size
        whole = found.size is None or start <= found.size
        start = start if whole and len(found.etag) == 64 else 0  # only a sha256 proves that parts fit
        with partial.open("r+b") as file:
            file.seek(start)
            http_get(
                found.location,
                file,
                resume_size=start,
                headers=headers,
                expected_size=found.size,
                displayed_filename=name,  # not the end of a signed address
            )
            file.truncate()
        if start and sha256_of(partial) != found.etag:
            partial.unlink()  # huggingface_hub begins again
        else:
            os.replace(partial, blobs / found.etag)
