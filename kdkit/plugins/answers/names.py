"""The tasks of answers that kdkit can score; ``Sample.extra["task"]`` says which one a sample is of."""

from __future__ import annotations

TASKS = {
    "vg": "visual grounding: where is it? The answer holds boxes",
    "roc": "referring object classification: what is in this box? The answer is a class name",
    "rc": "referring captioning: describe what is in this box",
    "mia": "medical image analysis: a free description",
    "vqa": "visual question answering: a short answer, open or closed",
}
"""Name -> what it asks."""
