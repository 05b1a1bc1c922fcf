"""DNS leads clients to IPv4 addresses: a file that has anything else there is refused, before any run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from qnwis.config.load import load_cluster
from qnwis.config.problem import ConfigError
from qnwis.continuity.topology import Cluster, registrable
from tests.unit.continuity.scenes import cluster, node, with_dns

SERVERS = {"servers": ["127.0.0.1:53"]}
ROUTE53 = {"route53": {"hosted_zone_id": "Z1"}}
OURS = {"provider": {"name": "ours"}}


def topology(dns: dict[str, Any] | None, **second: Any) -> dict[str, Any]:
    """As a file has it; `second`: fields of the second node."""
    fields = {"region": "region-1", "site": "a"}
    return {
        "cluster_id": "prod",
        "name": "Production",
        "regions": ["region-1"],
        "nodes": [
            {**fields, "node_id": "node-1", "hostname": "10.0.0.1", "role": "primary"},
            {**fields, "node_id": "node-2", "hostname": "10.0.0.2", "role": "secondary", **second},
            {**fields, "node_id": "node-3", "hostname": "10.0.0.3", "role": "secondary"},
        ],
        **({} if dns is None else {"dns": {"zone": "example.org", "name": "db", **dns}}),
    }


def problems(folder: Path, text: dict[str, Any]) -> list[tuple[str, str]]:
    """The field and the value of each problem."""
    file = folder / "cluster.yaml"
    file.write_text(yaml.safe_dump(text))
    try:
        load_cluster(file)
    except ConfigError as error:
        assert all("an IPv4 address like 10.0.1.10" in problem.expected for problem in error.problems)
        return [(problem.field, problem.value) for problem in error.problems]
    return []


@pytest.mark.parametrize("dns", [SERVERS, ROUTE53], ids=["servers", "route53"])
@pytest.mark.parametrize(
    ("second", "field", "value"),
    [
        ({"hostname": "db-2.example.org"}, "hostname", "db-2.example.org"),
        ({"hostname": "2001:db8::2"}, "hostname", "2001:db8::2"),
        ({"hostname": "10.0.0.2:5432"}, "hostname", "10.0.0.2:5432"),
        ({"database": {"host": "db-2"}}, "database.host", "db-2"),
    ],
)
def test_what_no_a_record_holds_is_refused_where_it_stands(
    tmp_path: Path, dns: dict[str, Any], second: dict[str, Any], field: str, value: str
) -> None:
    assert problems(tmp_path, topology(dns, **second)) == [(f"nodes[1].{field}", value)]


@pytest.mark.parametrize(
    "text",
    [
        topology(SERVERS),
        topology(ROUTE53, hostname="db-2", database={"host": "10.0.0.2"}),
        topology(SERVERS, hostname="witness.example.org", role="witness"),
        topology(None, hostname="db-2.example.org"),
        topology(OURS, hostname="db-2.example.org"),
    ],
    ids=["addresses", "the database's counts", "a witness", "no dns", "a provider"],
)
def test_where_no_a_record_leads_a_name_will_do(tmp_path: Path, text: dict[str, Any]) -> None:
    assert problems(tmp_path, text) == []


def test_a_run_in_progress_reads_the_topology_that_it_began_with() -> None:
    """From its history, which is from before the rule."""
    older = with_dns(cluster(node("node-1", "primary", hostname="db-1"), node("node-2"), node("node-3")))
    assert Cluster.model_validate_json(older.model_dump_json()) == older
    with pytest.raises(ValidationError, match=r"nodes\.0\.hostname\n +expected an IPv4 address"):
        registrable(older)
