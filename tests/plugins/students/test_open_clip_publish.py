"""A student that transformers cannot reproduce is published for open_clip alone, and its card says why."""

from __future__ import annotations

import json
from pathlib import Path

from kdkit.core.contracts import Silent, StudentSpec
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.sharing.release.form import publish
from kdkit.plugins.students.open_clip import load_student
from tests.tiny_models import make_open_clip_folder


def make_without_end(folder: Path) -> None:
    """open_clip pools at the highest token id; transformers at the end token, which this tokenizer does not name."""
    make_open_clip_folder(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    del config["eos_token"]
    path.write_text(json.dumps(config))


class Heard(Silent):
    """Keeps warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def test_a_form_with_other_features_is_left_out(tmp_path: Path) -> None:
    folder, to, heard = tmp_path / "student", tmp_path / "out", Heard()
    make_without_end(folder)
    spec = load_catalogue().spec(StudentSpec, "open_clip")
    form = publish(spec, folder, lambda: load_student(folder), to, "lab/x", heard)
    assert list(form.lines) == ["open_clip"]
    assert "differ" in form.checks["transformers"]["missing"]
    assert form.checks["open_clip"]["text_difference"] <= 1e-5
    assert {path.name for path in to.iterdir()} == {*form.published.names, "config.json"}
    assert json.loads((to / "config.json").read_text()) == {"library_name": "open_clip"}
    assert ["transformers" in warning for warning in heard.warnings] == [True]
