"""Hooks of MkDocs: what pages link to outside `docs/` is in the site too, below `source/`; and what a
reader's browser would fetch from elsewhere gives a warning.

In the repository a page links to a file as it lies there, so that the link works where the file is read. In
the site a Markdown file becomes a page, any other file a page with its text, a folder one with its names.
"""

from __future__ import annotations

import logging
import re
from os.path import relpath
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

log = logging.getLogger("mkdocs.hooks.sources")
"""A warning there fails a strict build."""

PROJECT = Path(__file__).parents[2]
LINK = re.compile(r"(?<=\]\()(?P<to>[^)#:\s]+)(?=[)#])")
"""The target of an inline link that has no scheme."""
FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
FETCHED = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^\"'>]*")
HIDDEN = "---\nsearch:\n  exclude: true\n---\n"
LANGUAGES = {
    ".py": "python",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".sql": "sql",
    ".json": "json",
    ".toml": "toml",
}


def on_files(files: Files, config: Any) -> Files:
    """Add a page for each file that a page links to, and for those that these link to."""
    pages = [file.src_uri for file in files.documentation_pages()]
    waiting = [PurePosixPath("docs", page) for page in pages]
    added: set[PurePosixPath] = set()
    while waiting:
        page = waiting.pop()
        if page.suffix != ".md":
            continue
        for target in sorted(_outside(page) - added):
            added.add(target)
            waiting.append(target)
            made = File.generated(config, str(_place(target)), content=_text(target))
            made.inclusion = InclusionLevel.NOT_IN_NAV
            files.append(made)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links to where `on_files` has put what they mean."""
    here = PurePosixPath(page.file.src_uri)
    source = _source(here)
    if source is None:
        return markdown

    def led(link: re.Match[str]) -> str:
        target = _target(source, link["to"])
        if target is None:
            return link["to"]
        place = target.relative_to("docs") if target.parts[0] == "docs" else _place(target)
        return relpath(place, here.parent)

    return LINK.sub(led, markdown)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Warn of what a browser would fetch from elsewhere."""
    for found in FETCHED.findall(output):
        log.warning("%s: a browser would fetch %s", page.file.src_uri, found)
    return output


def _outside(page: PurePosixPath) -> set[PurePosixPath]:
    """What a page links to outside `docs/`."""
    targets = (_target(page, link["to"]) for link in LINK.finditer((PROJECT / page).read_text()))
    return {target for target in targets if target is not None and target.parts[0] != "docs"}


def _target(page: PurePosixPath, link: str) -> PurePosixPath | None:
    """What a link on a page means, as a path of the repository; None if there is no such file."""
    path = (PROJECT / page.parent / link).resolve()
    if not path.exists() or not path.is_relative_to(PROJECT):
        return None
    return PurePosixPath(path.relative_to(PROJECT))


def _place(target: PurePosixPath) -> PurePosixPath:
    """Where a file of the repository stands in the site."""
    name = target.name if target.suffix == ".md" else f"{target.name}.md"
    return PurePosixPath("source", target.parent, name)


def _source(page: PurePosixPath) -> PurePosixPath | None:
    """Where the text of a page is from; None for a text that was made, in which nothing is led anywhere."""
    if page.parts[0] != "source":
        return PurePosixPath("docs", page)
    source = page.relative_to("source")
    return source if (PROJECT / source).is_file() else None


def _text(target: PurePosixPath) -> str:
    path = PROJECT / target
    if target.suffix == ".md":
        return HIDDEN + FRONT_MATTER.sub("", path.read_text())
    if path.is_dir():
        names = sorted(child.name for child in path.iterdir() if not child.name.startswith((".", "__")))
        return f"{HIDDEN}# {target}\n\n" + "".join(f"- `{name}`\n" for name in names)
    language = LANGUAGES.get(target.suffix, "text")
    return f"{HIDDEN}# {target}\n\n````{language}\n{path.read_text()}\n````\n"
