"""Texts that somebody else wrote, as they may be shown: none may change what is around it."""

from __future__ import annotations

import re
import unicodedata

_TURNS_TEXT = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that change the direction of what follows, so that a name could look like another."""
_STEERS = re.compile(f"[\x7f-\x9f]|{_TURNS_TEXT.pattern}")
"""What JSON lets stand as it is, and a terminal obeys."""


def one_line(text: str) -> str:
    """Without characters that break a line, steer a terminal or turn the direction of the text."""
    shown = "".join(
        " " if c.isspace() else "�" if unicodedata.category(c) in {"Cc", "Cs"} else c for c in text
    )
    return _TURNS_TEXT.sub("�", shown)


def plain(text: str) -> str:
    """`one_line`, and no more than one blank between words."""
    return " ".join(one_line(text).split())


def harmless_json(document: str) -> str:
    """The same JSON, in which nothing steers a terminal. Below the blank everything is escaped anyway."""
    return _STEERS.sub(lambda found: f"\\u{ord(found[0]):04x}", document)
