"""Teachers for pathology."""

from __future__ import annotations

from kdkit.core.contracts import TeacherSpec

_DERIVATIVES = "its terms call models trained on its outputs derivatives, and allow none"

TEACHERS: tuple[TeacherSpec, ...] = (
    TeacherSpec(
        name="conch",
        summary="CoCa ViT-B/16 with attentional pooling",
        source="hf:MahmoodLab/conch",
        loader="",
        image_dim=512,
        text_dim=512,
        image_size=448,
        context_length=128,
        domains=("pathology",),
        license="cc-by-nc-nd-4.0",
        distillation="forbidden",
        gated=True,
        notes=_DERIVATIVES,
        unavailable="it needs the package conch (encode_image with proj_contrast)",
    ),
    TeacherSpec(
        name="musk",
        summary="BEiT3-L/16",
        source="hf:xiangjx/musk",
        loader="",
        image_dim=1024,
        text_dim=1024,
        image_size=384,
        context_length=100,
        domains=("pathology",),
        license="cc-by-nc-nd-4.0",
        distillation="forbidden",
        gated=True,
        notes=_DERIVATIVES,
        unavailable="it needs the package musk (BEiT3, XLM-R sentencepiece)",
    ),
    TeacherSpec(
        name="keep",
        summary="ViT and PubMedBERT",
        source="hf:Astaxanthin/KEEP",
        loader="",
        image_size=224,
        context_length=256,
        domains=("pathology",),
        license="mit",
        distillation="allowed",
        notes="MIT is the code's license; width 768 not confirmed; ImageNet normalization",
        unavailable="it runs code from its repository (trust_remote_code), which kdkit does not",
    ),
    TeacherSpec(
        name="pathgen-clip",
        summary="open_clip ViT-B/16",
        source="",
        loader="",
        image_size=224,
        context_length=77,
        domains=("pathology",),
        gated=True,
        notes="width 512 not confirmed",
        unavailable="a gated .pt: download it, then --from local:DIR --loader open_clip --option arch=ViT-B-16",
    ),
)
