"""The tasks of answers that kdkit scores; ``Sample.extra["task"]`` names a sample's task."""

from __future__ import annotations

TASKS = {
    "vg": "visual grounding: where is it? The answer holds boxes",
    "roc": "referring object classification: what is in this box? The answer is a class name",
    "rc": "referring captioning: describe what is in this box",
    "mia": "medical image analysis: a free description",
    "vqa": "visual question answering: a short answer, open or closed",
}
"""Name -> description."""
