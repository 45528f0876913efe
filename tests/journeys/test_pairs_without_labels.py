"""Image-text pairs and nothing else: published recipes run on them, with trust by captions or by imported lists."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from kdkit.api.student import DistillPlan
from kdkit.core.contracts import Silent
from kdkit.core.data.load import load_index
from kdkit.core.data.locations import file_of
from kdkit.core.distill.cost_estimate import Estimate, PlannedStage
from kdkit.core.distill.options import Options
from kdkit.core.distill.prepare import prepare
from kdkit.core.distill.run import distill
from kdkit.core.evaluation.trust.report import report_trust
from kdkit.core.features import FeatureStore
from kdkit.core.features.imports.importing import ImportRequest, import_features
from kdkit.core.features.imports.rows import ReadOptions
from kdkit.core.teachers.add import add_teacher
from tests.cli.test_distill import PLUGIN
from tests.conftest import Cli, InstallPlugin
from tests.core.distill.toy_runs import Heard
from tests.errors import raises_error
from tests.toy_project import open_project, vision_teacher
from tests.toys import SIDE, ToyEncoder, count_letters

WORDS = ("axial", "bulky", "cystic", "dense", "faint", "giant", "hazy", "knobby", "lucent", "moth", "plump", "quiet")
REGISTRY = """\
version: 1
student: {family: toy, config: {width: 12}}
teachers: {}
data:
  - source: jsonl
    path: pairs.jsonl
    options: {split_fractions: {train: 0.6, calibration: 0.3, test: 0.1}}
optimizer: {lr: 0.01, batch_size: 32, steps: 4}
"""


def picture(domain: str, words: tuple[str, ...], rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """(SIDE, SIDE) in [0, 1]: the patterns of the words, which differ between domains, and noise."""
    patterns = np.random.default_rng(len(domain)).random((len(WORDS), SIDE, SIDE))
    clean = np.mean([patterns[WORDS.index(word)] for word in words], axis=0)
    return np.asarray(0.85 * clean + 0.15 * rng.random((SIDE, SIDE)))


def caption(words: tuple[str, ...]) -> str:
    return f"{words[0]} {words[1]} finding"


def draw(rng: np.random.Generator) -> tuple[str, ...]:
    return tuple(str(word) for word in rng.choice(WORDS, size=2, replace=False))


@cache
def teacher_of(domain: str) -> ToyEncoder:
    """Learns from other pairs of the domain."""
    rng = np.random.default_rng(7)
    torch.manual_seed(0)
    model = ToyEncoder(width=16, hidden=64)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(250):
        drawn = [draw(rng) for _ in range(48)]
        pixels = torch.tensor(np.stack([picture(domain, words, rng) for words in drawn]), dtype=torch.float32)
        letters = torch.stack([count_letters(caption(words)) for words in drawn])
        out = model({"pixels": pixels[:, None].expand(-1, 3, -1, -1), "letters": letters})
        scores = 20 * F.normalize(out["image"]) @ F.normalize(out["text"]).T
        loss = F.cross_entropy(scores, torch.arange(len(drawn)))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


def write_pairs(root: Path, count: int = 100) -> Path:
    """A project folder with JSON Lines of pairs of two domains; ``radio`` knows CT."""
    rng, lines = np.random.default_rng(0), []
    (root / "images").mkdir(parents=True)
    for domain in ("ct", "mri x"):
        for number in range(count):
            words, name = draw(rng), f"{domain[:2]}{number}"
            pixels = (255 * picture(domain, words, rng)).astype(np.uint8)
            Image.fromarray(pixels).save(root / "images" / f"{name}.png")
            row = {"id": name, "image": f"images/{name}.png", "text": caption(words), "domain": domain}
            lines.append(json.dumps(row) + "\n")
    (root / "pairs.jsonl").write_text("".join(lines), encoding="utf-8")
    (root / "registry.yaml").write_text(REGISTRY, encoding="utf-8")
    teacher_of("ct").save(root / "models" / "radio")
    return root


def add(root: Path) -> None:
    add_teacher(open_project(root), "radio", {"from": "local:models/radio", "loader": "toy", "license": "mit"})


def write_trust(root: Path, line: str) -> None:
    text = (root / "registry.yaml").read_text(encoding="utf-8").partition("trust:")[0]
    (root / "registry.yaml").write_text(text + line, encoding="utf-8")


def recorded(root: Path, version: str) -> dict[str, Any]:
    lineage: dict[str, Any] = json.loads((root / "versions" / version / "lineage.json").read_text())
    return lineage


def test_recipes_as_published_run_on_plain_pairs(kdkit_cli: Cli, install_plugin: InstallPlugin) -> None:
    install_plugin("kdkit-toy", PLUGIN)
    kdkit_cli.folder.rmdir()
    root = write_pairs(kdkit_cli.folder)
    add(root)
    shown = kdkit_cli("trust")
    assert shown.code == 0, shown.stderr
    assert "measured by captions, since no domain has labeled" in shown.stderr
    assert shown.stdout.startswith("True caption ranked before 3 others")
    ran = kdkit_cli("distill", "--recipe", "mmkd-paper")
    assert ran.code == 0, ran.stderr
    assert "measured by captions" in ran.stderr
    for recipe in ("mmkd-released", "kdkit"):  # the rest without a process of its own: it is slow
        assert distill(open_project(root), Options(cpu=True, recipe=recipe)) is not None

    for version, policy in (("v1", "threshold"), ("v2", "threshold"), ("v3", "evidence")):
        lineage = recorded(root, version)
        trust, (radio,) = lineage["recipe"].get("stages", [lineage["recipe"]])[-1]["trust"], lineage["teachers"]
        assert (trust["by"], trust["policy"]) == ("caption", policy)
        assert radio["domains"] == {"ct": 1.0}
        assert radio["trust"]["ct"]["accuracy"] > 0.9
        assert radio["trust"]["mri x"]["lower"] < 0.25


def test_the_policy_weighs_each_sample(tmp_path: Path) -> None:
    root = write_pairs(tmp_path / "p")
    add(root)
    write_trust(root, "trust: {policy: threshold, options: {value: 0.9}, by: caption, per: sample}\n")
    project = open_project(root)
    found = prepare(project, Options(), Silent())
    column = FeatureStore(project.features).column("radio")
    index = load_index(project)
    scores = column.scores("caption")[column.locate(index)]
    ct = index.domain_index == index.domains.index("ct")
    wanted = ct & (scores >= 0.9)
    assert found.inventory.taught("radio").tolist() == wanted.tolist()
    assert 0.5 < wanted[ct].mean() < 1
    assert (
        "Trust: by captions, per sample, policy threshold"
        in DistillPlan((PlannedStage(found.plan, Estimate(0, 0, 0, 0)),)).sections()
    )
    with raises_error("KD-TRUST-006", where="trust.per"):
        report_trust(project, by="list", per="domain")
    assert report_trust(project, by="caption").to_json()["teachers"][0]["kind"] == "caption"
    (radio,) = found.plan.teachers
    assert radio.samples == wanted[index.select(split="train")].sum()
    assert radio.admitted == {"ct": pytest.approx(wanted[ct].mean())}
    write_trust(root, "trust: {policy: threshold, options: {value: 0.8}, by: caption, per: sample}\n")
    assert prepare(open_project(root), Options(), Silent()).plan.digest != found.plan.digest
    assert distill(open_project(root), Options(cpu=True)) is not None


def test_a_teacher_without_text_is_not_judged_by_captions(tmp_path: Path) -> None:
    root, heard = write_pairs(tmp_path / "p", count=100), Heard()
    add(root)
    vision_teacher("ct", ["mri"]).save(root / "models" / "vision")
    entry = {"from": "local:models/vision", "loader": "toy-vision", "license": "mit"}
    add_teacher(open_project(root), "vision", entry)
    plan = prepare(open_project(root), Options(), heard).plan
    assert [list(teacher.admitted) for teacher in plan.teachers] == [["ct"], []]
    assert sum("'vision' has no text features: captions cannot" in warning for warning in heard.warnings) == 1


def test_a_released_list_decides_per_sample(tmp_path: Path) -> None:
    """MMKD-CLIP's ``available_clips``: the gate of its recipe as its code has it, from a file."""
    root = write_pairs(tmp_path / "p", count=30)
    index = load_index(open_project(root))
    folder, lines, model = tmp_path / "MMKDCLIP_DATA", [], teacher_of("ct")
    for number, sample in enumerate(index.samples):
        place = folder / "features" / "data_1" / sample.id
        place.mkdir(parents=True)
        listed = ["PLIP"] * (number % 3 == 0) + ["BMCA"]
        lines.append(json.dumps({"folderid": "data_1", "id": sample.id, "available_clips": listed}) + "\n")
        with torch.no_grad(), Image.open(file_of(sample.image)) as image:
            row = model.encode_image(model.preprocess(image)[None])[0], model.encode_text([sample.text])[0]
        torch.save({"PLIP_img": row[0].clone(), "PLIP_txt": row[1].clone()}, place / "clips_output.pt")
    (folder / "meta.jsonl").write_text("".join(lines), encoding="utf-8")
    request = ImportRequest([folder], read=ReadOptions(key="PLIP"), license="mit")
    import_features(open_project(root), "plip", request)
    write_trust(root, "recipe: mmkd-released\ntrust: {by: list}\n")
    found = prepare(open_project(root), Options(), Silent())
    listed = np.arange(len(index)) % 3 == 0
    assert found.inventory.taught("plip").tolist() == listed.tolist()
    assert found.plan.recipe.trust.measured == "by imported lists, per sample"
    assert found.plan.teachers[0].admitted == {"ct": 1.0, "mri x": 1.0}
    assert distill(open_project(root), Options(cpu=True)) is not None
