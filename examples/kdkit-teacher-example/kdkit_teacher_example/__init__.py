"""The hooks of this plugin. Every kdkit command imports this module: keep it free of torch."""

from __future__ import annotations

from kdkit import LoaderSpec, TeacherSpec, hookimpl

KDKIT_API = 1


@hookimpl
def kdkit_teachers() -> list[TeacherSpec]:
    return [
        TeacherSpec(
            name="teacher-example",
            summary="knows eight colors: a stand-in for a model of yours",
            # Or hf:ORG/REPO@REVISION, and no weights in the package. The loaders open_clip and transformers need no
            # loader of your own.
            source="package:kdkit_teacher_example/weights",
            loader="kdkit-teacher-example:teacher-example",
            image_dim=8,
            text_dim=8,
            image_size=16,
            context_length=64,
            domains=("color",),
            license="mit",
            distillation="allowed",
        ),
    ]


@hookimpl
def kdkit_loaders() -> list[LoaderSpec]:
    return [
        LoaderSpec(
            name="teacher-example",
            summary="the architecture of the teacher teacher-example",
            factory="kdkit_teacher_example.model:load_encoder",
            marks=("kdkit_teacher_example.json",),
        ),
    ]
