"""The transformers model of a student: from a folder, or with random weights of given sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean
from kdkit.core.base.tensors import require_readable
from kdkit.plugins.loaders.hugging_face import without_bars
from kdkit.plugins.loaders.own_files import require_own_files
from kdkit.plugins.students.clinkd.families.known import FAMILIES, find_family
from kdkit.plugins.students.clinkd.families.spec import FamilySpec
from kdkit.plugins.students.clinkd.quantized import quantization, require_quantized
from kdkit.plugins.students.clinkd.settings import WHERE
from kdkit.plugins.students.clinkd.tokens import IMAGE, IMAGE_END, IMAGE_START

if TYPE_CHECKING:
    import torch

    from kdkit.plugins.students.clinkd.tokens import Tokens

CLASSES = {
    "qwen2_vl": ("Qwen2VLConfig", "Qwen2VLForConditionalGeneration"),
    "qwen2_5_vl": ("Qwen2_5_VLConfig", "Qwen2_5_VLForConditionalGeneration"),
}
"""Families of which kdkit makes random models, and their classes in transformers."""


@dataclass(frozen=True)
class Sizes:
    """A model with random weights. Heads must divide their widths; ``head_dim`` / 2 is shared 2 : 3 : 3 by M-RoPE.

    Attributes:
        words: encoded as one token each.
        vision_hidden, vision_layers, vision_heads: of the vision tower.
    """

    family: str = "qwen2_vl"
    hidden: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    vision_hidden: int = 32
    vision_layers: int = 2
    vision_heads: int = 2
    words: tuple[str, ...] = ()

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Sizes:
        """Parse and check a config."""
        for name in given:
            if name not in cls.__dataclass_fields__:
                fix = did_you_mean(name, list(cls.__dataclass_fields__))
                raise KdkitError("KD-STUD-022", f"unknown key '{name}'", where=f"{WHERE}.sizes", fix=fix)
        made = cls(**{**given, "words": tuple(given.get("words", ()))})
        if made.family not in CLASSES:
            raise KdkitError(
                "KD-STUD-023",
                f"unknown family '{made.family}'",
                where=f"{WHERE}.sizes",
                fix=did_you_mean(made.family, list(CLASSES)),
            )
        for width, heads in ((made.hidden, made.heads), (made.vision_hidden, made.vision_heads)):
            if width % heads or (width // heads) % 4:
                raise KdkitError(
                    "KD-STUD-024",
                    f"{heads} heads cannot share a width of {width}",
                    where=f"{WHERE}.sizes",
                    why="the width of a head must be a multiple of 4",
                    fix="choose a width that is a multiple of the heads",
                )
        return made

    def config(self) -> dict[str, Any]:
        """The inverse of :meth:`of`."""
        return {**asdict(self), "words": list(self.words)}


def random_network(sizes: Sizes, tokens: Tokens, context: int, dtype: str, attention: str | None = None) -> Any:
    """A model with weights from torch's global generator.

    Args:
        context: ``max_position_embeddings``.
        attention: ``attn_implementation`` of transformers.
    """
    import torch
    import transformers

    planes = sizes.hidden // sizes.heads // 2
    spatial = 3 * planes // 8
    text = {
        "vocab_size": len(tokens),
        "hidden_size": sizes.hidden,
        "intermediate_size": 2 * sizes.hidden,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads,
        "max_position_embeddings": context,
        "rope_scaling": {"type": "mrope", "mrope_section": [planes - 2 * spatial, spatial, spatial]},
        "bos_token_id": None,
        "eos_token_id": tokens.ends[0],
        "pad_token_id": tokens.ends[1],
    }
    vision: dict[str, Any] = {"depth": sizes.vision_layers, "num_heads": sizes.vision_heads}
    if sizes.family == "qwen2_vl":
        vision |= {"embed_dim": sizes.vision_hidden, "hidden_size": sizes.hidden, "mlp_ratio": 2}
    else:
        vision |= {"hidden_size": sizes.vision_hidden, "out_hidden_size": sizes.hidden}
        vision |= {"intermediate_size": 2 * sizes.vision_hidden, "fullatt_block_indexes": [sizes.vision_layers - 1]}
    config_class, model_class = (getattr(transformers, name) for name in CLASSES[sizes.family])
    config = config_class(
        text_config=text,
        vision_config=vision,
        image_token_id=tokens.id(IMAGE),
        video_token_id=tokens.id("<|video_pad|>"),
        vision_start_token_id=tokens.id(IMAGE_START),
        vision_end_token_id=tokens.id(IMAGE_END),
        tie_word_embeddings=True,
    )
    chosen = {} if attention is None else {"attn_implementation": attention}
    try:
        return model_class._from_config(config, dtype=getattr(torch, dtype), **chosen)
    except (ImportError, ValueError) as error:
        raise _unsupported(f"{WHERE}.sizes", error) from error


def read_network(
    folder: Path,
    dtype: str,
    attention: str | None = None,
    *,
    whole: bool = False,
    quantize: str | None = None,
    families: Mapping[str, FamilySpec] = FAMILIES,
) -> Any:
    """The model in ``folder``, from safetensors, without network and without running code of the folder.

    Args:
        attention: ``attn_implementation`` of transformers.
        whole: whether all weights are to be trained.
        quantize: 4-bit weights for the language tower, ``nf4`` or ``fp4``.
        families: that can be read.

    Raises:
        KdkitError: another kind of model, quantized weights to be trained, weights that are missing or do not fit.
    """
    import torch
    import transformers

    if not (folder / "config.json").is_file():
        raise KdkitError(
            "KD-STUD-025",
            "no config.json",
            where=str(folder),
            why="it is no model folder",
            code=ExitCode.MISSING,
            fix="name the folder of a transformers model",
        )
    require_own_files(folder)
    family = find_family(folder, families)
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises nearly anything for a broken file
        raise KdkitError(
            "KD-STUD-431",
            "config.json cannot be read",
            where=str(folder),
            why=str(error),
            fix="fetch the file again from the model's repository",
        ) from error
    require_readable(folder)
    if whole:
        _require_unquantized(config, folder)
    chosen: dict[str, Any] = {} if attention is None else {"attn_implementation": attention}
    if quantize is not None:
        _require_unquantized(config, folder)
        chosen["quantization_config"] = quantization(quantize, family, dtype)
    with torch.random.fork_rng(devices=[]), without_bars():
        try:
            model, info = transformers.AutoModelForImageTextToText.from_pretrained(
                folder,
                config=config,
                dtype=getattr(torch, dtype),
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                **chosen,
            )
        except ImportError as error:
            raise _unsupported(str(folder), error) from error
        except (OSError, ValueError, RuntimeError) as error:
            raise KdkitError(
                "KD-STUD-028",
                "the weights cannot be read",
                where=str(folder),
                why=str(error),
                fix="fetch the weights again, or restore them from a copy",
            ) from error
    wrong = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
    if wrong:
        raise KdkitError(
            "KD-STUD-029",
            f"{len(wrong)} weights are missing or have another shape",
            where=str(folder),
            why=", ".join(wrong[:3]),
            fix="take all files of the model folder from the same model",
        )
    if quantize is not None:
        require_quantized(model, family, str(folder))
    return model


def _unsupported(where: str, error: Exception) -> KdkitError:
    return KdkitError(
        "KD-STUD-433",
        "this machine cannot run the model as its config asks",
        where=where,
        why=" ".join(str(error).split())[:400],
        fix="install what it names, or take another attn_implementation, or weights that are not quantized",
        code=ExitCode.MISSING,
    )


def _require_unquantized(config: Any, folder: Path) -> None:
    quantized = getattr(config, "quantization_config", None)
    if quantized is None:
        return
    named = quantized if isinstance(quantized, Mapping) else vars(quantized)
    raise KdkitError(
        "KD-STUD-426",
        "quantized weights cannot be trained",
        where=str(folder / "config.json"),
        why=f"quantization_config: {named.get('quant_method', 'of an unknown method')}; gradients need whole weights",
        fix="start from the model's own repository without quantization, or train adapters: lora: {r: 16}",
    )


def freeze(network: Any, family: FamilySpec, *, vision: bool) -> None:
    """Freeze the vision tower except the part that turns patches into tokens."""
    tower: torch.nn.Module = getattr(network.model, family.vision)
    for name, parameter in tower.named_parameters():
        if vision and not any(name.startswith(prefix) for prefix in family.trained):
            parameter.requires_grad_(False)
