"""A student laid out for stock libraries; ``contracts`` is where everybody imports this from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PinnedBase:
    """The model that published adapters belong to.

    Attributes:
        repository: ``ORG/NAME`` on the Hub.
        commit: 40 hex digits.
        folder: where it is on this machine: what the repository holds at that commit, or the part that is loaded.
    """

    repository: str
    commit: str
    folder: Path


@dataclass(frozen=True)
class Published:
    """What the ``publisher`` of a student's family made of a saved student, in a folder for a repository.

    Attributes:
        kind: what it is, for people; begins a sentence.
        library: the Hub's ``library_name``.
        tags: the Hub's.
        summary: one line about its size, for people.
        names: files at the top of the folder that the spec's ``loader`` needs; others are for stock libraries.
        lines: Python that loads it by the name that the publisher was given and answers a question about the picture
            ``image.png``. It defines ``processor``, whose ``apply_chat_template`` takes messages as transformers has
            them, and ``model``, whose ``generate`` takes what that gives. They are run before anything is published,
            without network, and must give the logits of the student itself.
        needs: distributions that ``lines`` import besides the library's own.
        notes: what a reader of its card must know: sentences, each a paragraph.
        base: the model that adapters belong to; None for whole weights.
    """

    kind: str
    library: str
    tags: tuple[str, ...]
    summary: str
    names: tuple[str, ...]
    lines: str
    needs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    base: PinnedBase | None = None
