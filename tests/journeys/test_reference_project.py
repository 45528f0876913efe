"""The registry.yaml at the top of the repository, and the one that 'kdkit init' writes."""

from __future__ import annotations

from pathlib import Path

from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.project.project import Project
from kdkit.core.project.registry.chosen import choose
from kdkit.core.project.registry.create import create_project
from kdkit.core.project.registry.edit import add_entry, remove_entry
from kdkit.core.project.registry.listing import available_rows, chosen_rows
from kdkit.core.project.registry.load import load_registry
from tests.errors import raises_error
from tests.plugins.test_teachers import NINE

REPOSITORY = Path(__file__).parents[2]


def test_the_reference_project_is_valid_and_has_the_nine_and_clinkds_teacher() -> None:
    registry = load_registry(REPOSITORY / "registry.yaml")
    catalogue = load_catalogue()
    assert set(registry.teachers) == {*NINE, "qwen2-vl-7b"}
    chosen = {name: choose(catalogue, name, entry) for name, entry in registry.teachers.items()}
    ready = {name for name, teacher in chosen.items() if not teacher.unavailable}
    assert ready == {*NINE, "qwen2-vl-7b"}
    assert catalogue.get("student", registry.student.family)
    assert catalogue.get("recipe", registry.recipe)


def test_the_listing_of_the_reference_project() -> None:
    rows = {row.name: row for row in chosen_rows(Project(REPOSITORY))}
    assert (rows["biomedclip"].state, rows["biomedclip"].distillation) == ("not locked", "allowed")
    assert rows["biomedclip"].dims == {"image": 512, "text": 512}
    assert (rows["medclip"].state, rows["medclip"].domains) == ("not locked", ("xray",))
    others = {row.name: row for row in available_rows(load_catalogue(), "commercial", frozenset(rows))}
    assert not set(others) & set(rows)
    assert others["conch"].distillation == "denied"
    assert others["dermlip"].distillation == "denied"
    assert others["quiltnet-b16"].distillation == "allowed"


def test_a_teacher_without_its_plugin_is_listed_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "registry.yaml"
    path.write_text(
        "version: 1\nteachers:\n  biomedclp:\n  plip:\n  x: {from: 'local:x', loader: gone}\n", encoding="utf-8"
    )
    rows = {row.name: row for row in chosen_rows(Project(tmp_path))}
    assert [row.state for row in rows.values()] == ["unavailable", "not locked", "unavailable"]
    assert "'biomedclip'" in rows["biomedclp"].note
    assert "'gone'" in rows["x"].note


def test_a_new_project_is_valid_commented_and_can_be_edited(tmp_path: Path) -> None:
    project = create_project(tmp_path / "new")
    text = project.registry_path.read_text("utf-8")
    assert text.count("#") >= 10
    assert project.registry.teachers == {}
    assert project.registry == load_registry(project.registry_path)
    assert remove_entry(add_entry(text, "biomedclip", {}), "biomedclip") == text
    assert create_project(tmp_path / "new") == project
    project.registry_path.write_text(text + "\n", "utf-8")
    with raises_error("KD-REG-005", mentions=("registry.yaml",)):
        create_project(tmp_path / "new")
    assert project.registry_path.read_text("utf-8") == text + "\n"


def test_every_hint_of_the_template_works_when_it_is_uncommented(tmp_path: Path) -> None:
    path = create_project(tmp_path).registry_path
    lines = path.read_text("utf-8").splitlines()
    start = lines.index("data:")
    lines = [line.removeprefix("#") if start < i <= start + 3 else line for i, line in enumerate(lines)]
    path.write_text("\n".join(lines), encoding="utf-8")
    (entry,) = load_registry(path).data
    assert load_catalogue().get("source", entry.source)
