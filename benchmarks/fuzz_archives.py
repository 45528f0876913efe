"""More generators of ``benchmarks/fuzz.py``: tar shards, Parquet, arrays, DICOM and COCO's captions."""

from __future__ import annotations

import io
import json
import posixpath
import random
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet as files

from benchmarks.fuzz_inputs import (
    IMAGES,
    TEXTS,
    VALUES,
    Case,
    count_samples,
    paint,
    some,
    spoiled,
    write_project,
)
from kdkit.core.data.check import DataReport
from kdkit.core.data.entries import read_sources
from kdkit.core.project.project import Project

FIELDS = {"text": "a scan", "domain": "ct", "label": "normal", "split": "train", "group": "p"}
READ = ("png", "jpg", "txt", "json", "cls")
"""Endings of members that make a sample."""


def picture(number: int) -> bytes:
    with io.BytesIO() as out:
        Image.new("RGB", (8, 8), (number % 256, 50, 99)).save(out, "PNG")
        return out.getvalue()


def tar(rng: random.Random, root: Path) -> Case:
    """Shards with odd keys, endings, members and fields."""
    rows, changed = 0, False
    (root / "shards").mkdir()
    for shard in range(rng.randint(1, 2)):
        members = [member for number in range(rng.randint(1, 4)) for member in _members(rng, f"{shard}{number}")]
        with io.BytesIO() as out:
            with tarfile.open(fileobj=out, mode="w", format=rng.choice([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])) as to:
                for name, content in members:
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    if some(rng, 0.03):
                        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
                        changed = True
                    to.addfile(info, io.BytesIO(content))
            content, damaged = spoiled(rng, out.getvalue(), 0.15)
        changed |= damaged
        (root / f"shards/{rng.choice(['train-', ''])}{shard}.tar").write_bytes(content)
        rows += _count_members([name for name, _ in members])
    for name in rng.sample(["notes.txt", "c.tar.gz", ".hidden", "index.json"], rng.choice([0, 0, 1, 2])):
        (root / "shards" / name).write_bytes(b"x")
        rows += 1
    options: dict[str, Any] = {"skip_broken": some(rng, 0.8), "shard_ids": some(rng, 0.5)}
    if some(rng, 0.2):
        options |= rng.choice([{"image": "jpg"}, {"caption": "{label}"}, {"labels": ["a"]}, {"columns": {"text": "x"}}])
    write_project(root, "webdataset", "shards", options)

    def without_empty_shards(project: Project, report: DataReport) -> int:
        return count_samples(project, report) - sum(
            kind.count for kind in report.items("skipped-files") if kind.what == "shards without a sample"
        )

    return Case(None if changed else rows, without_empty_shards)


def _members(rng: random.Random, number: str) -> list[tuple[str, bytes]]:
    key = rng.choice([f"s{number}"] * 6 + [f"dir/{number}", f"./s{number}", "s", *TEXTS])
    if "\0" in key or not key.isprintable():
        key = f"s{number}"
    fields: dict[str, Any] = {**FIELDS}
    while some(rng, 0.2):
        fields[rng.choice(list(fields))] = rng.choice(VALUES)
    content = json.dumps(fields).encode()
    if some(rng, 0.05):
        content = b'{"label": "a", "label": "b"}'
    found = [(f"{key}.png", picture(len(number))), (f"{key}.json", content)]
    more = {"txt": rng.choice(TEXTS).encode("utf-8", "surrogatepass"), "cls": b"1", "npy": b"x", "dcm": b"x",
            "jpg": b"x", "caption.txt": b"x", "PNG": b"x", "": b"x"}  # fmt: skip
    while some(rng, 0.25):
        ending = rng.choice(list(more))
        found.append((f"{key}.{ending}".rstrip("."), more[ending]))
    return [member for member in found if some(rng, 0.93)]


def _count_members(names: list[str]) -> int:
    """Keys with a member that makes a sample, and all members that belong to none."""
    keys, others = set[str](), 0
    for name in (name.removeprefix("./") for name in names):
        folder, base = posixpath.split(name)
        stem, _, ending = base.partition(".")
        read = ending.lower() in READ or ending.lower().rpartition(".")[2] in ("png", "jpg")
        if stem and read:
            keys.add(f"{folder}/{stem}")
        else:
            others += 1
    return len(keys) + others


def parquet(rng: random.Random, root: Path) -> Case:
    """Files with images in cells, in structs or as paths, and columns of odd types."""
    paint(root)
    rows, changed = 0, False
    (root / "rows").mkdir()
    for number in range(rng.randint(1, 2)):
        count = rng.randint(0, 5)
        columns: dict[str, Any] = {name: [value] * count for name, value in FIELDS.items()}
        images: list[Any] = [rng.choice([picture(row), b"", None]) for row in range(count)]
        columns["image"] = rng.choice([
            images, [{"bytes": value, "path": rng.choice(["a.png", None])} for value in images],
            [f"../{rng.choice(IMAGES)}"] * count, [1] * count,
        ])  # fmt: skip
        columns["id"] = [f"{number}-{row}" for row in range(count)]
        while some(rng, 0.2):
            name = rng.choice(list(columns))
            odd: list[Any] = [["a"], 1.5, True, None, 7, b"x", {"a": 1}, rng.choice(TEXTS)]
            columns[name] = [rng.choice(odd)] * count
        try:
            table = pa.table({name: pa.array(values) for name, values in columns.items()})
        except (pa.ArrowInvalid, UnicodeEncodeError):
            table = pa.table({"image": pa.array(images, pa.binary())})
        with io.BytesIO() as out:
            files.write_table(table, out, row_group_size=2, compression=rng.choice(["snappy", "none", "zstd"]))
            content, damaged = spoiled(rng, out.getvalue(), 0.1)
        changed |= damaged
        rows += count
        (root / f"rows/{rng.choice(['train-', ''])}{number}.parquet").write_bytes(content)
    options: dict[str, Any] = {"skip_broken": some(rng, 0.6), "image_root": rng.choice([".", ".."])}
    if some(rng, 0.2):
        options |= rng.choice([{"caption": "{label}"}, {"labels": ["a"]}, {"extra": ["id"]}, {"columns": {"id": "x"}}])
    write_project(root, "parquet", "rows", options)
    return Case(None if changed else rows, count_samples)


def npz(rng: random.Random, root: Path) -> Case:
    """Archives of arrays with other shapes and types."""
    rows, arrays = 0, dict[str, Any]()
    for part in rng.sample(["train", "val", "test", "more"], rng.randint(1, 3)):
        count = rng.randint(0, 4)
        images = np.zeros((count, 8, 8, 3), np.uint8)[..., : rng.choice([1, 3, 3, 3, 2])]
        labels = np.zeros((count, rng.choice([1, 1, 1, 2])), np.int64)
        if some(rng, 0.15):
            images = rng.choice([images.astype(np.uint16), images[0:0], images[..., 0], images.astype(object)])
        if some(rng, 0.15):
            labels = rng.choice([labels[:, 0], labels - 1, labels + 9, labels[1:], labels * 0.5, labels.astype(object)])
        arrays |= {f"{part}_images": images, f"{part}_labels": labels}
        rows += len(images)
    if some(rng, 0.2):
        arrays[rng.choice(["x", "weights", "more_labels2"])] = np.zeros(2)
        rows += 1
    with io.BytesIO() as out:
        rng.choice([np.savez, np.savez_compressed])(out, **arrays)
        if some(rng, 0.05):
            with zipfile.ZipFile(out, "a") as archive:
                archive.writestr("../../evil.npy", b"x")
            rows += 1
        content, changed = spoiled(rng, out.getvalue(), 0.2)
    (root / "breastmnist.npz").write_bytes(content)
    options = {"splits": {"more": "test"}} if some(rng, 0.8) else {"labels": rng.choice([["a"], [], ["a"] * 20])}
    write_project(root, "medmnist", "breastmnist.npz", options)
    return Case(None if changed else rows, count_samples)


def dicom(rng: random.Random, root: Path) -> Case:
    """Instances with odd tags, damaged files, and files that are none."""
    from tests.plugins.sources.dicom_files import write_dicom

    count = rng.randint(1, 4)
    for number in range(count):
        shape = (rng.choice([1, 2, 5]), 8, 8) if some(rng, 0.2) else (8, 8)
        pixels = np.full(shape, number, rng.choice([np.uint8, np.uint16, np.int16]))
        tags: dict[str, Any] = {"WindowCenter": 50, "WindowWidth": 100} if some(rng, 0.8) else {}
        odd: dict[str, list[Any]] = {
            "Modality": ["CT", "SEG", "", "..", "CT\\MR"], "BodyPartExamined": ["CHEST", "../x", ""],
            "PatientID": ["", "p", "é"], "BurnedInAnnotation": ["YES", "NO"], "NumberOfFrames": [0, 3, 10**6],
            "RescaleSlope": [0, 2, -1], "Rows": [0, 9, 60000], "BitsStored": [1, 12, 0],
            "PhotometricInterpretation": ["MONOCHROME1", "RGB", "PALETTE COLOR", ""], "WindowWidth": [0, 1],
            "SOPInstanceUID": ["1.2.3"],
        }  # fmt: skip
        while some(rng, 0.3):
            name = rng.choice(list(odd))
            tags[name] = rng.choice(odd[name])
        name = rng.choice(["{}.dcm"] * 5 + ["DICOMDIR{}", "deep/{}", ".{}.dcm", "{}.txt"]).format(number)
        path = root / "scans/train" / name
        try:
            write_dicom(path, None if some(rng, 0.05) else pixels, **tags)
        except Exception:  # pydicom does not write everything
            write_dicom(path, pixels)
        content, _ = spoiled(rng, path.read_bytes(), 0.3)
        path.write_bytes(content)
    options: dict[str, Any] = {"frames": rng.choice(["all", "middle", 0, 9])} if some(rng, 0.4) else {}
    if some(rng, 0.3):
        options |= rng.choice([{"domain": "{body_part}"}, {"windows": {"*": "full"}}, {"burned_in": True},
                               {"classes": True}, {"split_fractions": {"test": 1.0}}])  # fmt: skip
    write_project(root, "dicom", "scans", options)

    def files_used(project: Project, report: DataReport) -> int:
        (entry,) = read_sources(project)
        return len({sample.origin for sample in entry.samples}) + sum(
            kind.count for kind in report.items("skipped-files")
        )

    return Case(count, files_used)


def coco(rng: random.Random, root: Path) -> Case:
    """Captions and images with odd ids and fields."""
    paint(root)
    images: list[Any] = [
        {"id": number, "file_name": rng.choice(IMAGES), "domain": "ct"} for number in range(rng.randint(2, 5))
    ]
    captions: list[Any] = [
        {"id": number, "image_id": rng.randint(0, 4), "caption": "a scan"} for number in range(rng.randint(1, 5))
    ]
    while some(rng, 0.3) and images + captions:
        one = rng.choice(images + captions)
        one[rng.choice([*one, "group", "split"])] = rng.choice(VALUES)
    if some(rng, 0.1) and images:
        images.append(rng.choice(images))
    named = {str(one["image_id"]) for one in captions}
    rows = len(captions) + len({str(one["id"]) for one in images} - named)
    text = json.dumps({"info": {}, "images": images, "annotations": captions})
    content, changed = spoiled(rng, text.encode(rng.choice(["utf-8", "utf-8-sig", "utf-16"])), 0.2)
    (root / "captions.json").write_bytes(content)
    options: dict[str, Any] = {"split_fractions": {"train": 0.5, "calibration": 0.2, "test": 0.3}}
    if some(rng, 0.2):
        options |= rng.choice([{"columns": {"group": "domain"}}, {"id_prefix": "c/"}, {"constants": {"domain": "mr"}}])
    write_project(root, "coco-captions", "captions.json", options)
    return Case(None if changed else rows, count_samples)
