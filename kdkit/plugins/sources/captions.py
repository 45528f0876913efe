"""Caption templates."""

from __future__ import annotations

from kdkit.core.base.errors import KdkitError


def caption_from(template: str, domain: str, label: str | None, where: str) -> str:
    """``template`` with ``{domain}`` and ``{label}`` filled in, underscores as spaces.

    Raises:
        KdkitError: for an unknown field, or ``{label}`` where the sample has none.
    """
    fields = {"domain": domain.replace("_", " ")}
    if label is not None:
        fields["label"] = label.replace("_", " ")
    try:
        return template.format(**fields)
    except (KeyError, IndexError, ValueError) as error:
        raise KdkitError(
            "KD-SRC-001",
            f"the caption template '{template}' cannot be filled in",
            where=where,
            why=f"no {error} here" if isinstance(error, KeyError) else str(error),
            fix="a template may use {domain}, and {label} where every sample has a label",
        ) from error
