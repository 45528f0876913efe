"""Reviews of answers: scores, accepted corrections, and resuming after a kill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.journal import Journal, SampleKey
from kdkit.core.contracts import Answer, Decoding, Sample, Silent
from kdkit.core.distill.pseudo_labels.corrector import Corrector, with_coordinates
from kdkit.core.distill.pseudo_labels.review import Review, Reviewer, ReviewRules, read_reviews, review, score_answers
from kdkit.plugins.answers.task import Answers
from tests.errors import raises_error
from tests.plugins.students.clinkd.tiny import PICTURES

BOX = "<box>(0,0),(100,100)</box>"
NEAR = "<box>(0,0),(100,85)</box>"
FAR = "<box>(0,0),(100,75)</box>"


class Says:
    """A model with fixed answers by sample id, which accepts any text but ``unteachable``; ``asked`` are the groups."""

    name = "says"

    def __init__(self, answers: Mapping[str, str]) -> None:
        self.answers = answers
        self.asked: list[list[str]] = []

    def answer(self, samples: Sequence[Sample]) -> list[str]:
        self.asked.append([sample.id for sample in samples])
        return [self.answers[sample.id] for sample in samples]

    def prepare(self, image: object, sample: Sample) -> dict[str, Any]:  # noqa: ARG002  # the contract's
        if "unteachable" in sample.text:
            raise KdkitError("X-001", "too long")
        return {}


class Rewrites:
    """A corrector's model; ``seen`` are its samples."""

    def __init__(self, answers: Mapping[str, str]) -> None:
        self.answers = answers
        self.seen: list[Sample] = []

    def answer(
        self, images: Sequence[object], samples: Sequence[Sample], decoding: Decoding | None = None
    ) -> list[list[Answer]]:
        assert len(images) == len(samples)
        assert decoding is None
        self.seen += samples
        return [[Answer(self.answers[sample.id])] for sample in samples]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    PICTURES[0].save(tmp_path / "x.png")
    return tmp_path / "x.png"


def sample(id_: str, text: str, picture: Path, domain: str = "vg/ct") -> Sample:
    return Sample(id_, picture, text, domain, extra={"messages": [{"role": "user", "content": "<image>Where?"}]})


def reviewer(says: Says, rewrites: Rewrites | None = None, **rules: Any) -> Reviewer:
    corrector = None if rewrites is None else Corrector("big", lambda: rewrites)
    return Reviewer(says, Answers(resamples=10), ReviewRules(**rules), corrector, says)  # type: ignore[arg-type]


def test_boxes_are_scored_by_overlap(picture: Path) -> None:
    samples = [sample(name, BOX, picture) for name in "abcde"] + [sample("f", "nowhere", picture)]
    says = {"a": BOX, "b": NEAR, "c": FAR, "d": BOX + BOX, "e": "no lesion", "f": BOX}
    found = reviewer(Says(says)).review(samples)
    assert [part.score for part in found] == [1, pytest.approx(0.85), pytest.approx(0.75), 0.5, 0, None]
    assert [part.wrong for part in found] == [False, False, True, True, True, False]
    assert found[2] == Review(FAR, found[2].score, BOX, "reference")
    hits = Answers(resamples=10).evaluate(Says(says), samples)
    assert hits[0].outcomes["accuracy"].tolist() == [1, 1, 1, 1, 0]  # what a 0/1 hit at 0.5 would have passed


def test_tasks_without_similarity_score_by_their_headline(picture: Path) -> None:
    samples = [sample(name, "left lung", picture, "vqa/ct") for name in "ab"]
    answers = {"a": "the left one", "b": "lung, left"}
    assert score_answers(Answers(resamples=10), samples, answers) == {"a": 0.5, "b": 1.0}
    (half, whole) = reviewer(Says(answers), threshold=0.5).review(samples)
    assert not half.wrong  # the threshold itself is right
    assert not whole.wrong


def test_accepted_corrections_keep_meaning_and_coordinates_and_can_be_learned(picture: Path) -> None:
    samples = [sample(name, BOX, picture) for name in "abcd"] + [sample("e", "left lung", picture, "vqa/ct")]
    texts = {"a": f"It is at {BOX}.", "b": NEAR, "c": "", "d": f"unteachable {BOX}", "e": "The lung on the left."}
    model = Rewrites(texts)
    found = reviewer(Says(dict.fromkeys("abcde", "x <|image_pad|><image>")), model).review(samples)
    assert [part.corrector for part in found] == ["big", "reference", "reference", "reference", "big"]
    assert [part.refused for part in found] == [False, True, True, True, False]
    assert [part.text for part in found] == [texts["a"], BOX, BOX, BOX, texts["e"]]
    (first, *_) = model.seen
    messages = first.extra["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert (messages[1]["content"], first.text) == ("x", "")
    assert BOX in messages[2]["content"]


class Local(Rewrites, nn.Module):
    """A local model that records its devices."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        Rewrites.__init__(self, {"a": "left"})
        self.devices: list[str] = []

    def to(self, device: str) -> Local:  # type: ignore[override]
        self.devices.append(device)
        return self


def test_correctors_are_loaded_once_and_are_on_their_device_while_in_use(picture: Path) -> None:
    opened: list[Local] = []
    corrector = Corrector("big", lambda: opened.append(Local()) or opened[-1], "cuda:3")  # type: ignore[func-returns-value]
    corrector.offload()
    assert not opened
    for _ in range(2):
        assert corrector.rewrite([sample("a", "left", picture)], {"a": "right"}) == {"a": "left"}
        corrector.offload()
    assert [model.devices for model in opened] == [["cuda:3", "cpu"] * 2]
    corrector.close()
    corrector.rewrite([sample("a", "left", picture)], {"a": "right"})
    assert len(opened) == 2


def test_prompts_keep_the_box_tokens_of_the_reference(picture: Path) -> None:
    """In prompts, the tokens around coordinates determine how they are converted."""
    box, wrong = (f"<|box_start|>(0,0),(100,{y})<|box_end|>" for y in (100, 20))
    model = Rewrites({"a": box, "b": "left"})
    says = Says({"a": f"<|im_end|>{wrong}<image>", "b": f"right {wrong}"})
    samples = [sample("a", box, picture), sample("b", "left", picture, "vqa/ct")]
    assert [part.wrong for part in reviewer(says, model).review(samples)] == [True, True]
    assert [asked.extra["messages"][1]["content"] for asked in model.seen] == [wrong, "right  (0,0),(100,20)"]


def test_accept_is_a_separate_threshold(picture: Path) -> None:
    samples = [sample("a", "left lung", picture, "vqa/ct")]
    texts = {"a": "on the left"}
    half = Rewrites(texts)
    assert reviewer(Says({"a": ""}), half).review(samples)[0].refused
    assert reviewer(Says({"a": ""}), half, accept=0.5).review(samples)[0].text == texts["a"]
    with raises_error("KD-LABEL-013", where="accept", mentions=("0", "1")):
        ReviewRules(accept=0.0)


@pytest.mark.parametrize(
    ("text", "reference", "wanted"),
    [
        (f"See {BOX}.", BOX, f"See {BOX}."),
        ("(0, 0), (100, 100)", BOX, "(0, 0), (100, 100)"),
        ('{"bbox_2d": [0, 0, 100, 100]}', BOX, '{"bbox_2d": [0, 0, 100, 100]}'),
        ("at (2,0),(100,103)!", BOX, "at (0,0),(100,100)!"),  # rounded: the reference's own numbers again
        ("(0,0),(100,106)", BOX, None),
        ("(100,100),(0,0)", BOX, None),
        (BOX + BOX, BOX, None),
        ("no box", BOX, None),
        (BOX, "no box", None),
        ("no box", "here", "no box"),
        ("(5,6),(7,8) and (1,2),(3,4)", "(1,2),(3,4)<box>(5,6),(7,8)</box>", "(5,6),(7,8) and (1,2),(3,4)"),
        ("(1,2),(3,5) or (1,2),(3,4)", "(1,2),(3,4) (1,2),(3,5)", None),  # one row of eight in the reference
        ("two of 3 mm", "2 nodules, 3 mm", "two of 3 mm"),  # other numbers are the scorer's business
        ("[0.1, 0.252, .5, 0.75]", "[0.1, 0.25, 0.5, 0.75]", "[0.1, 0.25, 0.5, 0.75]"),
        ("[0.1, 0.26, .5, 0.75]", "[0.1, 0.25, 0.5, 0.75]", None),
        ("[-1, 2, 3, 44]", "[1, 2, 3, 44]", "[1, 2, 3, 44]"),
        ("[1, 2, 3]", "[1, 2, 3, 4]", None),
    ],
)
def test_coordinates_become_the_references_or_are_rejected(text: str, reference: str, wanted: str | None) -> None:
    assert with_coordinates(text, reference) == wanted


def test_reviews_resume_with_the_interrupted_group(picture: Path, tmp_path: Path) -> None:
    pairs: list[tuple[SampleKey, Sample]] = [((f"s{n}", n), sample(f"s{n}", BOX, picture)) for n in range(40)]
    says = Says({f"s{n}": BOX if n % 2 else FAR for n in range(40)})
    path = tmp_path / "run" / "answers-0.jsonl"
    review(reviewer(says), Journal(path), pairs, {}, Silent(), "asking")
    assert [len(group) for group in says.asked] == [16, 16, 8]
    whole = read_reviews([path])
    assert sum(found.wrong for found in whole.values()) == 20

    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:22]) + lines[22][:15])  # in the second group
    says.asked.clear()
    review(reviewer(says), Journal(path), pairs, read_reviews([path]), Silent(), "asking")
    assert says.asked == [[f"s{n}" for n in range(16, 32)], [f"s{n}" for n in range(32, 40)]]
    assert read_reviews([path]) == whole
