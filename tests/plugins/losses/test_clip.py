"""The contrastive loss with weighted captions, and with several positives per row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from kdkit.core.contracts import CaptionView
from kdkit.plugins.losses.clip import ClipLoss
from tests.errors import raises_error
from tests.plugins.losses import reference
from tests.plugins.test_losses import make_batch, number, student_of, views_of


def test_clip_with_weighted_captions_and_equal_texts() -> None:
    weight, text = [1.0, 0.5, 0.0, 0.25, 1.0, 0.0, 1.0], [0, 1, 0, 0, 1, 5, 6]
    batch = replace(make_batch(), captions=CaptionView(torch.tensor(weight).double(), torch.tensor(text)))
    expected = reference.clip(student_of(batch), 3.0, weight, text)
    assert number(ClipLoss()(batch)) == pytest.approx(expected, rel=1e-12)
    own = reference.clip(student_of(batch), 3.0, weight)
    assert number(ClipLoss(positives="own")(batch)) == pytest.approx(own, rel=1e-12)


def test_clip_takes_texts_that_the_teachers_find_nearly_equal_as_positives() -> None:
    batch, least = make_batch(seed=5, size=12, absent=0.3), 0.2
    student, size = student_of(batch), len(batch.domain)
    text = np.array([0, 1, 2, 3, 1, 5, 6, 7, 8, 9, 0, 11])

    domain = batch.domain.numpy()

    def similar(b: int, j: int) -> bool:
        cosines, weights = [], []
        for view in views_of(batch):
            t = view.target["text"] / np.maximum(np.linalg.norm(view.target["text"], axis=1, keepdims=True), 1e-12)
            if domain[b] == domain[j] and view.weight[b] > 0 and view.weight[j] > 0:
                mean = t[(domain == domain[b]) & (view.weight > 0)].mean(0)
                x, y = t[b] - mean, t[j] - mean
                cosines.append(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
                weights.append(min(view.weight[b], view.weight[j]))
        return bool(cosines) and np.average(cosines, weights=weights) >= least

    near = np.array([[b == j or text[b] == text[j] or similar(b, j) for j in range(size)] for b in range(size)])
    equal = text[:, None] == text
    assert equal.sum() < near.sum() < size**2, "the threshold separates"
    image, words = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (student["image"], student["text"]))
    logits, expected = 3.0 * image @ words.T, 0.0
    for rows in (logits, logits.T):
        log_p = rows - np.log(np.exp(rows).sum(1, keepdims=True))
        expected -= float(np.mean([log_p[b][near[b]].mean() for b in range(size)])) / 2
    batch = replace(batch, captions=CaptionView(torch.ones(size).double(), torch.tensor(text)))
    found = ClipLoss(positives="similar", similarity=least)(batch)
    assert number(found) == pytest.approx(expected, rel=1e-12)


def test_clip_cannot_compare_texts_without_a_teacher_of_texts() -> None:
    batch = make_batch()
    views = tuple(replace(view, target={"image": view.target["image"]}) for view in batch.teachers)
    with raises_error("KD-LOSS-160"):
        ClipLoss(positives="similar")(replace(batch, teachers=views))


@pytest.mark.parametrize("similarity", [0.0, 1.1])
def test_clip_checks_the_similarity(similarity: float) -> None:
    with raises_error("KD-LOSS-161"):
        ClipLoss(positives="similar", similarity=similarity)


def test_clip_ignores_samples_whose_captions_have_no_weight() -> None:
    batch = make_batch()
    image = batch.student["image"].detach().clone().requires_grad_()
    weight = torch.ones(len(image)).double()
    weight[[1, 4]] = 0
    with torch.no_grad():
        image[1] = torch.nan
    student, captions = {**batch.student, "image": image}, CaptionView(weight, torch.zeros(len(image)).long())
    ClipLoss()(replace(batch, student=student, captions=captions)).backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()
    assert not image.grad[[1, 4]].any()
