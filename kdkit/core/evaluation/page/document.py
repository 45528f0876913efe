"""One self-contained HTML document of titled sections: style sheet, script and a policy that forbids requests."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import kdkit
from kdkit.core.base.markup import Markup, join, tag
from kdkit.core.evaluation.page.interval_chart import markers


@dataclass(frozen=True)
class PageSection:
    """One section; ``id`` is its anchor."""

    id: str
    title: str
    content: Markup


def render_document(title: str, subtitle: str, sections: Sequence[PageSection]) -> str:
    """A complete HTML document. Its policy forbids every request and every script but its own."""
    css, script = _resource("page.css"), _resource("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(css)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = join([
        Markup('<meta charset="utf-8">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup('<meta name="color-scheme" content="light dark">'),
        tag("title", title),
        Markup(f"<style>{css}</style>"),
    ])  # fmt: skip
    links = (tag("li", tag("a", section.title, href=f"#{section.id}")) for section in sections)
    body = join([
        markers(),
        tag("header", tag("h1", title), tag("p", subtitle, class_="note")),
        tag("nav", tag("ol", *links), aria_label="Sections"),
        tag("main", *(_card(section) for section in sections)),
        tag("footer", tag("p", f"Made by kdkit {kdkit.__version__}. This file loads nothing and sends nothing.")),
        Markup(f"<script>{script}</script>"),
    ])  # fmt: skip
    return f"<!DOCTYPE html>\n{tag('html', tag('head', head), tag('body', body), lang='en')}\n"


def _card(section: PageSection) -> Markup:
    return tag("section", tag("h2", section.title), section.content, id=section.id)


def _resource(name: str) -> str:
    return (files("kdkit.core.evaluation.page") / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
