"""A cluster in memory behind the providers' protocols: journaling doubles of every effect.

It keeps what agents, power switch and DNS server would keep, changes state at most once per effect id, and
writes each change into a journal, so that tests can count what really happened. Failures are injected by
`fail_next`; for real processes see the lab.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from qnwis.continuity.evidence import NodeEvent, NodeState, StandbyConnection
from qnwis.continuity.lease_messages import LastGrant, Membership, Promised, PromiseRequest, Withdrawal
from qnwis.continuity.membership import Adopted, MembershipView
from qnwis.continuity.orders import (
    AnyOrder,
    CatchUpOrder,
    DemotionToken,
    FollowOrder,
    HandOverOrder,
    PromoteOrder,
    QuiesceOrder,
    Receipt,
    RejoinOrder,
    ResumeOrder,
)
from qnwis.continuity.readiness_facts import RecordAnswer, UpdateAnswer
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.topology import Cluster, DnsService, FencingHook, Node, NodeRole
from qnwis.continuity.upkeep import Archiving, Upkeep
from qnwis.providers.dns import DnsChange
from qnwis.providers.errors import Refused, Unreachable
from qnwis.providers.fencing import HookAnswer
from qnwis.providers.nodes import Probe

SYSTEM = "7301234567890123456"


@dataclass
class Machine:
    """One node: power, database role, log position, and its agent's epochs."""

    node_id: str
    primary: bool
    upstream: str | None
    on: bool = True
    leased: bool = True
    """Of the primary: whether its lease lasts, so that it takes writes."""
    promised: tuple[int, str] = (0, "")
    """Epoch and run; the epoch that the agent reports is never below it."""
    reserved: bool = False
    """Whether that run may still promote, so that the former holder waits."""
    timeline: int = 1
    lsn: int = 0x3000060
    epoch: int = 0
    """Highest that its agent has obeyed or promised."""
    held: int = 0
    """Highest under which it held the lease."""
    quiesced: bool = False
    handed_over: bool = False
    """It was stopped in a clean way and has released its lease; its agent answers."""
    gives_log: bool = True
    """Whether another standby can take from it what log it has."""
    reachable: bool = True
    """Whether watchers and runs can reach it; other nodes always can."""
    died: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def serves(self) -> bool:
        """Whether it accepts writes."""
        return self.on and self.primary and self.leased and not self.quiesced and not self.handed_over


@dataclass
class World:
    """The doubles of one cluster and their common journal."""

    cluster: Cluster
    machines: dict[str, Machine]
    address: str
    ttl_s: int = 1
    journal: list[tuple[str, str]] = field(default_factory=list)
    """(effect, effect id or node) of every real change."""
    leases: bool = True
    """Whether agents have granted the primary its lease, so that their promises speak of it."""
    views: dict[str, MembershipView] = field(default_factory=dict)
    """Of the agents that follow another membership than the first."""
    faults: dict[str, list[Exception]] = field(default_factory=dict)
    writable_at_most: int = 0
    """The most nodes that ever accepted writes at once."""
    before_effect: Callable[[str], None] = lambda effect: None
    """Called when an effect is asked for, before anything happens: where tests interfere."""

    @classmethod
    def of(cls, cluster: Cluster) -> World:
        primary = next(n for n in cluster.nodes if n.role is NodeRole.PRIMARY)
        machines = {
            n.node_id: Machine(
                n.node_id, n is primary, None if n is primary or not n.holds_data else primary.node_id
            )
            for n in cluster.nodes
        }
        ttl_s = 0 if cluster.dns is None else cluster.dns.ttl_s
        return cls(cluster, machines, address=primary.hostname, ttl_s=ttl_s)

    def fail_next(self, effect: str, *faults: Exception) -> None:
        """Let the next calls of this effect raise, one fault a call."""
        self.faults.setdefault(effect, []).extend(faults)

    def kill(self, node_id: str) -> None:
        self.machines[node_id].on = False
        self.machines[node_id].died.set()

    def revive(self, node_id: str) -> None:
        self.machines[node_id].on = True
        self.machines[node_id].died = asyncio.Event()

    def come_back(self, node_id: str) -> None:
        """The node joins again as a standby of the primary."""
        (primary,) = self.writable()
        machine = self.machines[node_id]
        machine.primary, machine.upstream = False, primary
        machine.timeline = self.machines[primary].timeline
        self.revive(node_id)

    def cut_off(self, node_id: str) -> None:
        """A partition between the control plane and one node; the nodes still hear each other."""
        self.machines[node_id].reachable = False
        self.machines[node_id].died.set()

    def writable(self) -> list[str]:
        """Nodes that accept writes now; a test asserts that there is never more than one."""
        return [m.node_id for m in self.machines.values() if m.serves]

    def changes(self, effect: str) -> list[str]:
        return [what for name, what in self.journal if name == effect]

    def _look(self) -> None:
        self.writable_at_most = max(self.writable_at_most, len(self.writable()))

    def _enter(self, effect: str) -> None:
        self._look()
        self.before_effect(effect)
        if self.faults.get(effect):
            raise self.faults[effect].pop(0)

    # Nodes

    async def state(self, node: Node, *, timeout_s: float) -> NodeState:
        machine = self._answering(node)
        epoch = max(machine.epoch, machine.promised[0])
        if node.role is NodeRole.WITNESS:
            return NodeState(node_id=node.node_id, role=node.role, database_up=False, epoch=epoch)
        upstream = self.machines.get(machine.upstream or "")
        streaming = upstream is not None and upstream.on and upstream.primary and upstream.leased
        streaming = streaming and upstream is not None and not upstream.handed_over
        followers = [m for m in self.machines.values() if m.on and m.upstream == node.node_id]
        return NodeState(
            node_id=node.node_id,
            role=node.role,
            database_up=not machine.handed_over,
            writable=machine.serves,
            quiesced=machine.quiesced,
            handed_over=machine.handed_over,
            in_recovery=not machine.primary,
            system_identifier=SYSTEM,
            timeline=machine.timeline,
            write_lsn=machine.lsn if machine.primary else None,
            receive_lsn=None if machine.primary else machine.lsn,
            replay_lsn=None if machine.primary else machine.lsn,
            upstream=machine.upstream,
            streaming=streaming,
            last_message_age_s=0.1 if streaming else None,
            standbys=tuple(
                StandbyConnection(application_name=m.node_id, state="streaming", sync_state="quorum")
                for m in followers
                if machine.primary
            ),
            epoch=epoch,
        )

    async def order(self, node: Node, order: AnyOrder, *, timeout_s: float) -> Receipt:
        self._enter(order.kind)
        machine = self._answering(node)
        if order.epoch < machine.epoch:
            raise Refused(
                Refusal(rule="epoch_superseded", message=f"{order.epoch} < {machine.epoch}", remedy="none")
            )
        machine.epoch = order.epoch
        changed = False
        if isinstance(order, PromoteOrder) and not machine.primary:
            machine.primary, machine.upstream, machine.leased, changed = True, None, True, True
            machine.held = order.epoch
            machine.timeline += 1
        if isinstance(order, CatchUpOrder) and machine.lsn < order.to_lsn:
            source = self.machines[order.upstream]
            if not source.on or not source.gives_log:
                raise Refused(Refusal(rule="not_caught_up", message=order.upstream, remedy="another target"))
            machine.lsn, changed = order.to_lsn, True
        token = None
        if isinstance(order, QuiesceOrder):
            machine.quiesced, changed = True, not machine.quiesced
        if isinstance(order, HandOverOrder):
            machine.handed_over, changed = True, not machine.handed_over
            token = DemotionToken(timeline=machine.timeline, lsn=machine.lsn)
        if isinstance(order, ResumeOrder):
            changed = machine.quiesced or machine.handed_over
            machine.quiesced = machine.handed_over = False
            machine.leased = True
        if isinstance(order, RejoinOrder) and machine.upstream != order.upstream:
            machine.primary, machine.upstream, changed = False, order.upstream, True
            machine.quiesced = machine.handed_over = False
            machine.timeline = self.machines[order.upstream].timeline
        if isinstance(order, FollowOrder) and machine.upstream != order.upstream:
            machine.upstream, changed = order.upstream, True
            machine.timeline = self.machines[order.upstream].timeline
        if changed:
            self.journal.append((order.kind, order.effect_id))
            self._look()
        return Receipt(
            effect_id=order.effect_id,
            changed=changed,
            epoch=order.epoch,
            detail=f"{order.kind} {node.node_id}",
            at=datetime.now(UTC),
            token=token,
        )

    async def promise(self, node: Node, request: PromiseRequest, *, timeout_s: float) -> Promised:
        self._enter("promise")
        machine = self._answering(node)
        asked = (request.epoch, request.run_id)
        if asked != machine.promised and request.epoch <= machine.epoch:
            raise Refused(Refusal(rule="epoch_gone", message=f"{machine.promised}", remedy="none"))
        machine.promised, machine.reserved, machine.epoch = asked, True, request.epoch
        holder = self._holder()
        if holder is not None and holder.held < request.epoch and self._most(lambda m: m.promised == asked):
            holder.leased = False
        granted = (
            LastGrant(epoch=holder.held, holder=holder.node_id, duration_s=3, released=holder.handed_over)
            if holder and self.leases
            else None
        )
        return Promised(
            member=node.node_id,
            epoch=request.epoch,
            run_id=request.run_id,
            membership_version=request.membership_version,
            granted=granted,
            remaining_s=0,
        )

    async def membership(self, node: Node, *, timeout_s: float) -> MembershipView:
        self._answering(node)
        first = Membership(version=1, members=tuple(sorted(self.machines)))
        view = MembershipView(node_id=node.node_id, disk_id=node.node_id, membership=first)
        return self.views.get(node.node_id, view)

    async def force_membership(self, node: Node, adopted: Adopted, *, timeout_s: float) -> MembershipView:
        self._enter("force")
        view = await self.membership(node, timeout_s=timeout_s)
        if adopted.adoption.new.version > view.membership.version:
            adoption = adopted.adoption
            view = view.model_copy(update={"membership": adoption.new, "adoption": adoption})
            self.views[node.node_id] = view
            self.journal.append(("force", f"{node.node_id} {adoption.new.version}"))
        return view

    async def withdraw(self, node: Node, withdrawal: Withdrawal, *, timeout_s: float) -> None:
        machine = self._answering(node)
        if machine.promised == (withdrawal.epoch, withdrawal.run_id):
            machine.reserved = False
        holder = self._holder()
        if holder is not None and not holder.leased and self._most(lambda m: m.on and not m.reserved):
            holder.held = max(m.epoch for m in self.machines.values()) + 1
            holder.leased = True
            for member in self.machines.values():
                member.promised, member.epoch = (holder.held, holder.node_id), holder.held
            self._look()

    def _most(self, holds: Callable[[Machine], bool]) -> bool:
        newest = max(self.views.values(), key=lambda view: view.membership.version, default=None)
        members = self.machines if newest is None else newest.membership.members
        return 2 * sum(holds(self.machines[member]) for member in members) > len(members)

    def _holder(self) -> Machine | None:
        """Who was granted the lease last."""
        primaries = [machine for machine in self.machines.values() if machine.primary]
        return max(primaries, key=lambda machine: machine.held, default=None)

    async def probe(self, node: Node, path: str, *, timeout_s: float) -> Probe:
        if self.machines[node.node_id].on and self.machines[node.node_id].reachable:
            return Probe(ok=True, latency_ms=1.0)
        return Probe(ok=False, latency_ms=1.0, error="connection refused", error_type="connection_refused")

    async def events(self, node: Node) -> AsyncIterator[NodeEvent]:
        machine = self._answering(node)
        yield NodeEvent(node_id=node.node_id, database_up=True, writable=machine.primary, epoch=machine.epoch)
        await machine.died.wait()
        raise Unreachable(f"{node.node_id}: stream ended")

    def _answering(self, node: Node) -> Machine:
        machine = self.machines[node.node_id]
        if not machine.on or not machine.reachable:
            raise Unreachable(f"{node.node_id}: connection refused")
        return machine

    # Power

    async def switch(
        self, hook: FencingHook, node_id: str, state: Literal["off", "on"], effect_id: str
    ) -> HookAnswer:
        self._enter(f"power_{state}")
        key = (f"power_{state}", effect_id)
        if key in self.journal:
            return HookAnswer(changed=False, detail=f"{node_id} already {state}")
        self.revive(node_id) if state == "on" else self.kill(node_id)
        self.journal.append(key)
        self._look()
        return HookAnswer(changed=True, detail=f"{node_id} switched {state}")

    # DNS

    async def read(self, service: DnsService) -> dict[str, tuple[str, ...]]:
        return dict.fromkeys(service.servers, (self.address,))

    async def record(self, service: DnsService) -> tuple[RecordAnswer, ...]:
        return tuple(
            RecordAnswer(server=server, addresses=(self.address,), ttl_s=self.ttl_s)
            for server in service.servers
        )

    async def swap(
        self, service: DnsService, *, from_address: str, to_address: str, ttl_s: int | None = None
    ) -> DnsChange:
        self._enter("dns" if from_address != to_address else "ttl")
        wanted = service.ttl_s if ttl_s is None else ttl_s
        if from_address == to_address == self.address and wanted != self.ttl_s:
            self.journal.append(("ttl", str(wanted)))
        self.ttl_s = wanted
        before = self.address
        if before not in (from_address, to_address):
            raise Refused(Refusal(rule="dns_conflict", message=f"found {before}", remedy="look"))
        if before != to_address:
            self.address = to_address
            self.journal.append(("dns", to_address))
        return DnsChange(changed=before != to_address, before=(before,), after=(self.address,))

    async def try_update(self, service: DnsService) -> tuple[UpdateAnswer, ...]:
        reason = str(self.faults["try_update"].pop(0)) if self.faults.get("try_update") else ""
        return (UpdateAnswer(server=service.servers[0], accepted=not reason, reason=reason),)


def three_nodes(cluster_id: str, **changes: object) -> Cluster:
    """Primary and standby in one region, a standby in another, DNS and a power switch; a fast heartbeat."""
    node = {"role": "secondary", "region": "region-1", "site": "a", "status": "healthy"}
    return Cluster.model_validate(
        {
            "cluster_id": cluster_id,
            "name": cluster_id,
            "regions": ["region-1", "region-2"],
            "nodes": [
                {**node, "node_id": "node-1", "hostname": "10.0.1.10", "role": "primary", "priority": 100},
                {**node, "node_id": "node-2", "hostname": "10.0.1.11", "priority": 90},
                {**node, "node_id": "node-3", "hostname": "10.0.2.10", "region": "region-2", "priority": 80},
            ],
            "replication": {"mode": "synchronous"},
            "heartbeat": {"interval_sec": 0.2, "timeout_sec": 0.2, "failure_threshold": 3},
            "dns": {"zone": "lab.test", "name": "db", "ttl_s": 1, "servers": ["127.0.0.1:53"]},
            "fencing": {"url": "http://127.0.0.1:9/{node_id}/{state}"},
            **changes,
        }
    )


def write_registry(directory: Path, cluster: Cluster, **policy: object) -> Path:
    """Register the cluster in a folder as `qnwis.config.registry` reads it."""
    import yaml

    folder = directory / "clusters" / cluster.cluster_id
    folder.mkdir(parents=True, exist_ok=True)
    # Defaults stay out, as in a file that a person writes.
    data = cluster.model_dump(mode="json", exclude_none=True)
    (folder / "cluster.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    rules = {
        "policy_id": "test",
        "name": "test",
        "min_healthy_nodes": 2,
        "startup_grace_s": 0,
        "approvals": False,
        **policy,
    }
    (folder / "policy.yaml").write_text(yaml.safe_dump(rules, sort_keys=False))
    return directory


class NothingToKeep:
    """No node archives its log, and none has a logical slot."""

    async def of(self, cluster: Cluster) -> dict[str, Upkeep]:
        off = Archiving(
            mode="off",
            by_something=False,
            waiting=0,
            oldest_waiting_s=None,
            last_archived_at=None,
            last_failed_at=None,
            last_failed_file=None,
        )
        return {node.node_id: Upkeep(archiving=off) for node in cluster.nodes if node.holds_data}
