"""The model that pulled adapters belong to, brought into the Hub's cache, where the student's family finds it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Reporter
from kdkit.core.sharing.release.layout import AdapterBase

if TYPE_CHECKING:
    from kdkit.core.base.hub import Hub

_WANTED = (".json", ".safetensors")
"""What a model folder's top is loaded from; tokenizer and template came with the student."""


def fetch_base(hub: Hub, base: AdapterBase, root: Path, reporter: Reporter) -> Path:
    """Bring ``base`` into the Hub's cache; one that lies there already stays as it is.

    The student's loader compares its hash with the one that the adapters were trained on.

    Args:
        root: the project that was pulled, for messages.

    Raises:
        KdkitError: it cannot be had from this Hub, and is not in the cache.
    """
    from kdkit.core.base.hub import hub_errors
    from kdkit.core.base.hub.retry import with_retries
    from kdkit.core.sharing.hub.client import quiet_client

    repo, commit = base.repository, base.commit
    try:
        with quiet_client(reporter), hub_errors(repo, hub, page=hub.url(repo)):
            reporter.say(f"fetching {repo} at {commit[:12]}, which its adapters belong to")
            listed = with_retries(lambda: hub.api.list_repo_files(repo, revision=commit))
            wanted = [name for name in listed if "/" not in name and name.endswith(_WANTED)]
            return Path(hub.api.snapshot_download(repo, revision=commit, allow_patterns=wanted))
    except KdkitError as error:
        if (cached := _cached(repo, commit)) is not None:
            return cached
        error.why = "; ".join(
            filter(None, (error.why, f"the project is there: {root}, without the base of its student"))
        )
        error.fix = "; ".join(filter(None, (error.fix, f"then: hf download {repo} --revision {commit}")))
        raise


def _cached(repo: str, commit: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, "config.json", revision=commit)
    return Path(found).parent if isinstance(found, str) else None
