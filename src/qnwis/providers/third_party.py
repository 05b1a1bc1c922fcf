"""Providers that other packages bring: a class, and an entry point that names it.

    [project.entry-points."qnwis.continuity.providers.dns"]
    hosts-file = "my_package:HostsFile"

The configuration chooses one by its name. What is not installed, or does not load, is refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from qnwis.continuity.model import canonical_json
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.topology import Cluster, Provider

from .errors import Refused

GROUPS = "qnwis.continuity.providers"


class Kind(StrEnum):
    """What a provider is for; entry points of a kind are in the group `qnwis.continuity.providers.<kind>`."""

    DNS = "dns"  # qnwis.providers.dns.Dns, made with the options of cluster.yaml
    FENCING = "fencing"  # qnwis.providers.fencing.Hook, the same
    AUDIT = "audit"  # qnwis.providers.audit_log.AuditLog, made with what stands behind `name:`
    KEYS = "keys"  # qnwis.providers.key_store.KeyStore, the same

    @property
    def group(self) -> str:
        return f"{GROUPS}.{self}"


def installed(kind: Kind) -> tuple[str, ...]:
    """Their names, in alphabetical order."""
    return tuple(sorted({point.name for point in entry_points(group=kind.group)}))


def third_party(kind: Kind, name: str, told: object) -> Any:
    """The provider of that name, made with what the configuration tells it. Raises Refused."""
    found = {point.name: point for point in entry_points(group=kind.group)}
    if name not in found:
        raise Refused(
            Refusal(
                rule="provider_unknown",
                message=f"no provider {name!r} for {kind} is installed here; {known(kind)}",
                values={"kind": kind, "name": name, "installed": list(installed(kind))},
                remedy="Install the package that brings it into the environment of every worker"
                f" (entry points {kind.group}), or correct the name.",
            )
        )
    return _made(found[name], told)


def known(kind: Kind) -> str:
    return f"installed are {', '.join(installed(kind))}" if installed(kind) else "none is installed"


def _made(point: EntryPoint, told: object) -> Any:
    try:
        return point.load()(told)
    except Exception as error:  # it is somebody else's code
        why = f"{type(error).__name__}: {error}"
        raise Refused(
            Refusal(
                rule="provider_broken",
                message=f"provider {point.name!r} ({point.value}) cannot be made: {why}",
                values={"name": point.name, "object": point.value},
                remedy="Correct what it is told, or ask who made it.",
            )
        ) from error


def provider_of(kind: Kind, provider: Provider) -> Any:
    """The one that a topology names; made once for the same options. Raises Refused."""
    return _of_topology(kind, provider.name, canonical_json(provider))


@cache
def _of_topology(kind: Kind, name: str, text: str) -> Any:
    return third_party(kind, name, Provider.model_validate_json(text).options)


def unusable(cluster: Cluster) -> Iterator[tuple[tuple[str, ...], Refusal]]:
    """The providers that a topology names and this environment cannot make, each with its place there."""
    named: Mapping[Kind, Provider | None] = {
        Kind.DNS: None if cluster.dns is None else cluster.dns.provider,
        Kind.FENCING: None if cluster.fencing is None else cluster.fencing.provider,
    }
    for kind, provider in named.items():
        if provider is not None:
            try:
                provider_of(kind, provider)
            except Refused as refused:
                yield (kind, "provider", "name"), refused.refusal
