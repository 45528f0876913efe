"""Teachers for the eye: fundus photographs and OCT."""

from __future__ import annotations

from kdkit.core.contracts import TeacherSpec

TEACHERS: tuple[TeacherSpec, ...] = (
    TeacherSpec(
        name="flair",
        summary="ResNet-50 and Bio_ClinicalBERT",
        source="hf:jusiro2/FLAIR",
        loader="",
        image_dim=512,
        text_dim=512,
        image_size=512,
        context_length=77,
        domains=("fundus",),
        license="apache-2.0",
        distillation="allowed",
        notes="images are only divided by 255 and zero-padded; text is wrapped 'A fundus photograph of ...'",
        unavailable="its preprocessing and pooling over hidden layers need its own code",
    ),
    TeacherSpec(
        name="keepfit",
        summary="KeepFIT (MM-Retinal): as FLAIR, with attention distillation",
        source="",
        loader="",
        image_dim=512,
        text_dim=512,
        image_size=512,
        context_length=77,
        domains=("fundus",),
        notes="no license file",
        unavailable="on Google Drive, for its own code",
    ),
    TeacherSpec(
        name="ret-clip",
        summary="ViT-B/16 and Chinese RoBERTa",
        source="",
        loader="",
        image_dim=512,
        text_dim=512,
        image_size=224,
        context_length=52,
        domains=("fundus",),
        notes="no license file; Chinese text only",
        unavailable="on Google Drive, for a fork of Chinese-CLIP",
    ),
    TeacherSpec(
        name="eyeclip",
        summary="OpenAI ViT-B/32 fine-tuned on eye images",
        source="",
        loader="",
        image_size=224,
        context_length=77,
        notes="no license file; width 512 not confirmed",
        unavailable="it needs its own fork, eyeclip",
    ),
)
