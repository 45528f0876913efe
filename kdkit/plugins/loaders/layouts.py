"""Layouts of published weights: the names by which they are told apart, and what differs from the expected ones."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from kdkit.core.base.errors import KdkitError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

Shapes = Mapping[str, tuple[int, ...]]
"""Name of a weight -> its shape."""

UNIMED_CLIP = (
    "visual.proj",
    "visual.conv1.weight",
    "visual.positional_embedding",
    "text_encoder.proj.0.weight",
    "text_encoder.transformer.embeddings.word_embeddings.weight",
)
PMC_CLIP = (
    "visual.attnpool.positional_embedding",
    "text_projection",
    "text_encoder.embeddings.word_embeddings.weight",
    "fusion_module.resblocks.0.ln_1.weight",
)
FLAIR = (
    "vision_model.projection_head_vision.projection.weight",
    "text_model.projection_head_text.projection.weight",
    "text_model.model.embeddings.word_embeddings.weight",
)
KEEP = (
    "visual_head.0.weight",
    "visual_head.2.weight",
    "visual.patch_embed.proj.weight",
    "text.embeddings.word_embeddings.weight",
)
CXR_CLIP = (
    "image_projection.projection.weight",
    "image_projection.projection.bias",
    "text_projection.projection.weight",
    "text_projection.projection.bias",
    "text_encoder.text_encoder.embeddings.word_embeddings.weight",
)
MEDCLIP = ("text_model.projection_head.weight", "text_model.model.embeddings.word_embeddings.weight")

CLIP = ("token_embedding.weight", "visual.conv1.weight", "text_projection", "ln_final.weight")

LAYOUTS: Mapping[str, tuple[str, ...]] = {
    "UniMed-CLIP and MMKD-CLIP (--loader open_clip)": UNIMED_CLIP,
    "PMC-CLIP (--loader pmc-clip)": PMC_CLIP,
    "MedCLIP (--loader medclip)": MEDCLIP,
    "FLAIR (--loader flair)": FLAIR,
    "KEEP (--loader keep)": KEEP,
    "CXR-CLIP (--loader cxr-clip)": CXR_CLIP,
    "open_clip with a BERT, as BiomedCLIP (--loader open_clip, with open_clip_config.json)": (
        "text.transformer.embeddings.word_embeddings.weight",
        "text.proj.0.weight",
        "logit_scale",
    ),
    "CLIP of OpenAI and open_clip (--loader open_clip --option arch=ARCH)": CLIP,
    "CLIP of transformers (--loader transformers, with config.json)": (
        "text_model.embeddings.token_embedding.weight",
        "vision_model.embeddings.patch_embedding.weight",
    ),
    "a vision transformer of timm (--loader timm --option arch=ARCH)": (
        "patch_embed.proj.weight",
        "blocks.0.attn.qkv.weight",
        "norm.weight",
    ),
    "a vision transformer of transformers (--loader transformers-vision, with config.json)": (
        "embeddings.patch_embeddings.projection.weight",
        "embeddings.cls_token",
    ),
    "a BERT, which is no teacher": ("embeddings.word_embeddings.weight", "embeddings.LayerNorm.weight"),
}
"""Layout -> weights that only it has, all of them."""
_SHOWN = 3
_WRAPPERS = ("module.", "_orig_mod.")
"""How all names begin that ``DistributedDataParallel`` and ``torch.compile`` give."""


def part(weights: Mapping[str, T], prefix: str) -> dict[str, T]:
    """The weights whose names begin with ``prefix``, without it."""
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def unwrapped(weights: Mapping[str, T]) -> dict[str, T]:
    """The weights without the name of a wrapper that begins all of theirs."""
    for wrapper in _WRAPPERS:
        if weights and all(name.startswith(wrapper) for name in weights):
            return unwrapped(part(weights, wrapper))
    return dict(weights)


def shapes_of(weights: Mapping[str, Tensor], prefix: str = "") -> dict[str, tuple[int, ...]]:
    """Name, after ``prefix`` -> shape."""
    return {f"{prefix}{name}": tuple(value.shape) for name, value in weights.items()}


def blocks(names: Iterable[str], stage: int) -> int:
    """The number of bottlenecks in a stage of a ResNet, from 1."""
    return sum(name.startswith(f"layer{stage}.") and name.endswith(".conv3.weight") for name in names)


def has_layout(names: Collection[str], layout: Iterable[str]) -> bool:
    """Whether all characteristic weights of ``layout`` are among ``names``."""
    return all(name in names for name in layout)


def nearest_layout(names: Collection[str]) -> str:
    """The known layout of which most characteristic weights are there; empty if no layout has half of its own."""
    shares = {layout: sum(key in names for key in keys) / len(keys) for layout, keys in LAYOUTS.items()}
    best = max(shares, key=lambda layout: shares[layout])
    return best if shares[best] >= 0.5 else ""


def describe_mismatch(expected: Shapes, found: Shapes) -> str:
    """The first names that are missing, unexpected or of another shape, with counts; empty if all fit."""
    shapes = [
        f"{name} {found[name]} for {shape}" for name, shape in expected.items() if found.get(name, shape) != shape
    ]
    return describe_names(
        missing=[name for name in expected if name not in found],
        unexpected=[name for name in found if name not in expected],
        shapes=shapes,
    )


def describe_names(
    missing: Collection[str] = (), unexpected: Collection[str] = (), shapes: Collection[str] = ()
) -> str:
    """As :func:`describe_mismatch`, of names that are known already."""
    groups = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    return "; ".join(f"{what}: {_first(names)}" for what, names in groups.items() if names)


@dataclass(frozen=True)
class WeightFile:
    """Checks of the weights in one file.

    Attributes:
        where: the file, for messages.
        model: what it should hold: ``MedCLIP``.
        names: of all its weights.
    """

    where: str
    model: str
    names: Collection[str]

    def require_layout(self, layout: Iterable[str]) -> None:
        """Raises: KdkitError when characteristic weights are missing; it names the nearest known layout."""
        missing = [name for name in layout if name not in self.names]
        if missing:
            raise self._other_model(f"missing: {_first(missing)}; the file has {_first(sorted(self.names))}")

    def require_known(self, prefixes: tuple[str, ...]) -> None:
        """Raises: KdkitError for weights whose names begin otherwise."""
        self.require_fit(describe_names(unexpected=[name for name in self.names if not name.startswith(prefixes)]))

    def require_fit(self, mismatch: str) -> None:
        """Raises: KdkitError when ``mismatch`` is not empty, see :func:`describe_mismatch`."""
        if mismatch:
            raise KdkitError(
                "KD-LOAD-084",
                f"the weights do not fit {self.model}",
                where=self.where,
                why=mismatch,
                fix=how_to_load(self.names),
            )

    @contextmanager
    def sizes_from_shapes(self) -> Iterator[None]:
        """Inside, sizes of the model are read from its weights.

        Raises:
            KdkitError: a weight that is needed for it is missing, or has another number of axes.
        """
        try:
            yield
        except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
            raise self._other_model(f"its sizes do not follow from the weights: {error!r}") from error

    def _other_model(self, why: str) -> KdkitError:
        return KdkitError(
            "KD-LOAD-085",
            f"these weights are not {self.model}",
            where=self.where,
            why=why,
            fix=how_to_load(self.names),
        )


def how_to_load(names: Collection[str]) -> str:
    """The nearest known layout as a remedy."""
    nearest = nearest_layout(names)
    return f"the nearest known layout is {nearest}" if nearest else "check that weights and loader belong together"


def _first(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
