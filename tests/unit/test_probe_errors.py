"""By what name a health question that failed is counted."""

from __future__ import annotations

import errno
import json
import socket
import ssl

import aiohttp
import httpx
import pytest

from qnwis.providers.errors import Unreachable
from qnwis.providers.probe_errors import TYPES, error_type
from qnwis.tls.files import TlsError


def because(error: Exception, *causes: BaseException) -> Exception:
    """The error, of which each further one is the cause of the one before."""
    above: BaseException = error
    for cause in causes:
        above.__cause__ = cause
        above = cause
    return error


REFUSED, NO_ROUTE = ConnectionRefusedError(errno.ECONNREFUSED, "no"), OSError(errno.EHOSTUNREACH, "no")
CASES = [
    (TimeoutError(), "timeout"),
    (aiohttp.ServerTimeoutError(), "timeout"),
    (because(Unreachable("x"), httpx.ConnectTimeout("x")), "timeout"),
    (because(aiohttp.ClientError(), REFUSED), "connection_refused"),
    (
        because(Unreachable("x"), httpx.ConnectError("x"), OSError("all failed"), REFUSED),
        "connection_refused",
    ),
    (because(OSError("all failed"), ExceptionGroup("two", [NO_ROUTE, REFUSED])), "connection_refused"),
    (because(httpx.ConnectError("x"), socket.gaierror(socket.EAI_NONAME, "x")), "dns"),
    (because(httpx.ConnectError("x"), TlsError("x")), "tls"),
    (because(aiohttp.ClientError(), ssl.SSLCertVerificationError("x")), "tls"),
    (because(Unreachable("x"), json.JSONDecodeError("x", "", 0)), "answer"),
    (aiohttp.ServerDisconnectedError(), "unreachable"),
    (because(httpx.ConnectError("x"), NO_ROUTE), "unreachable"),
]


@pytest.mark.parametrize(("error", "expected"), CASES, ids=repr)
def test_a_failed_health_question_has_one_of_few_names(error: Exception, expected: str) -> None:
    assert error_type(error) == expected


def test_every_name_is_one_that_is_told_of() -> None:
    assert {expected for _, expected in CASES} == {*TYPES}
