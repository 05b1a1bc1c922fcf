"""What an agent learns of its members, and which changes it does not carry through."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeVar

import pytest

from qnwis.agent.config import AgentConfig
from qnwis.agent.guard import now
from qnwis.agent.lease import Leases, found_cluster
from qnwis.agent.members import Members
from qnwis.agent.peers import Peers
from qnwis.agent.speaking import Speaker
from qnwis.continuity.lease_messages import LeaseTerms, Membership, Pending
from qnwis.continuity.leases import CountedAsk
from qnwis.continuity.membership import AddMember, Adoption, MembershipView, Peer, RemoveMember
from qnwis.continuity.model import Model
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.topology import NodeRole
from qnwis.transport import Transport

M = TypeVar("M", bound=Model)

OWN, B, C, D = (Peer(node_id=name, agent_url=f"http://{name}:1") for name in ("own", "b", "c", "d"))


class Speaking(Speaker):
    """To agents that say of the membership what is put here, and to all else nothing."""

    def __init__(self) -> None:
        super().__init__(Transport())
        self.views: dict[str, MembershipView] = {}
        self.told: list[str] = []

    async def ask(self, peer: Peer, path: str, kind: type[M]) -> M | Refusal | None:
        view = self.views.get(peer.node_id)
        return view if isinstance(view, kind) else None

    async def tell(self, peer: Peer, path: str, body: Model, kind: type[M]) -> M | Refusal | None:
        self.told.append(path)
        return None


class Primary:
    """`own`, one of three founding members, confirmed in its lease."""

    def __init__(self, folder: Path) -> None:
        config = AgentConfig(
            cluster_id="c",
            node_id="own",
            role=NodeRole.WITNESS,
            listen_host="127.0.0.1",
            state_dir=folder,
            peers=(B, C),
            lease=LeaseTerms(duration_s=600),
        )
        found_cluster(config)
        self.peers, self.speaker = Peers(config), Speaking()
        self.leases = Leases(config, self.peers, self.speaker)
        self.members = Members(config, self.leases, self.peers, self.speaker)
        grantor, holder = self.leases.view
        record = holder.record.model_copy(update={"epoch": 1, "run_id": "run", "served_epoch": 1})
        counted = tuple(CountedAsk(member=name, asked_at_s=now()) for name in ("b", "c", "own"))
        self.leases.keep(grantor, holder.model_copy(update={"record": record, "counted": counted}))

    def hears_of(self, pending: Membership) -> None:
        """With a grant: of a change that an earlier holder may have got accepted."""
        grantor, holder = self.leases.view
        told = Pending(epoch=1, membership=pending)
        self.leases.keep(grantor, holder.model_copy(update={"pending": told}))

    def says(self, node_id: str, *peers: Peer, membership: Membership | None = None) -> None:
        known = self.leases.membership if membership is None else membership
        self.speaker.views[node_id] = MembershipView(
            node_id=node_id, disk_id=f"disk of {node_id}", membership=known, peers=peers
        )


@pytest.fixture
async def primary(tmp_path: Path) -> AsyncIterator[Primary]:
    made = Primary(tmp_path)
    yield made
    made.leases.close()
    await made.speaker.aclose()


def rule(found: object) -> str | None:
    return found.rule if isinstance(found, Refusal) else None


async def test_where_a_member_is_that_an_agent_does_not_know_it_learns_from_the_others(
    primary: Primary,
) -> None:
    """As where an agent of an earlier version told it of the membership and not of itself."""
    changes: list[int] = []
    primary.members.on_change = lambda: changes.append(1)
    grantor, holder = primary.leases.view
    wider = Membership(version=2, members=("b", "c", "d", "own"), disks=(("d", "x"),))
    grantor = grantor.model_copy(update={"record": grantor.record.model_copy(update={"membership": wider})})
    primary.leases.keep(grantor, holder)
    elsewhere = Peer(node_id="d", agent_url="http://elsewhere:1")
    stranger = Peer(node_id="e", agent_url="http://e:1")

    primary.says("b", OWN, C, elsewhere, membership=Membership(version=9, members=("b", "d")))
    await primary.members.catch_up(primary.members.others)
    assert primary.peers.of("d") is None, "that one speaks of another membership"

    primary.says("c", OWN, B, D, stranger)
    await primary.members.catch_up(primary.members.others)
    await primary.members.catch_up(primary.members.others)
    assert (primary.peers.of("d"), primary.peers.of("e"), len(changes)) == (D, None, 1)
    assert primary.members.others == (B, C, D)


async def test_no_change_is_taken_in_from_a_node_that_took_a_peer_s_place(primary: Primary) -> None:
    own = primary.leases.membership
    theirs = Membership(version=8, members=("b", "e"))
    adoption = Adoption(old=theirs, new=Membership(version=9, members=("e",)), acceptors=("b", "e"))
    view = MembershipView(node_id="e", disk_id="x", membership=adoption.new, adoption=adoption)
    primary.speaker.views["b"] = view
    await primary.members.catch_up(primary.members.others)
    assert primary.leases.membership == own
    primary.speaker.views["b"] = view.model_copy(update={"node_id": "b"})
    await primary.members.catch_up(primary.members.others)
    assert primary.leases.membership == adoption.new


async def test_a_node_that_does_not_know_the_primary_is_not_made_a_member(primary: Primary) -> None:
    """It would refuse what the primary asks, and the primary might need its grant."""
    add = AddMember(peer=D, disk_id="disk of d")
    for node_id in ("b", "c"):
        primary.says(node_id, OWN)
    primary.says("d", B, C, membership=Membership())
    assert rule(await primary.members.change(add)) == "new_member_lists_others"
    assert primary.speaker.told == []
    primary.says("d", B, C, OWN, membership=Membership())
    assert rule(await primary.members.change(add)) == "change_not_agreed", "nobody hears it"
    assert set(primary.speaker.told) == {"membership/accept"}


async def test_a_primary_does_not_finish_a_change_that_removes_itself(primary: Primary) -> None:
    """It would be no member, whom nobody grants anything."""
    for node_id in ("b", "c"):
        primary.says(node_id, OWN)
    primary.hears_of(Membership(version=2, members=("b", "c")))
    assert rule(await primary.members.change(RemoveMember(node_id="c"))) == "holder_stays"
    assert primary.speaker.told == []
    assert primary.leases.view[1].record.proposed is None
