"""A folder per class: ``[split/][domain/]class/image.png``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import USUAL_SPLITS, Sample, Skipped, Split
from kdkit.plugins.sources.fields import (
    EXAMPLE,
    compile_pattern,
    fill_caption,
    find_group,
    parse_split,
    read_fractions,
    stable_split,
)
from kdkit.plugins.sources.tree import walk_files

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif")
NO_IMAGES = frozenset(
    {".txt", ".md", ".csv", ".tsv", ".json", ".jsonl", ".yaml", ".yml", ".xml", ".html", ".pdf", ".py"}
)
"""Endings of files that describe images; skipping them loses no image."""


def read_folder(
    location: Path,
    *,
    domain: str | None = None,
    caption: str = "a {domain} image of {label}",
    split: Split | None = None,
    split_fractions: Mapping[str, float] | None = None,
    splits: Mapping[str, str] | None = None,
    group_pattern: str | None = None,
    endings: Sequence[str] = IMAGES,
    id_prefix: str = "",
) -> list[Sample | Skipped]:
    """Samples of a tree of images, ordered by path. Links to folders are followed; hidden names are skipped.

    Args:
        location: the folder.
        domain: of all samples; by default the level above the classes names the domains.
        caption: template of the text, with ``{label}`` and ``{domain}`` (underscores become spaces).
        split: of all samples.
        split_fractions: shares by which a hash of the id (or group) decides the split. Without ``split`` and
            ``split_fractions`` the first level must be ``train``, ``calibration`` and ``test``.
        splits: name of a folder of the first level -> ``train``, ``calibration`` or ``test``.
        group_pattern: regular expression searched in the file name; its first group (or the whole match) is
            the sample's group, which never spans two splits.
        endings: of the image files, in any case.
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
    found = list(_files(location, tuple(ending.lower() for ending in endings)))
    paths = sorted(item for item in found if isinstance(item, Path))
    skipped = [item for item in found if isinstance(item, Skipped)]
    pattern = compile_pattern("group_pattern", group_pattern, str(location)) if group_pattern is not None else None
    samples: list[Sample | Skipped] = []
    for path in paths:
        relative = path.relative_to(location)
        named = _read_levels(relative, levels, path)
        sample_domain, label = domain or named["domain"], named["label"]
        group = None if pattern is None else find_group(pattern, path)
        id_ = id_prefix + relative.with_suffix("").as_posix()
        if fractions:
            sample_split = stable_split(group or id_, fractions)
        else:
            sample_split = split or _read_split(named, splits or {}, path)
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
        counts = Counter(item.what for item in skipped)
        raise KdkitError(
            "KD-SRC-004",
            "no images in this folder",
            where=str(location),
            why=", ".join(f"{count} {what}" for what, count in counts.items()),
            fix="; ".join(
                dict.fromkeys([*(item.fix for item in skipped if item.fix), f"the options expect {_shape(levels)}"])
            ),
        )
    for level in (level for level in levels if level != "split"):
        _refuse_split_names({path.relative_to(location).parts[levels.index(level)] for path in paths}, level, location)
    return samples + skipped


def _files(folder: Path, endings: tuple[str, ...]) -> Iterator[Path | Skipped]:
    """Image files below ``folder``, and what is skipped."""
    for found in walk_files(folder):
        if isinstance(found, Skipped) or found.suffix.lower() in endings:
            yield found
        else:
            yield _other_file(found)


def _other_file(path: Path) -> Skipped:
    ending = path.suffix.lower()
    try:
        with open(path, "rb") as handle:
            dicom = handle.read(132)[128:] == b"DICM"
    except OSError:
        dicom = False
    named = f"with the ending {ending}" if ending else "without an ending"
    if dicom or ending in (".dcm", ".dicom"):
        fix = "read them by the source dicom"
        return Skipped(f"DICOM files {named}", str(path), fix)
    if ending in NO_IMAGES:
        return Skipped(f"files {named}", str(path), level="note")
    return Skipped(f"files {named}", str(path), "convert them, or list their endings in the option endings")


def _refuse_split_names(names: set[str], level: str, location: Path) -> None:
    """Folders ``train`` and ``test`` that are read as domains or classes would mix their images."""
    found = sorted(name for name in names if name.lower() in USUAL_SPLITS)
    if len({USUAL_SPLITS[name.lower()] for name in found}) > 1:
        raise KdkitError(
            "KD-SRC-075",
            f"the folders {', '.join(found)} would be {'classes' if level == 'label' else 'domains'}",
            where=str(location),
            why="they name splits, and the options split and split_fractions would mix their images",
            fix="remove split and split_fractions; the option splits translates names: {val: calibration}",
        )


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


def _read_split(named: Mapping[str, str], splits: Mapping[str, str], path: Path) -> Split:
    fix = f"the first folder names the split: map it by the option splits: {{val: calibration}}, or set {EXAMPLE}"
    return parse_split(splits.get(named["split"], named["split"]), str(path), fix)


def _shape(levels: list[str]) -> str:
    return "/".join([*("class" if level == "label" else level for level in levels), "image.png"])
