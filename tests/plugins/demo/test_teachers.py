"""The shipped teachers of the demo: small, ordinary folders, and much better than chance in their own domains."""

from __future__ import annotations

import random
import runpy
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from PIL import Image

from kdkit.core.contracts import Decoding, Sample
from kdkit.core.data.images import open_image
from kdkit.plugins.answers.task import Answers
from kdkit.plugins.demo.captions import all_texts
from kdkit.plugins.demo.dataset import draw_split
from kdkit.plugins.demo.images import FINDINGS
from kdkit.plugins.demo.source import read_questions
from kdkit.plugins.demo.student import CONTEXT_LENGTH, create_answerer
from kdkit.plugins.demo.teachers import ANSWERERS, SPECIALISTS, TASKS, WEIGHTS, Answerer, Specialist
from kdkit.plugins.loaders.generating import load_generating

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def script(name: str) -> dict[str, Any]:
    """The functions of a benchmark script."""
    return runpy.run_path(str(BENCHMARKS / name))


@pytest.mark.parametrize("specialist", SPECIALISTS, ids=lambda specialist: specialist.name)
def test_specialists_know_their_domains(specialist: Specialist) -> None:
    folder, class_prompts = WEIGHTS / specialist.name, script("train_demo_teachers.py")["class_prompts"]
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    for domain in specialist.domains:
        rows = list(draw_split(domain, "calibration", seed=77, count=120))
        pixels = torch.stack([preprocess(Image.fromarray(picture)) for _, picture in rows])
        with torch.inference_mode():
            classes = [
                model.encode_text(tokenizer(class_prompts(domain, label)), normalize=True).mean(0)
                for label in FINDINGS[domain]
            ]
            best = (model.encode_image(pixels, normalize=True) @ torch.stack(classes).T).argmax(1)
        truth = torch.tensor([FINDINGS[domain].index(row["label"]) for row, _ in rows])
        assert float((best == truth).float().mean()) > 0.6


class Given:
    """An answer view with given texts."""

    name = "given"

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts

    def answer(self, samples: object) -> list[str]:  # noqa: ARG002  # one domain at a time, in order
        return self._texts


@pytest.mark.parametrize("answerer", ANSWERERS, ids=lambda answerer: answerer.name)
def test_answerers_beat_chance(answerer: Answerer, tmp_path: Path) -> None:
    """Chance: correct answers to other questions of the same task and modality."""
    teacher = load_generating(WEIGHTS / answerer.name)
    options: dict[str, Any] = {"seed": 77, "train": 0, "calibration": 36, "test": 0, "domains": answerer.modalities}
    samples = [s for s in read_questions(tmp_path / "data", **options) if isinstance(s, Sample)]
    for modality in answerer.modalities:
        draw, judge = random.Random(0), Answers(resamples=2)
        for task in TASKS:
            part = [sample for sample in samples if sample.domain == f"{task}/{modality}"]
            images = [open_image(sample) for sample in part]
            answers = [found[0].text for found in teacher.answer(images, part, Decoding(max_new=16, batch_size=36))]
            guessed = draw.sample([sample.text for sample in part], len(part))
            score, chance = (judge.evaluate(Given(texts), part)[0].metrics["accuracy"] for texts in (answers, guessed))
            assert (score - chance) / (1 - chance) > 0.4, (modality, task, score, chance)


def test_shipped_weights_are_small() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) < 8e6
    for answerer in ANSWERERS:
        assert sum(path.stat().st_size for path in (WEIGHTS / answerer.name).iterdir()) < 2e6


def test_every_word_is_known_and_padding_changes_nothing() -> None:
    folder = WEIGHTS / "radio"
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    texts = sorted(set(all_texts()))
    tokens = tokenizer(texts)
    assert tokens.shape == (len(texts), CONTEXT_LENGTH)
    assert not (tokens == tokenizer.tokenizer.unk_token_id).any()
    other_padding = torch.where(tokens == 0, tokenizer.tokenizer.unk_token_id, tokens)
    with torch.inference_mode():
        assert torch.equal(model.encode_text(tokens[:32]), model.encode_text(other_padding[:32]))


def test_specialist_training_makes_a_folder_that_open_clip_loads(tmp_path: Path) -> None:
    training = script("train_demo_teachers.py")
    mini = Specialist("mini", ("oct",), 64, 1)
    training["train_specialist"](mini, tmp_path / "mini", training["TrainingPlan"](images=16, steps=2, batch=8))
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'mini'}")
    _, picture = next(draw_split("oct", "test", seed=1, count=1))
    pixels = training["normalize_pixels"]([picture])
    assert torch.allclose(preprocess(Image.fromarray(picture)), pixels[0], atol=1e-5)
    assert model.encode_image(pixels).shape == (1, 64)


def test_answerer_training_makes_a_folder_that_loads(tmp_path: Path) -> None:
    training = script("train_demo_answerers.py")
    mini = Answerer("mini", ("endoscopy",), 1, 2)
    training["train_answerer"](mini, tmp_path / "mini", training["TrainingPlan"](pictures=3, batch=4))
    teacher = load_generating(tmp_path / "mini")
    assert {signal.name for signal in teacher.signals} == {"tokens", "topk_ids", "topk", "tail"}
    assert teacher.identity()["tokenizer"] == create_answerer().identity()["tokenizer"]
