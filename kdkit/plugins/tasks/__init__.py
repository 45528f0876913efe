"""Built-in evaluation tasks and benchmark suites."""

from __future__ import annotations

from collections.abc import Iterable

from kdkit.core.contracts import SuiteSpec, TaskSpec
from kdkit.core.contracts.hookspecs import hookimpl

BOOTSTRAP = {"resamples": 1000, "seed": 42, "level": 0.95}
LABELS = {"fractions": (0.01, 0.1), "shots": (1, 4, 16), "draws": 5, "coverage": 0.0}


@hookimpl
def kdkit_tasks() -> Iterable[TaskSpec]:
    return [
        TaskSpec(
            name="zero-shot",
            summary="classify images by prompts: accuracy and macro one-vs-rest AUC, per domain",
            factory="kdkit.plugins.tasks.zero_shot:ZeroShot",
            options={"logit_scale": 100.0, "coverage": 0.0, **BOOTSTRAP},
        ),
        TaskSpec(
            name="multi-label",
            summary="classify images that may have several classes by prompts: AUC and average precision per finding",
            factory="kdkit.plugins.tasks.multi_label:MultiLabel",
            options=BOOTSTRAP,
            truth="findings",
            headline="auc",
        ),
        TaskSpec(
            name="retrieval",
            summary="find captions by images and images by captions: recall and median ranks, per domain and over all",
            factory="kdkit.plugins.tasks.retrieval:Retrieval",
            options={"at": (1, 5, 10), **BOOTSTRAP},
            truth="captions",
            headline="recall@1",
        ),
        TaskSpec(
            name="linear-probe",
            summary="logistic regression on image features, with all, 1 %, 10 % and 1, 4, 16 labels a class",
            factory="kdkit.plugins.tasks.probes:LinearProbeTask",
            options={
                "strengths": (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0),
                "steps": 1000,
                **LABELS,
                **BOOTSTRAP,
            },
            reads="image",
        ),
        TaskSpec(
            name="knn",
            summary="nearest neighbors by image features, with all, 1 %, 10 % and 1, 4, 16 labels a class",
            factory="kdkit.plugins.tasks.probes:NearestNeighborsTask",
            options={"k": (1, 5, 10, 20), **LABELS, **BOOTSTRAP},
            reads="image",
        ),
        TaskSpec(
            name="patients",
            summary="diagnose patients from all of their images: mean and attention pooling, sensitivity, F1, AUC",
            factory="kdkit.plugins.tasks.patients:Patients",
            options={
                "positive": "",
                "specificity": 0.9,
                "attention": True,
                "strengths": (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0),
                **BOOTSTRAP,
            },
            reads="image",
        ),
        TaskSpec(
            name="survival",
            summary="Cox regression of survival on image features: C-index, AUC over time, Kaplan-Meier curves",
            factory="kdkit.plugins.tasks.survival:Survival",
            options={
                "time": "time",
                "event": "event",
                "components": 64,
                "strengths": (0.1, 1.0, 10.0, 100.0, 1000.0),
                **BOOTSTRAP,
            },
            reads="image",
            truth="metadata",
            metadata=("time", "event"),
            headline="c-index",
        ),
        TaskSpec(
            name="vqa",
            summary="answer questions about images from a closed set, by features of image and question",
            factory="kdkit.plugins.tasks.vqa:ClosedQuestions",
            options={"answer": "answer", "strengths": (0.1, 1.0, 10.0, 100.0), **BOOTSTRAP},
            truth="metadata",
            metadata=("question", "answer"),
        ),
    ]


@hookimpl
def kdkit_suites() -> Iterable[SuiteSpec]:
    return [
        SuiteSpec(
            name="medmnist",
            summary="MedMNIST's twelve 2-D sets",
            resource="kdkit.plugins.tasks.suites:medmnist.yaml",
        ),
        SuiteSpec(
            name="mmkd",
            summary="59 public data sets over the nine modalities of MMKD-CLIP, and microscopy",
            resource="kdkit.plugins.tasks.suites:mmkd.yaml",
        ),
    ]
