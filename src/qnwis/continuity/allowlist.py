"""The allowlist: which certificates are whose, and what each of their owners may ask of a node.

Agents, workers and whoever asks agents speak mutual TLS 1.3. A certificate counts if the installation's own
authority signed it **and** its fingerprint and its distinguished name are those of an entry here: a second
certificate of the same authority, even one of the same name, is nobody's. Decisions only; the connections are
in `qnwis.tls`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AwareDatetime, Field, JsonValue, model_validator

from .lease_messages import Ask, PromiseRequest, Release
from .membership import Adopted, Proposed
from .model import Identifier, Model
from .refusal import Refusal

Fingerprint = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
"""SHA-256 of the certificate (DER), in small hexadecimal letters."""
Suite = Literal["TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]
SUITES: tuple[Suite, ...] = ("TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
VERSION = "TLSv1.3"


class SecuritySettings(Model):
    """How connections are secured. What is `true` here is always done where there is an allowlist: the fields
    are there to be read, and a file that says otherwise is refused rather than half heeded."""

    require_tls: Literal[True] = True
    min_tls_version: Literal["1.3"] = "1.3"
    validate_certificates: Literal[True] = True
    mutual_auth: Literal[True] = True
    cipher_suites: tuple[Suite, ...] = Field(default=SUITES, min_length=1)
    certificate_pinning: Literal[True] = True


class _Listed(Model):
    fingerprint: Fingerprint
    next_fingerprint: Fingerprint | None = None
    """While a certificate is being replaced: the other one that counts."""
    certificate_dn: str = Field(min_length=1)
    """For example `CN=node-1.qnwis.prod,O=QNWIS,C=US`: the most specific part first."""

    @property
    def fingerprints(self) -> tuple[str, ...]:
        return tuple(one for one in (self.fingerprint, self.next_fingerprint) if one is not None)


class AllowedNode(_Listed):
    """A node's agent."""

    node_id: Identifier
    endpoint: str
    """The agent's base URL, `https://host:port`, as the topology has it."""
    region: Identifier

    @property
    def who(self) -> str:
        return f"{self.node_id} at {self.endpoint}"

    @model_validator(mode="after")
    def _secured(self) -> Self:
        if origin_of(self.endpoint) != self.endpoint:
            raise ValueError("expected an endpoint such as https://host:8443, with nothing after the port")
        return self


class AllowedClient(_Listed):
    """A worker, a vantage, the API, or a person's command line: it asks agents, and no agent asks it."""

    name: Identifier

    @property
    def who(self) -> str:
        return self.name


class Allowlist(Model):
    """`allowlist.yaml`."""

    allowed_nodes: tuple[AllowedNode, ...] = ()
    allowed_clients: tuple[AllowedClient, ...] = ()
    security_settings: SecuritySettings = SecuritySettings()

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        endpoints = [node.endpoint for node in self.allowed_nodes]
        names = [client.name for client in self.allowed_clients]
        prints = [one for entry in (*self.allowed_nodes, *self.allowed_clients) for one in entry.fingerprints]
        for what, values in (("endpoint", endpoints), ("name", names), ("fingerprint", prints)):
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"expected each {what} once; {', '.join(twice)} is there more often")
        return self

    def node_at(self, origin: str) -> AllowedNode | None:
        return next((node for node in self.allowed_nodes if node.endpoint == origin), None)


class RefusedCallers(Model):
    """What an agent refused since it was started: connections and requests."""

    counts: dict[str, int] = Field(default_factory=dict)
    """By rule."""
    last_at: AwareDatetime | None = None


class Presented(Model):
    """What the other end of a connection showed, and how the connection is secured."""

    fingerprint: str
    certificate_dn: str
    version: str
    """Of TLS, as OpenSSL names it."""
    cipher_suite: str


def origin_of(url: str) -> str | None:
    """`https://host:port` of an address; None for one that is not secured or has no host."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"https://{host}:{parts.port or 443}"


def connection_refusal(settings: SecuritySettings, shown: Presented) -> Refusal | None:
    """Why a connection is not secured as the settings demand."""
    if shown.version == VERSION and shown.cipher_suite in settings.cipher_suites:
        return None
    return Refusal(
        rule="connection_too_weak",
        message=f"The connection is {shown.version} with {shown.cipher_suite}",
        values={
            "version": shown.version,
            "cipher_suite": shown.cipher_suite,
            "cipher_suites": [*settings.cipher_suites],
        },
        remedy=f"Both ends must offer {VERSION} with one of the listed suites.",
    )


def entry_refusal(
    entry: AllowedNode | AllowedClient, settings: SecuritySettings, shown: Presented
) -> Refusal | None:
    """Why what was shown is not this entry's."""
    if (weak := connection_refusal(settings, shown)) is not None:
        return weak
    if shown.fingerprint in entry.fingerprints and shown.certificate_dn == entry.certificate_dn:
        return None
    return Refusal(
        rule="certificate_not_listed",
        message=f"Whoever answers for {entry.who} shows {shown.certificate_dn}, {shown.fingerprint}",
        values=_compared(shown, entry),
        remedy="Find out who answers there. If the certificate was replaced on purpose, list it with"
        " `qnwis-continuity pki rotate`.",
    )


def caller_of(allowlist: Allowlist, shown: Presented) -> AllowedNode | AllowedClient | Refusal:
    """Whose certificate was shown by who asks."""
    if (weak := connection_refusal(allowlist.security_settings, shown)) is not None:
        return weak
    entries: tuple[AllowedNode | AllowedClient, ...] = (*allowlist.allowed_nodes, *allowlist.allowed_clients)
    for entry in entries:
        if shown.fingerprint in entry.fingerprints:
            return entry_refusal(entry, allowlist.security_settings, shown) or entry
    return Refusal(
        rule="certificate_not_listed",
        message=f"{shown.certificate_dn} asks with {shown.fingerprint}, which is nobody's here",
        values=_compared(shown, None),
        remedy="If it should be somebody's, list it with `qnwis-continuity pki node` or `pki client`.",
    )


def _compared(shown: Presented, entry: _Listed | None) -> dict[str, JsonValue]:
    values: dict[str, JsonValue] = {"certificate_dn": shown.certificate_dn, "fingerprint": shown.fingerprint}
    if entry is not None:
        values |= {"expected_dn": entry.certificate_dn, "expected_fingerprints": [*entry.fingerprints]}
    return values


BETWEEN_AGENTS = frozenset({"/lease/ask", "/lease/release", "/membership/accept", "/membership/adopt"})
"""What no client may say: grants and memberships are among agents."""
OF_AGENTS = BETWEEN_AGENTS | {"/lease/promise", "/membership"}
"""All that one agent may say to another. None orders another about, whoever runs it."""
OF_ANYBODY = frozenset({"/health/live", "/health/ready", "/health/deep", "/state"})


def path_refusal(caller: AllowedNode | AllowedClient, path: str) -> Refusal | None:
    """Why a caller may not ask this path of an agent."""
    is_node = isinstance(caller, AllowedNode)
    if path in OF_ANYBODY or (path in OF_AGENTS if is_node else path not in BETWEEN_AGENTS):
        return None
    kind, other = ("an agent", "a client") if is_node else ("a client", "an agent")
    return Refusal(
        rule="path_not_for_caller",
        message=f"{caller.who} is {kind}, and {path} is not for one",
        values={"caller": caller.who, "path": path},
        remedy=f"Ask as {other} that the allowlist names.",
    )


def is_of_a_run(body: Model) -> bool:
    """Whether a run says the body, or a person in its place, and no agent: a promise without a former holder
    reserves the epoch against the holder, and to a forced membership no majority agreed."""
    match body:
        case Ask() | Release() | Proposed():
            return False
        case PromiseRequest():
            return body.former_holder is None
        case Adopted():
            return body.adoption.forced is not None
        case _:
            return True


def spoken_for(body: Model) -> str | None:
    """The node in whose name alone the body may be said; None where it is said in nobody's."""
    match body:
        case Ask() | Release():
            return body.holder
        case PromiseRequest():
            return body.former_holder
        case Proposed():
            return body.proposal.holder
        case _:
            return None


def body_refusal(
    caller: AllowedNode | AllowedClient, body: Model, known_at: str | None, members: Collection[str]
) -> Refusal | None:
    """Why a caller may not say this to an agent. The list has nodes of other clusters too, so what an agent
    says counts only where it is known: `known_at` is where the agent that is asked knows a peer of the
    caller's name, and `members` are those of the membership that it knows."""
    of_a_run, node_id = is_of_a_run(body), spoken_for(body)
    if isinstance(caller, AllowedClient):
        return None if of_a_run else _speaks_for_another(caller, node_id or "the members")
    if of_a_run or node_id not in (None, caller.node_id):
        return _speaks_for_another(caller, node_id or "a run")
    if known_at is None or origin_of(known_at) != caller.endpoint:
        return _no_peer(caller, "none of the peers that it knows")
    if isinstance(body, Adopted) and members and caller.node_id not in members:
        return _no_peer(caller, f"none of {', '.join(members)}, the members that it knows")
    return None


def _speaks_for_another(caller: AllowedNode | AllowedClient, whom: str) -> Refusal:
    return Refusal(
        rule="speaks_for_another",
        message=f"{caller.who} says something in the name of {whom}",
        values={"caller": caller.who, "in_the_name_of": whom},
        remedy="Each says it with its own certificate.",
    )


def _no_peer(caller: AllowedNode, what: str) -> Refusal:
    return Refusal(
        rule="caller_no_peer",
        message=f"{caller.who} is to this agent {what}",
        values={"caller": caller.who},
        remedy="Where it belongs to this cluster, list it under `peers` in agent.yaml and send the agent"
        " SIGHUP; a member that missed a change hears of it from the others.",
    )
