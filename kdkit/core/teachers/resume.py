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

    A file that another process is downloading is left to ``huggingface_hub``.

    Args:
        hub: the endpoint and its token.
        source: the repository.
        commit: 40 hex digits.
        sizes: file -> bytes; None if unknown.
        cache: the Hub's cache.

    Raises:
        Exception: as ``huggingface_hub`` raises; what has arrived stays for the next call.
    """
    from huggingface_hub.file_download import repo_folder_name

    blobs = cache / repo_folder_name(repo_id=source.repository, repo_type=source.repository_kind) / "blobs"
    for name, size in sizes.items():
        if size is not None and size >= LARGE:
            _download(hub, source, commit, name, blobs)


def _download(hub: Hub, source: Source, commit: str, name: str, blobs: Path) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get

    url = hf_hub_url(source.repository, name, repo_type=source.repository_kind, revision=commit, endpoint=hub.endpoint)
    found = hub.api.get_hf_file_metadata(url=url, token=hub.token or False)
    if found.etag is None or not re.fullmatch(r"[0-9a-f]{40,64}", found.etag) or (blobs / found.etag).exists():
        return
    partial = blobs / f"{found.etag}{PARTIAL}"
    blobs.mkdir(parents=True, exist_ok=True)
    elsewhere = urlsplit(found.location).netloc != urlsplit(hub.endpoint).netloc
    headers = {"authorization": f"Bearer {hub.token}"} if hub.token and not elsewhere else {}  # others are signed
    with file_lock(partial) as mine:
        if mine is False:
            return
        start = partial.stat().st_size
        start = start if found.size is None or start <= found.size else 0
        with partial.open("r+b") as file:
            file.seek(start)
            http_get(found.location, file, resume_size=start, headers=headers, expected_size=found.size)
            file.truncate()
        if start and len(found.etag) == 64 and sha256_of(partial) != found.etag:
            partial.unlink()  # the parts do not belong together; huggingface_hub begins again
        else:
            os.replace(partial, blobs / found.etag)
