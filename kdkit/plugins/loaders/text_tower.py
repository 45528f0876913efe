"""A BERT with a pooling of its own and a linear projection: the text tower of models that no library builds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, BertConfig, BertModel, PreTrainedConfig, PreTrainedModel

from kdkit.core.base.errors import KdkitError
from kdkit.plugins.loaders.hugging_face import count_tokens, digest_files, open_tokenizer, without_reports
from kdkit.plugins.loaders.layouts import WeightFile, describe_names
from kdkit.plugins.loaders.open_clip_folder import find_text_config, find_tokenizer
from kdkit.plugins.loaders.own_files import require_own_parts

Pool = Callable[[Any, Tensor], Tensor]
"""(output of the BERT with all hidden states, (B, L) mask) -> (B, width)."""

BIO_CLINICAL_BERT = "emilyalsentzer/Bio_ClinicalBERT"
"""Text tower of MedCLIP, FLAIR and CXR-CLIP."""
AVERAGED = (1, 2, -1)
"""Hidden states that MedCLIP and FLAIR average; 0 would be the embeddings."""


@dataclass(frozen=True)
class Reading:
    """How texts become the input of a text tower, and its output features.

    Attributes:
        context_length: tokens; longer texts are truncated.
        reads_padding: texts are padded to ``context_length``, and the BERT attends to the padding as to words.
        pool: see ``Pool``.
        name: of the pooling, for the identity.
    """

    context_length: int
    reads_padding: bool
    pool: Pool
    name: str


class TextTower(nn.Module):
    """Texts to features.

    Args:
        bert: in eval mode.
        projection: (D, width), applied without bias.
        files: of the tokenizer.
        reading: context, padding and pooling.
    """

    def __init__(self, bert: PreTrainedModel, projection: Tensor, files: Mapping[str, bytes], reading: Reading) -> None:
        super().__init__()
        self.bert = bert
        self.projection = nn.Parameter(projection)
        self.reading = reading
        self._digest = digest_files(files)
        self._tokenizer = open_tokenizer(files, "bert", _load_tokenizer)
        self._lock = Lock()  # truncation and padding are set on the shared tokenizer

    def identity(self) -> dict[str, str]:
        """What determines the features, besides the weights."""
        padding = "read as words" if self.reading.reads_padding else "left out"
        return {
            "tokenizer": f"{self._digest} context {self.reading.context_length}",
            "text": f"{self.reading.name}, padding {padding}",
        }

    def count_tokens(self, texts: Sequence[str]) -> Sequence[int]:
        """Tokens of each text before it is truncated, including special ones."""
        return count_tokens(self._tokenizer, texts, self._lock)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """B strings -> (B, D), not normalized."""
        with self._lock:
            tokens = self._tokenizer(
                list(texts),
                padding="max_length" if self.reading.reads_padding else True,
                truncation=True,
                max_length=self.reading.context_length,
                return_tensors="pt",
            )
        device = self.projection.device
        ids, mask = tokens["input_ids"].to(device), tokens["attention_mask"].to(device)
        if self.reading.reads_padding:
            mask = torch.ones_like(mask)
        output = self.bert(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        return self.reading.pool(output, mask) @ self.projection.T


def read_text_tower(
    folder: Path, weights: Mapping[str, Tensor], projection: Tensor, name: str, reading: Reading, file: WeightFile
) -> TextTower:
    """The text tower from a folder with its config and tokenizer.

    Args:
        folder: with ``text/config.json`` and tokenizer files.
        weights: of the BERT, under the names of transformers.
        projection: (D, width).
        name: the tower's repository, for messages.
        reading: context, padding and pooling.
        file: the file of the weights.

    Raises:
        KdkitError: the folder is incomplete, its tower is no BERT, or the weights do not fit it exactly.
    """
    config = find_text_config(folder, name)
    if config.get("model_type") != "bert":
        raise KdkitError(
            "KD-LOAD-086",
            "the text tower of this model is a BERT",
            where=str(folder),
            why=f"its config has model_type {json.dumps(config.get('model_type'))}",
            fix=f"put the config of {name} there as text/config.json",
        )
    require_own_parts(config, str(folder))
    known = {key: value for key, value in config.items() if key != "auto_map"}
    bert = build_tower(BertModel, BertConfig.from_dict(known), weights, file)
    return TextTower(bert, projection, find_tokenizer(folder, name), reading)


def build_tower(
    kind: type[PreTrainedModel], config: PreTrainedConfig, weights: Mapping[str, Tensor], file: WeightFile
) -> PreTrainedModel:
    """A model of transformers with ``weights``, under the names of any of its versions, in eval mode.

    Raises:
        KdkitError: a weight is missing, unexpected or of another shape.
    """
    state = {name: value for name, value in weights.items() if not name.endswith("embeddings.position_ids")}
    with torch.random.fork_rng(devices=[]), without_reports():
        model, info = kind.from_pretrained(
            None, config=config, state_dict=dict(state), output_loading_info=True, ignore_mismatched_sizes=True
        )
    shapes = [f"{name} {tuple(found)} for {tuple(wanted)}" for name, found, wanted in info["mismatched_keys"]]
    file.require_fit(describe_names(sorted(info["missing_keys"]), sorted(info["unexpected_keys"]), shapes))
    tower: PreTrainedModel = model.eval()
    return tower


def _load_tokenizer(folder: str) -> Any:
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def mean_of_layers(output: Any, mask: Tensor) -> Tensor:
    """The mean over the words of a text and over three hidden states."""
    layers = torch.stack([output.hidden_states[layer] for layer in AVERAGED]).mean(0)
    weights = mask.unsqueeze(-1).to(layers)
    return (layers * weights).sum(1) / weights.sum(1)
