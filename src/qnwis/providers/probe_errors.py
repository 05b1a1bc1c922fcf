"""Why a health question failed, in few names that stay: the `type` of `continuity_health_check_errors`.

Names of a library's classes would change with the library, and differ between the two that ask.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from socket import gaierror

import aiohttp
import httpx

from qnwis.tls.client import NotTheListedNode
from qnwis.tls.files import TlsError

ANSWER, UNREACHABLE = "answer", "unreachable"
_BY_CAUSE: tuple[tuple[str, tuple[type[BaseException], ...]], ...] = (
    ("tls", (NotTheListedNode, TlsError, ssl.SSLError)),
    ("dns", (gaierror, aiohttp.ClientConnectorDNSError)),
    ("timeout", (TimeoutError, httpx.TimeoutException)),
    ("connection_refused", (ConnectionRefusedError,)),
    (ANSWER, (ValueError,)),
)
"""The first that fits: a certificate that is not accepted is a ValueError too."""
TYPES = (*(name for name, _ in _BY_CAUSE), UNREACHABLE)
"""All of them, but for `http_<status>`."""


def http_error(status: int) -> str:
    return f"http_{status}"


def error_type(error: BaseException) -> str:
    """One of TYPES, by what is behind the error."""
    causes = [*_behind(error)]
    return next(
        (name for name, kinds in _BY_CAUSE if any(isinstance(cause, kinds) for cause in causes)), UNREACHABLE
    )


def _behind(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes; of several addresses that were tried, what each said."""
    yield error
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _behind(one)
    if error.__cause__ is not None:
        yield from _behind(error.__cause__)
