"""The rules of the house that a reader should be able to rely on, checked on the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_LINES = 400
HEAVY = {
    "torch",
    "open_clip",
    "timm",
    "transformers",
    "accelerate",
    "numpy",
    "scipy",
    "h5py",
    "PIL",
    "sklearn",
    "matplotlib",
    "huggingface_hub",
    "safetensors",
    "pydantic",
    "ruamel",
    "rich",
}
LIGHT = {
    "kdkit/__init__.py",
    "kdkit/core/contracts/answers.py",
    "kdkit/core/plugin_system/installed.py",
    "kdkit/core/plugin_system/requirements.py",
    "kdkit/core/plugin_system/loading.py",
    "kdkit/core/plugin_system/catalogue.py",
    "kdkit/core/contracts/image_readers.py",
    "kdkit/core/contracts/progress.py",
    "kdkit/core/contracts/evaluation.py",
    "kdkit/core/contracts/protocols.py",
    "kdkit/core/contracts/samples.py",
    "kdkit/core/plugin_system/discovery.py",
    "kdkit/core/base/errors.py",
    "kdkit/core/contracts/hookspecs.py",
    "kdkit/core/contracts/published.py",
    "kdkit/core/contracts/specs.py",
    "kdkit/core/project/project.py",
}
"""Modules that every command imports; also all of ``kdkit/cli`` and the plugins' entry points."""
ROOMS = (
    "base",
    "contracts",
    "plugin_system",
    "project",
    "data",
    "teachers",
    "features",
    "evaluation",
    "distill",
    "sharing",
)
"""The rooms of core, in the order in which data walks through them; each imports only rooms before it."""
MODEL_FAMILIES = ("open_clip", "timm", "peft", "qwen", "Qwen")
PUBLIC = {
    "kdkit",
    "kdkit.core.contracts",
    "kdkit.core.data.images",
    "kdkit.core.plugin_system.discovery",
    "kdkit.core.base.errors",
    "kdkit.core.base.hdf5",
    "kdkit.core.base.journal",
    "kdkit.core.base.templates",
    "kdkit.core.base.tensors",
    "kdkit.core.contracts.hookspecs",
    "kdkit.core.evaluation.metrics",
    "kdkit.core.evaluation.retrieval",
    "kdkit.core.evaluation.sampling",
    "kdkit.core.evaluation.scoring",
    "kdkit.core.evaluation.calibration",
    "kdkit.core.evaluation.zero_shot",
    "kdkit.core.contracts.tail_mass",
    "kdkit.core.contracts.token_signals",
}
"""What a plugin, built in or not, may import of kdkit: docs/howto/write-plugin.md names them."""


@dataclass(frozen=True)
class Source:
    """A file of the project; ``path`` is relative to its root."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    def under(self, *rooms: str) -> bool:
        return self.path.startswith(rooms)


@dataclass(frozen=True)
class Import:
    """``module`` (or ``names`` from it) is imported at ``place``.

    ``eager``: as soon as the file is imported (outside functions, at run time).
    """

    module: str
    place: str
    eager: bool
    names: tuple[str, ...] = ()


def python_files(*folders: str) -> list[Source]:
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    return [Source(path.relative_to(ROOT).as_posix(), text) for path, text in texts.items()]


PACKAGE = python_files("kdkit")


def imports(source: Source) -> Iterator[Import]:
    """Every import of a file. ``from a import b`` counts as ``a`` and, where that is a module, ``a.b``."""

    def walk(node: ast.AST, eager: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            inside = eager and not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                inside = False
            place = f"{source.path}:{getattr(child, 'lineno', 0)}"
            if isinstance(child, ast.Import):
                yield from (Import(alias.name, place, eager) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                module = absolute(source, child)
                yield Import(module, place, eager, tuple(alias.name for alias in child.names))
                for alias in child.names:
                    name = f"{module}.{alias.name}"
                    if is_module(name):
                        yield Import(name, place, eager)
            yield from walk(child, inside)

    yield from walk(source.tree, True)


def absolute(source: Source, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    folder = Path(source.path).parts[: -node.level]
    return ".".join([*folder, *([node.module] if node.module else [])])


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def internal(source: Source) -> dict[str, str]:
    """Files of kdkit that ``source`` imports, anywhere in it -> the place.

    A name that a package hands on (``from kdkit.core.teachers import open_teacher``) counts as the file that has it.
    """
    found: dict[str, str] = {}
    for i in imports(source):
        for module in handed_on(i):
            path = file_of(module)
            if path is not None and path != source.path and not path.endswith("__init__.py"):
                found.setdefault(path, i.place)
    return found


def handed_on(found: Import) -> Iterator[str]:
    """The modules that an import of kdkit reaches."""
    if not within(found.module, "kdkit"):
        return
    face = faces().get(found.module)
    if face is None or not found.names:
        yield found.module
        return
    yield from {face[name] for name in found.names if name in face}


def file_of(module: str) -> str | None:
    path = ROOT.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate.relative_to(ROOT).as_posix()
    return None


@cache
def faces() -> dict[str, dict[str, str]]:
    """Package -> name that it hands on -> the module that has it."""
    found: dict[str, dict[str, str]] = {}
    for source in PACKAGE:
        if source.path.endswith("/__init__.py"):
            package = ".".join(Path(source.path).parent.parts)
            found[package] = {
                (alias.asname or alias.name): absolute(source, node)
                for node in ast.walk(source.tree)
                if isinstance(node, ast.ImportFrom)
                for alias in node.names
            }
    return found


@cache
def arrows() -> dict[str, dict[str, str]]:
    """File -> the files that it imports -> where; lazy and TYPE_CHECKING imports counted."""
    return {source.path: internal(source) for source in PACKAGE}


def circles(arrows: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Groups of files that import each other, directly or by others (strongly connected components)."""
    order = TopologicalSorter(arrows)
    try:
        order.prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1][::-1]
        ahead, behind = cycle[0], cycle[1]
        rest = {path: [to for to in tos if (path, to) != (ahead, behind)] for path, tos in arrows.items()}
        return [cycle, *circles(rest)]
    return []


def test_no_circles() -> None:
    assert [" -> ".join(circle) for circle in circles(arrows())] == []


def test_a_circle_is_found() -> None:
    assert circles({"a": ["b"], "b": ["c"], "c": []}) == []
    (circle,) = circles({"a": ["b"], "b": ["c"], "c": ["b"]})
    assert sorted(set(circle)) == ["b", "c"]


def room(path: str) -> str:
    """``kdkit/core/data/images.py`` is in the room ``data``."""
    return path.split("/")[2]


def test_core_has_these_rooms_and_nothing_beside_them() -> None:
    inside = {path.name for path in (ROOT / "kdkit/core").iterdir() if path.name != "__pycache__"}
    assert inside == {*ROOMS, "__init__.py"}


def test_a_room_imports_only_rooms_before_it() -> None:
    against = [
        f"{place}: {room(path)} imports {room(to)} ({to})"
        for path, tos in arrows().items()
        for to, place in tos.items()
        if path.startswith("kdkit/core/") and path.count("/") > 2 and to.startswith("kdkit/core/")
        if ROOMS.index(room(to)) > ROOMS.index(room(path))
    ]
    assert against == []


def test_core_knows_neither_plugins_nor_terminal() -> None:
    above = ("kdkit.plugins", "kdkit.cli", "kdkit.api", "kdkit.testing", "typer", "rich")
    for source in PACKAGE:
        if source.under("kdkit/core/"):
            assert [i.place for i in imports(source) if within(i.module, *above)] == []


def test_core_names_no_library_of_one_model_family() -> None:
    """Neither imports nor strings: what is known of them belongs to loaders and students, which are plugins."""
    for source in PACKAGE:
        if source.under("kdkit/core/"):
            words = re.findall(rf"\b({'|'.join(MODEL_FAMILIES)})", source.text)
            assert (source.path, words) == (source.path, [])


def test_plugins_know_only_the_public_contracts() -> None:
    for source in PACKAGE:
        if source.under("kdkit/plugins/"):
            ours = [i for i in imports(source) if within(i.module, "kdkit")]
            wrong = [
                i for i in ours if i.module not in PUBLIC | {"kdkit.core"} and not within(i.module, "kdkit.plugins")
            ]
            assert wrong == []


def test_commands_reach_plugins_through_core() -> None:
    for source in PACKAGE:
        if source.under("kdkit/cli/"):
            assert [i.place for i in imports(source) if within(i.module, "kdkit.plugins")] == []


def test_what_every_command_imports_is_light() -> None:
    for source in PACKAGE:
        entry_point = re.fullmatch(r"kdkit/plugins/(\w+/)?__init__\.py", source.path)
        if source.path in LIGHT or source.under("kdkit/cli/") or entry_point:
            heavy = [i for i in imports(source) if i.eager and i.module.partition(".")[0] in HEAVY]
            assert heavy == []


@pytest.mark.parametrize("folder", ["kdkit", "tests", "benchmarks", "examples"])
def test_files_can_be_held_in_the_head(folder: str) -> None:
    long = {s.path: n for s in python_files(folder) if (n := len(s.text.splitlines())) > MAX_LINES}
    assert long == {}


def test_every_module_says_what_it_is_for() -> None:
    undocumented = [s.path for s in PACKAGE if s.text.strip() and not ast.get_docstring(s.tree)]
    assert undocumented == []


UNSAFE_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def unsafe_calls(tree: ast.Module) -> Iterator[str]:
    """Calls that can run code hidden in a file, or write files that only such calls can read."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in UNSAFE_MODULES:
            yield f"line {node.lineno}: from {node.module}"
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
        if (
            (name == "torch.load" and keywords.get("weights_only") != "True")
            or name == "torch.save"
            or keywords.get("allow_pickle", "False") != "False"
            or name in ("eval", "exec")
            or name.partition(".")[0] in UNSAFE_MODULES
        ):
            yield f"line {node.lineno}: {name}"


def test_no_pickle() -> None:
    for source in (*PACKAGE, *python_files("benchmarks", "examples")):
        assert (source.path, list(unsafe_calls(source.tree))) == (source.path, [])


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("torch.load(path)", 1),
        ("torch.load(path, weights_only=False)", 1),
        ("torch.load(path, weights_only=True)", 0),
        ("torch.save(state, path)", 1),
        ("np.load(path, allow_pickle=True)", 1),
        ("np.load(path, allow_pickle=False)", 0),
        ("model.eval()", 0),
        ("pickle.load(file)", 1),
        ("from pickle import loads", 1),
        ("try:\n  pass\nexcept pickle.UnpicklingError:\n  pass", 0),
        ("eval('1')", 1),
    ],
)
def test_the_search_for_unsafe_calls_finds_them(code: str, found: int) -> None:
    assert len(list(unsafe_calls(ast.parse(code)))) == found


def test_the_search_for_imports_tells_eager_from_lazy() -> None:
    code = """
import a
from . import sibling
from ..core import contracts
if TYPE_CHECKING:
    import b
class C:
    import c
def f():
    import d.e
"""
    found = imports(Source("kdkit/plugins/x.py", code))
    assert [(i.module, i.eager) for i in found] == [
        ("a", True),
        ("kdkit.plugins", True),
        ("kdkit.core", True),
        ("kdkit.core.contracts", True),
        ("b", False),
        ("c", True),
        ("d.e", False),
    ]
