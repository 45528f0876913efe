"""The procedural pictures."""

from __future__ import annotations

import numpy as np
import pytest

from kdkit.plugins.demo.images import DOMAINS, FINDINGS, PLACED, SIZE, render, render_placed

PAIRS = [(domain, finding) for domain in DOMAINS for finding in FINDINGS[domain]]
BRIGHTNESS = {
    "ct": 61.1,
    "mri": 61.17,
    "xray": 158.6,
    "ultrasound": 78.64,
    "fundus": 81.09,
    "dermoscopy": 158.61,
    "histology": 192.88,
    "endoscopy": 121.22,
    "oct": 57.9,
}


@pytest.mark.parametrize(("domain", "finding"), PAIRS)
def test_pictures_are_a_function_of_the_seed_and_vary(domain: str, finding: str) -> None:
    once, again = (render(domain, finding, np.random.default_rng(3), 4) for _ in range(2))
    assert once.shape == (4, SIZE, SIZE, 3)
    assert once.dtype == np.uint8
    assert np.array_equal(once, again)
    assert len({picture.tobytes() for picture in once}) == 4


def test_random_draws_keep_their_order() -> None:
    """Mean levels (0 to 255) of 40 pictures of every finding; the demo's figures depend on them."""
    for domain in DOMAINS:
        levels = [render(domain, finding, np.random.default_rng(11), 40).mean() for finding in FINDINGS[domain]]
        assert np.mean(levels) == pytest.approx(BRIGHTNESS[domain], abs=0.01)


def test_labels_are_unique_across_domains() -> None:
    assert len({finding for _, finding in PAIRS}) == len(PAIRS)


@pytest.mark.parametrize(("modality", "finding"), [(m, finding) for m in PLACED for finding in PLACED[m]])
def test_boxes_come_with_the_same_pictures(modality: str, finding: str) -> None:
    pictures, boxes = render_placed(modality, finding, np.random.default_rng(3), 6)
    assert np.array_equal(pictures, render(modality, finding, np.random.default_rng(3), 6))
    assert boxes.shape == (6, 4)
    assert ((boxes >= 0) & (boxes <= 1)).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= 2 / SIZE).all()


@pytest.mark.parametrize(
    ("modality", "finding", "channel", "sign"),
    [
        ("mri", "brain tumor", 0, 1),
        ("mri", "ischemic stroke", 0, 1),
        ("ultrasound", "simple cyst", 0, -1),
        ("ultrasound", "gallstone", 0, 1),
        ("dermoscopy", "benign nevus", 1, -1),
        ("dermoscopy", "basal cell carcinoma", 1, -1),
        ("endoscopy", "polyp", 1, 1),
        ("endoscopy", "bleeding", 1, -1),
        ("fundus", "retinal hemorrhage", 1, -1),
        ("fundus", "glaucoma", 2, 1),
        ("ct", "pulmonary nodule", 0, 1),
    ],
)
def test_findings_are_in_their_boxes(modality: str, finding: str, channel: int, sign: int) -> None:
    """The middle of the box is brighter (or darker) than a frame around the box, in nearly all pictures."""
    pictures, boxes = render_placed(modality, finding, np.random.default_rng(5), 100)
    right = 0
    for picture, box in zip(pictures[..., channel].astype(float), np.rint(boxes * SIZE).astype(int), strict=True):
        x1, y1, x2, y2 = box
        w, h = (x2 - x1) // 4, (y2 - y1) // 4
        middle = picture[y1 + h : y2 - h, x1 + w : x2 - w]
        wide = np.zeros_like(picture, dtype=bool)
        wide[max(0, y1 - 3) : y2 + 3, max(0, x1 - 3) : x2 + 3] = True
        wide[y1:y2, x1:x2] = False
        right += sign * (middle.mean() - picture[wide].mean()) > 0
    assert right >= 85


def test_unknown_findings_are_refused() -> None:
    with pytest.raises(ValueError, match="polyp"):
        render("ct", "polyp", np.random.default_rng(0), 1)
    with pytest.raises(ValueError, match="emphysema"):
        render_placed("ct", "emphysema", np.random.default_rng(0), 1)
