"""The console's pages, served to whoever asks: there is nothing in them but what the wheel has.

Everything that a page shows it asks of the API, with the credentials of whoever opened it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import Response
from fastapi.responses import RedirectResponse

AT = "/console/"
KINDS = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
"""By the end of a file's name; what ends otherwise is not served."""
POLICY = {
    # Nothing from elsewhere, nothing inline, and no text ever becomes a script, whatever a run's reasons say.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " form-action 'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script';"
        " trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}

Page = Callable[[], Awaitable[Response]]


def pages() -> dict[str, Page]:
    """Each path with its answer, read once: no path of a request ever names a file."""
    found = {AT + name: _page(content, kind) for name, content, kind in _shipped(files("qnwis.console"))}
    found[AT] = found.pop(AT + "index.html")
    return {**found, AT.rstrip("/"): _to_console, "/": _to_console}


def _shipped(folder: Traversable, prefix: str = "") -> list[tuple[str, bytes, str]]:
    found: list[tuple[str, bytes, str]] = []
    for one in folder.iterdir():
        if one.is_dir():
            found += _shipped(one, f"{prefix}{one.name}/")
        elif (kind := KINDS.get(one.name.rpartition(".")[2])) is not None:
            found.append((prefix + one.name, one.read_bytes(), kind))
    return found


def _page(content: bytes, kind: str) -> Page:
    async def serve() -> Response:
        return Response(content, media_type=kind, headers=POLICY)

    return serve


async def _to_console() -> Response:
    return RedirectResponse(AT, status_code=307)
