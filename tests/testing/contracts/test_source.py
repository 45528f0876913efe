"""The contract of sources finds what is wrong on purpose here."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Sample
from kdkit.testing import SourceContract, checks, pictures
from tests.testing.harness import failed, found_by, skipped

HERE = f"{__name__}:"
CALLS = count()


def lines(location: Path) -> Iterator[Sample]:
    """Right: a line is the name of an image beside the list."""
    if not location.is_file():
        raise KdkitError("X-001", "no such file", where=str(location))
    for number, name in enumerate(location.read_text().splitlines(), start=1):
        where = f"{location}:{number}"
        if not name.endswith(".png"):
            raise KdkitError("X-001", f"'{name}' is no image", where=where)
        yield Sample(name, location.parent / name, "a picture", "noise", origin=where)


def nothing(location: Path) -> list[Sample]:  # noqa: ARG001
    return []


def without_images(location: Path) -> list[Sample]:
    return [replace(sample, image=location.parent / "gone.png") for sample in lines(location)]


def strange_split(location: Path) -> list[Sample]:
    return [replace(sample, split="validation") for sample in lines(location)]  # type: ignore[arg-type]


def numbers_as_texts(location: Path) -> list[Sample]:
    return [replace(sample, text=1) for sample in lines(location)]  # type: ignore[arg-type]


def same_ids(location: Path) -> list[Sample]:
    return [replace(sample, id="1") for sample in lines(location)]


def shuffled(location: Path) -> list[Sample]:
    found, turn = list(lines(location)), next(CALLS)
    return found[turn % len(found) :] + found[: turn % len(found)]


def counted(location: Path) -> list[Sample]:
    return [replace(sample, id=str(random.random())) for sample in lines(location)]


def nameless(location: Path) -> list[Sample]:
    return [replace(sample, origin="") for sample in lines(location)]


def raw_error(location: Path) -> list[Sample]:
    location.read_text()
    return list(lines(location))


def tolerant(location: Path) -> list[Sample]:
    return list(lines(location)) if location.is_file() else []


def without_line(location: Path) -> list[Sample]:
    try:
        return list(lines(location))
    except KdkitError as error:
        raise KdkitError("X-001", error.what, where=str(location)) from None


class Example(SourceContract):
    def location(self) -> Path:
        names = [f"{number}.png" for number in range(4)]
        for name, picture in zip(names, pictures(), strict=True):
            picture.save(self.scratch() / name)
        listed = self.scratch() / "images.txt"
        listed.write_text("\n".join(names))
        return listed


MISTAKES: list[tuple[Callable[..., Any], str, str]] = [
    (nothing, "test_samples", "expected samples, got none"),
    (without_images, "test_samples", "FileNotFoundError"),
    (strange_split, "test_samples", "got 'validation'"),
    (numbers_as_texts, "test_samples", "0.png: expected text to be text, got 1"),
    (same_ids, "test_ids_are_unique", "got '1'"),
    (shuffled, "test_same_order_and_ids", "the ids or their order differ"),
    (counted, "test_same_order_and_ids", "the ids or their order differ"),
    (nameless, "test_origin", "no origin ('file:line') in the samples 0.png, 1.png, 2.png"),
    (raw_error, "test_missing_location", "expected KdkitError with where='file:line', got FileNotFoundError"),
    (tolerant, "test_missing_location", "expected KdkitError with where='file:line', got none"),
    (without_line, "test_damaged_example", "expected 'file:line' in the error"),
]


def test_a_source_that_is_right_passes() -> None:
    found = found_by(Example, HERE + "lines")
    assert failed(found) == {}
    assert skipped(found) == set()


@pytest.mark.parametrize(("source", "check", "message"), MISTAKES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_mistake_is_found(source: Callable[..., Any], check: str, message: str) -> None:
    random.seed(0)
    found = failed(found_by(Example, HERE + source.__name__))
    assert message in found.get(check, f"passed; failed: {found}")


def test_skipped_checks_name_the_method_to_override() -> None:
    found = found_by(SourceContract, HERE + "lines")
    assert {check.status for check in found} == {"skipped"}
    assert all("location()" in check.message and "SourceContract" in check.message for check in found)


def test_a_source_of_folders_brings_its_own_damaged_example() -> None:
    class Folder(Example):
        def location(self) -> Path:
            return super().location().parent

    found = {check.name: check.message for check in found_by(Folder, HERE + "lines_of_folder")}
    assert all(name in found["test_damaged_example"] for name in ("damaged()", "SourceContract"))


def lines_of_folder(location: Path) -> Iterator[Sample]:
    return lines(location / "images.txt")


def test_every_check_finds_a_mistake() -> None:
    assert {name for name, _ in checks(SourceContract)} == {check for _, check, _ in MISTAKES}
