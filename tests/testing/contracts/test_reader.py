"""The contract of image readers finds what is wrong on purpose here."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
from PIL import Image

from kdkit.core.contracts import ImageLocation
from kdkit.testing import ImageReaderContract, checks, pictures
from tests.testing.harness import failed, found_by, skipped

HERE = f"{__name__}:"


class Good:
    """Reads image files."""

    def content(self, location: ImageLocation) -> bytes:
        """The whole file."""
        return location.file.read_bytes()


class Text(Good):
    def content(self, location: ImageLocation) -> Any:
        return str(super().content(location))


class Random(Good):
    def content(self, location: ImageLocation) -> bytes:
        return super().content(location) + random.randbytes(4)


class Deep(Good):
    def decode(self, location: ImageLocation, content: bytes) -> Image.Image:  # noqa: ARG002
        """More than 8 bits."""
        return Image.new("I;16", (4, 4))


class OneThread(Good):
    def __init__(self) -> None:
        self.owner = threading.get_ident()

    def content(self, location: ImageLocation) -> bytes:
        return super().content(location) + (b"" if threading.get_ident() == self.owner else b"x")


class Leaking(Good):
    opened: list[IO[bytes]]

    def __init__(self) -> None:
        self.opened = []

    def content(self, location: ImageLocation) -> bytes:
        self.opened.append(location.file.open("rb"))
        return self.opened[-1].read()


class Inventive(Good):
    def content(self, location: ImageLocation) -> bytes:
        return super().content(location) if location.file.exists() else b"anything"


class Example(ImageReaderContract):
    def location(self) -> ImageLocation:
        pictures(1)[0].save(self.scratch() / "a.png")
        return ImageLocation("it", self.scratch() / "a.png")


MISTAKES: list[tuple[Callable[[], Any], str, str]] = [
    (Text, "test_content", "expected bytes, got str"),
    (Random, "test_content", "the content differs when read again"),
    (Deep, "test_picture", "got mode I;16"),
    (OneThread, "test_threads", "the content differs between threads"),
    (Leaking, "test_open_files", "more files are open"),
    (Inventive, "test_absent_image", "got content"),
]


def test_a_reader_that_is_right_passes() -> None:
    found = found_by(Example, HERE + "Good")
    assert failed(found) == {}
    assert skipped(found) <= {"test_open_files"}


@pytest.mark.parametrize(("reader", "check", "message"), MISTAKES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_mistake_is_found(reader: Callable[..., Any], check: str, message: str) -> None:
    random.seed(0)
    found = failed(found_by(Example, HERE + reader.__name__))
    if check == "test_open_files" and not Path("/dev/fd").is_dir():
        pytest.skip("this system does not list open files")
    assert message in found.get(check, f"passed; failed: {found}")


def test_without_an_example_all_is_skipped() -> None:
    found = found_by(ImageReaderContract, HERE + "Good")
    assert {check.status for check in found} == {"skipped"}
    assert all("location()" in check.message and "ImageReaderContract" in check.message for check in found[:1])


def test_every_check_finds_a_mistake() -> None:
    assert {name for name, _ in checks(ImageReaderContract)} == {check for _, check, _ in MISTAKES}
