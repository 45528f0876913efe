"""A finished pull that is repeated ends well; one over changed files, or of another commit, is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kdkit.core.contracts import Silent
from tests.core.sharing.release.toy_release import REPO, contents, pull
from tests.errors import raises_error
from tests.local_hub import LocalHub


class Lines(Silent):
    """Remembers what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_a_finished_pull_that_is_repeated_changes_nothing(local: LocalHub, tmp_path: Path) -> None:
    done, commit, notes = pull(local, tmp_path / "p"), local.head(REPO).oid, Lines()
    before, requests = contents(tmp_path / "p"), len(local.requests)
    assert pull(local, tmp_path / "p", reporter=notes) == done
    assert pull(local, tmp_path / "p", revision=commit) == done
    assert contents(tmp_path / "p") == before
    assert any("is pulled already, unchanged" in line for line in notes.lines)
    assert not [request.line for request in local.requests[requests:] if ".safetensors" in request.line]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hub", "p"]


def test_a_repeated_pull_of_another_commit_is_refused(local: LocalHub, tmp_path: Path) -> None:
    done = pull(local, tmp_path / "p")
    local.add(REPO, {"README.md": b"a newer one"})
    with raises_error("KD-REL-015", mentions=("in use",)) as caught:
        pull(local, tmp_path / "p")
    assert done.origin.commit[:12] in caught.value.why
    assert local.head(REPO).oid[:12] in caught.value.why
    assert pull(local, tmp_path / "p", revision=done.origin.commit) == done


@pytest.mark.parametrize(
    "name",
    [
        "registry.yaml",
        "registry.lock",
        "recipe.yaml",
        "versions/v2/student/toy.safetensors",
        "versions/v2/samples.safetensors",
        "versions/v2/manifest.json",
        "versions/current",
    ],
)
@pytest.mark.parametrize("gone", [False, True])
def test_a_repeated_pull_over_changed_files_is_refused(name: str, gone: bool, local: LocalHub, tmp_path: Path) -> None:
    pull(local, tmp_path / "p")
    path = tmp_path / "p" / name
    content = path.read_bytes()
    path.unlink() if gone else path.write_bytes(content[:-2] + b"#\n")
    with raises_error("KD-REL-015", mentions=("in use",)) as caught:
        pull(local, tmp_path / "p")
    if name not in {"versions/current", "versions/v2/manifest.json"}:  # without them nothing says what it is
        assert name in caught.value.why
    path.write_bytes(content)
    assert pull(local, tmp_path / "p").version == "v2"


def test_a_repeated_pull_over_a_version_of_ones_own_is_refused(local: LocalHub, tmp_path: Path) -> None:
    pull(local, tmp_path / "p")
    shutil.copytree(tmp_path / "p" / "versions" / "v2", tmp_path / "p" / "versions" / "v3")
    with raises_error("KD-REL-015", mentions=("in use",)) as caught:
        pull(local, tmp_path / "p")
    assert caught.value.why.startswith("versions ")
