"""The student itself: prepared inputs to the states that predict the answer's tokens; answers to questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Answer, Decoding, Sample
from kdkit.plugins.answers.boxes.own import OwnBoxes
from kdkit.plugins.loaders.hugging_face import without_bars
from kdkit.plugins.students.clinkd.answers import generate
from kdkit.plugins.students.clinkd.chat import TEMPLATE
from kdkit.plugins.students.clinkd.folder import FORMAT, SAVED, TURNS, write_json
from kdkit.plugins.students.clinkd.images import CONFIG as IMAGE_CONFIG
from kdkit.plugins.students.clinkd.images import ImageSettings
from kdkit.plugins.students.clinkd.network import freeze
from kdkit.plugins.students.clinkd.origin import Base, Origin
from kdkit.plugins.students.clinkd.prepare import Preparation, network_images
from kdkit.plugins.students.clinkd.rotary import exchange, make_variant
from kdkit.plugins.students.clinkd.settings import WHERE, Settings
from kdkit.plugins.students.clinkd.tokens import IMAGE, Tokens
from kdkit.plugins.students.clinkd.vision_turns import VisionTurns

BOXES = {"qwen2_vl": "qwen2-vl", "qwen2_5_vl": "qwen2.5-vl"}
"""Type of the model -> the family of boxes that it was pretrained with."""


class ClinkdStudent(nn.Module):
    """Fulfils ``contracts.Student`` and ``contracts.Answering``.

    Args:
        network: a transformers Qwen2-VL or Qwen2.5-VL model, or a PEFT model around one.
        origin: where the weights come from, for the config and the saved files.

    Raises:
        KdkitError: a RoPE variant that the network cannot take, ``max_tokens`` beyond its context, a tokenizer
            or image settings of another model.
    """

    def __init__(self, network: Any, tokens: Tokens, images: ImageSettings, settings: Settings, origin: Origin) -> None:
        super().__init__()
        self.network: Any = network
        _check_fit(self.base.config, tokens, images, settings)
        variant, rope = make_variant(settings.rope, self.base)
        exchange(self.base, variant, rope.name)
        self.vision_turns: VisionTurns | None = None
        vision_rope = settings.vision_rope
        if vision_rope is not None:
            vision_variant, vision_rope = make_variant(vision_rope, self.base)
            self.vision_turns = VisionTurns(self.base, vision_variant, vision_rope.name)
        boxes = OwnBoxes(settings.boxes or BOXES[self.base.config.model_type])
        self.settings = replace(settings, rope=rope, vision_rope=vision_rope, boxes=boxes.family)
        self.origin = origin
        self.preparation = Preparation(self.settings, tokens, images, variant, boxes)
        if settings.lora is None:
            freeze(self.base, vision=settings.freeze_vision)
        if settings.gradient_checkpointing:
            enable = getattr(self.base, "activation_checkpointing_enable", self.base.gradient_checkpointing_enable)
            enable({"use_reentrant": False})

    @property
    def base(self) -> Any:
        """The transformers model, with or without adapters inside."""
        return self.network.get_base_model() if hasattr(self.network, "get_base_model") else self.network

    @property
    def outputs(self) -> Mapping[str, int]:
        """``answer_hidden``, as wide as the language tower."""
        return {"answer_hidden": self.base.lm_head.in_features}

    @property
    def config(self) -> Mapping[str, Any]:
        """What ``create_student`` needs to make the same architecture again."""
        return {**self.origin.config(), **self.settings.config()}

    def identity(self) -> Mapping[str, str]:
        """Tokenizer, template, image processing, RoPE variants, and coordinates and length of answers."""
        preparation, images = self.preparation, self.preparation.images
        return {
            "tokenizer": preparation.tokens.digest(),
            "template": f"{TEMPLATE}, system {self.settings.system!r}, question {self.settings.question!r}",
            "preprocessing": str(preparation.images),
            "rope": str(self.settings.rope),
            "vision_rope": str(self.settings.vision_rope or "the model's own"),
            "max_answer": str(self.settings.max_answer),
            "boxes": preparation.boxes.identity(images.min_pixels, images.max_pixels, images.unit),
        }

    def prepare(self, image: Image.Image, sample: Sample) -> Mapping[str, Tensor]:
        """See :meth:`Preparation.inputs`."""
        return self.preparation.inputs(image, sample)

    def check_answer(self, sample: Sample) -> None:
        """See :meth:`Preparation.check_answer`."""
        self.preparation.check_answer(sample)

    def answer_tokens(self, sample: Sample) -> list[int] | None:
        """See :meth:`Preparation.answer_tokens`."""
        return self.preparation.answer_tokens(sample)

    def forward(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Teacher-forced on the samples' answers; B samples, A = ``max_answer``, width H, vocabulary V.

        Returns:
            ``answer_hidden`` (B, A, H) float32, the state that predicts the answer's token of the same place
            predicted, zeros after the end; ``answer_ids`` (B, A) int64, -100 after the end; ``output_embedding``
            (V, H), a parameter: ``answer_hidden @ output_embedding.T`` are the logits, to be made a part at a time.
        """
        length = int(inputs["length"].max())
        tokens, ids = inputs["tokens"][:, :length], inputs["answer_ids"]
        mask = torch.arange(length, device=tokens.device) < inputs["length"][:, None]
        hidden: Tensor = self.base.model(
            input_ids=tokens,
            attention_mask=mask.long(),
            position_ids=inputs["positions"][..., :length].transpose(0, 1),
            use_cache=False,
            **network_images(self.preparation.images, inputs),
        ).last_hidden_state
        # The token at place s is predicted by the state at s - 1.
        place = inputs["start"][:, None] - 1 + torch.arange(ids.shape[1], device=ids.device)
        rows = torch.arange(len(ids), device=ids.device)[:, None]
        answer = hidden[rows, place.clamp(max=length - 1)].float()
        return {
            "answer_hidden": torch.where((ids >= 0)[..., None], answer, 0.0),
            "answer_ids": ids,
            "output_embedding": self.base.lm_head.weight,
        }

    def answer(
        self, images: Sequence[Image.Image], samples: Sequence[Sample], decoding: Decoding | None = None
    ) -> list[list[Answer]]:
        """See the contract. It sets the model to evaluation mode meanwhile.

        Boxes in the texts are in the coordinates of the samples' texts; ``ids`` are what the model wrote.

        Raises:
            KdkitError: for a sample that cannot be prepared, naming it.
        """
        prompts = [self.preparation.prompt(image, sample) for image, sample in zip(images, samples, strict=True)]
        mode = self.training
        self.eval()
        try:
            with torch.no_grad():
                found = generate(self.base, self.preparation, prompts, decoding or Decoding())
        finally:
            self.train(mode)
        convert = self.preparation.boxes.from_model
        return [
            [replace(answer, text=convert(sample, answer.text, prompt.sizes)) for answer in answers]
            for sample, prompt, answers in zip(samples, prompts, found, strict=True)
        ]

    def save(self, folder: Path) -> None:
        """Write what stock transformers loads (with ``lora``: PEFT), and ``clinkd.json``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        content: dict[str, Any] = {"format": FORMAT, "config": dict(self.config)}
        if self.settings.lora is None:
            with without_bars():
                self.base.save_pretrained(folder)
            if self.origin.init is not None:
                content["config"]["init"] = "."  # its own weights by now
        else:
            base = Base.of(Path(str(self.origin.init)), self.origin.base)
            content["base"] = vars(base)
            del content["config"]["init"]
            _save_adapters(self.network, base, folder)
        for name, data in self.preparation.tokens.files.items():
            (folder / name).write_bytes(data)
        write_json(folder / IMAGE_CONFIG, self.preparation.images.config())
        if self.vision_turns is not None:
            from safetensors.torch import save_file

            state = {name: x.detach().cpu().contiguous() for name, x in self.vision_turns.state_dict().items()}
            save_file(state, folder / TURNS)
        write_json(folder / SAVED, content)


def _save_adapters(network: Any, base: Base, folder: Path) -> None:
    """As PEFT does, so that PEFT can load them; the base is named by its repository where it has one."""
    chosen = network.peft_config["default"]
    chosen.base_model_name_or_path = base.repo or base.folder
    chosen.revision = base.commit
    network.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)


def _check_fit(config: Any, tokens: Tokens, images: ImageSettings, settings: Settings) -> None:
    """Refuse files of a model folder that are not of one model, and a context that it does not have."""
    text, vision = config.text_config, config.vision_config
    if settings.max_tokens > text.max_position_embeddings:
        what = f"max_tokens is {settings.max_tokens}, the model's context has {text.max_position_embeddings}"
        raise KdkitError("KD-STUD-044", what, where=WHERE, fix="lower max_tokens")
    pairs = {
        "patch_size": (images.patch_size, vision.patch_size),
        "merge_size": (images.merge_size, vision.spatial_merge_size),
        "temporal_patch_size": (images.temporal_patch_size, vision.temporal_patch_size),
        "id of <|image_pad|>": (tokens.id(IMAGE), config.image_token_id),
    }
    for name, (prepared, wanted) in pairs.items():
        if prepared != wanted:
            raise KdkitError(
                "KD-STUD-045",
                f"{name} is {prepared} in the tokenizer or image settings, {wanted} in the model",
                where=WHERE,
                fix="take all files of the model folder from the same model",
            )
    if len(tokens) > text.vocab_size:
        raise KdkitError(
            "KD-STUD-046",
            f"the tokenizer has {len(tokens)} tokens, the model {text.vocab_size}",
            where=WHERE,
            fix="take tokenizer and weights from the same model",
        )
