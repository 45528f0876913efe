"""Fields of samples: captions from templates, splits by name or by a stable hash."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.base.templates import fill
from kdkit.core.contracts import SPLITS, USUAL_SPLITS, Split

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


def find_group(pattern: re.Pattern[str], path: Path) -> str:
    """The first group, or the whole match, of ``pattern`` in the name of a file.

    Raises:
        KdkitError: it finds nothing there; with a group of its own, the file could be in another split than its group.
    """
    match = pattern.search(path.name)
    group = match[min(1, pattern.groups)] if match else None
    if not group:
        raise KdkitError(
            "KD-SRC-007",
            f"group_pattern '{pattern.pattern}' does not match the file name '{path.name}'",
            where=str(path),
            fix="correct group_pattern so that it matches every file name",
        )
    return group


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


def held_back(calibration: float, where: str) -> Callable[[str], Split]:
    """Gives the split of a training image by its name: a share of them becomes the calibration split.

    Raises:
        KdkitError: the share is not in [0, 1).
    """
    if not 0 <= calibration < 1:
        fix = "set calibration: 0.1"
        raise KdkitError("KD-SRC-070", f"calibration is {calibration}, not in [0, 1)", where=where, fix=fix)
    shares: dict[Split, float] = {"train": 1 - calibration, "calibration": calibration}
    return lambda image: stable_split(image, shares)


@dataclass(frozen=True)
class FolderSplits:
    """Splits of files in a folder: one for all, or by a hash, or by the first folder.

    Attributes:
        split: of all files.
        fractions: shares by which a hash decides.
        splits: name of the first folder -> split; usual names are known.
    """

    split: Split | None
    fractions: Fractions | None
    splits: Mapping[str, str]

    @classmethod
    def of(
        cls,
        split: Split | None,
        fractions: Mapping[str, float] | None,
        splits: Mapping[str, str] | None,
        where: str,
    ) -> FolderSplits:
        """Those of the options ``split``, ``split_fractions`` and ``splits``.

        Raises:
            KdkitError: both of the first two are set, or one is wrong.
        """
        if split is not None and fractions is not None:
            fix = "remove one of them"
            raise KdkitError("KD-SRC-101", "split and split_fractions exclude each other", where=where, fix=fix)
        shares = None if fractions is None else read_fractions(fractions, where)
        return cls(None if split is None else parse_split(split, where), shares, splits or {})

    def of_file(self, relative: str, key: str, where: str) -> Split:
        """The split of a file.

        Args:
            relative: its path below the folder, with slashes.
            key: what is hashed: its group or id.
            where: for errors.

        Raises:
            KdkitError: the first folder names no split.
        """
        if self.split is not None:
            return self.split
        if self.fractions is not None:
            return stable_split(key, self.fractions)
        first = relative.split("/")[0] if "/" in relative else ""
        named = str(self.splits.get(first) or USUAL_SPLITS.get(first.lower(), first))
        return parse_split(named, where, f"set split, or {EXAMPLE}; or let the first folder name the split")
