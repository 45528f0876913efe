"""RoPE variants for models that are not kdkit's own: stock code then computes and caches the variant's positions."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import RopeVariant
from kdkit.plugins.students.clinkd.families.known import FAMILIES
from kdkit.plugins.students.clinkd.families.spec import FamilySpec
from kdkit.plugins.students.clinkd.rotary import AXES, exchange, make_variant, position_rows, refused
from kdkit.plugins.students.clinkd.settings import Choice


def attach(model: Any, variant: RopeVariant, name: str = "") -> None:
    """Give a model of Qwen's families that is not kdkit's own the positions and frequencies of ``variant``.

    It replaces ``get_rope_index`` of this instance, which its ``forward`` and ``generate`` call, and which training
    code such as LLaMA-Factory's collator calls. Packed batches (several samples in a row) are refused: with a cache,
    stock transformers lets the samples attend to each other.

    Raises:
        KdkitError: a variant that this model cannot take; later, videos and packed batches.
    """
    name = name or type(variant).__name__
    family = _family(model, name)
    exchange(model, variant, name, family)
    if family.positions == "index":
        return
    inner = model.model
    signature = inspect.signature(inner.get_rope_index)

    def get_rope_index(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        given = signature.bind(*args, **kwargs).arguments
        if given.get("video_grid_thw") is not None:
            raise KdkitError(
                "KD-STUD-002", "RoPE variants of kdkit are for images; there is a video", fix="give images alone"
            )
        return _rope_index(
            inner.config, variant, given["input_ids"], given.get("image_grid_thw"), given.get("attention_mask")
        )

    inner.get_rope_index = get_rope_index
    inner.language_model.register_forward_pre_hook(refuse_packed, with_kwargs=True)


def attach_saved(model: Any, name: str, revision: str | None = None) -> None:
    """Give a model of stock transformers the RoPE variants of a saved or published student.

    Args:
        model: the student's weights, or the base of its adapters before PEFT puts them in.
        name: a folder, or a repository of the Hub with ``clinkd.json`` and learned frequencies.
        revision: of the repository.

    Raises:
        KdkitError: no such student, a variant that this model cannot take.
    """
    from kdkit.plugins.students.clinkd.folder import SAVED, TURNS, Saved, read_turns
    from kdkit.plugins.students.clinkd.vision_turns import VisionTurns

    folder = Path(name)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(name, revision=revision, allow_patterns=[SAVED, TURNS]))
    saved = Saved.read(folder)
    if saved is None:
        raise KdkitError(
            "KD-STUD-003",
            "this is no student of kdkit",
            where=name,
            why=f"it has no {SAVED}",
            fix="name a folder, or a repository, that kdkit wrote",
        )
    settings, family = saved.settings, _family(model, name)
    variant, rope = make_variant(settings.rope or Choice(family.rope, {}), model, family)
    attach(model, variant, rope.name)
    if settings.vision_rope is not None:
        vision_variant, vision_rope = make_variant(settings.vision_rope, model, family)
        turns = VisionTurns(model, vision_variant, vision_rope.name, family)
        read_turns(turns, folder)
        model.model.visual.turns = turns.to(model.device)  # so that it moves with the tower


def _family(model: Any, name: str) -> FamilySpec:
    kind = model.config.model_type
    if kind not in FAMILIES:
        raise refused(name, f"kdkit does not know models of type '{kind}', it knows {', '.join(FAMILIES)}")
    return FAMILIES[kind]


def _rope_index(
    config: Any, variant: RopeVariant, ids: Tensor, grids: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(3, B, S) positions, and (B, 1) offsets from index to position for later tokens."""
    merge = config.vision_config.spatial_merge_size
    left = [] if grids is None else [(t, h // merge, w // merge) for t, h, w in grids.tolist()]
    mask = torch.ones_like(ids) if mask is None else mask
    if int(mask.max()) > 1:
        raise _packed()
    rows, deltas = [], []
    for row, kept in zip(ids, mask.bool(), strict=True):
        modality = (row[kept] == config.image_token_id).long().cpu()
        used = _take(left, int(modality.sum()))
        # One more text token gives the position of the first generated token.
        positions = position_rows(variant.positions(torch.cat([modality, modality.new_zeros(1)]), used))
        full = positions.new_zeros(AXES, len(row))
        full[:, kept.cpu()] = positions[:, :-1]
        rows.append(full)
        deltas.append(positions[:1, -1] - len(modality))
    return torch.stack(rows, dim=1).to(ids.device), torch.stack(deltas).to(ids.device)


def _take(grids: list[tuple[int, int, int]], tokens: int) -> list[tuple[int, int, int]]:
    """Remove from the front the images that have ``tokens`` tokens."""
    taken: list[tuple[int, int, int]] = []
    while grids and sum(t * h * w for t, h, w in taken) < tokens:
        taken.append(grids.pop(0))
    return taken


def refuse_packed(module: Any, _: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Pre-hook of a language tower: several samples in one row must not see each other.

    Stock transformers (5.x) keeps them apart only if the ids have a row of text positions before time, row and
    column, there is no attention mask, and ``use_cache`` is False; otherwise they leak silently.
    """
    ids, mask = kwargs.get("position_ids"), kwargs.get("attention_mask")
    if ids is None or ids.shape[-1] < 2:
        return
    rows = ids if ids.ndim == 3 else ids[None]
    starts = (rows == 0).all(0)
    if isinstance(mask, Tensor) and mask.ndim == 2:
        starts = starts & mask[:, -starts.shape[1] :].bool()
    if not bool((starts.sum(-1) > 1).any()):
        return
    cached = kwargs.get("use_cache")
    cached = module.config.use_cache if cached is None else cached
    if len(rows) != AXES + 1 or mask is not None or cached:
        raise _packed()


def _packed() -> KdkitError:
    return KdkitError(
        "KD-STUD-004",
        "several samples share one row and would attend to each other",
        why="stock transformers separates them only with (4, 1, S) position ids, no mask and use_cache=False",
        fix="give each sample its own row (LLaMA-Factory: neat_packing: false)",
    )
