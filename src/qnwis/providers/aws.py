"""Clients of AWS. Credentials and region come from where every AWS tool has them."""

from __future__ import annotations

from typing import Any

from qnwis.continuity.refusal import Refusal

from .errors import Refused


def aws_client(service: str, *, extra: str) -> Any:
    """Raises Refused without boto3. `extra`: of this package, by which it is installed."""
    try:
        import boto3  # only who uses AWS loads it
    except ModuleNotFoundError as error:
        raise Refused(
            Refusal(
                rule=f"{extra}_not_installed",
                message="boto3 is not installed where this runs",
                values={"module": str(error.name)},
                remedy=f"pip install 'qnwis-continuity[{extra}]'",
            )
        ) from error
    return boto3.client(service)
