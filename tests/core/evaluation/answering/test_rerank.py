"""The re-ranker with a tiny CLIP."""

from __future__ import annotations

from pathlib import Path

import torch

from kdkit.core.contracts import DualEncoder
from kdkit.core.evaluation.answering.rerank import Reranker
from kdkit.core.plugin_system.discovery import load_catalogue
from tests.plugins.students.clinkd.tiny import PICTURES
from tests.tiny_models import make_transformers_clip_folder


def test_truncated_texts_are_detected(tmp_path: Path) -> None:
    clip = load_catalogue().make("loader", "transformers", folder=make_transformers_clip_folder(tmp_path / "model"))
    assert isinstance(clip, DualEncoder)
    long = " ".join(["lung"] * 40)
    _, truncated = Reranker("clip", clip).score(PICTURES[:1], [["a lung", long, "nodule", long + " nodule"]])
    assert truncated == {long, long + " nodule"}
    with torch.inference_mode():
        assert torch.equal(clip.encode_text([long]), clip.encode_text([long + " nodule"]))
