"""Answers of generating models: metrics, boxes, and the evaluation task ``answers``. See docs/reference/answers.md."""

from __future__ import annotations

from kdkit.core.contracts import TaskSpec
from kdkit.core.contracts.hookspecs import hookimpl

TASKS = {
    "vg": "visual grounding: where is it? The answer holds boxes",
    "roc": "referring object classification: what is in this box? The answer is a class name",
    "rc": "referring captioning: describe what is in this box",
    "mia": "medical image analysis: a free description",
    "vqa": "visual question answering: a short answer, open or closed",
}
"""Tasks of answers; ``Sample.extra["task"]`` names a sample's task."""


@hookimpl
def kdkit_tasks() -> list[TaskSpec]:
    return [
        TaskSpec(
            name="answers",
            summary="score answers: boxes, class names, captions, descriptions and questions, per task and modality",
            factory="kdkit.plugins.answers.task:Answers",
            options={
                "meteor": "lite",
                "corenlp": "",
                "overlap": 0.5,
                "likelihood": "",
                "resamples": 1000,
                "seed": 42,
                "level": 0.95,
            },
            reads="answers",
        ),
        TaskSpec(
            name="judge",
            summary="score answers to open questions by a language model behind an endpoint, on request alone",
            factory="kdkit.plugins.answers.judge.task:Judge",
            options={"folder": "", "prompt": "", "max_new": 512, "resamples": 1000, "seed": 42, "level": 0.95},
            reads="answers",
            headline="judge_accuracy",
            asks_network=True,
        ),
    ]
