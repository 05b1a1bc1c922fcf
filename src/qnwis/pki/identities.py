"""What `pki` does with identities: make them, list them, replace them without an outage.

A replacement is three steps, with the allowlist brought to every party after each:

1. *begin*: the new certificate lies in `<identity>.next`, and counts beside the old one.
2. *install*: its files are put in place of the old ones; both still count.
3. *finish*: the old one counts no more.

Whoever still shows the old one in between is listed, and so is whoever shows the new one already.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from qnwis.continuity.allowlist import AllowedClient, AllowedNode, Allowlist, origin_of
from qnwis.continuity.topology import Cluster, Node
from qnwis.tls.files import AUTHORITY, OWN

from .authority import DAYS, Authority, Issued, PkiError, common_name, hosts_of, issued
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
    """Make a node's identity and list it. Raises PkiError."""
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
    """Make the identity of a worker, an API or a person, and list it. Raises PkiError."""
    made = authority.issue(of_client(authority, name), name, [], days=days)
    entry = AllowedClient(name=name, fingerprint=made.fingerprint, certificate_dn=made.certificate_dn)
    changed(allowlist, lambda found: with_client(found, entry))
    return made


def begin(authority: Authority, identity: Path, allowlist: Path, *, days: int = DAYS) -> Issued:
    """The first step. Raises PkiError."""
    old = issued(identity)
    _listed(allowlist, old.fingerprint, identity)
    new = authority.issue(_next(identity), common_name(identity), hosts_of(identity), days=days)
    if new.certificate_dn != old.certificate_dn:
        raise PkiError(
            f"{identity}: is {old.certificate_dn}, and the authority would make it"
            f" {new.certificate_dn}; enroll it anew instead"
        )
    changed(
        allowlist,
        lambda found: with_fingerprints(
            found, old.fingerprint, current=old.fingerprint, following=new.fingerprint
        ),
    )
    return new


def install(identity: Path, allowlist: Path) -> Issued:
    """The second step. The certificate and its key are put in place at once. Raises PkiError."""
    following = _next(identity)
    old, new = issued(identity), issued(following)
    _listed(allowlist, new.fingerprint, identity)
    for name in (AUTHORITY, OWN):
        (following / name).replace(identity / name)
    following.rmdir()
    changed(
        allowlist,
        lambda found: with_fingerprints(
            found, new.fingerprint, current=new.fingerprint, following=old.fingerprint
        ),
    )
    return new


def finish(identity: Path, allowlist: Path) -> Issued:
    """The third step. Raises PkiError."""
    if _next(identity).exists():
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
            raise PkiError(f"{allowlist}: does not list {identity} ({fingerprint}); enroll it first")
        return found

    changed(allowlist, check)


def _next(identity: Path) -> Path:
    return identity.with_name(identity.name + ".next")
