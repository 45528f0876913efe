"""Fields of samples: captions from templates, splits by name or by a stable hash."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.base.templates import fill
from kdkit.core.contracts import SPLITS, Split

Fractions = Mapping[Split, float]
EXAMPLE = "split_fractions: {train: 0.8, calibration: 0.1, test: 0.1}"


def fill_caption(template: str, domain: str, label: str | None, where: str) -> str:
    """``template`` with ``{domain}`` and ``{label}`` filled in, underscores as spaces.

    Raises:
        KdkitError: an unknown field, or ``{label}`` for a sample without a label.
    """
    fields = {"domain": domain.replace("_", " ")}
    if label is not None:
        fields["label"] = label.replace("_", " ")
    try:
        return fill(template, fields)
    except (KeyError, ValueError) as error:
        raise KdkitError(
            "KD-SRC-001",
            f"the caption template '{template}' cannot be filled in",
            where=where,
            why=f"no {error} here" if isinstance(error, KeyError) else str(error),
            fix="a template may use {domain}, and {label} if every sample has a label",
        ) from error


def parse_split(name: str, where: str, fix: str = "") -> Split:
    """The split ``name``.

    Raises:
        KdkitError: there is no such split.
    """
    for split in SPLITS:
        if name == split:
            return split
    fix = fix or did_you_mean(name, SPLITS)
    raise KdkitError("KD-SRC-020", f"'{name}' is not a split ({', '.join(SPLITS)})", where=where, fix=fix)


def compile_pattern(option: str, text: str, where: str) -> re.Pattern[str]:
    """The regular expression ``text`` of an option.

    Raises:
        KdkitError: it is none.
    """
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise KdkitError(
            "KD-SRC-056",
            f"{option} '{text}' is no regular expression",
            where=where,
            why=str(error),
            fix=f"correct the option, for example {option}: '^([a-z]+)_'",
        ) from error


def read_fractions(fractions: Mapping[str, float], where: str) -> dict[Split, float]:
    """Check ``split_fractions``: known split names, none negative, sum 1.

    Raises:
        KdkitError: a name or a number is wrong.
    """
    for name, value in fractions.items():
        parse_split(name, f"{where}, split_fractions")
        if not isinstance(value, int | float) or value < 0:
            raise KdkitError(
                "KD-SRC-068",
                f"split_fractions: {name} is {value!r}, not a number of at least 0",
                where=where,
                fix=f"for example {EXAMPLE}",
            )
    if abs(sum(fractions.values()) - 1) > 1e-6:
        raise KdkitError(
            "KD-SRC-069",
            f"split_fractions sum to {sum(fractions.values()):g}, not 1",
            where=where,
            fix=f"for example {EXAMPLE}",
        )
    return {split: float(fractions.get(split, 0.0)) for split in SPLITS}


def stable_split(key: str, fractions: Fractions) -> Split:
    """The split of all samples with ``key``: an id, or a group, so that a patient never spans two splits.

    The key's hash, as a number in [0, 1), falls into one of consecutive intervals of the given lengths. It is the same
    on every machine.
    """
    position = int.from_bytes(blake2b(key.encode(errors="surrogatepass"), digest_size=8).digest(), "big") / 2**64
    end = 0.0
    for split, fraction in fractions.items():
        end += fraction
        if position < end:
            return split
    return max(fractions, key=lambda split: fractions[split])  # rounding left position just above the sum
