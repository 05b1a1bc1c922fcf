"""One HTTP request that an operator declared; what is secret of it comes from this process's environment."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping

import httpx

from qnwis.continuity.hooks_file import HttpCall, named_variable
from qnwis.continuity.http_headers import IDEMPOTENCY_HEADER
from qnwis.continuity.notifications import HIDDEN
from qnwis.transport import Transport

KEPT = 300
"""Characters of an answer's body that are kept."""
BODY_LIMIT = 64 * 1024
"""Bytes of it that are read."""


class NotSet(Exception):
    """An environment variable that the file names is not set here."""


async def request(
    transport: Transport,
    call: HttpCall,
    told: Mapping[str, str],
    *,
    method: str,
    idempotency_key: str | None,
    timeout_s: float,
) -> tuple[bool, str]:
    """Whether the answer is the expected one, and what it says, without a secret."""
    secrets: list[str] = []
    try:
        url = _resolved(call.url, secrets)
        headers = {name: _resolved(value, secrets) for name, value in call.headers.items()}
        if idempotency_key is not None:
            headers[IDEMPOTENCY_HEADER] = idempotency_key
        body = None if method in ("GET", "HEAD") else dict(told)
        async with (
            asyncio.timeout(timeout_s),
            transport.client(timeout_s=timeout_s) as client,
            client.stream(method, url, headers=headers, json=body) as response,
        ):
            said = await _beginning(response)
    except NotSet as missing:
        return False, str(missing)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError) as error:
        return False, _hidden(str(error) or f"no answer within {timeout_s:g} s", secrets)
    ok = response.is_success if call.expect_status is None else response.status_code == call.expect_status
    answered = f"status {response.status_code}"
    if ok:
        return True, answered
    wanted = "of 200 to 299" if call.expect_status is None else str(call.expect_status)
    return False, _hidden(f"{answered}, not {wanted}" + (f": {said}" if said else ""), secrets)


async def _beginning(response: httpx.Response) -> str:
    body = b""
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > BODY_LIMIT:
            break
    return " ".join(body.decode(errors="replace").split())[:KEPT]


def _resolved(text: str, secrets: list[str]) -> str:
    name = named_variable(text)
    if name is None:
        return text
    found = os.environ.get(name, "").strip()
    if not found:
        raise NotSet(f"the environment variable {name} is not set on this worker")
    # `Bearer x` is repeated without its first word, too.
    secrets.extend((found, *found.split()[1:]))
    return found


def _hidden(text: str, secrets: list[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return " ".join(text.split())
