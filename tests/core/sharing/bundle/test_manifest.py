"""Paths that a bundle may write, and those that it may not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdkit.core.sharing.bundle.manifest import Manifest, Share, parse_manifest, safe_path, shares
from tests.core.sharing.bundle.forged import PROJECT, manifest_of
from tests.errors import raises_error

REFUSED = {
    "/etc/passwd": "outside",
    "..": "outside",
    "versions/../../x": "outside",
    "features\\..\\x": "outside",
    "versions//x": "proper",
    "versions/": "proper",
    "./x": "proper",
    "versions/./x": "proper",
    "": "proper",
    "a\0b": "proper",
    "a\nb": "proper",
    "a\udc80": "proper",
    ".git/hooks/pre-commit": "hidden",
    "versions/.envrc": "hidden",
    ".kdkit/busy": "hidden",
    ".kdkit/artifacts/.a/x": "hidden",
    "a\u202eb": "proper",
    "x" * 256: "too long",
    "/".join(["x" * 200] * 20): "too long",
}


@pytest.mark.parametrize("path", REFUSED, ids=ascii)
def test_refused_paths(path: str) -> None:
    with pytest.raises(ValueError, match=REFUSED[path]):
        safe_path(path)


@given(st.lists(st.sampled_from(["..", ".", "", "a", "B", "~", "C:", ".kdkit", "artifacts", "é"]) | st.text()))
def test_what_is_accepted_stays_inside_and_is_not_hidden(parts: list[str]) -> None:
    path = "/".join(parts)
    try:
        safe_path(path)
    except ValueError:
        return
    root = Path("/project")
    target = root.joinpath(path)
    assert target.relative_to(root).as_posix() == path, "the disk and the manifest mean the same"
    assert ".." not in target.parts
    assert not any(part.startswith(".") for part in target.relative_to(root).parts[2:])
    assert not path.startswith(".") or path.startswith(".kdkit/artifacts/")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("features/a/x", "features/a/x"),
        ("features/a/x", "features/a/X"),
        ("features/a/x", "features/A/y"),
        ("features/é", "features/é"),
        ("features/straße", "features/STRASSE"),
        ("features/a", "features/a/x"),
        ("features/a/x", "features/a"),
        ("features/A", "features/a/x"),
    ],
    ids=ascii,
)
def test_names_that_collide_on_some_disks_are_refused(one: str, other: str) -> None:
    body = manifest_of(PROJECT)
    body["files"] += [{**body["files"][0], "path": path} for path in (one, other)]
    with raises_error("KD-BUNDLE-006", where="a.tar", mentions=("disks",)):
        parse_manifest(json.dumps(body).encode(), "a.tar")


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "no format"),
        (b'{"format": "1"}', "no format"),
        (json.dumps(manifest_of({"a": b""})).encode(), "no registry.yaml"),
        (json.dumps(manifest_of(PROJECT, more=1)).encode(), "more"),
        (json.dumps(manifest_of(PROJECT, files=[{"path": "a", "size": -1, "sha256": "0" * 64}])).encode(), "size"),
        (json.dumps(manifest_of(PROJECT, files=[{"path": "a", "size": 1, "sha256": "0"}])).encode(), "sha256"),
        (json.dumps(manifest_of(PROJECT, files=[{"path": "../a", "size": 1, "sha256": "0" * 64}])).encode(), "outside"),
    ],
)
def test_manifests_that_are_refused(raw: bytes, why: str) -> None:
    with raises_error("KD-BUNDLE-006", where="a.tar") as caught:
        parse_manifest(raw, "a.tar")
    assert why in caught.value.why


def test_a_newer_format_is_named(tmp_path: Path) -> None:
    with raises_error("KD-BUNDLE-005", mentions=("newer kdkit", "format 2", "'9.0'", "up to 1")):
        parse_manifest(json.dumps({"format": 2, "kdkit": "9.0", "else": 1}).encode(), str(tmp_path))


def test_the_fingerprint_covers_every_file() -> None:
    def fingerprint(files: dict[str, bytes]) -> str:
        return parse_manifest(json.dumps(manifest_of(files)).encode(), "").fingerprint

    assert fingerprint(PROJECT) == fingerprint(dict(PROJECT))
    assert len({fingerprint({**PROJECT, "versions/v1/a.json": data}) for data in (b"a", b"b")}) == 2
    assert Manifest.model_validate_json(Manifest.model_validate(manifest_of(PROJECT)).to_json()) == (
        Manifest.model_validate(manifest_of(PROJECT))
    )


def test_what_is_inside_is_added_up() -> None:
    sizes = {
        "registry.yaml": 1,
        "requirements.txt": 2,
        ".kdkit/artifacts/a/x": 4,
        ".kdkit/artifacts/a/text/y": 8,
        "features/a/current": 16,
        "features/a/0123/column.json": 32,
        "versions/current": 64,
        "versions/v1/student/x": 128,
        "wheels/x.whl": 256,
    }
    assert shares(sizes.items()) == (
        Share("project", "", 3, 67),
        Share("teacher", "a", 2, 12),
        Share("features", "a", 2, 48),
        Share("version", "v1", 1, 128),
        Share("wheels", "", 1, 256),
    )
