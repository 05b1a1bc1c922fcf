"""An API in this process: real files, a cluster in memory, and a Temporal server that never answers."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import httpx
import jwt
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI
from jwt.algorithms import OKPAlgorithm
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from qnwis.api.app import create_app
from qnwis.api.parts import Parts, Voucher
from qnwis.config.access import AccessFiles
from qnwis.config.api import ApiFile, JwtIssuer
from qnwis.config.registry import Registry
from qnwis.providers.audit_store import SqliteAuditStore
from qnwis.providers.bundles import Bundles
from qnwis.providers.jwt_bearer import Bearer
from qnwis.providers.key_store import FileKeyStore
from qnwis.providers.keys import new_key, public_key_of
from qnwis.providers.nodes import Nodes
from qnwis.providers.request_store import RequestStore
from qnwis.providers.service_tokens import TokenFile
from qnwis.transport import Transport
from tests.integration.continuity.world import World, three_nodes, write_registry

ISSUER = "https://id.test/realm"
AUDIENCE = "qnwis-continuity"
ROLES = {
    "ann": "continuity_admin",
    "bob": "continuity_operator",
    "carl": "sre_oncall",
    "dora": "continuity_admin",
    "eve": "continuity_viewer",
    "root": "admin",
    "robot": "service",
    "stranger": "no_such_role",
}
BASE = "/api/v1/continuity"


class SilentTemporal:
    """A client whose server does not answer; what would have been asked of it is counted."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def ask(*arguments: Any, **more: Any) -> Any:
            if name.startswith("get_workflow_handle"):
                return self
            if name == "list_workflows":
                return self._listing()
            return self._refuse(name)

        return ask

    async def _listing(self) -> Any:
        await self._refuse("list_workflows")
        yield

    async def _refuse(self, name: str) -> Any:
        self.asked.append(name)
        raise RPCError("nobody answers", RPCStatusCode.UNAVAILABLE, b"")


def jwk_set(*keys: tuple[str, Ed25519PrivateKey]) -> dict[str, Any]:
    """The public halves, as an issuer publishes them."""
    made = [{**json.loads(OKPAlgorithm.to_jwk(key.public_key())), "kid": name} for name, key in keys]
    return {"keys": [{**key, "use": "sig", "alg": "EdDSA"} for key in made]}


@dataclass
class ApiScene:
    """An API over a folder; requests go through the whole application without a network."""

    home: Path
    settings: ApiFile = field(default_factory=ApiFile)
    client: Any = field(default_factory=SilentTemporal)
    cluster_id: str = "c1"
    task_queue: str = "none"
    world: World | None = None
    registry: Path | None = None
    audit: SqliteAuditStore | None = None
    signer: Ed25519PrivateKey = field(default_factory=new_key)
    voucher: Ed25519PrivateKey = field(default_factory=new_key)

    def __post_init__(self) -> None:
        self.world = self.world or World.of(three_nodes(self.cluster_id))
        self.registry = self.registry or write_registry(self.home / "config", self.world.cluster)
        jwks = self.home / "jwks.json"
        jwks.write_text(json.dumps(jwk_set(("k1", self.signer))))
        issuer = JwtIssuer(issuer=ISSUER, audience=AUDIENCE, jwks_file=str(jwks), roles_claim="realm.roles")
        settings = self.settings.model_copy(update={"jwt": (*self.settings.jwt, issuer)})
        self.tokens = TokenFile(self.registry / "service-tokens.yaml")
        audit = self.audit or SqliteAuditStore(self.home / "audit.sqlite", self.home / "key.pem")
        self.parts = Parts(
            registry=Registry(self.registry),
            access=AccessFiles(self.registry),
            settings=settings,
            bearer=Bearer(settings.jwt, Transport()),
            tokens=self.tokens,
            store=RequestStore(self.home / "api.sqlite"),
            nodes=cast(Nodes, self.world),
            client=cast(Client, self.client),
            audit=audit,
            bundles=Bundles(audit, FileKeyStore(self.home / "audit-keys.json"), self.home / "bundles"),
            voucher=Voucher("api", self.voucher),
            task_queue=self.task_queue,
        )
        self.write_people(ROLES)

    def write_people(self, roles: Mapping[str, str], *, vouched: bool = True) -> None:
        """People who have no key of their own: the API vouches for them."""
        people = [
            {"name": name, "roles": [role], "issuers": ["api" if vouched else "other"]}
            for name, role in roles.items()
        ]
        assert self.registry is not None
        (self.registry / "people.yaml").write_text(yaml.safe_dump({"people": people}))
        issuers = [{"name": "api", "public_key": public_key_of(self.voucher)}]
        (self.registry / "issuers.yaml").write_text(yaml.safe_dump({"issuers": issuers}))

    def http(self) -> httpx.AsyncClient:
        """Another process of the same API, as often as it is called."""
        return calling(create_app(self.parts))

    def jwt(self, name: str, *, signer: Ed25519PrivateKey | None = None, **changes: Any) -> str:
        now = datetime.now(UTC)
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": name,
            "iat": now,
            "exp": now + timedelta(minutes=5),
            "realm": {"roles": [ROLES.get(name, name)]},
            **changes,
        }
        kept = {key: value for key, value in claims.items() if value is not None}
        return jwt.encode(kept, signer or self.signer, algorithm="EdDSA", headers={"kid": "k1"})

    def signed_in(self, name: str, **changes: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.jwt(name, **changes)}"}

    def acting(self, name: str, *, key: str | None = None, **headers: str) -> dict[str, str]:
        """The headers of a request that acts: fresh, and with a key of its own."""
        return {**self.signed_in(name), **stamped(key), **headers}


def calling(app: FastAPI) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url=f"http://api.test{BASE}", timeout=60)


def stamped(key: str | None = None) -> dict[str, str]:
    return {
        "X-Request-Timestamp": datetime.now(UTC).isoformat(),
        "X-Request-Nonce": secrets.token_hex(16),
        "Idempotency-Key": key or secrets.token_hex(8),
    }


def rule_of(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return str(answer.json()["rule"])
