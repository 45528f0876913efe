"""What decoding shows of images, and its cache."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdkit.core.contracts import ImageOptions, ImageRef
from kdkit.core.data import image_facts
from kdkit.core.data.digests import stamp_of
from kdkit.core.data.image_facts import ImageFacts, measure_image

NONE = ImageOptions()


def test_facts_of_an_image(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = measure_image(tmp_path / "a.png", NONE)
    assert not isinstance(found, str)
    digest = blake2b(b"(30, 20)" + pixels.tobytes(), digest_size=8).digest()
    assert int(found["digest"]) == int.from_bytes(digest, "big")
    assert (int(found["width"]), int(found["height"]), int(found["frames"])) == (30, 20, 1)
    assert found["kind"].item() == b"PNG RGB"
    Image.fromarray(pixels[..., 0]).save(tmp_path / "b.tif", save_all=True, append_images=[Image.new("L", (30, 20))])
    assert str(measure_image(tmp_path / "b.tif", NONE)).startswith("several frames: 2")
    first = measure_image(tmp_path / "b.tif", ImageOptions(frame=0))
    assert not isinstance(first, str)
    assert (first["kind"].item(), int(first["frames"])) == (b"TIFF L", 2)


def test_images_are_decoded_once_and_a_damaged_cache_is_rebuilt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    plain = image_facts.measure_image

    def counting(path: ImageRef, options: ImageOptions) -> object:
        decoded.append(Path(str(path)).name)
        return plain(path, options)

    monkeypatch.setattr(image_facts, "measure_image", counting)
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for i, path in enumerate(paths):
        Image.new("L", (8 + i, 8), i).save(path)
    paths[3].write_bytes(b"no image")

    def read(chosen: list[Path]) -> tuple[list[int], dict[int, str]]:
        facts, failed = ImageFacts(tmp_path / "state", NONE).get([(path, stamp_of(path)) for path in chosen])
        return facts["width"].tolist(), failed

    widths, failed = read(paths[:4])
    assert (widths, list(failed)) == ([8, 9, 10, 0], [3])
    assert read([paths[4], paths[0]])[0] == [12, 8]
    assert decoded == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    Image.new("L", (99, 8)).save(paths[1])
    decoded.clear()
    assert read(paths)[0] == [8, 99, 10, 0, 12]
    assert decoded == ["1.png", "3.png"]  # changed, and not cached
    cache = ImageFacts(tmp_path / "state", NONE).path
    for content in (b"", b"{", cache.read_bytes()[:200], cache.read_bytes()[:-3]):
        cache.write_bytes(content)
        decoded.clear()
        assert read(paths)[0] == [8, 99, 10, 0, 12]
        assert len(decoded) == 5
    np.save(cache, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert read(paths)[0] == [8, 99, 10, 0, 12]


def test_an_interrupted_command_keeps_what_it_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded, stop = list[str](), True
    plain, paths = image_facts.measure_image, [tmp_path / f"{i}.png" for i in range(6)]
    for path in paths:
        Image.new("L", (8, 8)).save(path)

    def interrupted(path: ImageRef, options: ImageOptions) -> object:
        decoded.append(Path(str(path)).name)
        if stop and path == paths[4]:
            raise KeyboardInterrupt
        return plain(path, options)

    monkeypatch.setattr(image_facts, "measure_image", interrupted)
    monkeypatch.setattr(image_facts, "AT_ONCE", 2)
    images = [(path, stamp_of(path)) for path in paths]
    with pytest.raises(KeyboardInterrupt):
        ImageFacts(tmp_path / "state", NONE).get(images)
    decoded.clear()
    stop = False
    assert ImageFacts(tmp_path / "state", NONE).get(images)[0]["width"].tolist() == [8] * 6
    assert sorted(decoded) == ["4.png", "5.png"]
