"""Workers of an extraction as tasks of a Ray cluster, for archives beyond one machine.

Ray chooses the machines, starts a task again when its machine or process dies, and lets a cluster grow while tasks
wait. Each task is a worker like all others: claims in the shared folder decide which block it computes, so a task that
is started again continues where the store stands.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Reporter
from kdkit.core.features.extract.shared import FOLDER, progress_of
from kdkit.core.features.extract.workers import read_records
from kdkit.core.project.project import Project

if TYPE_CHECKING:
    from kdkit.core.features.extract.extraction import Extracted

COMMAND = "kdkit features extract"
RETRIES = 20
"""Deaths of a task's process or machine after which it is given up; a block may be what kills it."""
_POLL_SECONDS = 2.0


def extract_on_ray(
    project: Project,
    teachers: Sequence[str],
    *,
    address: str,
    tasks: int,
    device: str,
    batch_size: int,
    workers: int | None,
    memory: int | None,
    reporter: Reporter,
) -> tuple[Extracted, ...]:
    """Extract what is missing in ``tasks`` tasks of a Ray cluster.

    kdkit must be installed on its machines, and all must have the project's folder under the same path.

    Args:
        project: on a file system that the machines share.
        teachers: by default all of the registry.
        address: of the cluster, such as ``auto`` or ``ray://head:10001``; ``local`` starts one on this machine.
        tasks: how many; each takes one GPU, or one CPU where ``device`` is ``cpu``.
        device, batch_size, workers, memory: as of :func:`kdkit.core.features.extract.missing.extract_missing`.
        reporter: shows the progress of all tasks.

    Raises:
        KdkitError: Ray is not installed or not reached; a machine sees another project; what a task raises, after all
            other tasks have ended.
    """
    ray = _import_ray()
    _connect(ray, address)
    root = project.root.resolve()
    options = {"device": device, "batch_size": batch_size, "workers": workers, "memory": memory}
    resources = {"num_gpus": 0, "num_cpus": 1} if device == "cpu" else {"num_gpus": 1}
    task = ray.remote(**resources, max_retries=RETRIES)(run_worker)
    waiting = [task.remote(str(root), project_digest(root), tuple(teachers), options) for _ in range(tasks)]
    ended: list[dict[str, Any]] = []
    try:
        while waiting:
            done, waiting = ray.wait(waiting, timeout=_POLL_SECONDS)
            ended += ray.get(done)
            records = read_records(project.features / FOLDER)
            if records and waiting:
                reporter.progress("features", *progress_of(records))
    except ray.exceptions.RayError as error:
        raise KdkitError(
            "KD-FEAT-544",
            "a task of the Ray cluster was lost",
            where="--ray",
            why=str(error).strip().splitlines()[0],
            fix="the same command continues; 'ray status' and Ray's logs say why it ended",
            code=ExitCode.MISSING,
        ) from error
    finally:
        for left in waiting:
            ray.cancel(left)
    for result in ended:
        if "error" in result:
            raise KdkitError.from_fields(result["error"])
    return _most(result["done"] for result in ended)


def run_worker(root: str, digest: str, teachers: Sequence[str], options: dict[str, Any]) -> dict[str, Any]:
    """The body of a task: ``done`` with a dictionary per column, or ``error`` with its fields."""
    from kdkit.core.contracts import Silent
    from kdkit.core.data import load_index
    from kdkit.core.features.extract.missing import extract_missing

    try:
        _require_same_project(Path(root), digest)
        project = Project(root)
        with project.shared(COMMAND):
            index = load_index(project, Silent())
            done = extract_missing(project, index, teachers, shared=True, **options)
        return {"done": [asdict(one) for one in done]}
    except KdkitError as error:
        return {"error": error.fields()}


def project_digest(root: Path) -> str:
    """Hex digest of the registry and its lock."""
    names = ("registry.yaml", "registry.lock")
    content = b"\0".join((root / name).read_bytes() for name in names if (root / name).is_file())
    return hashlib.sha256(content).hexdigest()


def _require_same_project(root: Path, digest: str) -> None:
    from socket import gethostname

    here = root.is_dir()
    if not here or project_digest(root) != digest:
        raise KdkitError(
            "KD-FEAT-543",
            f"machine {gethostname()} of the Ray cluster "
            + ("sees another registry.yaml or registry.lock" if here else "does not see the project's folder"),
            where=str(root),
            fix="mount the same shared folder under this path on every machine of the cluster",
            code=ExitCode.MISSING,
        )


def _most(results: Any) -> tuple[Extracted, ...]:
    """Of each column the result of the task that saw most of it missing: one that began late found rows of others."""
    from kdkit.core.features.extract.extraction import Extracted

    found: dict[str, Extracted] = {}
    for row in (Extracted(**row) for rows in results for row in rows):
        if row.teacher not in found or row.new > found[row.teacher].new:
            found[row.teacher] = row
    return tuple(found.values())


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise KdkitError(
            "KD-FEAT-541",
            "Ray is not installed",
            where="--ray",
            fix="pip install 'kdkit[ray]'",
            code=ExitCode.MISSING,
        ) from error
    return ray


def _connect(ray: Any, address: str) -> None:
    if ray.is_initialized():
        return
    further = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False, **further)
    except Exception as error:  # a node that does not start in time raises a plain one
        raise KdkitError(
            "KD-FEAT-542",
            f"no Ray cluster at '{address}'",
            where="--ray",
            why=str(error).strip().partition("\n")[0],
            fix="start one with 'ray start --head', or name its address; 'local' starts one on this machine",
            code=ExitCode.MISSING,
        ) from error
