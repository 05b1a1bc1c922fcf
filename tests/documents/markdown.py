"""Pieces of Markdown that the generated pages share."""

from __future__ import annotations

import re
from collections.abc import Iterable


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Cells are Markdown already."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines) + "\n"


def cell(text: str) -> str:
    """Text as it is, in one line; what is between backticks stays code."""
    text = re.sub(r"\s+", " ", text).strip()
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return _plain(text).replace("`", "\\`")
    return "".join(code(part) if number % 2 else _plain(part) for number, part in enumerate(parts))


def code(text: str) -> str:
    """As code, in a cell: a bar there would end it."""
    return f"`{text}`" if "|" not in text else f"<code>{_plain(text)}</code>"


def paragraphs(text: str) -> str:
    """A docstring."""
    blocks = re.split(r"\n\s*\n", text.strip())
    return "".join(cell(block) + "\n\n" for block in blocks)


def _plain(text: str) -> str:
    escaped = re.sub(r"([\\*_\[])", r"\\\1", text)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;")
