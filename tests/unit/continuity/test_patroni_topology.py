"""What `manager: patroni` asks of cluster.yaml, by field and line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qnwis.config.load import load_cluster
from qnwis.config.problem import ConfigError
from qnwis.continuity.losses import advice, losses, unsurvivable
from qnwis.continuity.model import sha256_digest
from qnwis.continuity.planner import topology_digest
from qnwis.continuity.topology import Cluster
from tests.unit.continuity.patroni_scenes import HOOK, by_patroni
from tests.unit.continuity.scenes import SPEC_CLUSTER

GOOD = """
cluster_id: orders
name: Orders
manager: patroni
regions: [east, west]
nodes:
  - node_id: e1
    hostname: 10.0.0.1
    role: primary
    region: east
    site: a
    database: {host: 10.0.0.1, port: 5432}
    patroni: {url: "https://10.0.0.1:8008", credentials: "env:PATRONI_EAST", ca_file: /etc/ssl/east.pem}
  - node_id: w1
    hostname: 10.0.0.3
    role: secondary
    region: west
    site: b
    database: {host: 10.0.0.3, port: 5432}
    patroni: {url: "https://10.0.0.3:8008"}
"""


def problems(folder: Path, old: str = "", new: str = "") -> list[tuple[str, str]]:
    """The field and what was expected, of each problem."""
    assert old in GOOD
    file = folder / "cluster.yaml"
    file.write_text(GOOD.replace(old, new, 1) if old else GOOD)
    try:
        load_cluster(file)
    except ConfigError as error:
        return [(problem.field, problem.expected) for problem in error.problems]
    return []


def test_a_cluster_by_patroni_is_accepted_with_two_nodes(tmp_path: Path) -> None:
    assert problems(tmp_path) == []
    loaded = load_cluster(tmp_path / "cluster.yaml")
    assert loaded.by_patroni and unsurvivable(loaded) is None
    assert Cluster.model_validate_json(loaded.model_dump_json()) == loaded


@pytest.mark.parametrize(
    ("old", "new", "field", "expected"),
    [
        ("manager: patroni\n", "", "nodes[0].patroni", "`manager: patroni`"),
        ("manager: patroni\n", "manager: patrony\n", "manager", "'agents', 'patroni' or 'http'"),
        ('    patroni: {url: "https://10.0.0.3:8008"}\n', "", "nodes[1].patroni", "url of its Patroni"),
        ("https://10.0.0.3:8008", "https://10.0.0.1:8008", "nodes[1].patroni.url", "nodes[0] already"),
        ("https://10.0.0.3:8008", "10.0.0.3:8008", "nodes[1].patroni.url", "http:// or https://"),
        ("env:PATRONI_EAST", "admin:secret", "nodes[0].patroni.credentials", "env:NAME"),
        ("    database: {host: 10.0.0.3, port: 5432}\n", "", "nodes[1].database", "host and port"),
        ("role: secondary", "role: witness", "nodes[1].role", "needs no witness"),
        ("name: Orders\n", "name: Orders\nquorum_size: 2\n", "quorum_size", "DCS holds the quorum"),
        (
            "name: Orders\n",
            "name: Orders\nreplication: {mode: synchronous}\n",
            "replication.mode",
            "synchronous_mode",
        ),
        ("    site: b\n", "    site: b\n    endpoint: http://x\n", "nodes[1].endpoint", "no agent"),
    ],
)
def test_what_is_wrong_is_named_by_its_field(
    tmp_path: Path, old: str, new: str, field: str, expected: str
) -> None:
    found = problems(tmp_path, old, new)
    assert any(where == field and expected in told for where, told in found), found


def test_a_secret_in_the_file_is_not_repeated(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(GOOD.replace("env:PATRONI_EAST", "admin:hunter2"))
    with pytest.raises(ConfigError) as error:
        load_cluster(file)
    assert "credentials" in str(error.value) and "hunter2" not in str(error.value)


def test_the_cluster_to_paste_is_accepted(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "howto" / "patroni.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "cluster.yaml").write_text(block)
    assert load_cluster(tmp_path / "cluster.yaml").by_patroni


def test_a_third_region_is_refused(tmp_path: Path) -> None:
    third = GOOD.split("nodes:\n")[1].split("  - node_id: w1")[1]
    more = "  - node_id: x1" + third.replace("west", "north").replace("10.0.0.3", "10.0.0.9")
    file = tmp_path / "cluster.yaml"
    file.write_text(GOOD.replace("[east, west]", "[east, west, north]") + more)
    with pytest.raises(ConfigError, match="at most 2 regions"):
        load_cluster(file)


def test_a_name_leads_to_a_region_and_never_to_a_single_member(tmp_path: Path) -> None:
    dns = "dns: {zone: example.org, name: db, servers: [127.0.0.1]}\n"
    second = GOOD[GOOD.index("  - node_id: w1") :].replace("w1", "w2").replace("0.3:8008", "0.4:8008")
    file = tmp_path / "cluster.yaml"
    file.write_text(GOOD + second + dns)
    load_cluster(file)
    file.write_text(GOOD + second.replace("{host: 10.0.0.3", "{host: 10.0.0.4") + dns)
    with pytest.raises(ConfigError, match=r"nodes\[2\]\.database\.host.*leads to its leader"):
        load_cluster(file)


def test_what_such_a_cluster_survives_is_not_counted_by_agents() -> None:
    assert losses(by_patroni()) == ()
    assert "fencing hook" in advice(by_patroni(), ())[0]
    assert advice(by_patroni(fencing=HOOK), ()) == ()


def test_the_digest_of_a_topology_without_patroni_is_what_it_was() -> None:
    """Plans that were written before there was a manager, or watches that speak up less often, still fit."""
    plain = SPEC_CLUSTER.model_dump(
        mode="json",
        exclude={
            "manager": True,
            "heartbeat": {"watch_timeout_sec"},
            "nodes": {"__all__": {"status", "patroni", "http"}},
        },
    )
    assert topology_digest(SPEC_CLUSTER) == sha256_digest(plain)
    assert topology_digest(by_patroni()) != topology_digest(by_patroni(fencing=HOOK))
