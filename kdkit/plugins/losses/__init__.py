"""The built-in losses: specs only, so that no torch is imported."""

from __future__ import annotations

from kdkit.core.contracts import LossSpec
from kdkit.core.contracts.hookspecs import hookimpl

TOKEN_SIGNALS = ("tokens", "topk_ids", "topk", "tail")
_TOGETHER = "kdkit.plugins.losses.tokens.together:together"


@hookimpl
def kdkit_losses() -> tuple[LossSpec, ...]:
    """Losses of dual encoders, then of generating students."""
    return (
        LossSpec(
            name="clip",
            summary="symmetric InfoNCE of the student's images and texts (the task)",
            factory="kdkit.plugins.losses.clip:ClipLoss",
            signals=(),
            least_batch=2,
            outputs=("image", "text"),
            by_rows=True,
        ),
        LossSpec(
            name="fd",
            summary="feature distillation: squared distance to each teacher's features",
            factory="kdkit.plugins.losses.fd:FeatureDistillation",
            per_sample=True,
        ),
        LossSpec(
            name="icl",
            summary="interactive contrastive learning: student image against teacher text, and the reverse",
            factory="kdkit.plugins.losses.icl:InteractiveContrast",
            needs_all_signals=True,
            least_batch=2,
            outputs=("image", "text"),
            by_rows=True,
        ),
        LossSpec(
            name="crd",
            summary="relational distillation: KL of the student's similarity rows from the teachers'",
            factory="kdkit.plugins.losses.crd:RelationalDistillation",
            needs_all_signals=True,
            least_batch=2,
            outputs=("image", "text"),
            by_rows=True,
        ),
        LossSpec(
            name="vkd",
            summary="V_kD: distance to each teacher's standardized features, for orthogonal heads",
            factory="kdkit.plugins.losses.vkd:OrthogonalDistillation",
            per_sample=True,
        ),
        LossSpec(
            name="answer-ce",
            summary="cross entropy of the answer's tokens (the task of a generating student)",
            factory="kdkit.plugins.losses.tokens.losses:AnswerCrossEntropy",
            together=_TOGETHER,
            signals=(),
            per_sample=True,
            outputs=("answer_hidden",),
        ),
        LossSpec(
            name="token-kd",
            summary="divergence of the student's next-token distribution from each teacher's stored one",
            factory="kdkit.plugins.losses.tokens.losses:TokenDistillation",
            together=_TOGETHER,
            signals=TOKEN_SIGNALS,
            per_sample=True,
            same_tokens=True,
            needs_all_signals=True,
            outputs=("answer_hidden",),
        ),
        LossSpec(
            name="uld",
            summary="distance of sorted next-token probabilities, for teachers with another vocabulary",
            factory="kdkit.plugins.losses.tokens.losses:UniversalLogitDistillation",
            together=_TOGETHER,
            signals=TOKEN_SIGNALS,
            per_sample=True,
            needs_all_signals=True,
            outputs=("answer_hidden",),
        ),
        LossSpec(
            name="answer-vkd",
            summary="V_kD of the states that predict the answer's tokens, for orthogonal heads",
            factory="kdkit.plugins.losses.vkd:AnswerOrthogonalDistillation",
            signals=("tokens", "answer_hidden"),
            per_sample=True,
            same_tokens=True,
            needs_all_signals=True,
            outputs=("answer_hidden",),
        ),
    )
