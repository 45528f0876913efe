"""Which files come, and where from."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdkit.core.base.errors import KdkitError
from kdkit.core.teachers.card import license_seen
from kdkit.core.teachers.select import select_descriptions, select_files
from kdkit.core.teachers.source import Source, parse_source
from tests.errors import raises_error


@pytest.mark.parametrize(
    ("present", "chosen"),
    [
        (["config.json", "model.safetensors", "pytorch_model.bin"], ["config.json", "model.safetensors"]),
        (["config.json", "pytorch_model.bin", "training_args.bin"], ["config.json", "pytorch_model.bin"]),
        (["BMC_CLIP_CF.pt", "README.md"], ["BMC_CLIP_CF.pt", "README.md"]),
        (
            ["open_clip_pytorch_model.bin", "pytorch_model.bin", "config.json"],
            ["config.json", "open_clip_pytorch_model.bin", "pytorch_model.bin"],
        ),
        (["a.json", "run.py", ".gitattributes", ".git/x.json", "LICENSE", "img.png"], ["LICENSE", "a.json"]),
        (["1_Pooling/config.json", "vocab.txt"], ["1_Pooling/config.json", "vocab.txt"]),
    ],
)
def test_files_of_a_model(present: list[str], chosen: list[str]) -> None:
    assert select_files(present, "here") == chosen


@pytest.mark.parametrize("present", [[], ["README.md", "LICENSE"], ["run.py", "model.onnx"], ["a.pt", "b.pt"]])
def test_what_cannot_be_chosen_is_an_error(present: list[str]) -> None:
    with pytest.raises(KdkitError):
        select_files(present, "here")


def test_descriptions_leave_weights_and_subfolders_out() -> None:
    present = ["config.json", "vocab.txt", "model.safetensors", "pytorch_model.bin", "sub/config.json"]
    assert select_descriptions(present, "here") == ["config.json", "vocab.txt"]


@pytest.mark.parametrize("name", ["../a.json", "/a.json", "a/../../b.json", "a\\b.json", "a\0.json"])
def test_names_that_lead_outside(name: str) -> None:
    for select in (select_files, select_descriptions):
        with raises_error("KD-TEACH-018", where="here"):
            select([name, "config.json"], "here")


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("hf:org/repo", Source("hf", "org/repo")),
        ("hf:org/repo.x-1@v1.0", Source("hf", "org/repo.x-1", "v1.0")),
        ("hf:org/repo@refs/pr/3", Source("hf", "org/repo", "refs/pr/3")),
        ("local:models/a b", Source("local", "models/a b")),
        ("package:pkg.sub/data/a", Source("package", "pkg.sub/data/a")),
    ],
)
def test_sources_are_read_and_written(text: str, source: Source) -> None:
    assert parse_source(text) == source
    assert str(source) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "hf:", "hf:repo", "hf:a/b/c", "hf:../b", "hf:a/..", "hf:a/b@", "hf:a/b@../../x", "local:"),
        *("package:pkg", "package:p/../x", "http://x/y", "models/a"),
    ],
)
def test_other_sources_are_errors(text: str) -> None:
    with raises_error("KD-TEACH-020"):
        parse_source(text)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, (None, None, False)),
        ({"README.md": "# no front matter\nlicense: mit\n"}, (None, None, False)),
        ({"README.md": "---\nlicense: MIT\ntags: [a]\n---\nhello"}, ("mit", "README.md", False)),
        ({"README.md": "---\r\nlicense: cc-by-4.0\r\n---\r\n"}, ("cc-by-4.0", "README.md", False)),
        ({"README.md": "---\nlicense: other\nlicense_name: hai-def\n---\n"}, ("hai-def", "README.md", False)),
        ({"README.md": "---\nlicense: [mit, cc-by-nc-4.0]\n---\n"}, ("cc-by-nc-4.0", "README.md", False)),
        ({"README.md": "---\nlicense: mit\nextra_gated_prompt: agree\n---\n"}, ("mit", "README.md", True)),
        ({"README.md": "---\n: [broken\n---\n"}, (None, None, False)),
        ({"LICENSE": "MIT License\n\nPermission is hereby granted, free of charge, to"}, ("mit", "LICENSE", False)),
        ({"LICENSE.txt": "Apache License\n     Version 2.0, January 2004"}, ("apache-2.0", "LICENSE.txt", False)),
        ({"LICENSE": "Only on Tuesdays."}, ("unknown", "LICENSE", False)),
        (
            {
                "README.md": "---\nlicense: mit\n---\n",
                "LICENSE": "Creative Commons Attribution-NonCommercial-NoDerivatives 4.0 International",
            },
            ("cc-by-nc-nd-4.0", "LICENSE", False),
        ),
    ],
)
def test_the_strictest_license_that_files_state(
    tmp_path: Path, files: dict[str, str], expected: tuple[str | None, str | None, bool]
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    seen, gated = license_seen(tmp_path)
    assert (seen.name if seen else None, seen.evidence if seen else None, gated) == expected
