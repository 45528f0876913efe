"""Tiny models in the files and names of UniMed-CLIP, PMC-CLIP and MedCLIP, beside stock models with the same weights.

Each ``make_*`` writes weights (a pickle, as the authors publish them) and ``text/``, and returns the stock towers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torchvision  # type: ignore[import-untyped]
from PIL import Image
from torch import Tensor, nn
from transformers import AutoTokenizer, BertConfig, BertModel, SwinConfig, SwinModel

from kdkit.core.project.project import Project
from kdkit.core.teachers import add_teacher, open_teacher
from kdkit.core.teachers.pickles import convert_pickles
from tests.tiny_models import bert_tower_files

HIDDEN = 48
CAPTIONS = ["a chest xray of the lung", "", "a brain mri, &amp; a nodule", "a ct scan of the chest " * 40, "Zebra!"]


def gray_pictures() -> list[Image.Image]:
    """RGB images: wide, tall, smaller and larger than 224 pixels, odd."""
    rng = np.random.default_rng(0)
    sizes = ((61, 40), (90, 300), (301, 17), (225, 224), (500, 371))
    return [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in sizes]


@dataclass(frozen=True)
class Towers:
    """Stock parts with the weights of a folder.

    Attributes:
        image: the image tower, without a projection that lies beside it.
        bert: the text tower.
        tokenizer: its own, without the cleaning that open_clip does.
        projections: name -> matrix.
    """

    image: nn.Module
    bert: Any
    tokenizer: Any
    projections: dict[str, Tensor]


def make_unimed_clip(folder: Path) -> tuple[nn.Module, Any]:
    """``unimed-clip-vit-b16.pt``: a training checkpoint of the fork. Returns the stock model and its tokenizer."""
    text = _text_folder(folder)
    config = {
        "embed_dim": 32,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 64, "patch_size": 8},
        "text_cfg": {
            **{"hf_model_name": str(text), "hf_tokenizer_name": str(text), "hf_model_pretrained": False},
            **{"hf_proj_type": "mlp", "hf_pooler_type": "cls_last_hidden_state_pooler", "context_length": 256},
        },
    }
    torch.manual_seed(0)
    model: Any = open_clip.model.CustomTextCLIP(**config).eval()
    state = {_fork_name(name): value for name, value in model.state_dict().items()}
    state["module.text_encoder.transformer.embeddings.position_ids"] = torch.arange(512)[None]
    torch.save({"epoch": 3, "name": "b16", "state_dict": state, "optimizer": {}}, folder / "unimed-clip-vit-b16.pt")
    return model, open_clip.tokenizer.HFTokenizer(str(text), context_length=256)


def _fork_name(name: str) -> str:
    return "module." + (f"text_encoder.{name.removeprefix('text.')}" if name.startswith("text.") else name)


def make_pmc_clip(folder: Path) -> Towers:
    """``checkpoint.pt`` with the ResNet, the BERT, and the weights of the masked language model."""
    towers = stock_towers(
        folder, open_clip.modified_resnet.ModifiedResNet([1, 2, 1, 1], 40, heads=4, image_size=64, width=8)
    )
    projection = torch.randn(HIDDEN, 40)
    towers.projections["text"] = projection
    state = {f"visual.{name}": value for name, value in towers.image.state_dict().items()}
    state |= {f"text_encoder.{name}": value for name, value in towers.bert.state_dict().items()}
    state |= {"text_encoder.embeddings.position_ids": torch.arange(512)[None], "text_projection": projection}
    state |= {"positional_embedding": torch.zeros(77, HIDDEN), "mlm_projection": torch.zeros(HIDDEN, 99)}
    state |= {"img_special_token": torch.zeros(1, 1, 40), "logit_scale": torch.ones(())}
    state |= {"ln_final.weight": torch.ones(HIDDEN), "fusion_module.resblocks.0.ln_1.weight": torch.ones(HIDDEN)}
    checkpoint = {"epoch": 1, "state_dict": {f"module.{name}": value for name, value in state.items()}}
    torch.save(checkpoint, folder / "checkpoint.pt")
    return towers


def make_medclip(folder: Path, kind: str = "swin") -> Towers:
    """``pytorch_model.bin`` with a Swin transformer or a ResNet, under the names of transformers 4 and torchvision."""
    torch.manual_seed(0)
    if kind == "swin":
        tower: Any = SwinModel(SwinConfig(embed_dim=16, depths=[1, 2], num_heads=[2, 4], mlp_ratio=2.0))
        names = saved_names(tower, folder)
        index = "encoder.layers.0.blocks.0.attention.self.relative_position_index"
        names |= {index: torch.zeros(49, 49, dtype=torch.long)}
    else:
        tower = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [1, 1, 1, 1])
        tower.fc = nn.Linear(2048, 24, bias=False)
        names = tower.state_dict()
    towers = stock_towers(folder, tower)
    towers.projections["text"] = torch.randn(24, HIDDEN)
    state = {f"vision_model.model.{name}": value for name, value in names.items()}
    state |= {f"text_model.model.{name}": value for name, value in towers.bert.state_dict().items()}
    state |= {"text_model.projection_head.weight": towers.projections["text"], "logit_scale": torch.ones(())}
    if kind == "swin":
        towers.projections["image"] = state["vision_model.projection_head.weight"] = torch.randn(24, 32)
    torch.save(state, folder / "pytorch_model.bin")
    return towers


def published(folder: Path, make: Callable[[Path], object]) -> Path:
    """``folder`` with what ``make`` writes, its pickle converted as adding a teacher does."""
    make(folder)
    convert_pickles(folder, "here")
    return folder


def stock_towers(folder: Path, image: nn.Module) -> Towers:
    """Beside ``image``, whose normalizations get statistics as after training: a BERT and its tokenizer."""
    text = _text_folder(folder)
    torch.manual_seed(1)
    for name, value in image.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(std=0.1)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    bert = BertModel(BertConfig.from_pretrained(text))
    return Towers(image.eval(), bert.eval(), AutoTokenizer.from_pretrained(text), {})


def _text_folder(folder: Path) -> Path:
    """``text/`` as in old repositories: a config and a vocabulary, no word on the tokenizer's class."""
    text = folder / "text"
    text.mkdir(parents=True)
    config, files = bert_tower_files(HIDDEN)
    (text / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (text / "vocab.txt").write_bytes(files["vocab.txt"])
    return text


def saved_names(model: Any, folder: Path) -> dict[str, Tensor]:
    """The weights under the names in which transformers saves them."""
    from safetensors.torch import load_file

    model.save_pretrained(folder / "saved")
    tensors: dict[str, Tensor] = load_file(folder / "saved" / "model.safetensors")
    for path in (folder / "saved").iterdir():
        path.unlink()
    (folder / "saved").rmdir()
    return tensors


def add_by_files(folder: Path, project_folder: Path, **fields: Any) -> tuple[Any, Any]:
    """Add ``folder`` as the teacher ``mine`` without naming its loader. Returns the locked facts and the model."""
    project_folder.mkdir()
    (project_folder / "registry.yaml").write_text("version: 1\nteachers:\n", encoding="utf-8")
    project = Project(project_folder)
    facts = add_teacher(project, "mine", {"from": f"local:{folder}", "license": "mit", **fields})
    return facts, open_teacher(project.reloaded(), "mine").model
