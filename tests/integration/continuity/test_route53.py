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
from workflows import options

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


def recreating(route53: Any) -> None:
    """Let a batch create what it deletes, as Route 53 does; moto looks at each of them by itself."""

    def upserted(params: dict[str, Any], **_: Any) -> dict[str, Any]:
        changes = params["ChangeBatch"]["Changes"]
        if any(one["Action"] == "DELETE" for one in changes):
            changes = [{**one, "Action": one["Action"].replace("CREATE", "UPSERT")} for one in changes]
        return {**params, "ChangeBatch": {"Changes": changes}}

    route53.meta.events.register("provide-client-params.route53.ChangeResourceRecordSets", upserted)


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


def dns(route53: Any, *, settle_s: float = 15.0) -> DnsByHolder:
    return DnsByHolder(route53=Route53Dns(client=lambda: route53, settle_s=settle_s, poll_s=0.01))


async def test_a_record_is_moved_once_and_read_back(route53: Any, zone: str) -> None:
    recreating(route53)
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


def change(number: int, status: str = "PENDING") -> dict[str, Any]:
    at = datetime(2025, 1, 11, tzinfo=UTC)
    return {"ChangeInfo": {"Id": f"/change/C{number}", "Status": status, "SubmittedAt": at}}


async def test_a_record_that_is_not_everywhere_yet_is_not_done_when_it_is_found_moved(
    route53: Any, zone: str
) -> None:
    """What the API lists is what the servers will answer, up to a minute later."""
    service, provider = service_in(zone), dns(route53, settle_s=0)
    with Stubber(route53) as stub:
        stub.add_response("list_resource_record_sets", listing(FOUND))
        stub.add_response("change_resource_record_sets", change(1), batch(zone, FOUND, WANTED))
        for status in ("PENDING", "INSYNC"):
            with pytest.raises(Unreachable, match="C1 is not everywhere after 0 s"):
                await provider.swap(service, from_address=OLD, to_address=NEW)
            stub.add_response("list_resource_record_sets", listing(WANTED))
            stub.add_response("get_change", change(1, status), {"Id": "/change/C1"})
        done = await provider.swap(service, from_address=OLD, to_address=NEW)
        stub.assert_no_pending_responses()
    assert not done.changed and done.after == (NEW,)


async def test_whoever_did_not_send_the_change_waits_for_one_that_came_after_it(
    route53: Any, zone: str
) -> None:
    """A worker that takes the run over does not know how far the change of the other is."""
    with Stubber(route53) as stub:
        stub.add_response("list_resource_record_sets", listing(WANTED))
        stub.add_response("change_resource_record_sets", change(2), batch(zone, WANTED, WANTED))
        stub.add_response("get_change", change(2, "INSYNC"), {"Id": "/change/C2"})
        done = await dns(route53).swap(service_in(zone), from_address=OLD, to_address=NEW)
        stub.assert_no_pending_responses()
    assert not done.changed


async def test_the_last_change_of_the_name_is_the_one_that_is_waited_for(route53: Any, zone: str) -> None:
    """There, and back before it was everywhere: what is found is what was sent last."""
    service, provider = service_in(zone), dns(route53, settle_s=0)
    with Stubber(route53) as stub:
        for number, found, wanted in ((1, FOUND, WANTED), (2, WANTED, FOUND)):
            stub.add_response("list_resource_record_sets", listing(found))
            stub.add_response("change_resource_record_sets", change(number), batch(zone, found, wanted))
            here, there = (one["ResourceRecords"][0]["Value"] for one in (found, wanted))
            with pytest.raises(Unreachable, match=f"C{number} is not everywhere"):
                await provider.swap(service, from_address=here, to_address=there)
        stub.add_response("list_resource_record_sets", listing(FOUND))
        stub.add_response("get_change", change(2, "INSYNC"), {"Id": "/change/C2"})
        await provider.swap(service, from_address=NEW, to_address=OLD)
        stub.assert_no_pending_responses()


def test_an_attempt_has_time_to_say_that_it_waits_no_longer() -> None:
    """One that was cut off would leave nobody the reason; the rest is for the questions before and after."""
    for within in (options.effect(""), options.compensate(""), options.look("")):
        attempt = within["start_to_close_timeout"]
        assert attempt is not None and Route53Dns().settle_s + 10 <= attempt.total_seconds()


async def test_whether_an_update_would_be_taken_is_tried_by_one_that_changes_nothing(
    route53: Any, zone: str
) -> None:
    with Stubber(route53) as stub:
        stub.add_response("list_resource_record_sets", listing(FOUND))
        stub.add_response("change_resource_record_sets", change(1), batch(zone, FOUND, FOUND))
        stub.add_response("get_change", change(1, "INSYNC"), {"Id": "/change/C1"})
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


async def test_a_change_that_route53_took_is_not_refused_by_who_may_not_look_at_it(
    route53: Any, zone: str
) -> None:
    service, provider = service_in(zone), dns(route53, settle_s=0)
    with Stubber(route53) as stub:
        stub.add_response("list_resource_record_sets", listing(FOUND))
        stub.add_response("change_resource_record_sets", change(1), batch(zone, FOUND, WANTED))
        stub.add_client_error("get_change", "AccessDenied", "not authorized")
        with pytest.raises(Unreachable, match=r"C1 is not everywhere after 0\.005 s; .*not authorized"):
            await dns(route53, settle_s=0.005).swap(service, from_address=OLD, to_address=NEW)
        stub.assert_no_pending_responses()

        stub.add_response("list_resource_record_sets", listing(FOUND))
        stub.add_response("change_resource_record_sets", change(2), batch(zone, FOUND, WANTED))
        with pytest.raises(Unreachable, match="C2 is not everywhere"):
            await provider.swap(service, from_address=OLD, to_address=NEW)
        stub.add_response("list_resource_record_sets", listing(WANTED))
        stub.add_client_error("get_change", "AccessDenied", "not authorized")
        with pytest.raises(Unreachable, match="whether /change/C2 is everywhere cannot be seen"):
            await provider.swap(service, from_address=OLD, to_address=NEW)


async def test_a_question_that_was_not_answered_is_followed_by_the_next(route53: Any, zone: str) -> None:
    with Stubber(route53) as stub:
        stub.add_response("list_resource_record_sets", listing(FOUND))
        stub.add_response("change_resource_record_sets", change(1), batch(zone, FOUND, WANTED))
        stub.add_client_error("get_change", "Throttling", "slow down")
        stub.add_response("get_change", change(1, "INSYNC"), {"Id": "/change/C1"})
        assert (await dns(route53).swap(service_in(zone), from_address=OLD, to_address=NEW)).changed


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
    recreating(route53)
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


async def test_weights_that_are_not_everywhere_yet_are_waited_for_when_they_are_found(
    route53: Any, zone: str
) -> None:
    topology = active(zone, geo=False)
    eu = {**FOUND, "SetIdentifier": "eu", "Weight": 60}
    us = {**WANTED, "SetIdentifier": "us", "Weight": 40}
    after = [{**eu, "Weight": 0}, {**us, "Weight": 100}]
    provider = DnsWeights(route53=Route53Dns(client=lambda: route53, settle_s=0, poll_s=0.01))
    with Stubber(route53) as stub:
        stub.add_response("list_resource_record_sets", listing(eu, us))
        stub.add_response("change_resource_record_sets", change(1))
        with pytest.raises(Unreachable, match="C1 is not everywhere"):
            await provider.shift(topology, before=HOME, after=OUT)
        stub.add_response("list_resource_record_sets", listing(*after))
        stub.add_response("get_change", change(1, "INSYNC"), {"Id": "/change/C1"})
        assert not (await provider.shift(topology, before=HOME, after=OUT)).changed
        stub.assert_no_pending_responses()

        stub.add_response("list_resource_record_sets", listing(*after))
        deleted = [{"Action": "DELETE", "ResourceRecordSet": one} for one in after]
        created = [{"Action": "CREATE", "ResourceRecordSet": one} for one in after]
        by_themselves = {"Comment": "QNWIS Continuity", "Changes": [*deleted, *created]}
        stub.add_response(
            "change_resource_record_sets",
            change(2, "INSYNC"),
            {"HostedZoneId": zone, "ChangeBatch": by_themselves},
        )
        assert not (await weights(route53).shift(topology, before=HOME, after=OUT)).changed
        stub.assert_no_pending_responses()


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
