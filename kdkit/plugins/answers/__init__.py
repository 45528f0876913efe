"""Answers of generating models: metrics, boxes, and the evaluation task ``answers``. See docs/answers.md."""
