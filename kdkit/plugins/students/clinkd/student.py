"""The student itself: prepared inputs to the states that predict the answer's tokens; answers to questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from kdkit.core.contracts import Answer, AttentionMap, Decoding, Sample
from kdkit.plugins.answers.boxes.own import OwnBoxes
from kdkit.plugins.loaders.hugging_face import without_bars
from kdkit.plugins.students.clinkd.answers import generate
from kdkit.plugins.students.clinkd.families.known import FAMILIES
from kdkit.plugins.students.clinkd.families.prepare import ProcessorPreparation
from kdkit.plugins.students.clinkd.families.processor import FamilyProcessor
from kdkit.plugins.students.clinkd.families.spec import FamilySpec
from kdkit.plugins.students.clinkd.fit import check_fit, image_token_id
from kdkit.plugins.students.clinkd.folder import FORMAT, SAVED, TURNS, write_json
from kdkit.plugins.students.clinkd.images import ImageSettings
from kdkit.plugins.students.clinkd.network import freeze
from kdkit.plugins.students.clinkd.origin import Base, Origin
from kdkit.plugins.students.clinkd.packing import Packing
from kdkit.plugins.students.clinkd.patch_products import multiply_patches
from kdkit.plugins.students.clinkd.prepare import Preparation
from kdkit.plugins.students.clinkd.rotary import exchange, make_variant
from kdkit.plugins.students.clinkd.settings import Choice, Settings
from kdkit.plugins.students.clinkd.shared_turns import owners
from kdkit.plugins.students.clinkd.tokens import Tokens
from kdkit.plugins.students.clinkd.vision_turns import VisionTurns

SCORED_AT_ONCE = 8
"""Samples of a forward pass that scores given answers."""


class ClinkdStudent(nn.Module):
    """Fulfils ``contracts.Student`` and ``contracts.Answering``.

    Args:
        network: a transformers model of a known family, or a PEFT model around one.
        images: how images are prepared, or the processor of the model's folder.
        origin: where the weights come from, for the config and the saved files.
        family: of the network; by default the known one of its type.

    Raises:
        KdkitError: a RoPE variant that the network cannot take, ``max_tokens`` beyond its context, a tokenizer
            or image settings of another model.
    """

    def __init__(
        self,
        network: Any,
        tokens: Tokens,
        images: ImageSettings | FamilyProcessor,
        settings: Settings,
        origin: Origin,
        family: FamilySpec | None = None,
    ) -> None:
        super().__init__()
        self.network: Any = network
        self.family = family = family or FAMILIES[self.base.config.model_type]
        check_fit(self.base, tokens, images, settings)
        multiply_patches(self.base)
        variant, rope = make_variant(settings.rope or Choice(family.rope, {}), self.base, family)
        exchange(self.base, variant, rope.name, family)
        self.vision_turns: VisionTurns | None = None
        vision_rope = settings.vision_rope
        if vision_rope is not None:
            vision_variant, vision_rope = make_variant(vision_rope, self.base, family)
            self.vision_turns = VisionTurns(self.base, vision_variant, vision_rope.name, family)
        boxes = OwnBoxes(settings.boxes or family.boxes)
        system = family.system if settings.system is None else settings.system
        self.settings = replace(settings, rope=rope, vision_rope=vision_rope, boxes=boxes.family, system=system)
        self.origin = origin
        self.packing: Packing | None = None
        self.preparation: Any  # Preparation or ProcessorPreparation, whose prompts and image settings differ
        if isinstance(images, ImageSettings):
            self.preparation = Preparation(family, self.settings, tokens, boxes, images, variant)
        else:
            image = image_token_id(self.base.config)
            self.preparation = ProcessorPreparation(family, self.settings, tokens, boxes, images, image)
        if settings.lora is None:
            freeze(self.base, family, vision=settings.freeze_vision)
        if settings.gradient_checkpointing:
            enable = getattr(self.base, "activation_checkpointing_enable", self.base.gradient_checkpointing_enable)
            enable({"use_reentrant": False})

    @property
    def base(self) -> Any:
        """The transformers model, with or without adapters inside."""
        return self.network.get_base_model() if hasattr(self.network, "get_base_model") else self.network

    @property
    def head(self) -> Any:
        """The layer that turns states into logits."""
        return self.base.get_output_embeddings()

    @property
    def outputs(self) -> Mapping[str, int]:
        """``answer_hidden``, as wide as the language tower."""
        return {"answer_hidden": self.head.in_features}

    @property
    def config(self) -> Mapping[str, Any]:
        """What ``create_student`` needs to make the same architecture again."""
        return {**self.origin.config(), **self.settings.config()}

    def identity(self) -> Mapping[str, str]:
        """Tokenizer, template, image processing, RoPE variants, and coordinates and length of answers."""
        found = self.preparation.identity()
        return {
            **{name: found[name] for name in ("tokenizer", "template", "preprocessing")},
            "rope": str(self.settings.rope),
            "vision_rope": str(self.settings.vision_rope or "the model's own"),
            "max_answer": str(self.settings.max_answer),
            "boxes": found["boxes"],
        }

    def pack_samples(self, tokens: int) -> None:
        """See ``contracts.token_signals.PacksSamples``.

        Raises:
            KdkitError: a network that cannot keep the samples of a row apart.
        """
        self.packing = Packing(self.base, self.family, tokens)

    def prepare(self, image: Image.Image, sample: Sample) -> Mapping[str, Tensor]:
        """See :meth:`Preparation.inputs`."""
        made: Mapping[str, Tensor] = self.preparation.inputs(image, sample)
        return made

    def check_answer(self, sample: Sample) -> None:
        """See :meth:`Preparation.check_answer`."""
        self.preparation.check_answer(sample)

    def answer_tokens(self, sample: Sample) -> list[int] | None:
        """See :meth:`Preparation.answer_tokens`."""
        ids: list[int] | None = self.preparation.answer_tokens(sample)
        return ids

    def forward(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Teacher-forced on the samples' answers; B samples, A = ``max_answer``, width H, vocabulary V.

        A turn of a conversation whose later turn is in the batch is read from the sequence of that one.

        Returns:
            ``answer_hidden`` (B, A, H) float32, the state that predicts the answer's token of the same place
            predicted, zeros after the end; ``answer_ids`` (B, A) int64, -100 after the end; ``output_embedding``
            (V, H), a parameter: ``answer_hidden @ output_embedding.T`` are the logits, to be made a part at a time.
        """
        ids, owner = inputs["answer_ids"], owners(inputs)
        kept = sorted(set(owner))
        hidden = self._states(inputs if len(kept) == len(ids) else {name: x[kept] for name, x in inputs.items()})
        # The token at place s is predicted by the state at s - 1.
        place = inputs["start"][:, None] - 1 + torch.arange(ids.shape[1], device=ids.device)
        rows = torch.tensor([kept.index(one) for one in owner], device=ids.device)[:, None]
        answer = hidden[rows, place.clamp(max=hidden.shape[1] - 1)].float()
        return {
            "answer_hidden": torch.where((ids >= 0)[..., None], answer, 0.0),
            "answer_ids": ids,
            "output_embedding": self.head.weight,
        }

    def _states(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """(B, S, H) the language tower's last states."""
        length = int(inputs["length"].max())
        tokens = inputs["tokens"][:, :length]
        mask = torch.arange(length, device=tokens.device) < inputs["length"][:, None]
        given = self.preparation.arguments(inputs, length)
        packing, lengths = self.packing, inputs["length"].tolist()
        with nullcontext() if packing is None else packing.rows(self.base, lengths, length):
            hidden: Tensor = self.base.model(
                input_ids=tokens, attention_mask=mask.long(), use_cache=False, **given
            ).last_hidden_state
        return hidden

    def answer(
        self, images: Sequence[Image.Image], samples: Sequence[Sample], decoding: Decoding | None = None
    ) -> list[list[Answer]]:
        """See the contract. It sets the model to evaluation mode meanwhile.

        Boxes in the texts are in the coordinates of the samples' texts; ``ids`` are what the model wrote.

        Raises:
            KdkitError: for a sample that cannot be prepared, naming it.
        """
        prompts: list[Any] = [
            self.preparation.prompt(image, sample) for image, sample in zip(images, samples, strict=True)
        ]
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

    def log_likelihoods(self, images: Sequence[Image.Image], samples: Sequence[Sample]) -> list[tuple[float, ...]]:
        """``contracts.ScoresAnswers``. Raises: KdkitError for a sample that cannot be prepared, naming it."""
        mode, most = self.training, SCORED_AT_ONCE
        self.eval()
        try:
            rows = [self.prepare(image, sample) for image, sample in zip(images, samples, strict=True)]
            parts = [rows[start : start + most] for start in range(0, len(rows), most)]
            with torch.no_grad():
                return [found for part in parts for found in self._log_likelihoods(part)]
        finally:
            self.train(mode)

    def _log_likelihoods(self, rows: Sequence[Mapping[str, Tensor]]) -> list[tuple[float, ...]]:
        device = self.head.weight.device
        found = self({name: torch.stack([row[name] for row in rows]).to(device) for name in rows[0]})
        out = []
        for states, ids in zip(found["answer_hidden"], found["answer_ids"], strict=True):
            known = ids[ids >= 0]
            log_p = self.head(states[: len(known)].to(self.head.weight.dtype)).float().log_softmax(-1)
            out.append(tuple(log_p.gather(1, known[:, None])[:, 0].tolist()))
        return out

    def attention(self, image: Image.Image, sample: Sample) -> AttentionMap:
        """See :func:`~kdkit.plugins.students.clinkd.attention.attention_map`."""
        from kdkit.plugins.students.clinkd.attention import attention_map

        mode = self.training
        self.eval()
        try:
            prompt = self.preparation.prompt(image, sample)
            return attention_map(self.base, self.family, self.preparation, prompt, sample)
        finally:
            self.train(mode)

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
        for name, data in self.preparation.files().items():
            (folder / name).write_bytes(data)
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
