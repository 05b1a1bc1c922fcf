"""Records in Route 53: moved by compare-and-swap, with whatever else they have left as it is."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws

from qnwis.continuity.topology import Cluster, DnsService, Route53Record
from qnwis.providers.dns_by_holder import DnsByHolder
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.region_weights import DnsWeights
from qnwis.providers.route53 import Route53Dns
from tests.unit.continuity.scenes import cluster, node

OLD, NEW, OTHER = "10.0.0.1", "10.0.0.2", "10.0.0.9"
NAME = "db.example.test."


@pytest.fixture
def route53(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        yield boto3.client("route53")


@pytest.fixture
def zone(route53: Any) -> str:
    made = route53.create_hosted_zone(Name="example.test.", CallerReference="test")
    return str(made["HostedZone"]["Id"]).rpartition("/")[2]


def has(route53: Any, zone: str, address: str, *, by: str = "CREATE", **more: Any) -> None:
    made = {"Name": NAME, "Type": "A", "TTL": 30, "ResourceRecords": [{"Value": address}], **more}
    route53.change_resource_record_sets(
        HostedZoneId=zone, ChangeBatch={"Changes": [{"Action": by, "ResourceRecordSet": made}]}
    )


def held(route53: Any, zone: str) -> list[dict[str, Any]]:
    found = route53.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    return [one for one in found if one["Type"] == "A"]


def service_in(zone: str, set_identifier: str | None = None) -> DnsService:
    record = Route53Record(hosted_zone_id=zone, set_identifier=set_identifier)
    return DnsService(zone="example.test", name="db", ttl_s=30, route53=record)


def dns(route53: Any) -> DnsByHolder:
    return DnsByHolder(route53=Route53Dns(client=lambda: route53, poll_s=0.01))


async def test_a_record_is_moved_once_and_read_back(route53: Any, zone: str) -> None:
    has(route53, zone, OLD)
    provider, service = dns(route53), service_in(zone)
    assert await provider.read(service) == {f"route53:{zone}": (OLD,)}
    first = await provider.swap(service, from_address=OLD, to_address=NEW)
    again = await provider.swap(service, from_address=OLD, to_address=NEW)
    assert (first.changed, first.before, first.after) == (True, (OLD,), (NEW,))
    assert (again.changed, again.before) == (False, (NEW,))
    (answer,) = await provider.record(service)
    assert (answer.addresses, answer.ttl_s) == ((NEW,), 30)


async def test_the_ttl_alone_is_changed_and_restored(route53: Any, zone: str) -> None:
    has(route53, zone, OLD)
    provider, service = dns(route53), service_in(zone)
    lowered = await provider.swap(service, from_address=OLD, to_address=OLD, ttl_s=1)
    assert not lowered.changed and held(route53, zone)[0]["TTL"] == 1
    await provider.swap(service, from_address=OLD, to_address=NEW)
    assert held(route53, zone)[0]["TTL"] == 30


@pytest.mark.parametrize(
    "kind", [{"Weight": 70}, {"GeoLocation": {"ContinentCode": "EU"}}], ids=["weighted", "geolocation"]
)
async def test_weight_and_location_and_the_others_of_the_name_stay(
    route53: Any, zone: str, kind: dict[str, Any]
) -> None:
    has(route53, zone, OLD, SetIdentifier="here", **kind)
    another = {"Weight": 30} if "Weight" in kind else {"GeoLocation": {"CountryCode": "*"}}
    has(route53, zone, OTHER, SetIdentifier="there", **another)
    await dns(route53).swap(service_in(zone, "here"), from_address=OLD, to_address=NEW)
    by_id = {one["SetIdentifier"]: one for one in held(route53, zone)}
    assert by_id["here"]["ResourceRecords"] == [{"Value": NEW}]
    assert {k: by_id["here"][k] for k in kind} == kind
    assert by_id["there"]["ResourceRecords"] == [{"Value": OTHER}]


async def test_a_record_that_somebody_else_moved_is_left_alone(route53: Any, zone: str) -> None:
    has(route53, zone, OTHER)
    with pytest.raises(Refused, match="dns_record_changed"):
        await dns(route53).swap(service_in(zone), from_address=OLD, to_address=NEW)
    assert held(route53, zone)[0]["ResourceRecords"] == [{"Value": OTHER}]
    with pytest.raises(Refused, match="no address"):
        await dns(route53).swap(service_in(zone, "no such"), from_address=OLD, to_address=NEW)


def batch(zone: str, found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """What is asked for: the record as it was found goes, and the wanted one comes, both or none."""
    changes = [
        {"Action": "DELETE", "ResourceRecordSet": found},
        {"Action": "CREATE", "ResourceRecordSet": wanted},
    ]
    return {"HostedZoneId": zone, "ChangeBatch": {"Comment": "QNWIS Continuity", "Changes": changes}}


def listing(*found: dict[str, Any]) -> dict[str, Any]:
    return {"ResourceRecordSets": [*found], "IsTruncated": False, "MaxItems": "100"}


FOUND = {"Name": NAME, "Type": "A", "TTL": 30, "ResourceRecords": [{"Value": OLD}]}
WANTED = {**FOUND, "ResourceRecords": [{"Value": NEW}]}
"""moto, other than Route 53, deletes what is not exactly there: what follows is told by a stub."""


async def test_a_change_that_came_between_look_and_batch_wins(route53: Any, zone: str) -> None:
    service = service_in(zone)
    with Stubber(route53) as stub:
        stub.add_response("list_resource_record_sets", listing(FOUND))
        stub.add_client_error(
            "change_resource_record_sets",
            "InvalidChangeBatch",
            "the values provided do not match the current values",
            expected_params=batch(zone, FOUND, WANTED),
        )
        with pytest.raises(Unreachable, match="do not match"):
            await dns(route53).swap(service, from_address=OLD, to_address=NEW)
        stub.add_response(
            "list_resource_record_sets", listing({**FOUND, "ResourceRecords": [{"Value": OTHER}]})
        )
        with pytest.raises(Refused, match="dns_record_changed"):  # the activity looks again
            await dns(route53).swap(service, from_address=OLD, to_address=NEW)


async def test_whether_an_update_would_be_taken_is_tried_by_one_that_changes_nothing(
    route53: Any, zone: str
) -> None:
    change = {"Id": "/change/C1", "Status": "PENDING", "SubmittedAt": datetime.now(UTC)}
    with Stubber(route53) as stub:
        stub.add_response("list_resource_record_sets", listing(FOUND))
        stub.add_response("change_resource_record_sets", {"ChangeInfo": change}, batch(zone, FOUND, FOUND))
        stub.add_response("get_change", {"ChangeInfo": {**change, "Status": "INSYNC"}}, {"Id": "/change/C1"})
        (answer,) = await dns(route53).try_update(service_in(zone))
    assert answer.accepted
    (missing,) = await dns(route53).try_update(service_in(zone, "no such"))
    assert not missing.accepted and "no address" in missing.reason


async def test_refused_credentials_are_said_and_not_tried_again(route53: Any, zone: str) -> None:
    with Stubber(route53) as stub:
        stub.add_client_error("list_resource_record_sets", "AccessDenied", "not authorized")
        with pytest.raises(Refused, match="dns_update_refused"):
            await dns(route53).read(service_in(zone))
        stub.add_client_error("list_resource_record_sets", "Throttling", "slow down")
        with pytest.raises(Unreachable, match="slow down"):
            await dns(route53).read(service_in(zone))
        stub.add_client_error("list_resource_record_sets", "AccessDenied", "not authorized")
        (answer,) = await dns(route53).try_update(service_in(zone))
        assert not answer.accepted and "not authorized" in answer.reason


def weights(route53: Any) -> DnsWeights:
    return DnsWeights(route53=Route53Dns(client=lambda: route53, poll_s=0.01))


def active(zone: str, *, geo: bool) -> Cluster:
    regions = (("eu", OLD, 60, "continent:EU"), ("us", NEW, 40, "country:*"))
    nodes = [
        node(
            f"{region}-1",
            "primary",
            region,
            hostname=address,
            weight=weight,
            record={"set_identifier": region, "geo": rule if geo else None},
        )
        for region, address, weight, rule in regions
    ]
    return cluster(*nodes, deployment="active_active", dns=service_in(zone))


# moto, other than Route 53, takes no record that was once created before: so they are made by UPSERT here.
HOME, OUT, STEP = {"eu": 60, "us": 40}, {"eu": 0, "us": 100}, {"eu": 6, "us": 94}


async def test_weights_of_regions_are_shifted_together_or_not_at_all(route53: Any, zone: str) -> None:
    topology, provider = active(zone, geo=False), weights(route53)
    has(route53, zone, OLD, SetIdentifier="eu", Weight=60, by="UPSERT")
    with pytest.raises(Refused, match="dns_record_unfit"):
        await provider.in_force(topology)
    has(route53, zone, NEW, SetIdentifier="us", Weight=40, by="UPSERT")
    assert await provider.in_force(topology) == HOME
    for before, after in ((HOME, OUT), (OUT, STEP), (STEP, HOME)):
        assert (await provider.shift(topology, before=before, after=after)).changed
        assert not (await provider.shift(topology, before=before, after=after)).changed
        assert await provider.in_force(topology) == after
    assert [one["ResourceRecords"] for one in held(route53, zone)] == [[{"Value": OLD}], [{"Value": NEW}]]
    with pytest.raises(Refused, match="dns_record_changed"):
        await provider.shift(topology, before=OUT, after=STEP)
    assert await provider.in_force(topology) == HOME


async def test_the_clients_of_a_lost_regions_geolocation_are_sent_to_the_others(
    route53: Any, zone: str
) -> None:
    topology, provider = active(zone, geo=True), weights(route53)
    has(route53, zone, OLD, SetIdentifier="eu", GeoLocation={"ContinentCode": "EU"}, by="UPSERT")
    has(route53, zone, NEW, SetIdentifier="us", GeoLocation={"CountryCode": "*"})
    assert await provider.in_force(topology) == HOME
    assert (await provider.shift(topology, before=HOME, after=OUT)).changed
    by_id = {one["SetIdentifier"]: one for one in held(route53, zone)}
    assert by_id["eu"]["ResourceRecords"] == by_id["us"]["ResourceRecords"] == [{"Value": NEW}]
    assert by_id["eu"]["GeoLocation"] == {"ContinentCode": "EU"}
    assert await provider.in_force(topology) == OUT
    assert (await provider.shift(topology, before=OUT, after=HOME)).changed
    assert await provider.in_force(topology) == HOME
