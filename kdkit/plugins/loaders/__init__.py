"""Built-in loaders, which make teachers from folders; only declared here, imported when used."""

from __future__ import annotations

from kdkit.core.contracts import LoaderSpec
from kdkit.core.contracts.hookspecs import hookimpl
from kdkit.plugins.loaders.layouts import CLIP, CXR_CLIP, FLAIR, KEEP, MEDCLIP, PMC_CLIP, UNIMED_CLIP

DUAL_ENCODERS = (
    "aimv2",
    "align",
    "altclip",
    "blip",
    "chinese_clip",
    "clip",
    "clipseg",
    "flava",
    "groupvit",
    "metaclip_2",
    "siglip",
    "siglip2",
    "tipsv2",
    "vision-text-dual-encoder",
)
"""Model types of transformers 5.23 with ``get_image_features`` and ``get_text_features`` of whole images and texts."""

VISION_TOKENS = (
    "beit",
    "data2vec-vision",
    "deit",
    "dinov2",
    "dinov2_with_registers",
    "dinov3_vit",
    "vit",
    "vit_msn",
)
"""Model types of transformers 5.24 whose first token is a class token; registers follow it, then the patches."""
VISION_POOLER = ("convnext", "convnextv2", "dinov3_convnext", "resnet", "swin", "swinv2")
"""Model types without a class token; they pool their features themselves."""

TEXT_ENCODERS = (
    "albert",
    "bert",
    "camembert",
    "distilbert",
    "electra",
    "modernbert",
    "mpnet",
    "roberta",
    "xlm-roberta",
)
"""Model types of transformers 5.24 that encode texts alone, with one state per token."""


IMAGE_TEXT_TO_TEXT = (
    "gemma3",
    "idefics3",
    "internvl",
    "llava",
    "llava_next",
    "llava_onevision",
    "mllama",
    "qwen2_5_vl",
    "qwen2_vl",
    "qwen3_vl",
    "smolvlm",
)
"""Model types of the families that the student ``clinkd`` knows."""


@hookimpl
def kdkit_loaders() -> tuple[LoaderSpec, ...]:
    return (
        LoaderSpec(
            name="open_clip",
            summary="any model that open_clip builds, from a folder with open_clip_config.json; UniMed-CLIP, MMKD-CLIP",
            factory="kdkit.plugins.loaders.open_clip:load_open_clip",
            marks=("open_clip_config.json",),
            weight_keys=(UNIMED_CLIP, CLIP),
            companions="kdkit.plugins.loaders.open_clip_companions:find_companions",
        ),
        LoaderSpec(
            name="pmc-clip",
            summary="PMC-CLIP, from its authors' checkpoint",
            factory="kdkit.plugins.loaders.pmc_clip:load_pmc_clip",
            weight_keys=(PMC_CLIP,),
            companions="kdkit.plugins.loaders.open_clip_companions:pmc_clip_companions",
        ),
        LoaderSpec(
            name="medclip",
            summary="MedCLIP with Swin-T or ResNet-50, from its authors' pytorch_model.bin",
            factory="kdkit.plugins.loaders.medclip:load_medclip",
            weight_keys=(MEDCLIP,),
            companions="kdkit.plugins.loaders.open_clip_companions:medclip_companions",
        ),
        LoaderSpec(
            name="flair",
            summary="FLAIR, from its authors' weights",
            factory="kdkit.plugins.loaders.flair:load_flair",
            weight_keys=(FLAIR,),
            companions="kdkit.plugins.loaders.open_clip_companions:medclip_companions",
        ),
        LoaderSpec(
            name="cxr-clip",
            summary="CXR-CLIP with ResNet-50 or Swin-T, from its authors' checkpoints",
            factory="kdkit.plugins.loaders.cxr_clip:load_cxr_clip",
            weight_keys=(CXR_CLIP,),
            companions="kdkit.plugins.loaders.open_clip_companions:medclip_companions",
        ),
        LoaderSpec(
            name="keep",
            summary="KEEP, from its authors' folder, without its code",
            factory="kdkit.plugins.loaders.keep:load_keep",
            model_types=("keep",),
            weight_keys=(KEEP,),
        ),
        LoaderSpec(
            name="transformers",
            summary="CLIP-style models of transformers (CLIP, SigLIP, ...) and adapters of them, without remote code",
            factory="kdkit.plugins.loaders.transformers_clip:load_transformers_clip",
            marks=("adapter_config.json",),
            unless=("clinkd.json",),
            companions="kdkit.plugins.loaders.adapter_base:find_base",
            model_types=DUAL_ENCODERS,
        ),
        LoaderSpec(
            name="transformers-vision",
            summary="vision models of transformers without text (DINOv2, DINOv3, ViT, Swin, ...), without remote code",
            factory="kdkit.plugins.loaders.transformers_vision:load_transformers_vision",
            model_types=(*VISION_TOKENS, *VISION_POOLER),
        ),
        LoaderSpec(
            name="transformers-text",
            summary="text encoders of transformers (BERT, RoBERTa, ...) and sentence encoders, without remote code",
            factory="kdkit.plugins.loaders.transformers_text:load_transformers_text",
            unless=("open_clip_config.json",),
            model_types=TEXT_ENCODERS,
        ),
        LoaderSpec(
            name="timm",
            summary="vision models of timm without text, from folders of the Hub or bare weights",
            factory="kdkit.plugins.loaders.timm_vision:load_timm",
            config_keys=("architecture", "pretrained_cfg"),
        ),
        LoaderSpec(
            name="image-text-to-text",
            summary="models that answer (Qwen-VL, Gemma 3, LLaVA, ...; clinkd students): token distributions, answers",
            factory="kdkit.plugins.loaders.generating:load_generating",
            marks=("clinkd.json",),
            model_types=IMAGE_TEXT_TO_TEXT,
        ),
        LoaderSpec(
            name="openai",
            summary="a model behind an OpenAI-compatible endpoint: answers, and what it held likely in them",
            factory="kdkit.plugins.loaders.endpoint_folder:load_endpoint",
            marks=("endpoint.json",),
            asks_network=True,
        ),
        LoaderSpec(
            name="imported",
            summary="features that 'kdkit features import' read from files; there is no model that computes others",
            factory="kdkit.plugins.loaders.imported:load_imported",
            marks=("imported.json",),
        ),
    )
