"""Connecting to Temporal, the same way from every part: the standard environment, one data converter."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import secrets
from collections.abc import Sequence

from temporalio.api.errordetails.v1 import NamespaceNotFoundFailure
from temporalio.client import Client, Interceptor
from temporalio.envconfig import ClientConfig, ClientConnectConfig
from temporalio.runtime import Runtime
from temporalio.service import GrpcCompression, RPCError, RPCStatusCode

from qnwis.payloads import data_converter

CONNECT_TIMEOUT_S = 5.0


class NoServer(Exception):
    """No Temporal server answers; the text says where it was looked for and what to do."""


class UnusableSettings(NoServer):
    """None is even asked: the environment, or the profile or a file that it names, cannot be used; the text
    says why."""


async def connect(
    address: str | None = None,
    *,
    runtime: Runtime | None = None,
    interceptors: Sequence[Interceptor] = (),
) -> Client:
    """A client for `address`, else for what TEMPORAL_ADDRESS and Temporal's profiles say. Raises NoServer
    (UnusableSettings where nobody could be asked), and KeyStoreError where QNWIS_KEY_STORE is set to
    something that names no key store.

    Where it names one, everything that the client sends is encrypted, and the client's identity says nothing
    of this machine. `runtime`: another one than the SDK's own.
    """
    config = settings()
    if address is not None:
        config["target_host"] = address
    target = config.get("target_host") or "localhost:7233"
    config["target_host"] = target
    converter = data_converter(os.environ)
    identity = f"qnwis-{secrets.token_hex(6)}" if converter.payload_codec is not None else None
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            return await Client.connect(
                **config,
                data_converter=converter,
                identity=identity,
                runtime=runtime,
                interceptors=interceptors,
                grpc_compression=GrpcCompression.NONE if is_near(target) else GrpcCompression.GZIP,
            )
    except ValueError as error:  # no address, or half of an identity
        raise _unusable(error) from error
    except (RuntimeError, RPCError, TimeoutError) as error:
        raise NoServer(
            f"no Temporal server answers at {target}; start one (`qnwis-continuity lab start` has its own)"
            " or set TEMPORAL_ADDRESS; with no Temporal server at all: `qnwis-continuity break-glass plan`"
        ) from error


def is_near(target: str) -> bool:
    """Whether host:port names this machine, or a private address. On one machine to compress what is said
    costs more than it saves; a private network is taken to be as near. Where a name leads is not asked."""
    host = target.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host == "localhost"


def not_there(error: RPCError) -> bool:
    """Whether the server says that what was asked about is not there. That it knows no such namespace is
    NOT_FOUND too, and no word about what goes on in the right one."""
    if error.status is not RPCStatusCode.NOT_FOUND:
        return False
    return not any(detail.Is(NamespaceNotFoundFailure.DESCRIPTOR) for detail in error.grpc_status.details)


def settings() -> ClientConnectConfig:
    """What the environment and Temporal's profiles say. Raises UnusableSettings."""
    try:
        return ClientConfig.load_client_connect_config()
    except (OSError, RuntimeError, ValueError) as error:
        raise _unusable(error) from error


def _unusable(error: Exception) -> UnusableSettings:
    why = " ".join(str(error).split())  # that of a profile's file draws where it is wrong
    return UnusableSettings(
        f"Temporal's settings cannot be used: {why}; correct the address, the variables TEMPORAL_… or the"
        " profile that they name; with no Temporal server at all: `qnwis-continuity break-glass plan`"
    )
