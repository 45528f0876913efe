"""A student that answers, through the public commands: add teachers, distill, evaluate, add one more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from tests.conftest import Cli
from tests.local_endpoint import local_endpoint
from tests.plugins.students.clinkd.tiny import make

WORDS = ["left", "right", "top", "Where", "is", "it"]
SIZES = {"hidden": 32, "heads": 2, "kv_heads": 1, "layers": 1, "vision_layers": 1, "words": WORDS}
LENGTHS: dict[str, Any] = {"max_tokens": 64, "max_answer": 28}
REGISTRY = f"""\
version: 1
student: {{family: clinkd, config: {json.dumps({"sizes": SIZES, **LENGTHS, "max_pixels": 3136, "system": ""})}}}
teachers: {{}}
data:
  - source: sharegpt
    path: data/dataset_info.json
    options: {{task: vqa, columns: {{modality: modality, split: split}}}}
recipe: clinkd
trust: {{policy: all, options: {{unmeasured: true}}}}
optimizer: {{lr: 0.003, batch_size: 4, steps: 6}}
guard: {{tolerance: 100}}
"""


def write_data(folder: Path, modalities: tuple[str, ...]) -> None:
    """One white square per picture, and where it is."""
    records = []
    places = {"left": (0, 14), "right": (42, 14), "top": (14, 0)}
    for modality in modalities:
        for number, split in enumerate(["train"] * 4 + ["calibration"] * 2 + ["test"] * 2):
            for word, corner in places.items():
                name = f"{modality}-{number}-{word}.png"
                picture = Image.new("RGB", (56, 56), (8 * number, 0, 0))
                picture.paste((255, 255, 255), (*corner, corner[0] + 14, corner[1] + 14))
                picture.save(folder / name)
                messages = [
                    {"role": "user", "content": "<image>Where is it?"},
                    {"role": "assistant", "content": word},
                ]
                records.append({"messages": messages, "images": [name], "modality": modality, "split": split})
    (folder / "data.json").write_text(json.dumps(records), encoding="utf-8")
    columns = {"messages": "messages", "images": "images"}
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    entry = {"file_name": "data.json", "formatting": "sharegpt", "columns": columns, "tags": tags}
    (folder / "dataset_info.json").write_text(json.dumps({"places": entry}), encoding="utf-8")


def run(cli: Cli, *arguments: str) -> str:
    done = cli(*arguments)
    assert done.code == 0, (arguments, done.stderr)
    return done.stdout


def test_a_student_that_answers(kdkit_cli: Cli) -> None:
    folder = kdkit_cli.folder
    (folder / "registry.yaml").write_text(REGISTRY, encoding="utf-8")
    (folder / "data").mkdir()
    write_data(folder / "data", ("ct",))
    for number, name in enumerate(("first", "second")):
        make(seed=number, sizes=SIZES, system="", **LENGTHS).save(folder / "models" / name)

    run(
        kdkit_cli,
        "add-teacher",
        "first",
        "--from",
        "local:models/first",
        "--loader",
        "image-text-to-text",
        "--license",
        "mit",
    )
    run(kdkit_cli, "distill", "--cpu")
    write_data(folder / "data", ("ct", "xray"))
    run(
        kdkit_cli,
        "add-teacher",
        "second",
        "--from",
        "local:models/second",
        "--loader",
        "image-text-to-text",
        "--license",
        "mit",
    )
    run(kdkit_cli, "distill", "--incremental", "--cpu")

    lineage = json.loads((folder / "versions" / "v2" / "lineage.json").read_text(encoding="utf-8"))
    assert lineage["data"]["known"] == ["vqa/ct", "vqa/xray"]
    assert {step for entry in lineage["training"]["log"] for step in entry} >= {"answer-ce", "token-kd"}
    found = json.loads(run(kdkit_cli, "evaluate", "--html", "v2.html", "--json"))
    assert "vqa/xray" in (folder / "v2.html").read_text(encoding="utf-8")
    assert {"v1", "v2", "first", "second"} <= {model["name"] for model in found["models"]}
    planned = json.loads(run(kdkit_cli, "explain", "--seeds", "1", "--dry-run", "--cpu", "--json"))
    assert (planned["sources"], planned["steps"], planned["runs"]) == (["first", "second", "answers"], 2, 4)
    explained = json.loads(run(kdkit_cli, "explain", "--seeds", "1", "--cpu", "--json"))
    assert {change["domain"] for change in explained["sources"][0]["domains"]} == {"vqa/ct", "vqa/xray"}
    judged(kdkit_cli)
    exported = json.loads(run(kdkit_cli, "export", "--to", "out", "--json"))
    assert exported["checks"]["transformers"]["logit_difference"] <= 1e-5
    assert f'from_pretrained("{folder / "out"}", dtype="float32")' in exported["load"]["transformers"]


def judged(cli: Cli) -> None:
    """A judge that finds every answer wrong is in the report, and is asked once."""
    place = cli.folder / "judges"
    place.mkdir()
    with local_endpoint(lambda _: [("VERDICT: INCORRECT", ())]) as judge:
        (place / "endpoint.json").write_text(json.dumps({"endpoint": judge.url, "model": "big"}), encoding="utf-8")
        arguments = ("evaluate", "--task", "judge", "--option", "folder=judges", "--html", "judge.html", "--json")
        found = json.loads(run(cli, *arguments))
        asked = len(judge.requests)
        run(cli, *arguments)
    assert len(judge.requests) == asked
    method = found["settings"]["method"]
    assert method["judge's prompt"].startswith("You grade one answer")
    means = {model["name"]: model["means"] for model in found["models"]}
    assert means["v2"] == means["first"] == {"judge_accuracy": 0, "judged": 1}
    page = (cli.folder / "judge.html").read_text(encoding="utf-8")
    assert method["judge's prompt, SHA-256"] in page
    assert "You grade one answer" in page
