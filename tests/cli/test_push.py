"""``kdkit push`` to a Hub on the loopback interface, of a project that was pulled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from kdkit.core.base.hub import connect
from kdkit.core.project.lineage import EarlierHistory, Origin
from kdkit.core.project.manifest import write_manifest
from kdkit.core.project.versions import HISTORY
from kdkit.core.sharing.hub import Uploaded, plan_upload
from kdkit.core.sharing.release.layout import README, RECORD, Record
from kdkit.core.sharing.release.push import Pushed
from tests.conftest import Cli
from tests.core.sharing.release.projects import lay_out
from tests.lineages import lineage, teacher
from tests.local_hub import ALICE, LocalHub, local_hub
from tests.tiny_models import make_open_clip_folder


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LocalHub]:
    with local_hub(tmp_path / "hub") as hub:
        yield hub


def download(hub: LocalHub, repo: str, name: str) -> str:
    return Path(connect(hub.url, ALICE.token).api.hf_hub_download(repo, name, cache_dir=hub.root / "got")).read_text()


def test_a_pulled_student_is_pushed_with_its_whole_history(kdkit_cli: Cli, hub: LocalHub) -> None:
    root = kdkit_cli.folder
    bio = teacher("biomedclip", "hf:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224", {"ct": 1.0})
    first = lineage("v1", teachers=[bio], created="2026-01-01T00:00:00+00:00", published_under="cc-by-nc-4.0")
    lay_out(root, make_open_clip_folder, "v2", parent="v1", teachers=[{**bio, "inherited": True}])
    origin = Origin("lab/first", "c" * 40, "v1", hub.url)
    (root / "versions" / "v2" / HISTORY).write_bytes(EarlierHistory(origin, (first,)).to_bytes())
    write_manifest(root / "versions" / "v2")

    environment = hub.environment() | {"HF_TOKEN": "hf_not_for_this_host"}
    outcome = kdkit_cli("push", "lab/second", "--json", env=environment)
    assert outcome.code == 0, outcome.stderr
    data = json.loads(outcome.stdout)
    assert data["pushed"]["url"] == f"{hub.url}/lab/second"
    assert (data["pushed"]["tag"], data["license"], data["version"]) == ("v2", "cc-by-nc-4.0", "v2")
    assert ALICE.token not in outcome.stdout + outcome.stderr
    assert hub.repository("lab/second").private
    assert {request.token for request in hub.requests} <= {ALICE.token, None}

    record = Record.from_json(json.loads(download(hub, "lab/second", RECORD)))
    assert [item.version for item in record.history] == ["v1", "v2"]
    assert record.history[0].created == first.created
    assert record.origin is not None
    assert record.origin.repository == "lab/first"
    card: Any = ModelCard(download(hub, "lab/second", README))
    assert (card.data.base_model, card.data.license) == ("lab/first", "cc-by-nc-4.0")
    assert 'create_model_and_transforms("hf-hub:lab/second")' in card.text
    assert data["load"]["open_clip"] in card.text


def test_a_token_of_another_hub_is_not_sent(kdkit_cli: Cli, hub: LocalHub) -> None:
    lay_out(kdkit_cli.folder, make_open_clip_folder)
    outcome = kdkit_cli("push", "lab/second", env={"HF_ENDPOINT": hub.url, "HF_TOKEN": ALICE.token})
    assert outcome.code == 4
    assert "KDKIT_HUB_TOKEN" in outcome.stderr
    assert outcome.stdout == ""
    assert all(request.token is None for request in hub.requests)


def test_the_plan_and_the_lines_are_shown(tmp_path: Path, hub: LocalHub) -> None:
    folder = tmp_path / "release"
    folder.mkdir()
    for number in range(33):
        (folder / f"{number:02}.txt").write_bytes(b"x" * (number + 1) * 10_000)
    hub.add("lab/x", {"00.txt": b"old", "gone.txt": b"old"}, private=True)
    plan = plan_upload(connect(hub.url, ALICE.token), "lab/x", "model", folder)
    done = Pushed("v2", "mit", {"open_clip": "import open_clip\n"}, (), {}, 1, plan, None, public=False)
    text = str(done)
    first = text.splitlines()[0]
    assert first.startswith("lab/x (private): ")
    for count in ("32 to add", "1 to update", "1 to delete", "0 unchanged"):
        assert count in first
    assert "5.6 MB" in text
    assert "  + 01.txt  20.0 kB" in text
    assert "  and 4 more" in text
    assert "nothing" in text.splitlines()[-1]
    uploaded = Uploaded("http://hub/lab/x", "abcdef0123456789", True, False, "", "v2")
    text = str(Pushed("v2", "mit", done.lines, (), {}, 1, plan, uploaded, public=False))
    assert text.index("http://hub/lab/x\n") < text.index("abcdef012345 (tag v2)")
    assert "open_clip:\n" in text
    assert text.splitlines()[-1].split() == ["import", "open_clip"]
    proposed = Uploaded("http://hub/lab/x/discussions/1", "abcdef0123456789", True, False, "refs/pr/1", "")
    text = str(Pushed("v2", "mit", done.lines, (), {}, 1, plan, proposed, public=False))
    assert "http://hub/lab/x/discussions/1\n" in text
    assert "abcdef012345\n" in text  # without a tag
    assert "open_clip:\n" in text
    assert "merged" in text, "until then its name gives what was there before"
    new = plan_upload(connect(hub.url, ALICE.token), "lab/new", "model", folder)
    first = str(Pushed("v2", "mit", {}, (), {}, 1, new, None, public=True)).split(": ")[0]
    assert first.split() == ["lab/new", "(new,", "public)"]
