"""A student in the format of stock libraries. Import from ``kdkit.core.contracts``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class PinnedBase:
    """The model that published adapters belong to.

    Attributes:
        repository: ``ORG/NAME`` on the Hub.
        commit: 40 hex digits.
        folder: its files on this machine, as they are in the repository at that commit.
    """

    repository: str
    commit: str
    folder: Path


@dataclass(frozen=True)
class Published:
    """Result of a family's ``publisher``: a student written into a folder for a repository.

    Before anything is published, each library's ``lines`` and ``probes`` run one after the other, in a process without
    network. What the probe computes must equal what the student computes.

    Attributes:
        kind: what the student is; begins a sentence of its card.
        library: the Hub's ``library_name``.
        tags: the Hub's.
        summary: its size in one sentence.
        names: files at the top of the folder that the spec's ``loader`` needs; others are for stock libraries.
        lines: library -> Python of the card, which loads the student by the name given to the publisher and uses it on
            the picture ``image.png``. The first library is the main one; the others are left out where they differ.
        probes: library -> Python that runs after the lines and defines, for a dual encoder, ``encode_image(pictures)``
            and ``encode_text(texts)``, both (N, D) and not normalized; for an answering student
            ``generate(messages, length)``, which returns the new token ids (n,) and their logits (n, V). Messages
            are those of chat templates, with PIL images.
        distributions: distributions whose versions are recorded with the result.
        needs: distributions that ``lines`` import besides the library's own.
        notes: paragraphs of the card.
        missing: library -> why there is no form for it.
        pinned_paths: text files that contain the folder's absolute path; such a folder cannot be moved.
        base: the model that adapters belong to; None for whole weights.
    """

    kind: str
    library: str
    tags: tuple[str, ...]
    summary: str
    names: tuple[str, ...]
    lines: Mapping[str, str]
    probes: Mapping[str, str]
    distributions: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    pinned_paths: tuple[str, ...] = ()
    base: PinnedBase | None = None
