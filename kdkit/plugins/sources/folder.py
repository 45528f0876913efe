"""A folder per class: ``[split/][domain/]class/image.png``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import SPLITS, Sample, Split
from kdkit.plugins.sources.captions import caption_from
from kdkit.plugins.sources.splits import read_fractions, stable_split

IMAGES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif"})


def read_folder(
    location: Path,
    *,
    domain: str | None = None,
    caption: str = "a {domain} image of {label}",
    split: Split | None = None,
    split_fractions: Mapping[str, float] | None = None,
    group_pattern: str | None = None,
    id_prefix: str = "",
) -> list[Sample]:
    """Samples of a tree of images, in the order of their paths.

    Args:
        location: the folder.
        domain: of all samples; without it the level above the classes names the domains.
        caption: template of the text, with ``{label}`` and ``{domain}`` (underscores become spaces).
        split: of all samples.
        split_fractions: lengths by which a hash of the id (or group) decides the split. Without ``split`` and
            ``split_fractions`` the first level must be ``train``, ``calibration`` and ``test``.
        group_pattern: regular expression searched in the file name; its first group (or the whole match) is
            the sample's group, which never spans two splits.
        id_prefix: put before every id; an id is the image's path below ``location`` without its extension.

    Raises:
        KdkitError: when the tree does not have this shape.
    """
    if not location.is_dir():
        raise KdkitError("KD-SRC-002", "no such folder", where=str(location), code=ExitCode.MISSING)
    if split is not None and split_fractions is not None:
        raise KdkitError("KD-SRC-003", "split and split_fractions exclude each other", where=str(location))
    fractions = None if split_fractions is None else read_fractions(split_fractions, str(location))
    by_folder = split is None and fractions is None
    levels = [*(["split"] if by_folder else []), *([] if domain else ["domain"]), "label"]
    samples = []
    for path in sorted(p for p in location.rglob("*") if p.suffix.lower() in IMAGES and p.is_file()):
        relative = path.relative_to(location)
        named = _levels(relative, levels, path)
        of_domain, label = domain or named["domain"], named["label"]
        group = _group(group_pattern, path)
        id_ = id_prefix + relative.with_suffix("").as_posix()
        samples.append(
            Sample(
                id=id_,
                image=path,
                text=caption_from(caption, of_domain, label, str(location)),
                domain=of_domain,
                label=label,
                split=split or (stable_split(group or id_, fractions) if fractions else _split(named, path)),
                origin=str(path),
                extra={} if group is None else {"group": group},
            )
        )
    if not samples:
        raise KdkitError(
            "KD-SRC-004", "no images in this folder", where=str(location), fix=f"expected {_shape(levels)}"
        )
    return samples


def _levels(relative: Path, levels: list[str], path: Path) -> dict[str, str]:
    folders = relative.parts[:-1]
    if len(folders) != len(levels):
        raise KdkitError(
            "KD-SRC-005",
            f"this image is {len(folders)} folders deep, not {len(levels)}",
            where=str(path),
            why=f"the options of this source expect {_shape(levels)}",
            fix="give 'domain' if no level names it, 'split_fractions' or 'split' if none names the split",
        )
    return dict(zip(levels, folders, strict=True))


def _split(named: Mapping[str, str], path: Path) -> Split:
    for split in SPLITS:
        if named["split"] == split:
            return split
    raise KdkitError(
        "KD-SRC-006",
        f"'{named['split']}' is not a split ({', '.join(SPLITS)})",
        where=str(path),
        why="without 'split' or 'split_fractions' the first level of folders names the split",
        fix="rename the folder, or give split_fractions: {train: 0.8, calibration: 0.1, test: 0.1}",
    )


def _group(pattern: str | None, path: Path) -> str | None:
    if pattern is None:
        return None
    match = re.search(pattern, path.name)
    if match is None:
        raise KdkitError("KD-SRC-007", f"group_pattern '{pattern}' does not match this file's name", where=str(path))
    return match.group(1) if match.re.groups else match.group(0)


def _shape(levels: list[str]) -> str:
    return "/".join([*("class" if level == "label" else level for level in levels), "image.png"])
