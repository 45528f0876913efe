"""From the registry's data entries to the index of samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.contracts import Reporter
from kdkit.core.data.contents import digests_of
from kdkit.core.data.digests import DigestCache, file_digests
from kdkit.core.data.entries import LoadedEntry, read_sources
from kdkit.core.data.index import SampleIndex
from kdkit.core.data.table import join_tables
from kdkit.core.data.unique import refuse_duplicates
from kdkit.core.project.project import Project


def load_index(project: Project, reporter: Reporter | None = None, *, verify: bool = True) -> SampleIndex:
    """Every sample of the project, in a fixed order.

    Args:
        project: the project.
        reporter: receives what changed and what is skipped, and shows the progress of hashing.
        verify: look for images that were replaced, as the option ``verify`` of each data entry says. Without it, for
            commands that only read, kept digests count as true.

    Raises:
        KdkitError: with ``file:line``: a row without a required column, an unknown split, a repeated id, a path that
            leaves its folder, a missing image file.
    """
    entries = read_sources(project, reporter)
    for kind in (kind for entry in entries for kind in entry.skipped):
        if reporter and kind.level != "note":
            reporter.warn(str(kind))
    return build_index(entries, file_digests(project.state), reporter, verify=verify)


def build_index(
    entries: Sequence[LoadedEntry], cache: DigestCache, reporter: Reporter | None = None, *, verify: bool = True
) -> SampleIndex:
    """Join the samples of all entries into one index; errors as :func:`load_index`.

    Args:
        entries: one per data entry.
        cache: digests of the image files.
        reporter: shows the progress of hashing.
        verify: as of :func:`load_index`.
    """
    samples = join_tables([entry.samples for entry in entries])
    refuse_duplicates(entries, samples)
    return SampleIndex(
        samples=samples,
        digests=digests_of(entries, cache, reporter, verify=verify),
        may_skip=np.repeat([entry.skip_unreadable for entry in entries], [len(entry.samples) for entry in entries]),
    )


def read_domains(project: Project) -> tuple[str, ...]:
    """The domains of the samples, sorted; none if the data cannot be read."""
    try:
        entries = read_sources(project)
    except KdkitError:
        return ()
    return tuple(sorted({name for entry in entries for name in entry.samples.codes("domain")[1]}))


def warn_unknown_domains(domains: Iterable[str], known: tuple[str, ...], place: str, reporter: Reporter) -> None:
    """Warn of misspelled domains, which would have no effect.

    Args:
        domains: those named at ``place``.
        known: those of the samples.
        place: for the message.
        reporter: receives the warnings.
    """
    for domain in domains:
        if domain not in known:
            reporter.warn(f"{place}: no sample has the domain '{domain}'; {did_you_mean(domain, known)}")
