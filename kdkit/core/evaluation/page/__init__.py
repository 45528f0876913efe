"""One self-contained HTML page about a version: its evaluations, its history and its training."""

from kdkit.core.evaluation.page.write import WrittenPage, write_page

__all__ = ["WrittenPage", "write_page"]
