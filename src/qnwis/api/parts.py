"""What the API is made of: everything through which it reaches the world."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from temporalio.client import Client

from qnwis.config.access import AccessFiles
from qnwis.config.api import ApiFile
from qnwis.config.problem import ConfigError
from qnwis.config.registry import Registered, Registry
from qnwis.continuity.identity import Identity
from qnwis.continuity.refusal import Refusal
from qnwis.providers.alarms import Alarms
from qnwis.providers.audit_store import AuditStore
from qnwis.providers.bundles import Bundles
from qnwis.providers.errors import Refused
from qnwis.providers.jwt_bearer import Bearer
from qnwis.providers.nodes import Nodes
from qnwis.providers.request_store import RequestStore
from qnwis.providers.service_tokens import TokenFile
from qnwis.signing import Signer
from workflows.names import RUNBOOKS_QUEUE

from .streams import Streams

GOOD_FOR = timedelta(minutes=2)
"""A token that the API signs is sent at once."""


@dataclass(frozen=True)
class Voucher:
    """The API's own key, by which workers believe who was signed in here (`issuers.yaml`). It says who, for
    one deed on one content; what that person may do, the workers read in people.yaml themselves."""

    issuer: str
    key: Ed25519PrivateKey

    def signer(self, who: Identity) -> Signer:
        """Signs what this identity asks for."""
        return Signer(who.name, self.key, GOOD_FOR, self.issuer)


@dataclass(frozen=True)
class Parts:
    registry: Registry
    access: AccessFiles
    settings: ApiFile
    bearer: Bearer
    tokens: TokenFile
    store: RequestStore
    nodes: Nodes
    client: Client
    audit: AuditStore
    bundles: Bundles
    voucher: Voucher
    alarms: Alarms = field(default_factory=Alarms)
    streams: Streams = field(default_factory=Streams)
    task_queue: str = RUNBOOKS_QUEUE
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))

    def known(self, cluster_id: str) -> Registered | None:
        """What is registered of it; None for an unknown cluster. Raises ConfigError for bad files."""
        if cluster_id in self.registry.cluster_ids():
            return self.registry.load(cluster_id)
        with contextlib.suppress(ConfigError):
            return self.registry.load(cluster_id)  # a lease group of an active/active cluster
        return None

    def registered(self, cluster_id: str) -> Registered:
        """Raises Refused for a cluster that this installation does not know, ConfigError for bad files."""
        if (found := self.known(cluster_id)) is not None:
            return found
        raise Refused(
            Refusal(
                rule="cluster_unknown",
                message=f"{cluster_id} is not registered here",
                values={"cluster_id": cluster_id, "registered": [*self.registry.cluster_ids()]},
                remedy="Register it (config/continuity/clusters/<cluster_id>/), or name one that is.",
            )
        )
