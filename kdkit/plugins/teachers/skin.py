"""Teachers for dermatology."""

from __future__ import annotations

from kdkit.core.contracts import TeacherSpec

TEACHERS: tuple[TeacherSpec, ...] = (
    TeacherSpec(
        name="dermlip",
        summary="DermLIP ViT-B/16",
        source="hf:redlessone/DermLIP_ViT-B-16",
        loader="open_clip",
        image_dim=512,
        text_dim=512,
        image_size=224,
        context_length=77,
        domains=("dermatology",),
        license="cc-by-nc-4.0",
        distillation="non-commercial",
        notes="CC BY-NC 4.0, by the badge of its code repository",
    ),
    TeacherSpec(
        name="dermlip-panderm",
        summary="PanDerm-B and PubMedBERT",
        source="hf:redlessone/DermLIP_PanDerm-base-w-PubMed-256",
        loader="",
        image_dim=512,
        text_dim=512,
        image_size=224,
        context_length=256,
        domains=("dermatology",),
        license="cc-by-nc-4.0",
        distillation="non-commercial",
        notes="CC BY-NC 4.0",
        unavailable="its image tower needs the Derm1M fork of open_clip",
    ),
    TeacherSpec(
        name="dermfm-zero",
        summary="DermFM-Zero",
        source="hf:redlessone/DermFM-Zero",
        loader="open_clip",
        domains=("dermatology",),
        notes="known by a third party only: towers, width and license not confirmed",
    ),
    TeacherSpec(
        name="monet",
        summary="MONET: ViT-L/14",
        source="hf:chanwkim/monet",
        loader="transformers",
        image_size=224,
        context_length=77,
        domains=("dermatology",),
        license="cc-by-nc-sa-4.0",
        distillation="non-commercial",
        notes="CC BY-NC-SA 4.0 by its repository, MIT by another source; width 768 not confirmed",
    ),
)
