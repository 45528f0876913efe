"""Samples and configs that mean nothing are refused, and the message says which, how many and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Sample
from kdkit.plugins.students.clinkd.create import create_student
from kdkit.plugins.students.clinkd.student import ClinkdStudent
from tests.errors import raises_error
from tests.plugins.students.clinkd.tiny import SIZES, SMALL, make, picture, sample


@pytest.fixture(scope="module")
def student() -> ClinkdStudent:
    return make()


def talk(*turns: tuple[str, str]) -> Sample:
    return sample("lung", messages=[{"role": role, "content": content} for role, content in turns])


USER = ("user", "<image>Where?")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (sample("lung", "Where?"), "0 <image> marks for 1 image"),
        (sample("lung", "<image><image>Where?"), "2 <image> marks for 1 image"),
        (sample("lung", "<image><image>", images=["a.png"]), "unreadable image"),
        (sample("lung", "<image>" * 3, images=["a.png", "b.png"]), "unreadable image"),
        (talk(USER, USER), "roles are user, user"),
        (talk(("assistant", "x"), USER), "roles are assistant, user"),
        (talk(USER, ("assistant", "x")), "roles are user, assistant"),
        (talk(("system", "x")), "roles are none"),
        (talk(("human", "<image>")), "roles are human"),
        (talk(USER, ("assistant", "x"), ("system", "x"), USER), "roles are user, assistant, system, user"),
        (sample("lung", messages=[{"from": "human", "value": "x"}]), "needs a 'role' and a 'content'"),
        (sample("lung", "<image>Where?<|im_end|>"), "contains <|im_end|>"),
        (sample("a <|image_pad|>"), "contains <|image_pad|>"),
        (sample("lung" * 25), "the answer has 26 tokens, the model takes 20"),
        (sample("lung", "<image>" + "x" * 100), "tokens (4 of them image tokens), the model takes 96"),
    ],
)
def test_a_sample_that_is_refused(student: ClinkdStudent, wrong: Sample, message: str) -> None:
    with pytest.raises(KdkitError) as caught:
        student.prepare(picture(56, 56), wrong)
    assert message in caught.value.what
    assert wrong.id in caught.value.what


def test_too_many_images(student: ClinkdStudent, tmp_path: Path) -> None:
    picture(28, 28).save(tmp_path / "a.png")
    wrong = sample("lung", "<image>" * 3, images=[tmp_path / "a.png"] * 2)
    with raises_error("KD-STUD-035", mentions=("3", "2")) as caught:
        student.prepare(picture(28, 28), wrong)
    assert "max_images" in caught.value.fix


def test_a_prompt_without_room_for_an_answer(student: ClinkdStudent) -> None:
    with raises_error("KD-STUD-035", mentions=("96",)):
        student.answer([picture(56, 56)], [sample("lung", "<image>" + "x" * 100)])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "exactly one of init and sizes"),
        ({"init": "x", "sizes": {}}, "exactly one of init and sizes"),
        ({"sizes": {"hiden": 3}}, "unknown key 'hiden'"),
        ({"sizes": {"family": "qwen3_vl"}}, "unknown family"),
        ({"sizes": {"hidden": 30}}, "4 heads cannot share a width of 30"),
        ({"sizes": {}, "max_token": 3}, "unknown key 'max_token'"),
        ({"sizes": {}, "max_tokens": 0}, "at least 1"),
        ({"sizes": {}, "dtype": "float16"}, "float32 or bfloat16"),
        ({"sizes": {}, "lora": {"r": 4}}, "need a base"),
        ({"sizes": {}, "lora": {"rank": 4}}, "unknown key 'rank'"),
        ({"sizes": {}, "rope": {"alpha": 1}}, "not a RoPE variant"),
        ({"sizes": {}, "max_pixels": 100}, "less than one token"),
        ({"init": "/nowhere"}, "no config.json"),
    ],
)
def test_a_config_that_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(KdkitError) as caught:
        create_student(**config)
    assert message in f"{caught.value.what} {caught.value.why} {caught.value.fix}"


def test_adapters_that_fit_nowhere(student: ClinkdStudent, tmp_path: Path) -> None:
    student.save(tmp_path)
    with raises_error("KD-STUD-013", where="student.config.lora", mentions=("query",)):
        create_student(init=str(tmp_path), lora={"targets": ["query"]})


def test_more_tokens_than_the_context(student: ClinkdStudent, tmp_path: Path) -> None:
    student.save(tmp_path)
    with raises_error("KD-STUD-044", where="student.config", mentions=("97", "96")):
        create_student(init=str(tmp_path), max_tokens=97)


def test_the_smallest_config_is_a_student() -> None:
    student = create_student(sizes={})
    assert student.training
    assert set(SMALL) <= set(student.config)
    assert set(SIZES) <= set(student.config["sizes"])
