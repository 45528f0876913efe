"""Turns of conversations are found by what was said."""

from __future__ import annotations

from pathlib import Path

from kdkit.core.contracts import Sample
from kdkit.core.data.conversations import number_conversations


def turn(text: str, *said: str, image: str = "x.png") -> Sample:
    roles = ("user", "assistant") * len(said)
    messages = [{"role": role, "content": content} for role, content in zip(roles, said, strict=False)]
    return Sample(text, Path(image), text, "vqa/ct", extra={"messages": messages})


def test_turns_are_found_in_any_order_and_over_gaps() -> None:
    first = turn("yes", "<image>CT?")
    third = turn("no", "<image>CT?", "yes", "Nodules?", "two", "Large?")  # the second one is not here
    other_image = turn("no", "<image>CT?", "yes", "Nodules?", image="y.png")
    other_answer = turn("no", "<image>CT?", "I think so", "Nodules?")
    caption = Sample("c", Path("x.png"), "a scan", "ct")
    found = number_conversations([third, caption, other_image, first, other_answer]).tolist()
    assert found[0] == found[3]
    assert len(set(found)) == 4


def test_questions_about_one_image_are_no_conversation() -> None:
    assert number_conversations([turn("yes", "<image>CT?"), turn("no", "<image>MR?")]).tolist() == [0, 1]
