"""A version is pushed to a real Hub on the loopback interface, and stock libraries load it in a fresh process."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hub import connect
from kdkit.core.contracts import DualEncoder, Silent
from kdkit.core.evaluation.scores import Evaluation
from kdkit.core.project.lineage import GuardRecord
from kdkit.core.project.manifest import describe_folder
from kdkit.core.project.project import Project
from kdkit.core.project.recipe_file import load_recipe
from kdkit.core.project.registry.load import load_registry
from kdkit.core.project.registry.lock import Lock
from kdkit.core.project.registry.schema import Registry
from kdkit.core.project.versions import Versions, load_student
from kdkit.core.sharing.hub import UploadPlan, plan_upload, upload
from kdkit.core.sharing.hub.edits import PublishedFiles
from kdkit.core.sharing.release.compare import TEXTS, fixed_pictures
from kdkit.core.sharing.release.layout import CARD, LOCK, README, RECORD, REGISTRY, RESULTS, SAMPLES, TASK, Record
from kdkit.core.sharing.release.license import StudentLicense
from kdkit.core.sharing.release.pull import pull_student
from kdkit.core.sharing.release.push import Pushed, plan_push, push_student
from kdkit.core.sharing.release.release import Release, templates_note
from kdkit.core.sharing.release.results import results_of
from kdkit.plugins.students.open_clip import create_student
from kdkit.plugins.students.open_clip_publish import publish
from tests.core.sharing.release.projects import make_distilled
from tests.core.teachers.stub import Notes
from tests.errors import raises_error
from tests.lineages import write_version
from tests.local_hub import ALICE, LocalHub, local_hub
from tests.tiny_models import WORDS, make_biomedclip_folder, open_clip_config
from tests.toy_project import open_project

REPO = "lab/student"


@dataclass(frozen=True)
class World:
    """A project whose current version ``v2`` was pushed; ``release`` holds what the repository holds."""

    project: Project
    hub: LocalHub
    pushed: Pushed
    release: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("push")
    project = make_distilled(root / "project")
    with local_hub(root / "hub") as hub:
        client = connect(hub.url, ALICE.token)
        pushed = push_student(project, REPO, hub=client)
        client.api.snapshot_download(REPO, local_dir=root / "release")
        (root / "release" / ".gitattributes").unlink()
        yield World(project, hub, pushed, root / "release")


def record_of(world: World) -> Record:
    return Record.from_json(json.loads((world.release / RECORD).read_text()))


def test_it_is_private_tagged_and_whole(world: World) -> None:
    done = world.pushed.uploaded
    assert done is not None
    assert world.hub.repository(REPO).private
    assert world.hub.head(REPO, "v2").oid == world.hub.head(REPO).oid == done.commit
    record = record_of(world)
    found = describe_folder(world.release, without=(RECORD, README))
    assert record.files == {name: fact for name, fact in found.items() if ".cache" not in name}
    assert world.hub.hashes(REPO).keys() == {RECORD, README, *record.files}
    assert not (world.project.state / "release").exists()


def test_the_record_holds_the_whole_history(world: World) -> None:
    record, versions = record_of(world), Versions(world.project)
    assert [lineage.version for lineage in record.history] == ["v1", "v2"]
    assert (record.repository, record.version) == (REPO, "v2")
    assert (record.license, record.lineage.published_under) == ("cc-by-nc-4.0", "cc-by-nc-4.0")
    assert record.lineage.retention == versions.get("v2").lineage.retention
    facts = {t.name: t.license_facts.shown for t in record.lineage.teachers}
    assert facts == {"radio": "mit", "chest": "cc-by-nc-4.0"}
    assert set(record.checks) == {"open_clip", "transformers"}
    assert max(check["image_difference"] for check in record.checks.values()) <= 1e-5
    assert platform.release() not in (world.release / RECORD).read_text()
    assert set(record.lineage.environment.plugins) <= {"kdkit", "kdkit-toy"}
    student = {path.name: path.stat().st_size for path in versions.get("v2").student_folder.iterdir()}
    assert set(record.student) == set(student)


def test_what_pull_needs_is_there(world: World) -> None:
    registry = load_registry(world.release / REGISTRY)
    assert registry.data == []
    assert list(registry.teachers) == ["radio", "chest"]
    assert list(Lock.load(world.release / LOCK).teachers) == ["chest", "radio"]
    recipe = load_recipe(registry.recipe, world.project.catalogue, (world.release / REGISTRY).parent)
    version = Versions(world.project).get("v2")
    assert recipe == version.lineage.recipe
    for name in (TASK, SAMPLES):
        assert (world.release / name).read_bytes() == (version.folder / Path(name).name).read_bytes()


def test_no_sample_and_no_path_leaves_the_machine(world: World) -> None:
    root = world.project.root
    rows = [json.loads(line) for line in (root / "images" / "samples.jsonl").read_text().splitlines()]
    secrets = {row[key] for row in rows for key in ("id", "image", "text")}
    secrets |= {str(root), str(Path.home()), "samples.jsonl", "models/radio", str(root.parent.name)}
    for path in (path for path in world.release.rglob("*") if path.is_file() and ".cache" not in path.parts):
        content = path.read_bytes()
        assert [secret for secret in secrets if secret.encode() in content] == [], path


def test_the_figures_are_those_of_the_evaluation(world: World) -> None:
    results = json.loads((world.release / RESULTS).read_text())
    evaluation = Evaluation.load(world.project.reports / "evaluation-v2-test.json")
    assert results["split"] == "test"
    for model in results["models"]:
        theirs = evaluation.model(model["name"])
        for domain, score in model["domains"].items():
            expected = theirs.domains[domain]
            assert score["count"] == expected.count
            assert score["metrics"]["accuracy"]["value"] == pytest.approx(expected.metrics["accuracy"], abs=1e-6)
            low, high = (score["metrics"]["auc"][key] for key in ("low", "high"))
            assert (low, high) == pytest.approx(expected.intervals["auc"], abs=1e-6)


def test_the_card_contains_the_prompt_templates(world: World) -> None:
    card = (world.release / README).read_text(encoding="utf-8")
    assert 'the mean over these templates: "a {domain} image of {label}.".' in card
    registry = Registry(version=1, prompts={"ct": ["{label} on a scan"]})
    assert templates_note(registry).endswith(
        '"{label} presented in {domain}."; of its own for ct ([kdkit/registry.yaml](kdkit/registry.yaml)).'
    )


def test_the_same_version_gives_the_same_bytes(world: World) -> None:
    notes = Notes()
    again = push_student(world.project, REPO, hub=connect(world.hub.url, ALICE.token), dry_run=True, reporter=notes)
    assert notes.warnings == []
    assert again.plan.empty
    assert again.uploaded is None


def test_wrong_visibility_is_seen_before_the_work(world: World) -> None:
    world.hub.create("lab/open", private=False)
    client = connect(world.hub.url, ALICE.token)
    for repo, public in (("lab/open", False), (REPO, True)):
        with raises_error("KD-REL-023", mentions=("push",)) as caught:
            push_student(world.project, repo, hub=client, public=public)
        assert caught.value.code == ExitCode.DENIED


@pytest.mark.parametrize(
    "repo",
    ["student", "lab/", "/x", "a/b/c", "lab/..", "lab/x--y", "lab/a b", 'lab/"', "lab/x\n", "l" * 90 + "/student"],
)
def test_bad_names_are_refused(repo: str, world: World) -> None:
    with raises_error("KD-REL-025"):
        push_student(world.project, repo, hub=connect(world.hub.url, ALICE.token))


def test_without_a_token_nothing_is_done(world: World) -> None:
    requests = len(world.hub.requests)
    with raises_error("KD-HUB-004", mentions=("token",)) as caught:
        push_student(world.project, REPO, hub=connect(world.hub.url, environment={}))
    assert caught.value.code == ExitCode.DENIED
    assert len(world.hub.requests) == requests


def test_permission_is_known_before_the_work(world: World) -> None:
    """In a dry run too: nothing is assembled for somebody who may not push it."""
    client, said = connect(world.hub.url, ALICE.token), Said()
    world.hub.create("stranger/student", private=True)
    for repo in ("stranger/student", "stranger/new"):
        with raises_error("KD-HUB-035") as caught:
            push_student(world.project, repo, hub=client, dry_run=True, reporter=said)
        assert caught.value.code == ExitCode.DENIED
    assert said.lines == []


class Said(Silent):
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_licenses_stop_a_push_before_the_work(world: World) -> None:
    client, registry = connect(world.hub.url, ALICE.token), world.project.registry_path
    before = registry.read_text(encoding="utf-8")
    try:
        for old, new, public, named in (
            ("mit", "cc-by-nd-4.0", False, "radio"),
            ("mit", "secret-terms", True, "radio"),
            ("mit", "cc-by-sa-4.0", False, "chest"),
        ):
            registry.write_text(before.replace(f"license: {old}", f"license: {new}"), encoding="utf-8")
            with pytest.raises(KdkitError, match=named) as caught:
                push_student(open_project(world.project.root), "lab/new", hub=client, public=public)
            assert caught.value.code == ExitCode.DENIED
        registry.write_text(before, encoding="utf-8")
        with raises_error("KD-REL-012", where="license of the student"):
            push_student(open_project(world.project.root), "lab/new", hub=client, license="mit")
    finally:
        registry.write_text(before, encoding="utf-8")
    assert ("model", "lab/new") not in world.hub.repositories


def test_a_refused_version_is_not_pushed_by_accident(world: World) -> None:
    folder = world.project.versions / "candidates" / "v3"
    folder.mkdir(parents=True)
    lineage = Versions(world.project).get("v2").lineage
    assert lineage.retention is not None
    refused = replace(lineage.retention, guard=GuardRecord(False, ("ct",), (), mean_failed=False))
    write_version(folder, replace(lineage, retention=refused))
    with raises_error("KD-REL-022", mentions=("refused v3",)) as caught:
        push_student(world.project, REPO, version="v3", hub=connect(world.hub.url, ALICE.token))
    assert "--refused" in caught.value.fix


# ---------------------------------------------------------------------- published again


def files_of(hub: LocalHub, repo: str = REPO) -> dict[str, str]:
    """Path -> text of the small files."""
    found = hub.head(repo).files
    return {
        path: hub.store.path(file.oid).read_text(encoding="utf-8") for path, file in found.items() if not file.sha256
    }


def test_pulled_and_pushed_nothing_changes(world: World, tmp_path: Path) -> None:
    client = connect(world.hub.url, ALICE.token)
    pulled = pull_student(REPO, tmp_path / "p", hub=client, catalogue=world.project.catalogue)
    project, before = open_project(pulled.root), files_of(world.hub)
    again = push_student(project, REPO, hub=client)
    assert again.uploaded is not None
    assert (again.uploaded.changed, again.plan.empty, again.uploaded.tag) == (False, True, "v2")
    assert files_of(world.hub) == before
    version = Versions(project).get()
    assert results_of(project, version) == json.loads(before[RESULTS])
    assert Versions(project).origin(version, (world.hub.url, REPO)) == record_of(world).origin
    copied = Versions(project).origin(version, (world.hub.url, "lab/copy"))
    assert copied is not None
    assert (copied.repository, copied.commit) == (REPO, world.hub.head(REPO).oid)


def test_what_people_changed_on_the_hub_stays(world: World, tmp_path: Path) -> None:
    client = connect(world.hub.url, ALICE.token)
    shutil.copytree(world.release, folder := tmp_path / "release", ignore=shutil.ignore_patterns(".cache"))
    record = record_of(world)

    def push(record: Record = record, *, replace: bool = False) -> tuple[UploadPlan, list[str]]:
        notes, license = Notes(), world.pushed.license
        shutil.copyfile(folder / CARD, folder / README)
        made = Release(folder, record.save(folder), StudentLicense(license, "non-commercial", ()), {}, ())
        there = PublishedFiles(client, "lab/edited", "model", tmp_path / f"scratch-{time.monotonic_ns()}")
        plan, _ = plan_push(world.project, made, there, pull_request=False, replace=replace, reporter=notes)
        upload(client, plan)
        return plan, notes.warnings

    push()
    before = files_of(world.hub, "lab/edited")
    edited = before[README].replace("## Limits\n", "## Limits\n\nNever seen: children.\n") + "\n## Thanks\n\nEve.\n"
    for path, content in (("notes.md", "mine"), (README, edited)):
        client.api.upload_file(path_or_fileobj=content.encode(), path_in_repo=path, repo_id="lab/edited")
    plan, warnings = push()
    assert plan.empty
    assert any("notes.md" in said for said in warnings)
    (folder / CARD).write_text(before[CARD].replace("license: cc-by-nc-4.0", "license: cc-by-nc-sa-4.0"))
    for _ in range(2):  # the second time, README.md is not what the first push computed
        plan, warnings = push(replace(record, license="cc-by-nc-sa-4.0"))
        after = files_of(world.hub, "lab/edited")
        assert (plan.kept, after["notes.md"]) == (("notes.md",), "mine")
        assert {"Never seen: children.", "Eve.", "license: cc-by-nc-sa-4.0"} <= set(after[README].splitlines())
        assert any("Thanks" in said for said in warnings)
    client.api.upload_file(path_or_fileobj=b"{}", path_in_repo=RESULTS, repo_id="lab/edited")
    with raises_error("KD-HUB-042", mentions=(RESULTS, "lab/edited")) as caught:
        push()
    assert "--replace" in caught.value.fix
    (folder / CARD).write_text(before[CARD])
    push(replace=True)
    assert files_of(world.hub, "lab/edited") == before


# ---------------------------------------------------------------------- stock libraries, afresh

LOAD = """
import json, sys, torch, open_clip
from pathlib import Path
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

texts, found = json.loads(Path("texts.json").read_text()), {}
pictures = [Image.open(f"{n}.png") for n in range(4)]
for repo in sys.argv[1].split(","):
    model, _, preprocess = open_clip.create_model_and_transforms(f"hf-hub:{repo}")
    tokenizer = open_clip.get_tokenizer(f"hf-hub:{repo}")
    with torch.no_grad():
        found[f"{repo} image"] = model.eval().encode_image(torch.stack([preprocess(p) for p in pictures]))
        found[f"{repo} text"] = model.encode_text(tokenizer(texts))
for repo, length in (pair.split("=") for pair in sys.argv[2].split(",")):
    model = CLIPModel.from_pretrained(repo).eval()
    pixels = AutoImageProcessor.from_pretrained(repo, backend="pil")(images=pictures, return_tensors="pt")
    tokens = AutoTokenizer.from_pretrained(repo)(
        texts, padding="max_length", truncation=True, max_length=int(length), return_tensors="pt"
    )
    with torch.no_grad():
        found[f"{repo} hf-image"] = model.get_image_features(**pixels).pooler_output
        found[f"{repo} hf-text"] = model.get_text_features(**tokens).pooler_output
save_file({name: x.contiguous() for name, x in found.items()}, "found.safetensors")
"""


def put(world: World, repo: str, saved: Path, folder: Path) -> None:
    """Only the student's files, as a push lays them out."""
    publish(saved, folder, repo, merged=False, skip={})
    client = connect(world.hub.url, ALICE.token)
    upload(client, plan_upload(client, repo, "model", folder))


def test_stock_libraries_load_students_of_every_kind_from_the_hub_alone(world: World, tmp_path: Path) -> None:
    """A word tokenizer, open_clip's own BPE, timm image towers with a word tokenizer and a Hugging Face text tower."""
    bpe: dict[str, Any] = open_clip_config()
    bpe["text_cfg"] |= {"vocab_size": 49408, "context_length": 77}
    del bpe["text_cfg"]["hf_tokenizer_name"]
    timm: dict[str, Any] = open_clip_config()
    timm["vision_cfg"] = {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear", "image_size": 160}
    students: dict[str, DualEncoder] = {
        "lab/timm": create_student(model_cfg=timm, tokenizer={"words": WORDS}).eval(),
        "lab/bpe": create_student(model_cfg={**bpe, "quick_gelu": True}).eval(),
        "lab/tower": create_student(init=str(make_biomedclip_folder(tmp_path / "source"))).eval(),
    }
    for repo, student in students.items():
        name = repo.replace("/", "-")  # a folder called as the repository would be taken for it
        student.save(tmp_path / name / "saved")  # type: ignore[attr-defined]
        put(world, repo, tmp_path / name / "saved", tmp_path / name / "release")
    version: Any = load_student(Versions(world.project).get("v2"))
    students[REPO] = version

    for number, picture in enumerate(fixed_pictures()):
        picture.save(tmp_path / f"{number}.png")
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS), encoding="utf-8")
    environment = {**os.environ, **world.hub.environment(), "HF_HOME": str(tmp_path / "empty")}
    arguments = [",".join(students), f"{REPO}=16,lab/bpe=77"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOAD, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = load_file(tmp_path / "found.safetensors")
    for repo, student in students.items():
        with torch.no_grad():
            pixels = torch.stack([student.preprocess(picture) for picture in fixed_pictures()])
            ours = {"image": student.encode_image(pixels), "text": student.encode_text(TEXTS)}
        for name, expected in ours.items():
            for kind in (name, f"hf-{name}") if repo in (REPO, "lab/bpe") else (name,):
                assert float((found[f"{repo} {kind}"] - expected).abs().max()) <= 1e-6 * max(
                    1, float(expected.abs().max())
                )
