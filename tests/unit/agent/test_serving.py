"""How long a database may serve under its agent's lease: shorter, so that it is gone at the lease's end."""

from __future__ import annotations

from pathlib import Path

from qnwis.agent.config import AgentConfig
from qnwis.agent.guard import now
from qnwis.agent.lease import Leases, found_cluster
from qnwis.agent.peers import Peers
from qnwis.agent.speaking import Speaker
from qnwis.continuity.lease_messages import LeaseTerms
from qnwis.continuity.topology import NodeRole
from qnwis.transport import Transport

TERMS = LeaseTerms(duration_s=100, renew_every_s=1, drift_margin=0.1, stop_margin_s=30)


async def test_guards_are_told_to_begin_before_the_lease_ends(tmp_path: Path) -> None:
    config = AgentConfig(
        cluster_id="c",
        node_id="alone",
        role=NodeRole.WITNESS,
        listen_host="127.0.0.1",
        state_dir=tmp_path,
        peers=(),
        lease=TERMS,
    )
    found_cluster(config)
    speaker = Speaker(Transport())
    leases = Leases(config, Peers(config), speaker)
    told: list[float] = []
    leases.on_until = told.append
    before = now()
    assert await leases.acquire(1, "run") is None
    after = now()

    assert leases.serves_until == told[-1]
    # 100 s, less a tenth for clocks, less 30 s to stop.
    assert before + 60 <= told[-1] <= after + 60
    leases.close()
    await speaker.aclose()
