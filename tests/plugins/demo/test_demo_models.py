"""The demo's models are ordinary open_clip folders: stock functions load them, with no network."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image

from kdkit.plugins.demo.captions import all_texts, class_prompts
from kdkit.plugins.demo.dataset import draw_split
from kdkit.plugins.demo.images import FINDINGS
from kdkit.plugins.demo.student import CONTEXT_LENGTH, STUDENT_CONFIG
from kdkit.plugins.demo.teachers import SPECIALISTS, WEIGHTS, Specialist, find_specialist, teacher_folder
from kdkit.plugins.demo.training import TrainingPlan, normalize_pixels, train_specialist

NAMES = [specialist.name for specialist in SPECIALISTS]


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_teacher_knows_its_own_domains(name: str) -> None:
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{teacher_folder(name)}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{teacher_folder(name)}")
    model.eval()
    for domain in find_specialist(name).domains:
        rows = list(draw_split(domain, "calibration", seed=77, count=120))
        pixels = torch.stack([preprocess(Image.fromarray(picture)) for _, picture in rows])
        with torch.inference_mode():
            classes = [
                model.encode_text(tokenizer(prompts), normalize=True).mean(0)
                for prompts in class_prompts(domain).values()
            ]
            best = (model.encode_image(pixels, normalize=True) @ torch.stack(classes).T).argmax(1)
        truth = torch.tensor([FINDINGS[domain].index(row.label) for row, _ in rows])
        assert float((best == truth).float().mean()) > 0.6


def test_the_shipped_teachers_are_small_and_have_no_batch_statistics() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) < 8e6
    model = open_clip.CLIP(**STUDENT_CONFIG)
    assert not any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in model.modules())


def test_every_word_is_known_and_padding_changes_nothing() -> None:
    folder = teacher_folder("radio")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    texts = sorted(set(all_texts()))
    tokens = tokenizer(texts)
    assert tokens.shape == (len(texts), CONTEXT_LENGTH)
    assert not (tokens == tokenizer.tokenizer.unk_token_id).any()
    other_padding = torch.where(tokens == 0, tokenizer.tokenizer.unk_token_id, tokens)
    with torch.inference_mode():
        assert torch.equal(model.encode_text(tokens[:32]), model.encode_text(other_padding[:32]))


def test_training_leaves_a_folder_that_open_clip_loads(tmp_path: Path) -> None:
    mini = Specialist("mini", ("oct",), 64, 1)
    train_specialist(mini, tmp_path / "mini", TrainingPlan(images=16, steps=2, batch=8))
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'mini'}")
    _, picture = next(draw_split("oct", "test", seed=1, count=1))
    pixels = normalize_pixels([picture])
    assert torch.allclose(preprocess(Image.fromarray(picture)), pixels[0], atol=1e-5)
    assert model.encode_image(pixels).shape == (1, 64)


def test_an_unknown_teacher_is_refused() -> None:
    with pytest.raises(ValueError, match="no demo teacher 'nobody'"):
        teacher_folder("nobody")
