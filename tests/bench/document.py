"""`docs/benchmarks.md`: each bench writes a section of its own, which its next run replaces. Pure but for
`write_section`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

TITLE = "# Benchmarks"
Row = tuple[str, ...]


def text_table(head: Row, body: Sequence[Row]) -> str:
    """For a terminal. What is no number is set to the left."""
    widths = [max(len(row[column]) for row in (head, *body)) for column in range(len(head))]
    numbers = _numbers(head, body)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, numbers, strict=True)
        ).rstrip()
        for row in (head, *body)
    )


def markdown_table(head: Row, body: Sequence[Row]) -> str:
    line = "|".join("---:" if number else "---" for number in _numbers(head, body))
    return "\n".join(
        ["| " + " | ".join(head) + " |", f"|{line}|", *("| " + " | ".join(row) + " |" for row in body)]
    )


def _numbers(head: Row, body: Sequence[Row]) -> list[bool]:
    return [all(_is_number(row[column]) for row in body) for column in range(len(head))]


def _is_number(cell: str) -> bool:
    return cell == "–" or cell.replace(".", "", 1).isdigit()


def write_section(path: Path, command: str, parts: Sequence[str]) -> None:
    """Replace the section of that command (`make bench-rto`) in the document, or add it at its end. `parts`
    are its paragraphs, the heading first. Raises ValueError if only one of the section's two marks is there.
    """
    old = path.read_text() if path.exists() else ""
    path.write_text(replaced(old, command, "\n\n".join(part for part in parts if part)))


def replaced(document: str, command: str, section: str) -> str:
    """The document with the section of that command replaced, or added at the end."""
    begin, end = f"<!-- written by `{command}` -->", f"<!-- end of `{command}` -->"
    new = f"{begin}\n\n{section.strip()}\n\n{end}\n"
    if (begin in document) != (end in document):
        raise ValueError(f"expected both {begin!r} and {end!r}, or neither")
    if begin not in document:
        return f"{document.rstrip() or TITLE}\n\n{new}"
    before, rest = document.split(begin, 1)
    return before + new.rstrip("\n") + rest.split(end, 1)[1]
