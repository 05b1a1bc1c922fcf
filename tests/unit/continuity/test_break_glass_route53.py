"""The printed step for a record in Route 53, carried out by bash and jq with a double of the aws command."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from qnwis.continuity.break_glass_shell import moved
from qnwis.continuity.topology import DnsService, Route53Record

MISSING = [tool for tool in ("jq", "bash") if shutil.which(tool) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)}: make install-system")

NAME, OLD, NEW, OTHER = "db.example.test.", "10.0.0.1", "10.0.0.2", "10.0.0.9"
HERE = {
    "Name": NAME,
    "Type": "A",
    "SetIdentifier": "here",
    "Weight": 70,
    "TTL": 30,
    "ResourceRecords": [{"Value": OLD}],
}
THERE = {**HERE, "SetIdentifier": "there", "Weight": 30, "ResourceRecords": [{"Value": OTHER}]}
AWS = """
aws() { case "$2" in
  list-resource-record-sets) cat records.json;;
  change-resource-record-sets) while [ "$1" != --change-batch ]; do shift; done; printf %s "$2" > batch.json
    jq --slurpfile batch batch.json '.ResourceRecordSets[0] = $batch[0].Changes[1].ResourceRecordSet' \\
      records.json > after.json; mv after.json records.json;;
esac; }
"""


def carried_out(folder: Path, set_identifier: str, *, from_address: str = OLD) -> tuple[int, object]:
    """The exit status, and the batch that was sent."""
    (folder / "records.json").write_text(json.dumps({"ResourceRecordSets": [HERE, THERE]}))
    record = Route53Record(hosted_zone_id="Z1", set_identifier=set_identifier)
    dns = DnsService(zone="example.test", name="db", route53=record)
    lines = moved(dns, dns.fqdn, from_address=from_address, to_address=NEW, ttl_s=1)
    done = subprocess.run(["bash", "-c", "\n".join([AWS, *lines])], cwd=folder, capture_output=True)
    batch = folder / "batch.json"
    return done.returncode, json.loads(batch.read_text()) if batch.exists() else None


def test_the_record_is_replaced_as_a_whole_and_keeps_its_weight(tmp_path: Path) -> None:
    status, batch = carried_out(tmp_path, "here")
    assert status == 0
    assert batch == {
        "Changes": [
            {"Action": "DELETE", "ResourceRecordSet": HERE},
            {
                "Action": "CREATE",
                "ResourceRecordSet": {**HERE, "TTL": 1, "ResourceRecords": [{"Value": NEW}]},
            },
        ]
    }


@pytest.mark.parametrize(
    ("set_identifier", "from_address"), [("here", OTHER), ("no such", OLD)], ids=["moved", "missing"]
)
def test_what_is_not_there_is_not_replaced(tmp_path: Path, set_identifier: str, from_address: str) -> None:
    status, batch = carried_out(tmp_path, set_identifier, from_address=from_address)
    assert (status != 0, batch) == (True, None)
