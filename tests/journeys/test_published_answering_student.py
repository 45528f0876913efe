"""A student that answers: push, pull, teach on, push again. Adapters, whose base is a repository of its own."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ruamel.yaml import YAML

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hub import Hub
from kdkit.core.contracts import Decoding, Published, Reporter, Silent
from kdkit.core.data.load import load_index
from kdkit.core.evaluation.answering.answer import AnswerRequest
from kdkit.core.evaluation.answering.decide import decide_gate
from kdkit.core.evaluation.answering.gate_file import GATES, read_gate, write_gate
from kdkit.core.evaluation.answering.measure import measured_gate
from kdkit.core.evaluation.answering.models import open_models
from kdkit.core.evaluation.answering.names import AGREEMENT, PLAIN
from kdkit.core.project.licenses import LicenseFacts
from kdkit.core.project.lineage import InitialWeights
from kdkit.core.project.project import Project
from kdkit.core.project.versions import Versions
from kdkit.core.sharing.hub import plan_upload, upload
from kdkit.core.sharing.release.compare import COARSE, TOLERANCE, require_close, tolerance
from kdkit.core.sharing.release.layout import AdapterBase, Record
from kdkit.core.sharing.release.pull import pull_student
from kdkit.core.sharing.release.push import look_for_base, push_student
from kdkit.core.sharing.release.release import assemble_release
from tests.core.sharing.release.answering import (
    LORA,
    REPO,
    logits,
    make_answering,
    make_base,
    snapshot_in,
    teach,
    write_questions,
)
from tests.core.teachers.stub import Notes
from tests.errors import raises_error
from tests.journeys.test_push_and_pull import BOB, MINE, THEIRS, record_of
from tests.local_hub import ALICE, Account, LocalHub, local_hub
from tests.recorder import Recorder
from tests.toy_project import open_project

VENDOR = Account("vendor", "hf_vendor")
DRAWS = Decoding(4, samples=2, scored=True)


def publish_base(server: LocalHub, base: Path) -> str:
    """Returns: the commit."""
    vendor = Hub(server.url, VENDOR.token)
    return upload(vendor, plan_upload(vendor, REPO, "model", base), private=False).commit


def add_data(root: Path) -> None:
    """Questions of another modality for a pulled project."""
    write_questions(root / "data", "xray")
    registry = root / "registry.yaml"
    options = "{task: vqa, columns: {modality: modality, split: split}}"
    entry = f"data:\n  - {{source: sharegpt, path: data/dataset_info.json, options: {options}}}\n"
    registry.write_text(registry.read_text(encoding="utf-8").replace("data:\n", entry, 1), encoding="utf-8")


def decide(project: Project) -> None:
    """A decision of ``kdkit best-of-n`` for all domains of the current version: by agreement."""
    decide_gate(project, AnswerRequest(), DRAWS)
    (path,) = (Versions(project).get().folder / GATES).iterdir()
    gate = read_gate(path)
    assert gate is not None
    write_gate(path, replace(gate, domains={name: replace(one, rule=AGREEMENT) for name, one in gate.domains.items()}))


def rules(project: Project, *domains: str, draws: Decoding = DRAWS, reporter: Reporter | None = None) -> list[str]:
    """By which rule answers of the current version are chosen."""
    models = open_models(project, None, None, None, device="cpu", reporter=Silent())
    gate = measured_gate(project, load_index(project), models, draws, domains, reporter or Silent())
    return [gate.rule(domain) for domain in domains]


def test_the_whole_circle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = make_base(tmp_path / "model")
    with local_hub(tmp_path / "hub", accounts=[ALICE, BOB, VENDOR]) as server:
        alice, bob = Hub(server.url, ALICE.token), Hub(server.url, BOB.token)
        commit = publish_base(server, base)
        snapshot = snapshot_in(tmp_path / "a-cache", base, commit)
        author = make_answering(tmp_path / "author", init=str(snapshot), lora=LORA, rope="mcg-rope")
        decide(author)
        pushed = push_student(author, THEIRS, public=True, hub=alice)
        assert (pushed.license, set(pushed.checks)) == ("cc-by-nc-4.0", {"peft"}), "the base's license binds"
        assert pushed.checks["peft"]["logit_difference"] <= TOLERANCE

        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "b-cache"))
        pulled = pull_student(THEIRS, tmp_path / "mine", hub=bob)
        found = json.loads((pulled.root / "versions" / "v1" / "student" / "clinkd.json").read_text(encoding="utf-8"))
        assert (found["base"]["folder"], found["base"]["repo"], found["base"]["commit"]) == (None, REPO, commit)
        assert torch.equal(logits(author), logits(open_project(pulled.root)))

        add_data(pulled.root)
        assert rules(open_project(pulled.root), "vqa/ct", "vqa/none") == [AGREEMENT, PLAIN], "no samples of ct here"
        told = Recorder()
        assert rules(open_project(pulled.root), "vqa/ct", draws=replace(DRAWS, samples=3), reporter=told) == [PLAIN]
        (line,) = [line for line in told.lines if "other settings" in line]
        assert line.startswith("v1 has a decision for vqa/ct at other settings: max_new 4, beams 1, samples 2")
        version = teach(pulled.root, incremental=True)
        assert (version.name, version.lineage.data.known) == ("v2", ("vqa/ct", "vqa/xray"))
        project = open_project(pulled.root)
        assert not torch.equal(logits(author), logits(project))
        again = push_student(project, MINE, hub=bob)
        assert again.license == "cc-by-nc-4.0"
        record, before = record_of(server, MINE), record_of(server, THEIRS)
        assert [item.version for item in record.history] == ["v1", "v2"]
        assert list(record.history[:1]) == list(before.history)
        assert record.history[0].student.start == InitialWeights(REPO, LicenseFacts(seen="cc-by-nc-4.0"))
        assert record.base == before.base == AdapterBase(REPO, commit)
        assert record.origin is not None
        assert (record.origin.repository, record.origin.commit) == (THEIRS, pulled.origin.commit)
        pull_student(MINE, tmp_path / "third", hub=bob)
        assert torch.equal(logits(project), logits(open_project(tmp_path / "third")))

        card = server.store.path(server.head(MINE).files["README.md"].oid).read_text(encoding="utf-8")
        header = YAML(typ="safe").load(card.split("---\n")[1])
        assert (header["base_model"], header["base_model_relation"]) == (REPO, "adapter")
        assert header["pipeline_tag"] == "image-text-to-text"
        assert "other answers" in card
        assert "without kdkit" not in card
        assert_without_its_base_the_project_is_there(server, bob, tmp_path, monkeypatch)


def assert_without_its_base_the_project_is_there(
    server: LocalHub, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del server.repositories["model", REPO]
    pull_student(THEIRS, tmp_path / "cached", hub=hub)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(KdkitError, match=REPO) as caught:
        pull_student(THEIRS, tmp_path / "fourth", hub=hub)
    assert f"hf download {REPO} --revision" in caught.value.fix
    assert str(tmp_path / "fourth") in caught.value.why
    with raises_error("KD-STUD-031") as later:
        logits(open_project(tmp_path / "fourth"))
    assert later.value.code == ExitCode.MISSING
    assert "hf download" in later.value.fix


def test_the_hub_of_the_adapters_must_hold_their_base(tmp_path: Path) -> None:
    notes = Notes()
    with local_hub(tmp_path / "hub", accounts=[ALICE]) as server:
        hub, commit = Hub(server.url, ALICE.token), server.add(REPO, {"config.json": b"{}"})
        look_for_base(hub, AdapterBase(REPO, commit), notes)
        assert notes.warnings == []
        look_for_base(hub, AdapterBase("vendor/gone", commit), notes)
        (warning,) = notes.warnings
        assert warning.startswith("vendor/gone")
        assert server.url in warning
        with raises_error("KD-HUB-015", mentions=(str(REPO), str("0" * 40))):
            look_for_base(hub, AdapterBase(REPO, "0" * 40), notes)


def test_a_base_from_a_folder_cannot_be_pinned_but_merged(tmp_path: Path) -> None:
    base = make_base(tmp_path / "vendor")
    project = make_answering(tmp_path / "project", init=str(base), lora=LORA)
    version = Versions(project).get()
    with raises_error("KD-STUD-037") as caught:
        assemble_release(project, version, "lab/student", tmp_path / "adapters")
    assert "--merge" in caught.value.fix
    release = assemble_release(project, version, "lab/student", tmp_path / "release", merged=True)
    assert set(release.record.checks) == {"transformers"}
    assert release.record.checks["transformers"]["logit_difference"] <= TOLERANCE
    assert release.record.base is None
    assert "kdkit" not in release.lines["transformers"]
    card = (tmp_path / "release" / "README.md").read_text(encoding="utf-8")
    assert "plain transformers" in card
    assert "base_model" not in card, "its repository is unknown"
    for path in (path for path in release.folder.rglob("*") if path.is_file()):
        assert str(tmp_path).encode() not in path.read_bytes(), path
    record = Record.from_json(json.loads((release.folder / "kdkit.json").read_text(encoding="utf-8")))
    assert "adapter_config.json" not in record.student


def test_what_is_too_far_is_refused() -> None:
    published = Published("", "peft", (), "", (), {}, {})
    require_close({"logit": 9e-6}, TOLERANCE, published, library="peft", where="x")
    for difference in (1.1e-5, math.nan, math.inf):
        with raises_error("KD-REL-001", where="x") as caught:
            require_close({"logit": difference}, TOLERANCE, published, library="peft", where="x")
        assert caught.value.code == ExitCode.FOUND


def test_half_precision_may_round() -> None:
    for dtype, allowed in ((torch.float32, TOLERANCE), (torch.bfloat16, COARSE)):
        weights = [torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=dtype)]
        assert tolerance(SimpleNamespace(parameters=lambda w=weights: w)) == allowed
