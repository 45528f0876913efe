"""MedMNIST's ``.npz`` files (Yang et al., Scientific Data 10:41, 2023), and others of the same form."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import FINDINGS, USUAL_SPLITS, ImageLocation, Sample, Skipped, Split
from kdkit.plugins.readers.array import DAMAGED, check_images, find_array, read_header
from kdkit.plugins.sources.fields import fill_caption
from kdkit.plugins.sources.records import refuse_pointer

ORGANS = (
    "bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver", "lung-left", "lung-right",
    "pancreas", "spleen",
)  # fmt: skip
LABELS: Mapping[str, tuple[str, ...]] = {
    "pathmnist": (
        "adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle", "normal colon mucosa",
        "cancer-associated stroma", "colorectal adenocarcinoma epithelium",
    ),
    "chestmnist": (
        "atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule", "pneumonia", "pneumothorax",
        "consolidation", "edema", "emphysema", "fibrosis", "pleural", "hernia",
    ),
    "dermamnist": (
        "actinic keratoses and intraepithelial carcinoma", "basal cell carcinoma", "benign keratosis-like lesions",
        "dermatofibroma", "melanoma", "melanocytic nevi", "vascular lesions",
    ),
    "octmnist": ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
    "pneumoniamnist": ("normal", "pneumonia"),
    "retinamnist": tuple(f"diabetic retinopathy grade {grade}" for grade in range(5)),
    "breastmnist": ("malignant", "normal, benign"),
    "bloodmnist": (
        "basophil", "eosinophil", "erythroblast",
        "immature granulocytes(myelocytes, metamyelocytes and promyelocytes)", "lymphocyte", "monocyte", "neutrophil",
        "platelet",
    ),
    "tissuemnist": (
        "Collecting Duct, Connecting Tubule", "Distal Convoluted Tubule", "Glomerular endothelial cells",
        "Interstitial endothelial cells", "Leukocytes", "Podocytes", "Proximal Tubule Segments", "Thick Ascending Limb",
    ),
    **dict.fromkeys(("organamnist", "organcmnist", "organsmnist"), ORGANS),
}  # fmt: skip
"""File -> names of its labels 0, 1, ..., as MedMNIST publishes them; RetinaMNIST's are the numbers of the grades."""
IMAGES, CLASSES = "_images", "_labels"


def read_medmnist(
    location: Path,
    *,
    domain: str | None = None,
    labels: Sequence[str] | None = None,
    caption: str = "a {domain} image of {label}",
    splits: Mapping[str, str] | None = None,
    id_prefix: str | None = None,
) -> Iterator[Sample | Skipped]:
    """Samples of the arrays ``train_images``, ``train_labels``, ``val_images`` ...; 8 bits, gray or RGB.

    Args:
        location: the ``.npz`` file, or a folder with its unpacked ``.npy`` files.
        domain: of all samples; by default the name of the file up to its first ``_``.
        labels: names of the labels 0, 1, ...; known for MedMNIST's own files.
        caption: template of the text. ``{label}`` joins the names of a multi-label image, or is ``no finding``; such
            samples have findings instead of a label.
        splits: ``train``, ``val`` or ``test`` -> the split; ``val`` becomes calibration.
        id_prefix: prefix of every id, by default the file's name; an id is ``train/17``.

    Raises:
        KdkitError: no such file; arrays of another form; labels without a name.
    """
    arrays = _arrays(location)
    name = domain or location.stem.partition("_")[0]
    names = tuple(labels) if labels is not None else LABELS.get(location.stem.partition("_")[0], ())
    prefix = f"{location.stem}/" if id_prefix is None else id_prefix
    parts = sorted((key.removesuffix(IMAGES) for key in arrays if key.endswith(IMAGES)), key=_order)
    if not parts:
        raise _wrong(location, f"its arrays are {', '.join(arrays)}", "the arrays are named train_images, train_labels")
    for key in arrays:
        if not key.endswith((IMAGES, CLASSES)):
            yield Skipped("arrays", f"{location}[{key}]", level="note")
        elif key.endswith(CLASSES) and key.removesuffix(CLASSES) not in parts:
            yield Skipped("arrays of labels without images", f"{location}[{key}]", level="warning")
    for part in parts:
        file, array = arrays[part + IMAGES]
        stored = find_array(file, array)
        check_images(stored, file, array)
        classes = _labels(location, arrays, part, stored.shape[0], names)
        split = _split(part, splits or {}, location)
        for row in range(stored.shape[0]):
            where = f"{location}[{part} {row}]"
            label, findings = _named(classes[row], names)
            yield Sample(
                id=f"{prefix}{part}/{row}",
                image=ImageLocation("array", file, (array, row), f"{part}{IMAGES} {row}"),
                text=fill_caption(caption, name, label or ", ".join(findings) or "no finding", where),
                domain=name,
                label=label,
                split=split,
                origin=where,
                extra={} if label is not None else {FINDINGS: findings},
            )


def _order(part: str) -> tuple[int, str]:
    return {"train": 0, "val": 1, "test": 2}.get(part, 3), part


def _arrays(location: Path) -> dict[str, tuple[Path, str]]:
    """Array -> its file, and its name in there."""
    if location.is_dir():
        return {path.stem: (path, "") for path in sorted(location.glob("*.npy"))}
    try:
        refuse_pointer(location)
        with zipfile.ZipFile(location) as archive:
            names = [entry.removesuffix(".npy") for entry in archive.namelist()]
    except FileNotFoundError:
        fix = "check the path of the data entry"
        raise KdkitError("KD-SRC-085", "no such file", where=str(location), fix=fix, code=ExitCode.MISSING) from None
    except DAMAGED as error:
        raise _wrong(location, str(error), "download the file again") from None
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise _wrong(location, f"two arrays are named {twice[0]}", "write the file again")
    return {name: (location, name) for name in names}


def _labels(
    location: Path, arrays: Mapping[str, tuple[Path, str]], part: str, count: int, names: Sequence[str]
) -> NDArray[Any]:
    """(count, L) labels: L = 1 numbers of classes, or L flags."""
    if part + CLASSES not in arrays:
        raise _wrong(location, f"no array {part}{CLASSES}", f"add it, with {count} rows")
    file, array = arrays[part + CLASSES]
    try:
        if array:
            with zipfile.ZipFile(file) as archive, archive.open(f"{array}.npy") as member:
                found = _read_labels(member, count)
        else:
            with open(file, "rb") as handle:
                found = _read_labels(handle, count)
    except DAMAGED as error:
        raise _wrong(location, f"{part}{CLASSES}: {error}", "labels are integers, a row per image") from None
    found = found[:, None] if found.ndim == 1 else found
    several = found.shape[1] > 1
    most = found.shape[1] if several else int(found.max(initial=0)) + 1
    if int(found.min(initial=0)) < 0 or (several and int(found.max(initial=0)) > 1):
        why = f"{part}{CLASSES} has values from {found.min()} to {found.max()}"
        raise _wrong(location, why, "labels are 0, 1, ..., or flags 0 and 1 in several columns")
    if most > len(names):
        why = f"{part}{CLASSES} needs {most} names, {len(names)} are known"
        raise _wrong(location, why, "name the labels 0, 1, ... by the option labels: [normal, pneumonia]")
    return found


def _read_labels(stream: IO[bytes], count: int) -> NDArray[Any]:
    """An array of ``count`` rows, whose header is checked before its data are read.

    Raises:
        ValueError: it is another one.
    """
    shape, _, dtype = read_header(stream)
    if len(shape) not in (1, 2) or shape[0] != count or 0 in shape[1:] or not np.issubdtype(dtype, np.integer):
        raise ValueError(f"shape {shape} and type {dtype} for {count} images")
    stream.seek(0)
    found: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return found


def _named(classes: NDArray[Any], names: Sequence[str]) -> tuple[str | None, list[str]]:
    """The label, or of a multi-label image its findings."""
    if len(classes) == 1:
        return names[int(classes[0])], []
    return None, [names[number] for number in np.flatnonzero(classes).tolist()]


def _split(part: str, splits: Mapping[str, str], location: Path) -> Split:
    wanted = splits.get(part, part).lower()
    if wanted not in USUAL_SPLITS:
        fix = f"name it by the option splits: {{{part}: test}}"
        raise _wrong(location, f"the arrays '{part}' are of no split", fix)
    return USUAL_SPLITS[wanted]


def _wrong(location: Path, why: str, fix: str) -> KdkitError:
    return KdkitError("KD-SRC-086", "not a file of MedMNIST's form", where=str(location), why=why, fix=fix)
