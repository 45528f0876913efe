"""Sources of teachers: parsed, and found in installed packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdkit.core.teachers import add_teacher, open_teacher
from kdkit.core.teachers.source import Source, parse_source
from tests.core.teachers import stub
from tests.errors import raises_error

HASH = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("hf:org/repo", Source("hf", "org/repo")),
        ("hf:org/repo.x-1@v1.0", Source("hf", "org/repo.x-1", "v1.0")),
        ("hf:org/repo@refs/pr/3", Source("hf", "org/repo", "refs/pr/3")),
        ("hf:datasets/org/repo@v1", Source("hf", "datasets/org/repo", "v1")),
        ("hf:datasets/repo", Source("hf", "datasets/repo")),
        ("local:models/a b", Source("local", "models/a b")),
        ("package:pkg.sub/data/a", Source("package", "pkg.sub/data/a")),
        ("https://host/a/b.zip", Source("https", "https://host/a/b.zip")),
        (f"https://host/b.zip#sha256={HASH}", Source("https", "https://host/b.zip", HASH)),
    ],
)
def test_sources_are_read_and_written(text: str, source: Source) -> None:
    assert parse_source(text) == source
    assert str(source) == text


def test_a_data_set_has_a_repository_of_its_own_kind() -> None:
    of_data = parse_source("hf:datasets/org/repo")
    assert (of_data.repository, of_data.repository_kind) == ("org/repo", "dataset")
    for text in ("hf:datasets/repo", "hf:org/repo"):  # an organization may be called so
        model = parse_source(text)
        assert (model.repository, model.repository_kind) == (text.removeprefix("hf:"), "model")


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "hf:",
            "hf:repo",
            "hf:a/b/c",
            "hf:datasets/a/b/c",
            "hf:../b",
            "hf:a/..",
            "hf:a/b@",
            "hf:a/b@../../x",
            "local:",
        ),
        *("package:pkg", "package:p/../x", "http://x/y", "models/a"),
    ],
)
def test_other_sources_are_errors(text: str) -> None:
    with raises_error("KD-TEACH-020"):
        parse_source(text)


@pytest.mark.parametrize(
    ("text", "id"),
    [
        ("http://host/b.zip", "KD-TEACH-302"),
        ("https://me:secret@host/b.zip", "KD-DATA-220"),
        ("https://host/../b.zip", "KD-DATA-220"),
        ("https://host/{a,b}.zip", "KD-TEACH-020"),
        ("https://host/b.zip?token=1", "KD-TEACH-020"),
        ("https://host/b.zip#sha256=12", "KD-TEACH-020"),
        ("https://host/b.tar", "KD-TEACH-020"),
    ],
)
def test_addresses_that_are_not_fetched(text: str, id: str) -> None:
    with raises_error(id) as caught:
        parse_source(text)
    assert "secret" not in str(caught.value)


def test_files_of_an_installed_package_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = stub.make_project(tmp_path / "project")
    package = tmp_path / "site" / "kdkit_stub_pack"
    stub.write(package / "teachers" / "a")
    (package / "__init__.py").write_text("raise SystemExit('never imported')", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert add_teacher(project, "a", {"from": "package:kdkit_stub_pack/teachers/a"}).dims["image"] == 4
    assert open_teacher(project.reloaded(), "a").name == "a"
    for bad, id in (
        ("package:kdkit_stub_pack/teachers/b", "KD-TEACH-021"),
        ("package:kdkit_absent/a", "KD-TEACH-022"),
        ("package:kdkit_stub_pack/../../etc", "KD-TEACH-020"),
    ):
        with raises_error(id):
            add_teacher(project, "b", {"from": bad})
