"""Images prepared ahead."""

from __future__ import annotations

from pathlib import Path

from PIL.Image import Image

from kdkit.core.contracts import Sample
from kdkit.core.data.images import UnreadableImage, open_further_images
from kdkit.core.features.extract.prefetch import prefetch
from tests.core.features.small import paint


def test_an_unreadable_further_image_is_a_result(tmp_path: Path) -> None:
    """A function opens it, such as the preparation of a vision-language model; the other samples go on."""
    (tmp_path / "bad.png").write_bytes(b"no image")
    good = paint(tmp_path / "good.png", seed=1)
    samples = [Sample(name, good, "", "d", extra={"images": [tmp_path / name]}) for name in ("bad.png", "good.png")]

    def prepare(image: Image, sample: Sample) -> int:
        return len([image, *open_further_images(sample)])

    bad, fine = prefetch([(sample, [prepare]) for sample in samples], 1, 2)
    assert isinstance(bad, UnreadableImage)
    assert bad.where == str(tmp_path / "bad.png")
    assert fine == [2]
