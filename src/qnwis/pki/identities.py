"""What `pki` does with identities: make them, list them, replace them without an outage.

A replacement is three steps, with the allowlist brought to every party after each:

1. *begin*: the new certificate lies in `<identity>.next`, and counts beside the old one.
2. *install*: its files are put in place of the old ones; both still count.
3. *finish*: the old one counts no more.

Whoever still shows the old one in between is listed, and so is whoever shows the new one already.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from qnwis.continuity.allowlist import AllowedClient, AllowedNode, Allowlist, origin_of
from qnwis.continuity.topology import Cluster, Node
from qnwis.tls.files import AUTHORITY, OWN

from .authority import (
    DAYS,
    Authority,
    Issued,
    PkiError,
    common_name,
    hosts_of,
    issued,
    undone_on_failure,
    writing,
)
from .listing import changed, entry_of, with_client, with_fingerprints, with_node, without

CLIENTS = "clients"


def of_node(authority: Authority, cluster_id: str, node_id: str) -> Path:
    """Where a node's identity is made."""
    return authority.folder / "identities" / cluster_id / node_id


def of_client(authority: Authority, name: str) -> Path:
    """Where a client's identity is made."""
    return authority.folder / "identities" / CLIENTS / name


def enroll_node(
    authority: Authority, cluster: Cluster, node: Node, allowlist: Path, *, days: int = DAYS
) -> Issued:
    """Make a node's identity and list it, or neither. Raises PkiError, and TlsError for the allowlist."""
    endpoint = origin_of(node.agent_url)
    if endpoint != node.agent_url:
        raise PkiError(
            f"{node.node_id} of {cluster.cluster_id}: endpoint is {node.agent_url}; expected"
            " https://host:port in the topology, since agents with certificates speak nothing else"
        )
    identity = of_node(authority, cluster.cluster_id, node.node_id)
    made = authority.issue(
        identity, f"{node.node_id}.{cluster.cluster_id}", [str(urlsplit(endpoint).hostname)], days=days
    )
    with undone_on_failure(identity):
        entry = AllowedNode(
            node_id=node.node_id,
            endpoint=endpoint,
            region=node.region,
            fingerprint=made.fingerprint,
            certificate_dn=made.certificate_dn,
        )
        changed(allowlist, lambda found: with_node(found, entry))
    return made


def enroll_client(authority: Authority, name: str, allowlist: Path, *, days: int = DAYS) -> Issued:
    """Make the identity of a worker, an API or a person, and list it, or neither. Raises PkiError, and
    TlsError for the allowlist."""
    identity = of_client(authority, name)
    made = authority.issue(identity, name, [], days=days)
    with undone_on_failure(identity):
        entry = AllowedClient(name=name, fingerprint=made.fingerprint, certificate_dn=made.certificate_dn)
        changed(allowlist, lambda found: with_client(found, entry))
    return made


def begin(authority: Authority, identity: Path, allowlist: Path, *, days: int = DAYS) -> Issued:
    """The first step; nothing is changed where it fails. Raises PkiError, and TlsError for the allowlist."""
    old, following = issued(identity), _next(identity)
    _listed(allowlist, old.fingerprint, identity)
    if (following / OWN).exists():
        _listed(allowlist, issued(following).fingerprint, following)
        raise PkiError(f"{following}: is there and listed already; `pki rotate --install` goes on with it")
    new = authority.issue(following, common_name(identity), hosts_of(identity), days=days)
    with undone_on_failure(following):
        if new.certificate_dn != old.certificate_dn:
            raise PkiError(
                f"{identity}: is {old.certificate_dn}, and the authority would make it"
                f" {new.certificate_dn}; remove it and make it anew instead"
            )
        changed(
            allowlist,
            lambda found: with_fingerprints(
                found, old.fingerprint, current=old.fingerprint, following=new.fingerprint
            ),
        )
    return new


def install(identity: Path, allowlist: Path) -> Issued:
    """The second step. The certificate and its key are put in place at once, and last: cut off before that,
    the step is done again. Raises PkiError, and TlsError for the allowlist."""
    following = _next(identity)
    old, new = issued(identity), issued(following)
    _listed(allowlist, new.fingerprint, following)
    changed(
        allowlist,
        lambda found: with_fingerprints(
            found, new.fingerprint, current=new.fingerprint, following=old.fingerprint
        ),
    )
    with writing(identity):
        if (following / AUTHORITY).exists():
            (following / AUTHORITY).replace(identity / AUTHORITY)
        (following / OWN).replace(identity / OWN)
    with suppress(OSError):  # somebody may have put something else there
        following.rmdir()
    return new


def finish(identity: Path, allowlist: Path) -> Issued:
    """The third step. Raises PkiError."""
    if (_next(identity) / OWN).exists():
        raise PkiError(f"{_next(identity)}: the new certificate is not installed yet; `pki rotate --install`")
    now = issued(identity)
    _listed(allowlist, now.fingerprint, identity)
    changed(
        allowlist,
        lambda found: with_fingerprints(found, now.fingerprint, current=now.fingerprint, following=None),
    )
    return now


def strike_off(identity: Path, allowlist: Path) -> Issued:
    """From now on nobody heeds whoever shows this. Raises PkiError."""
    now = issued(identity)
    _listed(allowlist, now.fingerprint, identity)
    changed(allowlist, lambda found: without(found, now.fingerprint))
    return now


def _listed(allowlist: Path, fingerprint: str, identity: Path) -> None:
    def check(found: Allowlist) -> Allowlist:
        if entry_of(found, fingerprint) is None:
            raise PkiError(
                f"{allowlist}: does not list {identity} ({fingerprint}); to have it listed, remove that"
                " folder and make it anew, as it was made"
            )
        return found

    changed(allowlist, check)


def _next(identity: Path) -> Path:
    return identity.with_name(identity.name + ".next")
