"""Domains that somebody names and no sample has."""

from __future__ import annotations

from collections.abc import Iterable

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.contracts import Reporter
from kdkit.core.data.load import read_sources
from kdkit.core.project.project import Project


def domains_of(project: Project) -> tuple[str, ...]:
    """The domains of the project's samples, sorted; none while its data cannot be read (other commands say why)."""
    try:
        sourced = read_sources(project)
    except KdkitError:
        return ()
    return tuple(sorted({sample.domain for part in sourced for sample in part.samples}))


def warn_of_unknown(domains: Iterable[str], known: tuple[str, ...], place: str, reporter: Reporter) -> None:
    """A domain that is misspelt would silently mean nothing.

    Args:
        domains: what is named, at ``place``.
        known: those of the samples.
    """
    for domain in domains:
        if domain not in known:
            reporter.warn(f"{place}: no sample has the domain '{domain}'; {did_you_mean(domain, known)}")
