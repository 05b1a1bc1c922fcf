"""docker-compose.yml and its like, held against the programs that they start. Nothing is started."""

from __future__ import annotations

import re
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from qnwis.cli.qnwis_continuity import app
from qnwis.lab.container_setup import CLUSTER_ID, container_cluster
from qnwis.lab.layout import DNS_PORT, Block
from qnwis.lab.shape import VANTAGES
from workflows.names import SEARCH_ATTRIBUTES

ROOT = Path(__file__).parents[2]
COMPOSE, SITE = ROOT / "docker-compose.yml", ROOT / "containers/production/site.yml"


def _services(file: Path) -> dict[str, dict[str, Any]]:
    """As they are on the network that is the default."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", file.read_text())
    services: dict[str, dict[str, Any]] = yaml.safe_load(text)["services"]
    return services


@pytest.mark.parametrize("file", [COMPOSE, SITE], ids=lambda file: file.name)
def test_every_command_is_one_that_the_command_line_takes(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = [one for one in _services(file).values() if one.get("command", [""])[0] == "qnwis-continuity"]
    assert ours
    for service in ours:
        for name, value in service["environment"].items():
            monkeypatch.setenv(name, value)
        _parse(typer.main.get_command(app), service["command"][1:])


def _parse(command: Any, arguments: list[str]) -> None:
    """Raises the command line's own error. typer's groups are no click.Group that a test could name."""
    with command.make_context(command.name, list(arguments)) as context:
        if hasattr(command, "resolve_command"):
            _, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
            assert found is not None
            _parse(found, rest)


@pytest.mark.parametrize("file", [COMPOSE, SITE], ids=lambda file: file.name)
def test_no_part_may_write_to_its_image_or_gain_rights_or_is_published_to_all(file: Path) -> None:
    for name, service in _services(file).items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service and "cap_add" not in service, name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name


def test_no_part_of_a_site_starts_without_a_key_store() -> None:
    """Compose ends where a variable that is `:?` is empty: records would be kept in clear."""
    services = _services(SITE)
    assert {"worker", "api"} <= set(services)
    for name, service in services.items():
        assert service["environment"]["QNWIS_KEY_STORE"].startswith("${QNWIS_KEY_STORE:?"), name
        assert service["env_file"] == ["${PRIVATE}/environment"], name


@pytest.mark.parametrize(("file", "volume"), [(COMPOSE, "config"), (SITE, "${CONFIG}")])
def test_the_api_may_write_to_the_registry_by_one_line_alone(file: Path, volume: str) -> None:
    """And reads it only as shipped: who may approve and whose certificates count stands there."""
    assert f"{volume}:/config:ro" in _services(file)["api"]["volumes"]
    assert "503, `not_usable`" in file.read_text().partition("\n  api:\n")[2]
    if file == SITE:  # a folder of the machine: only what the API changes has to be writable
        changed = yaml.safe_load(file.read_text().replace("#volumes:", "volumes:"))
        volumes, shipped = changed["services"]["api"]["volumes"], _services(file)["api"]["volumes"]
        assert [one for one in volumes if one not in shipped] == [f"{volume}/clusters:/config/clusters"]
        assert set(shipped) <= set(volumes)


def test_the_nodes_the_dns_server_and_the_vantages_are_those_of_the_topology() -> None:
    services = _services(COMPOSE)
    cluster = container_cluster(Block(number=0, network=IPv4Network("10.77.0.0/24")))
    addresses = {
        name: service["networks"]["lab"]["ipv4_address"]
        for name, service in services.items()
        if "ipv4_address" in str(service.get("networks"))
    }
    assert {name: a for name, a in addresses.items() if name != "dns"} == {
        node.node_id: node.hostname for node in cluster.nodes
    }
    assert cluster.dns is not None
    assert cluster.dns.servers == (f"{addresses['dns']}:{DNS_PORT}",)
    watching = [word for one in services.values() for word in one.get("command", []) if "vantage-" in word]
    assert sorted(watching) == sorted(VANTAGES)
    assert services["guardian"]["command"][-1] == CLUSTER_ID


def test_temporal_is_started_with_every_search_attribute() -> None:
    flags = [one for one in _services(COMPOSE)["temporal"]["command"] if "search-attribute" in one]
    assert flags == [f"--search-attribute={key.name}=Keyword" for key in SEARCH_ATTRIBUTES]


def test_each_volume_that_setup_fills_has_an_owner_in_its_image() -> None:
    dockerfile = (ROOT / "containers/continuity.Dockerfile").read_text()
    owned = re.search(r'ARG VOLUMES="([^"]*)"', dockerfile)
    assert owned is not None
    filled = [volume.partition(":")[0] for volume in _services(COMPOSE)["setup"]["volumes"]]
    assert sorted([*owned[1].split(), "temporal"]) == sorted(filled)
