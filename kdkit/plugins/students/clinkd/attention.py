"""Where an answer looks: attention of the language tower, rolled out over its layers, on the cells of the image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import BOX_FAMILY, AttentionMap, Sample
from kdkit.plugins.answers.boxes.codec import BoxCodec
from kdkit.plugins.students.clinkd.families.spec import FamilySpec


def attention_map(network: Any, family: FamilySpec, preparation: Any, prompt: Any, sample: Sample) -> AttentionMap:
    """The rolled-out attention of the tokens of ``sample.text``, on the first image.

    The weights of a layer are those of eager attention, whatever the network is set to: other implementations do not
    compute them.

    Raises:
        KdkitError: a family whose image tokens are no grid over the image; an answer that cannot be read.
    """
    rows, columns = _grid(family, preparation, prompt)
    room = preparation.settings.max_tokens - len(prompt.ids)  # a cut answer has max_answer tokens and no end
    answer = preparation.read_answer(sample, prompt.sizes, len(prompt.ids), room)
    ends = preparation.tokens.ends
    while len(answer) > 1 and int(answer[-1]) in ends:
        answer = answer[:-1]
    batch = preparation.batch(network, [prompt])
    ids = answer[None].to(network.device)
    given = batch.continued(network, ids, torch.ones_like(ids))
    layers = getattr(network.model, family.language).layers
    with torch.no_grad(), _eager(network), recorded(layers) as weights:
        network.model(**given, use_cache=False)
    start = len(prompt.ids) - 1  # the state before a token predicts it
    rolled = roll_out(weights, start, start + len(answer))
    places = torch.nonzero(prompt.ids == preparation.image_token)[:, 0][: rows * columns]
    cells = rolled[:, places.to(rolled.device)].reshape(len(answer), rows, columns)
    tokens = tuple(preparation.tokens.decode([int(token)]) for token in answer)
    return AttentionMap(tokens, cells.cpu().numpy(), _boxes(sample))


def roll_out(weights: Sequence[Tensor], first: int, last: int) -> Tensor:
    """Attention rollout (Abnar and Zuidema, ACL 2020, section 3): ``A_L ... A_1`` with ``A = (W + I) / 2``.

    Only the rows of interest are multiplied, from the last layer down.

    Args:
        weights: (S, S) of each layer, the first one first: mean over heads, rows that sum to 1.
        first, last: rows ``first`` to ``last - 1``.

    Returns:
        (last - first, S) float32; each row sums to 1.
    """
    size = len(weights[0])
    rolled = torch.eye(size, device=weights[0].device)[first:last]
    for layer in reversed(weights):
        rolled = (rolled @ layer + rolled) / 2
    return rolled


@contextmanager
def recorded(layers: nn.ModuleList) -> Iterator[list[Tensor]]:
    """The (S, S) mean over heads of each layer's attention weights, of the one sample of a forward pass meanwhile.

    Raises:
        KdkitError: a layer that gives no weights.
    """
    found: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        if not isinstance(output, tuple) or len(output) < 2 or output[1] is None:
            raise KdkitError(
                "KD-STUD-571",
                "a layer of this model gives no attention weights",
                fix="look at the model's own attention module; kdkit needs weights as transformers' eager attention "
                "returns them",
            )
        found.append(output[1][0].float().mean(dim=0))

    hooks = [layer.self_attn.register_forward_hook(keep) for layer in layers]  # type: ignore[union-attr]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _eager(network: Any) -> Iterator[None]:
    """Eager attention in the language tower meanwhile."""
    config = network.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = "eager"
    try:
        yield
    finally:
        config._attn_implementation = before


def _boxes(sample: Sample) -> tuple[tuple[float, float, float, float], ...]:
    """Of the sample's text, in fractions of the image; none if they cannot be read."""
    family = sample.extra.get(BOX_FAMILY)
    try:
        found = BoxCodec(str(family)).parse(sample.text) if family else []
    except KdkitError:
        found = []
    return tuple(box.corners for box in found)


def _grid(family: FamilySpec, preparation: Any, prompt: Any) -> tuple[int, int]:
    """Rows and columns of the first image's tokens."""
    if family.cells == "grids":
        _, rows, columns = prompt.grids[0].tolist()
        merge = preparation.images.merge_size
        return rows // merge, columns // merge
    count = int((prompt.ids == preparation.image_token).sum()) // max(len(prompt.sizes), 1)
    side = round(count**0.5)
    if family.cells != "square" or side * side != count:
        known = "Qwen2-VL, Qwen2.5-VL, Qwen3-VL and Gemma 3 without crops"
        raise KdkitError(
            "KD-STUD-570",
            f"the attention of {family.summary} cannot be drawn on its images",
            why=f"{count} image tokens are no grid over the image: {family.name} cuts images into tiles, crops them, "
            "or keeps them out of the sequence of tokens",
            fix=f"leave --attention out, or take a model of {known}",
        )
    return side, side
