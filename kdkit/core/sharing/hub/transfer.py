"""Send contents ahead of the commit, invisibly; a repeated push skips content that has arrived.

Xet storage knows chunks of files, but a client that is killed loses what it has not *registered*: up to a whole file.
So large files are sent in slices first, each registered by itself; the pass over the whole file then finds its chunks
there. LFS storage knows whole files alone: an unfinished one is sent again from its start, so files go one by one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import quote

from kdkit.core.base.hub.connection import Hub
from kdkit.core.contracts import Reporter
from kdkit.core.sharing.hub.client import request
from kdkit.core.sharing.hub.plan import LocalFile, UploadPlan, changed_locally, check_unchanged

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

SMALL = 1 << 20
"""Files up to this size are read into memory, so that what is committed is what was planned."""
SLICE, MOST_SLICES, LARGEST_SLICE = 4 << 20, 50, 64 << 20
"""A killed push sends about a slice again; each slice costs five requests."""


def send(hub: Hub, plan: UploadPlan, report: Reporter, *, pull_request: bool) -> list[CommitOperationAdd]:
    """Send all contents to the Hub's storage.

    Returns: the additions to commit.

    Raises:
        KdkitError: a file changed since the plan; the client's own errors otherwise.
    """
    from huggingface_hub import CommitOperationAdd

    done, operations = 0, []
    total = plan.size + 1  # so that the bar ends here and nowhere else
    small = [file for file in plan.to_send if file.size <= SMALL]
    large = sorted((file for file in plan.to_send if file.size > SMALL), key=lambda file: file.size)
    try:
        with _storage(hub, plan, report, pull_request) as xet:
            for file in small:
                operations.append(CommitOperationAdd(file.path, _read(plan, file)))
            _send(hub, plan, operations, pull_request)
            done += sum(file.size for file in small)
            for file in large:
                if xet:
                    for sent in _slices(hub, plan, file, pull_request):
                        report.progress("sending", done + sent, total, file.path)
                operation = CommitOperationAdd(file.path, str(plan.folder / file.path))
                _send(hub, plan, [operation], pull_request)
                if operation.upload_info.sha256.hex() != file.sha256:
                    raise changed_locally(plan, [file.path])
                operations.append(operation)
                done += file.size
                report.progress("sending", done, total, file.path)
    except Exception:
        check_unchanged(plan)  # an overwritten file fails in many ways; this names it
        raise
    report.progress("sending", total, total)
    return operations


def _send(hub: Hub, plan: UploadPlan, operations: list[CommitOperationAdd], pull_request: bool) -> None:
    if operations:
        hub.api.preupload_lfs_files(
            plan.repo,
            operations,
            repo_type=plan.kind,
            revision=plan.revision,
            create_pr=pull_request,
            num_threads=1,
            free_memory=False,
        )


def _slices(hub: Hub, plan: UploadPlan, file: LocalFile, pull_request: bool) -> Iterator[int]:
    """Send a file slice by slice; yields the bytes sent so far."""
    from huggingface_hub import CommitOperationAdd

    size = min(max(SLICE, file.size // MOST_SLICES), LARGEST_SLICE)
    if file.size <= 2 * size:
        return
    sent = 0
    with (plan.folder / file.path).open("rb") as handle:
        while part := handle.read(size):
            _send(hub, plan, [CommitOperationAdd(file.path, part)], pull_request)
            sent += len(part)
            yield sent


def _read(plan: UploadPlan, file: LocalFile) -> bytes:
    content = (plan.folder / file.path).read_bytes()
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise changed_locally(plan, [file.path])
    return content


@contextmanager
def _storage(hub: Hub, plan: UploadPlan, report: Reporter, pull_request: bool) -> Iterator[bool]:
    """Yields whether contents go to Xet storage; falls back to LFS if the Hub has none."""
    from huggingface_hub import constants

    wanted = bool(find_spec("hf_xet")) and not constants.HF_HUB_DISABLE_XET and bool(plan.to_send)
    if not wanted:
        yield False
        return
    if _has_xet(hub, plan, pull_request):
        yield True
        return
    report.say(f"{hub.endpoint} has no Xet storage: sending through LFS")
    constants.HF_HUB_DISABLE_XET = True
    try:
        yield False
    finally:
        constants.HF_HUB_DISABLE_XET = False


def _has_xet(hub: Hub, plan: UploadPlan, pull_request: bool) -> bool:
    """Request the storage token as the client does; mirrors lack this endpoint."""
    revision = "None?create_pr=1" if pull_request else quote(plan.revision, safe="")
    path = f"/api/{plan.kind}s/{plan.repo}/xet-write-token/{revision}"
    response = request(hub, "GET", path, accept=(404,))
    return bool(response.status_code != 404)
