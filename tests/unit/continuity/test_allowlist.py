"""Whose certificates count, and what their owners may ask."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from qnwis.agent.server import make_app
from qnwis.config.allowlist import load_allowlist, unlisted
from qnwis.config.problem import ConfigError
from qnwis.config.shipped import shipped
from qnwis.continuity.allowlist import (
    BETWEEN_AGENTS,
    OF_AGENTS,
    OF_ANYBODY,
    AllowedClient,
    AllowedNode,
    Allowlist,
    Presented,
    SecuritySettings,
    body_refusal,
    caller_of,
    entry_refusal,
    origin_of,
    path_refusal,
)
from qnwis.continuity.lease_messages import Ask, Membership, PromiseRequest, Release, Withdrawal
from qnwis.continuity.membership import Adopted, Adoption, Forced, Proposal, Proposed
from qnwis.continuity.model import Model
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.topology import Cluster

ONE, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64
AT = "https://10.0.0.1:8443"
NODE = AllowedNode(node_id="a", endpoint=AT, region="here", fingerprint=ONE, certificate_dn="CN=a,O=Q")
CLIENT = AllowedClient(name="worker", fingerprint=OTHER, certificate_dn="CN=worker,O=Q")
LIST = Allowlist(allowed_nodes=(NODE,), allowed_clients=(CLIENT,))
SUITE = "TLS_AES_256_GCM_SHA384"


def shown(**fields: str) -> Presented:
    values = {"fingerprint": ONE, "certificate_dn": "CN=a,O=Q", "version": "TLSv1.3", "cipher_suite": SUITE}
    return Presented.model_validate({**values, **fields})


def rule(found: object) -> str | None:
    return found.rule if isinstance(found, Refusal) else None


def test_whoever_shows_a_listed_certificate_is_its_owner() -> None:
    assert caller_of(LIST, shown()) == NODE
    assert caller_of(LIST, shown(fingerprint=OTHER, certificate_dn="CN=worker,O=Q")) == CLIENT
    following = NODE.model_copy(update={"fingerprint": "sha256:" + "3" * 64, "next_fingerprint": ONE})
    assert caller_of(Allowlist(allowed_nodes=(following,)), shown()) == following


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ({"fingerprint": "sha256:" + "9" * 64}, "certificate_not_listed"),
        ({"certificate_dn": "CN=a,O=Other"}, "certificate_not_listed"),
        ({"certificate_dn": "CN=worker,O=Q"}, "certificate_not_listed"),
        ({"version": "TLSv1.2"}, "connection_too_weak"),
        ({"cipher_suite": "TLS_AES_128_GCM_SHA256"}, "connection_too_weak"),
    ],
)
def test_anything_else_is_refused_by_both_ends(what: dict[str, str], why: str) -> None:
    assert rule(caller_of(LIST, shown(**what))) == why
    assert rule(entry_refusal(NODE, LIST.security_settings, shown(**what))) == why


PATHS = sorted(
    BETWEEN_AGENTS
    | OF_AGENTS
    | OF_ANYBODY
    | {
        "/orders",
        "/events",
        "/journal",
        "/lease/withdraw",
        "/membership/change",
        "/membership/force",
        "/callers/refused",
        "/upkeep",
    }
)


def test_the_table_has_every_path_of_the_agent() -> None:
    app = make_app(Mock(), Mock(), Mock(), Mock(), Mock(), Mock(), Mock(), None)
    assert sorted({route.resource.canonical for route in app.router.routes() if route.resource}) == PATHS


@pytest.mark.parametrize("path", PATHS)
def test_agents_order_nobody_about_and_clients_neither_grant_nor_agree(path: str) -> None:
    of_a_node, of_a_client = path_refusal(NODE, path), path_refusal(CLIENT, path)
    assert (of_a_node is None) == (path in OF_AGENTS | OF_ANYBODY)
    assert (of_a_client is None) == (path not in BETWEEN_AGENTS)
    assert {rule(of_a_node), rule(of_a_client)} <= {None, "path_not_for_caller"}


ASK = Ask(ask_id="x", holder="a", epoch=1, run_id="r", membership_version=1)
OF_A_RUN = PromiseRequest(epoch=1, run_id="r", membership_version=1)
RETURNS = OF_A_RUN.model_copy(update={"former_holder": "a"})
OLD, NEW = Membership(version=1, members=("a", "b")), Membership(version=2, members=("b",))
PROPOSED = Proposed(proposal=Proposal(holder="a", epoch=1, membership=NEW), peers=())
AGREED = Adopted(adoption=Adoption(old=OLD, new=NEW, acceptors=("a", "b")), peers=())
FORCED = Adopted(
    adoption=Adoption(old=OLD, new=NEW, acceptors=(), forced=Forced(run_id="r", lost=("a",), reason="gone")),
    peers=(),
)
NAMED = (ASK, Release(holder="a", epoch=1), RETURNS, PROPOSED)
"""What a node says in its own name."""


@pytest.mark.parametrize("body", NAMED, ids=lambda body: type(body).__name__)
def test_nobody_speaks_in_the_name_of_another(body: Model) -> None:
    other = NODE.model_copy(update={"node_id": "b"})
    assert body_refusal(NODE, body, AT, OLD.members) is None
    for caller in (other, CLIENT):
        assert rule(body_refusal(caller, body, AT, OLD.members)) == "speaks_for_another"


@pytest.mark.parametrize("body", [OF_A_RUN, FORCED, Withdrawal(epoch=1, run_id="r")])
def test_what_a_run_says_no_node_says(body: Model) -> None:
    """A forced membership least of all: nobody agreed to it, and whoever hears of it follows."""
    assert body_refusal(CLIENT, body, None, OLD.members) is None
    assert rule(body_refusal(NODE, body, AT, OLD.members)) == "speaks_for_another"


@pytest.mark.parametrize("body", [*NAMED, AGREED], ids=lambda body: type(body).__name__)
@pytest.mark.parametrize("known_at", [None, "https://10.0.0.9:8443", "http://10.0.0.1:8443"])
def test_a_node_of_another_cluster_is_heeded_in_nothing_whatever_its_name(
    body: Model, known_at: str | None
) -> None:
    assert rule(body_refusal(NODE, body, known_at, OLD.members)) == "caller_no_peer"


def test_that_members_agreed_only_a_member_says() -> None:
    """Or a known peer, to an agent that knows no membership yet; not one that was removed, nor a client."""
    for members in (OLD.members, ()):
        assert body_refusal(NODE, AGREED, AT, members) is None
    assert body_refusal(NODE, AGREED, f"{AT}/", OLD.members) is None
    assert rule(body_refusal(NODE, AGREED, AT, NEW.members)) == "caller_no_peer"
    assert rule(body_refusal(CLIENT, AGREED, None, OLD.members)) == "speaks_for_another"


@given(st.text(max_size=30))
def test_an_origin_is_secured_and_has_nothing_after_the_port(text: str) -> None:
    for scheme in ("https", "http"):
        try:
            found = origin_of(f"{scheme}://{text}")
        except ValueError:
            continue
        assert found is None or (found.startswith("https://") and found.count("/") == 2)


def test_origins() -> None:
    assert origin_of("https://host/state") == "https://host:443"
    assert origin_of("https://[::1]:8443/") == "https://[::1]:8443"
    assert origin_of("http://host:8443") is None


@pytest.mark.parametrize(
    "field", ["require_tls", "validate_certificates", "mutual_auth", "certificate_pinning"]
)
def test_a_file_that_would_weaken_it_is_refused(field: str) -> None:
    with pytest.raises(ValidationError):
        SecuritySettings.model_validate({field: False})


def test_what_is_listed_twice_is_refused() -> None:
    for twice in (
        {"allowed_nodes": (NODE, NODE.model_copy(update={"fingerprint": OTHER}))},
        {"allowed_nodes": (NODE, NODE.model_copy(update={"endpoint": "https://b:1"}))},
        {"allowed_nodes": (NODE,), "allowed_clients": (CLIENT.model_copy(update={"fingerprint": ONE}),)},
    ):
        with pytest.raises(ValidationError, match="once"):
            Allowlist.model_validate({k: [e.model_dump() for e in v] for k, v in twice.items()})


def test_the_shipped_example_has_the_specification_s_shape() -> None:
    found = load_allowlist(shipped("config") / "continuity" / "allowlist.example.yaml")
    assert [node.node_id for node in found.allowed_nodes] == ["node-1", "node-2"]
    assert found.allowed_nodes[0].certificate_dn == "CN=node-1.qnwis.prod,O=QNWIS,C=US"


def test_a_bad_file_names_field_value_and_what_was_expected(tmp_path: Path) -> None:
    file = tmp_path / "allowlist.yaml"
    file.write_text(
        "allowed_nodes:\n- node_id: a\n  endpoint: https://a:1\n  region: r\n  certificate_dn: CN=a\n"
        "  fingerprint: sha256:abcd\nsecurity_settings:\n  require_tls: false\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_allowlist(file)
    said = str(caught.value)
    assert f"{file}:6:" in said and "allowed_nodes[0].fingerprint: found sha256:abcd" in said
    assert f"{file}:8:" in said and "security_settings.require_tls" in said


def test_a_topology_is_compared_with_the_list(tmp_path: Path) -> None:
    node = {"hostname": "10.0.0.1", "role": "primary", "site": "s", "status": "healthy"}
    cluster = Cluster.model_validate(
        {
            "cluster_id": "c",
            "name": "c",
            "regions": ["here"],
            "nodes": [
                {**node, "node_id": "a", "region": "here", "endpoint": AT},
                {**node, "node_id": "b", "region": "here", "role": "secondary"},
            ],
        }
    )
    (problem,) = unlisted(cluster, LIST, tmp_path)
    assert problem.field == "nodes[1].endpoint" and "http://10.0.0.1:8443 (nobody)" in problem.value
