"""The generators of ``benchmarks/fuzz.py``: manifests, folders, question files, registries and images."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from kdkit.core.data.check import DataReport
from kdkit.core.data.entries import read_sources
from kdkit.core.project.project import Project

TEXTS = (
    "", " ", "nan", "a,b", 'a"b', "a\nb", "a\r", "a\0b", "\u00e9", "e\u0301", "\u65e5\u672c", "\ud83d", "\U0001f642",
    "x" * 300, "['a']", "{x}", "{label}", "%s", "../a.png", "/etc/passwd", "https://x.example/y.png", "imgs\\0.png",
    "C:\\a.png", "=1+1", "\ufeff", "\u2028", "-1", "1e9", "true", "null", "<image>", "<image><image>", "train", "val",
    "..", ".", "~", "<|box_start|>(1,2),(3000,4)<|box_end|>",
)  # fmt: skip
VALUES = (*TEXTS, None, 0, 1, -1.5, float("nan"), float("inf"), True, [], {}, ["a"], {"a": 1}, 10**30, [[]], [None])
IMAGES = ("0.png", "1.png", "imgs/2.png")
ROOM = 1_000_000
"""``max_pixels`` of the images: a damaged header must not take gigabytes."""


class Case(NamedTuple):
    """How many rows (records, files) went in, if that is known, and how those that came out are counted."""

    rows: int | None
    used: Callable[[Project, DataReport], int]


def paint(folder: Path) -> None:
    for number, name in enumerate(IMAGES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 50, 99)).save(folder / name)


def write_project(root: Path, source: str, path: str, options: Mapping[str, Any]) -> None:
    entry = {"source": source, "path": path, "options": options}
    (root / "registry.yaml").write_text(f"version: 1\ndata:\n- {json.dumps(entry)}\n", encoding="utf-8")


def some(rng: random.Random, chance: float) -> bool:
    return rng.random() < chance


def spoiled(rng: random.Random, content: bytes, chance: float) -> tuple[bytes, bool]:
    """``content``, perhaps with bytes changed, removed or added; and whether it was changed."""
    if not content or not some(rng, chance):
        return content, False
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(data) + 1)
        kind = rng.randrange(4)
        if kind == 0 and place < len(data):
            data[place] = rng.randrange(256)
        elif kind == 1:
            del data[place : place + rng.randint(1, 40)]
        elif kind == 2:
            data[place:place] = bytes(rng.choice(b'\x00\xff"\n\r,{}[]\\') for _ in range(3))
        else:
            del data[place:]
    return bytes(data), True


def count_samples(_: Project, report: DataReport) -> int:
    return report.samples + sum(kind.count for kind in report.items("skipped-files"))


def manifest(rng: random.Random, root: Path) -> Case:
    """A CSV or JSON Lines file with odd values, encodings and options."""
    paint(root)
    kind, count = rng.choice(["csv", "jsonl"]), rng.randint(0, 6)
    rows = []
    for number in range(count):
        row: dict[str, Any] = {
            "id": f"s{number}", "image": rng.choice(IMAGES), "text": "a picture", "domain": "ct", "label": "normal",
            "split": rng.choice(["train", "calibration", "test"]), "group": f"p{number}",
        }  # fmt: skip
        while some(rng, 0.25):
            row[rng.choice(list(row))] = rng.choice(TEXTS if kind == "csv" else VALUES)
        if kind == "jsonl" and some(rng, 0.2):
            row["extra"] = rng.choice([{"images": [rng.choice(IMAGES)]}, {"images": rng.choice(VALUES)}, *VALUES])
        if kind == "csv" and some(rng, 0.1):
            row = dict.fromkeys(row, "")
        rows.append(row)
    delimiter = rng.choice(",,,;\t|")
    if kind == "csv":
        out = io.StringIO()
        writer = csv.writer(out, delimiter=delimiter, lineterminator=rng.choice(["\n", "\r\n"]))
        header = ["id", "image", "text", "domain", "label", "split", "group"]
        writer.writerows([header, *([row[name] for name in header] for row in rows)])
        text = (f"sep={delimiter}\n" if some(rng, 0.1) else "") + out.getvalue()
    else:
        text = "".join(json.dumps(row, ensure_ascii=some(rng, 0.5)) + "\n" for row in rows)
    encoding = rng.choice(["utf-8"] * 6 + ["utf-8-sig", "utf-16", "utf-32", "latin-1"])
    errors = "replace" if encoding == "latin-1" else "surrogatepass"
    content, changed = spoiled(rng, text.encode(encoding, errors), 0.2)
    (root / f"m.{kind}").write_bytes(content)
    options: dict[str, Any] = {"delimiter": delimiter} if kind == "csv" and delimiter != "," else {}
    choices: dict[str, list[Any]] = {
        "caption": ["{label} in {domain}", *TEXTS], "splits": [{"val": "calibration"}, {"x": 1}],
        "constants": [{"domain": "mr"}, {"label": ""}, {"x": "y"}], "columns": [{"text": "label"}, {"text": "x"}],
        "split_fractions": [{"train": 1.0}, {"train": 2}, {"x": 1}], "image_root": [".", "imgs", "..", *TEXTS],
        "id_prefix": TEXTS, "extra": [["group"], ["x"], "group"], "skip_unreadable": [True, 1],
        "frame": [0, 3, -1, "0"], "max_pixels": [10, 0, True],
    }  # fmt: skip
    while some(rng, 0.2):
        name = rng.choice(list(choices))
        options[name] = rng.choice(choices[name])
    write_project(root, kind, f"m.{kind}", options)
    return Case(None if changed else count, count_samples)


def folder(rng: random.Random, root: Path) -> Case:
    """A tree of images, hidden names, other files and links."""
    top, files = root / "set", 0
    for _ in range(rng.randint(1, 8)):
        parts = [rng.choice(["train", "calibration", "test"]), rng.choice(["ct", "mr"]), "normal"]
        if some(rng, 0.05):
            parts = rng.choice([parts[:1], parts[:2], ["val", *parts[1:]], ["train", "test", "normal"]])
        place = top.joinpath(*parts)
        place.mkdir(parents=True, exist_ok=True)
        name = rng.choice(
            ["a.png", "b.PNG", "c.dcm", "d", "e.txt", ".f.png", "g.jfif", "h.gif", "caf\udce9.png", "i\n.png"]
        )
        kind = rng.randrange(8)
        if (place / name).exists() or (place / name).is_symlink():
            continue
        if kind == 0:
            (place / name).symlink_to(rng.choice([root / "nowhere", place, top]))
        elif kind == 1:
            (place / name).write_bytes(b"x")
        else:
            Image.new("RGB", (8, 8), (files, 0, 0)).save(place / name, "PNG")
        files += 1
    options: dict[str, Any] = {}
    choices: dict[str, list[Any]] = {
        "domain": ["ct", ""], "split": ["train", "x"], "split_fractions": [{"train": 0.5, "test": 0.5}, {}],
        "splits": [{"val": "calibration"}], "group_pattern": ["^(.)", "(", "x"], "endings": [[".png"], [], [".dcm"]],
    }  # fmt: skip
    if some(rng, 0.4):
        name = rng.choice(list(choices))
        options[name] = rng.choice(choices[name])
    write_project(root, "folder", "set", options)
    return Case(files, count_samples)


def questions(rng: random.Random, root: Path) -> Case:
    """Conversations in one of LLaMA-Factory's formats, or the questions of another source."""
    paint(root)
    count, source = (
        rng.randint(1, 6),
        rng.choice(["sharegpt", "sharegpt", "sharegpt", "med-grit", "vqa-rad", "llava-med-qa"]),
    )
    records = [_record(rng, source, number) for number in range(count)]
    file = "q.jsonl" if source == "llava-med-qa" or some(rng, 0.2) else "q.json"
    if file == "q.jsonl":
        text = "".join(json.dumps(record) + "\n" for record in records)
    else:
        text = json.dumps(records, indent=rng.choice([None, 1]))
    content, changed = spoiled(rng, text.encode(rng.choice(["utf-8", "utf-16"])), 0.1)
    (root / file).write_bytes(content)
    options: dict[str, Any] = {"skip_broken": some(rng, 0.7)}
    if source in ("sharegpt", "med-grit"):
        options |= {"task": rng.choice(["vqa", "vqa", "vqa", "vg", "x"]), "split": "train", "modality": "ct"}
    if some(rng, 0.1):
        options |= rng.choice(
            [{"boxes": "qwen2-vl"}, {"image_root": "imgs"}, {"split": "val"}, {"id_prefix": "\ud83d"}]
        )
    if source == "sharegpt":
        info: dict[str, Any] = {
            "file_name": file,
            "formatting": rng.choice(["sharegpt", "sharegpt", "openai", "alpaca"]),
        }
        info["columns"] = {
            name: name for name in ("messages", "images", "tools", "system", "prompt", "query", "response")
        }
        info["tags"] = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
                        "observation_tag": "tool", "function_tag": "function", "system_tag": "system"}  # fmt: skip
        while some(rng, 0.1):
            part = rng.choice([info, info["columns"], info["tags"]])
            if isinstance(part, dict):
                part[rng.choice(list(part))] = rng.choice(VALUES)
        described, _ = spoiled(rng, json.dumps({"x": info}).encode(), 0.05)
        (root / "dataset_info.json").write_bytes(described)
        if some(rng, 0.1):
            options["modality_pattern"] = rng.choice(["^(.)", "(", "x"])
        file = "dataset_info.json"
    write_project(root, source, file, options)
    return Case(None if changed else count, _count_records)


def _record(rng: random.Random, source: str, number: int) -> Any:
    image, record = rng.choice(IMAGES), dict[str, Any]()
    if source == "sharegpt":
        turns = [("user", "<image>Where?"), ("assistant", "Left."), ("user", "And?"), ("assistant", "Right.")]
        turns = turns[: rng.choice([2, 2, 4, 3, 1])]
        if some(rng, 0.2):
            turns.insert(
                rng.randint(0, 2), (rng.choice(["system", "tool", "function", "x"]), rng.choice(["{}", "brief", ""]))
            )
        messages: list[Any] = [{"role": role, "content": content} for role, content in turns]
        if some(rng, 0.2):
            rng.choice(messages)["content"] = rng.choice([[{"type": "image"}, {"type": "text", "text": "?"}], *VALUES])
        record = {"messages": messages, "images": [image], "prompt": "<image>Where?", "query": "", "response": "Left."}
        if some(rng, 0.15):
            record |= {"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hi."}]}
            record |= {"images": [], "prompt": "Hi."}
    elif source == "med-grit":
        record = {"id": image.removesuffix(".png"), "conversations": [["Where?", "Left."], ["And?", "Right."]]}
    elif source == "vqa-rad":
        record = {"qid": number, "image_name": image, "image_organ": "HEAD", "answer": "Yes", "answer_type": "CLOSED",
                  "question": "Is it?", "phrase_type": rng.choice(["freeform", "test_para"])}  # fmt: skip
    else:
        record = {"question_id": number, "image": image, "text": "What?", "gpt4_answer": "It.", "domain": {"ct": True}}
    while some(rng, 0.2):
        record[rng.choice(list(record))] = rng.choice(VALUES)
    return rng.choice(VALUES) if some(rng, 0.03) else record


def registry(rng: random.Random, root: Path) -> Case:
    """A registry with changed lines and bytes."""
    paint(root)
    row = {"id": "a", "image": IMAGES[0], "text": "x", "domain": "ct", "label": "n", "split": "train"}
    (root / "m.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    lines = [
        "version: 1", "student: {family: clinkd}", "data:", "  - source: jsonl", "    path: m.jsonl", "    options:",
        "      skip_unreadable: true", "recipe: sft", "prompts: {default: ['a {label}']}", "guard: {test: point}",
    ]  # fmt: skip
    for _ in range(rng.randint(0, 3)):
        place, kind = rng.randrange(len(lines)), rng.randrange(5)
        if kind == 0:
            del lines[place]
        elif kind == 1:
            lines.insert(place, lines[place])
        elif kind == 2:
            lines[place] = lines[place].partition(":")[0] + ": " + json.dumps(rng.choice(VALUES))
        elif kind == 3:
            lines[place] = rng.choice(["\t", "  ", "- ", "&a ", "? ", "!!python/object:os.system "]) + lines[place]
        else:
            lines[place] = rng.choice(TEXTS)
        lines = lines or [""]
    content, _ = spoiled(rng, "\n".join(lines).encode("utf-8", "surrogatepass"), 0.3)
    (root / "registry.yaml").write_bytes(content)

    def entries(project: Project, _: DataReport) -> int:
        return len(read_sources(project)) - len(project.registry.data)

    return Case(0, entries)


def image(rng: random.Random, root: Path) -> Case:
    """Images of many formats with damaged headers."""
    rows = []
    for number in range(3):
        kind = rng.choice(
            ["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "JPEG2000", "PPM", "ICO", "TGA", "SGI", "PCX", "DDS"]
        )
        mode = "RGB" if kind in ("JPEG", "WEBP", "JPEG2000", "PPM") else rng.choice(["RGB", "L"])
        frames = [Image.new(mode, (16, 12), value if mode == "L" else (value, 0, 9)) for value in (0, 99)]
        several = kind in ("TIFF", "GIF", "WEBP", "PNG") and some(rng, 0.3)
        with io.BytesIO() as out:
            frames[0].save(out, kind, **({"save_all": True, "append_images": frames[1:]} if several else {}))
            content = out.getvalue()
        head, _ = spoiled(rng, content[:120], 0.8)
        body, _ = spoiled(rng, content[120:], 0.2)
        name = f"{number}.{rng.choice(['png', 'jpg', 'tif', 'gif'])}"
        (root / name).write_bytes(head + body)
        rows.append({"id": name, "image": name, "text": "x", "domain": "ct", "split": "calibration"})
    (root / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    options: dict[str, Any] = {"max_pixels": ROOM}
    if some(rng, 0.3):
        options["frame"] = rng.randint(0, 2)
    write_project(root, "jsonl", "m.jsonl", options)
    return Case(len(rows), count_samples)


def _count_records(project: Project, report: DataReport) -> int:
    """Records that gave a sample, and those that gave none and are counted."""
    (entry,) = read_sources(project)
    used = {sample.origin for sample in entry.samples}
    turns = "answers before the first image of their conversation"
    return len(used) + sum(kind.count for kind in report.items("skipped-files") if kind.what != turns)
