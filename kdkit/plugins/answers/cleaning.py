"""Answers as they are scored: what the model wrote around its answer is cut away."""

from __future__ import annotations

import re

_BETWEEN_LINES = re.compile(r"\n(.*?)\n", re.DOTALL)


def clean(answer: str) -> str:
    """An answer without end tokens, as BiRD's ``extract_information`` cleans it (ShawnHuang497/BiRD at b588ecb).

    Everything from ``.<|im_end|>`` on is cut, a full stop stays; where at least two lines end, what is between the
    first two line breaks is the answer; then white space around it goes.
    """
    head, cut, _ = answer.partition(".<|im_end|>")
    answer = (head + "." if cut else answer).replace("<|im_end|>\n", "")
    between = _BETWEEN_LINES.search(answer)
    if between:
        answer = between.group(1)
    return answer.replace("<|endoftext|>", "").strip()
