"""Pages are easy to read: short lines, short sentences, and names that exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from docs.generate import PAGES as PAGES_MADE
from docs.generate import written_by_hand

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("examples/*.md"), *written_by_hand()]
ELSEWHERE = {"docs/_build/html", "kdkit/best-of-n", "kdkit/samples.safetensors", "tests/test_huber.py"}
"""Paths of a build, of a release and of the documented plugin."""
MAX_LINE, MAX_WORDS = 120, 30
FENCE = re.compile(r"^(?P<fence>`{3,})(?P<language>[^`\n]*)\n(?P<text>.*?)^(?P=fence)$", flags=re.M | re.S)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def paragraphs(text: str) -> Iterator[str]:
    """Prose alone, one paragraph or list item at a time: no code blocks, tables, headings or HTML."""
    lines: list[str] = []
    for line in [*FENCE.sub("\n", text).splitlines(), ""]:
        stripped = line.strip()
        item = re.match(r"(?:[-*+] |\d+\. |: )(.*)", stripped)
        if lines and (item or not stripped or stripped.startswith(("|", "#", "<"))):
            yield " ".join(lines)
            lines = []
        if stripped and not stripped.startswith(("|", "#", "<")):
            lines.append(item[1] if item else stripped)


def sentences(paragraph: str) -> list[str]:
    """Split at full stops, question and exclamation marks; a code span or a link's address is no word boundary."""
    text = re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`]*`", "CODE", paragraph))
    return re.split(r"(?<=[.!?])[*_\")\]]*\s+(?=[*_\"(\[]*(?:[A-Z]|\*\*))", text)


def words(sentence: str) -> int:
    return sum(1 for word in sentence.split() if re.search(r"\w", word))


@each_page
def test_lines_are_short(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [number for number, line in enumerate(lines, 1) if len(line) > MAX_LINE] == []


@each_page
def test_sentences_are_short(page: Path) -> None:
    found = [s for p in paragraphs(page.read_text(encoding="utf-8")) for s in sentences(p)]
    assert [sentence for sentence in found if words(sentence) > MAX_WORDS] == []


def test_sentences_are_counted() -> None:
    text = "# Title\n\nOne `a b.` two [three](x.md). **Four** five\nsix\n\n- Seven eight.\n\n| a | b. C |\n"
    text += "\n```sh\nd. E\n```\n"
    found = [sentence for paragraph in paragraphs(text) for sentence in sentences(paragraph)]
    assert [words(sentence) for sentence in found] == [4, 3, 2]


# -------------------------------------------------------------------------------------- names


@cache
def definitions(module: str) -> set[str] | None:
    """Names at the top level of a module of the checkout; None where there is no such module."""
    path = ROOT.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not file.is_file():
        return set() if path.is_dir() else None
    names = {child.stem for child in path.iterdir()} if path.is_dir() else set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Constant) and module == "kdkit":
            names.add(str(node.value))
    return names


def exists(dotted: str) -> bool:
    """Whether ``kdkit.a.b.Name`` is a module, or a name within one."""
    module, _, name = dotted.rpartition(".")
    if definitions(dotted) is not None:
        return True
    known = definitions(module) if module else None
    return name in known if known is not None else bool(module) and exists(module)


@each_page
def test_dotted_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    names = re.findall(r"(?<![\w./-])kdkit(?!\.json)(?:\.[A-Za-z_]\w*)+", re.sub(r"entry-points\.kdkit", "", text))
    assert [name for name in names if not exists(name)] == []


@each_page
def test_imports_of_examples_exist(page: Path) -> None:
    wrong = []
    for block in FENCE.finditer(page.read_text(encoding="utf-8")):
        if block["language"] == "python":
            for node in ast.walk(ast.parse(block["text"])):
                if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in {"kdkit", "tests"}:
                    wrong += [f"{node.module}.{a.name}" for a in node.names if not exists(f"{node.module}.{a.name}")]
    assert wrong == []


@each_page
def test_paths_of_the_checkout_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    paths = re.findall(r"(?<![\w./-])(?:kdkit|tests|benchmarks|docs|examples)/[\w./-]*\w", text)
    assert [path for path in paths if path not in ELSEWHERE and not (ROOT / path).exists()] == []


def test_pages_named_in_the_source_exist() -> None:
    known = {path.relative_to(ROOT).as_posix() for path in written_by_hand()} | {f"docs/{name}" for name in PAGES_MADE}
    wrong = []
    for path in (path for kind in ("*.py", "*.yaml", "*.tmpl") for path in (ROOT / "kdkit").rglob(kind)):
        named = re.findall(r"docs/[\w/-]+\.md", path.read_text(encoding="utf-8"))
        wrong += [f"{path}: {name}" for name in named if name not in known]
    assert wrong == []


@cache
def defined_names() -> set[str]:
    """Every class, function, method and field of kdkit."""
    names: set[str] = set()
    for path in (ROOT / "kdkit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                names.add(node.name)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names.add(node.target.id)
    return names


def test_every_name_of_the_architecture_exists() -> None:
    text = FENCE.sub("", (ROOT / "docs/explanation/architecture.md").read_text(encoding="utf-8"))
    spans = set(re.findall(r"`([^`\n]+)`", text))
    code = {span for span in spans if re.fullmatch(r"\w*_\w+|[A-Z]\w*[a-z]\w*|train|extract|promote", span)}
    assert len(code) > 15
    assert code - defined_names() == set()
    paths = {span for span in spans if re.fullmatch(r"(kdkit|tests)/[\w./]+", span)}
    assert len(paths) > 8
    assert {path for path in paths if not (ROOT / path).exists()} == set()
