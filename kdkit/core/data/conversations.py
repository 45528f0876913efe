"""Which samples are turns of one conversation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kdkit.core.contracts import Sample

Said = tuple[tuple[str, str], ...]


def number_conversations(samples: Sequence[Sample]) -> NDArray[np.int64]:
    """(N,) equal numbers for turns of one conversation, other samples with numbers of their own.

    A later turn has the same image, and the earlier turn's messages and answer at the start of its own messages; turns
    between them may be missing.

    Example:
        >>> from pathlib import Path
        >>> def turn(text, *said):
        ...     messages = [{"role": role, "content": content} for role, content in said]
        ...     return Sample(text, Path("x.png"), text, "vqa/ct", extra={"messages": messages})
        >>> first = turn("yes", ("user", "<image>Is it CT?"))
        >>> later = turn("2", ("user", "<image>Is it CT?"), ("assistant", "yes"), ("user", "How many nodules?"))
        >>> number_conversations([later, turn("no", ("user", "<image>Is it MR?")), first]).tolist()
        [2, 1, 2]
    """
    said = [_said(sample) for sample in samples]
    found = np.arange(len(samples), dtype=np.int64)
    known: dict[tuple[str, Said], int] = {}
    for number in sorted(range(len(samples)), key=lambda one: len(said[one])):
        sample, before, image = samples[number], said[number], str(samples[number].image)
        for end in range(len(before) - 1, 0, -1):
            if (earlier := known.get((image, before[:end]))) is not None:
                found[number] = earlier
                break
        known.setdefault((image, (*before, ("assistant", sample.text))), int(found[number]))
    return found


def _said(sample: Sample) -> Said:
    messages = sample.extra.get("messages") or ()
    return tuple((str(one.get("role")), str(one.get("content"))) for one in messages)
