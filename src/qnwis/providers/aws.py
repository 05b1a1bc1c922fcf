"""Clients of AWS. Credentials and region come from where every AWS tool has them."""

from __future__ import annotations

from typing import Any

from qnwis.continuity.refusal import Refusal

from .errors import Refused

CONNECT_WITHIN_S = 2
ANSWER_WITHIN_S = 4
"""How long AWS may be silent, seconds. By default it is a minute, five times: whoever waits has gone by then,
and the thread that asks is held all the same."""
TRIES = 3
"""Of a call, with a second or two between them: what botocore calls standard."""
ONCE = 1
"""For callers that ask again by themselves."""


def aws_client(service: str, *, extra: str, tries: int = TRIES) -> Any:
    """A call of it ends within `tries` times 6 s, and the pauses between. Raises Refused without boto3.

    `extra`: of this package, by which it is installed.
    """
    try:
        import boto3  # only who uses AWS loads it
        from botocore.config import Config
    except ModuleNotFoundError as error:
        raise Refused(
            Refusal(
                rule=f"{extra}_not_installed",
                message="boto3 is not installed where this runs",
                values={"module": str(error.name)},
                remedy=f"pip install 'qnwis-continuity[{extra}]'",
            )
        ) from error
    config = Config(
        connect_timeout=CONNECT_WITHIN_S,
        read_timeout=ANSWER_WITHIN_S,
        retries={"total_max_attempts": tries, "mode": "standard"},
    )
    return boto3.client(service, config=config)
