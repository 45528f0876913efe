"""A folder per class: ``[split/][domain/]class/image.png``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Sample, Split
from kdkit.plugins.sources.fields import EXAMPLE, fill_caption, parse_split, read_fractions, stable_split

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
    """Samples of a tree of images, ordered by path.

    Args:
        location: the folder.
        domain: of all samples; by default the level above the classes names the domains.
        caption: template of the text, with ``{label}`` and ``{domain}`` (underscores become spaces).
        split: of all samples.
        split_fractions: shares by which a hash of the id (or group) decides the split. Without ``split`` and
            ``split_fractions`` the first level must be ``train``, ``calibration`` and ``test``.
        group_pattern: regular expression searched in the file name; its first group (or the whole match) is
            the sample's group, which never spans two splits.
        id_prefix: prefix of every id; an id is the image's path below ``location`` without its extension.

    Raises:
        KdkitError: the tree has another shape.
    """
    if not location.is_dir():
        fix = "check the path of the data entry; it is relative to registry.yaml"
        raise KdkitError("KD-SRC-002", "no such folder", where=str(location), fix=fix, code=ExitCode.MISSING)
    if split is not None and split_fractions is not None:
        fix = "remove one of them"
        raise KdkitError("KD-SRC-003", "split and split_fractions exclude each other", where=str(location), fix=fix)
    fractions = None if split_fractions is None else read_fractions(split_fractions, str(location))
    by_folder = split is None and fractions is None
    levels = [*(["split"] if by_folder else []), *([] if domain else ["domain"]), "label"]
    samples = []
    for path in sorted(p for p in location.rglob("*") if p.suffix.lower() in IMAGES and p.is_file()):
        relative = path.relative_to(location)
        named = _read_levels(relative, levels, path)
        sample_domain, label = domain or named["domain"], named["label"]
        group = _find_group(group_pattern, path)
        id_ = id_prefix + relative.with_suffix("").as_posix()
        sample_split = split or (stable_split(group or id_, fractions) if fractions else _read_split(named, path))
        samples.append(
            Sample(
                id=id_,
                image=path,
                text=fill_caption(caption, sample_domain, label, str(location)),
                domain=sample_domain,
                label=label,
                split=sample_split,
                origin=str(path),
                extra={} if group is None else {"group": group},
            )
        )
    if not samples:
        fix = f"the options expect {_shape(levels)}"
        raise KdkitError("KD-SRC-004", "no images in this folder", where=str(location), fix=fix)
    return samples


def _read_levels(relative: Path, levels: list[str], path: Path) -> dict[str, str]:
    folders = relative.parts[:-1]
    if len(folders) != len(levels):
        raise KdkitError(
            "KD-SRC-005",
            f"this image is {len(folders)} folders deep, not {len(levels)}",
            where=str(path),
            why=f"the options of this source expect {_shape(levels)}",
            fix="set 'domain' if no level names it, 'split_fractions' or 'split' if none names the split",
        )
    return dict(zip(levels, folders, strict=True))


def _read_split(named: Mapping[str, str], path: Path) -> Split:
    fix = f"the first level of folders names the split: rename it, or set {EXAMPLE}"
    return parse_split(named["split"], str(path), fix)


def _find_group(pattern: str | None, path: Path) -> str | None:
    if pattern is None:
        return None
    match = re.search(pattern, path.name)
    if match is None:
        raise KdkitError(
            "KD-SRC-007",
            f"group_pattern '{pattern}' does not match the file name '{path.name}'",
            where=str(path),
            fix="correct group_pattern so that it matches every file name",
        )
    return match.group(1) if match.re.groups else match.group(0)


def _shape(levels: list[str]) -> str:
    return "/".join([*("class" if level == "label" else level for level in levels), "image.png"])
