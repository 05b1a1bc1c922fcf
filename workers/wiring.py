"""From settings to providers to activities to workers. The only place that knows all of them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from temporalio.client import Client
from temporalio.worker import PollerBehaviorAutoscaling, Worker, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from activities.audit import Audit
from activities.dns import DnsRecords
from activities.evidence import Evidence
from activities.fencing import Fencing
from activities.forcing import Forcing
from activities.health import Health
from activities.hooks import Hooks
from activities.notification import Notifications
from activities.past_evacuations import PastEvacuations
from activities.past_runs import PastRuns
from activities.patroni import PatroniMoves
from activities.patroni_fencing import PatroniFencing
from activities.patroni_regions import PatroniRegions
from activities.people import People
from activities.planning import Planning
from activities.promotion import Promotion
from activities.protection import Protecting
from activities.readiness import ReadinessChecks
from activities.regions import Regions
from activities.rejoining import Rejoining
from activities.reviews import Reviews
from activities.steady_state import SteadyState
from activities.switchover import Switchover
from activities.verification import Verification
from activities.weights import WeightShifts
from qnwis.config.access import AccessFiles
from qnwis.config.notifications import FILE as CHANNELS
from qnwis.config.registry import Registry
from qnwis.providers.all_nodes import AllNodes
from qnwis.providers.apprise_send import TIMEOUT_S, apprise_send, load_beside
from qnwis.providers.audit_store import AuditStore, SqliteAuditStore
from qnwis.providers.bundles import FOLDER, Bundles
from qnwis.providers.calls import Caller
from qnwis.providers.dns import Dns
from qnwis.providers.dns_by_holder import DnsByHolder
from qnwis.providers.fencing import Hook, PowerHook
from qnwis.providers.key_store import FileKeyStore, key_store_of
from qnwis.providers.nodes import Nodes
from qnwis.providers.nonces import TemporalNonces
from qnwis.providers.notifier import ChannelNotifier, Notifier
from qnwis.providers.patroni import HttpPatroni, Patroni
from qnwis.providers.region_checks import DatabaseChecks, RegionChecks
from qnwis.providers.region_weights import DnsWeights, RegionWeights
from qnwis.providers.sent import SentStore
from qnwis.providers.witness import Witness, witnesses_of
from qnwis.transport import Transport
from workflows.guardian import Guardian
from workflows.names import vantage_queue
from workflows.planned_maintenance import PlannedMaintenance
from workflows.primary_failure import PrimaryFailure
from workflows.readiness import ReadinessCheck
from workflows.region_failure import RegionFailure
from workflows.region_guardian import RegionGuardian
from workflows.reprotect import Reprotect
from workflows.review import OverrideReview
from workflows.round_trip import RoundTrip
from workflows.used_token import UsedToken

from .settings import WorkerSettings

WORKFLOWS = (
    PrimaryFailure,
    PlannedMaintenance,
    RoundTrip,
    Guardian,
    ReadinessCheck,
    OverrideReview,
    RegionFailure,
    RegionGuardian,
    Reprotect,
    UsedToken,
)

STICKY_S = 2.0
"""How long a workflow task waits for the worker that has the workflow in memory, before another takes it."""
GRACE_S = 5.0
"""How long activities may finish when a worker is asked to stop."""


@dataclass(frozen=True)
class Providers:
    """Every way in which activities reach the world."""

    registry: Registry
    nodes: Nodes
    dns: Dns
    hook: Hook
    audit: AuditStore
    """Of records."""
    notifier: Notifier
    patroni: Patroni = field(default_factory=lambda: HttpPatroni(Transport()))
    """Of clusters that Patroni manages."""
    caller: Caller = field(default_factory=lambda: Caller(Transport()))
    """Of hooks and probes."""
    weights: RegionWeights = field(default_factory=DnsWeights)
    """By which active/active clusters share their traffic out."""
    checks: RegionChecks = field(default_factory=DatabaseChecks)
    bundles: Bundles | None = None
    """Makes the bundle of each record; None where nobody wants one."""
    witnesses: tuple[Witness, ...] = ()
    """Who keeps the audit log's tree heads."""


def workers_of(client: Client, settings: WorkerSettings) -> Sequence[Worker]:
    """The workers of a process with these settings."""
    if settings.vantages_only:
        return vantage_workers(client, settings, Registry(settings.config_dir), AllNodes(Transport()))
    return workers_for(client, settings, providers_for(settings))


def providers_for(settings: WorkerSettings) -> Providers:
    """Of a worker that runs runbooks."""
    assert settings.state_dir is not None, "the settings demand it"
    transport = Transport()
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    if (settings.config_dir / CHANNELS).exists():
        load_beside()
    patroni = HttpPatroni(transport)
    audit = SqliteAuditStore(
        settings.state_dir / "audit.sqlite", settings.state_dir / "audit-signing-key.pem"
    )
    keys = key_store_of(os.environ) or FileKeyStore(settings.state_dir / "audit-keys.json")
    return Providers(
        registry=Registry(settings.config_dir),
        nodes=AllNodes(transport, patroni),
        patroni=patroni,
        dns=DnsByHolder(),
        hook=PowerHook(transport),
        audit=audit,
        bundles=Bundles(audit, keys, settings.state_dir / FOLDER),
        witnesses=witnesses_of(os.environ, transport),
        notifier=ChannelNotifier(
            settings.config_dir,
            SentStore(settings.state_dir / "notifications.sqlite", longest=timedelta(seconds=TIMEOUT_S + 1)),
            apprise_send,
        ),
    )


def runbook_activities(client: Client, p: Providers) -> list[Callable[..., Any]]:
    evidence, planning = Evidence(p.registry, p.nodes), Planning()
    past_runs, past_evacuations = PastRuns(client), PastEvacuations(client)
    people = People(AccessFiles(p.registry.directory), TemporalNonces(client), p.audit)
    fencing, promotion, dns = Fencing(p.nodes, p.hook), Promotion(p.nodes), DnsRecords(p.dns)
    audit = Audit(p.audit, bundles=p.bundles, witnesses=p.witnesses)
    regions = Regions(p.registry, p.nodes, p.weights, client)
    shifts = WeightShifts(p.registry, p.weights, p.checks)
    forcing, switchover = Forcing(p.nodes, fencing), Switchover(p.nodes, fencing)
    moves, by_region = PatroniMoves(p.nodes, p.patroni), PatroniRegions(p.nodes, p.patroni)
    without_patroni = PatroniFencing(p.hook)
    hooks, steady_state = Hooks(p.registry.directory, p.caller), SteadyState(p.registry.directory, p.caller)
    return [
        evidence.load_cluster,
        evidence.collect,
        planning.assess,
        planning.rehearse,
        fencing.fence,
        fencing.unfence,
        fencing.preview_fence,
        forcing.force,
        forcing.unforce,
        forcing.preview_force,
        promotion.promote,
        promotion.repoint,
        promotion.preview_promote,
        promotion.preview_repoint,
        switchover.prepare,
        switchover.release,
        switchover.take_back,
        switchover.rejoin,
        switchover.preview_prepare,
        switchover.preview_release,
        switchover.preview_rejoin,
        moves.hand_over,
        moves.preview_hand_over,
        by_region.demote_cluster,
        by_region.take_cluster_back,
        without_patroni.fence_cluster,
        without_patroni.unfence_cluster,
        by_region.promote_cluster,
        by_region.preview_demote_cluster,
        without_patroni.preview_fence_cluster,
        by_region.preview_promote_cluster,
        Rejoining(p.registry, p.nodes, p.hook).bring_back,
        Protecting(p.registry, p.nodes, client).watch_protection,
        dns.flip,
        dns.retime,
        dns.retime_back,
        dns.preview_flip,
        past_runs.look_back,
        past_runs.watch_runs,
        past_evacuations.take_up_evacuation,
        past_evacuations.await_evacuation,
        people.prove,
        people.open_window,
        hooks.call_hook,
        steady_state.check_steady_state,
        steady_state.watch_steady_state,
        Verification(p.nodes, p.dns).verify,
        Reviews(p.registry, p.nodes).look,
        audit.record,
        audit.record_region,
        audit.record_review,
        regions.assess_region,
        regions.unmoved,
        regions.await_run,
        regions.watch_region,
        shifts.shift_weights,
        shifts.check_return,
        Notifications(p.notifier).notify,
        ReadinessChecks(p.registry, p.nodes, p.dns, p.audit, p.weights, p.checks).evaluate,
    ]


def workers_for(
    client: Client, settings: WorkerSettings, p: Providers, *, runner: WorkflowRunner | None = None
) -> Sequence[Worker]:
    """One worker for the runbooks' queue and one for each vantage. `runner`: another one than the sandbox."""
    runbooks = Worker(
        client,
        task_queue=settings.task_queue,
        workflows=WORKFLOWS,
        activities=runbook_activities(client, p),
        activity_executor=ThreadPoolExecutor(4, thread_name_prefix="activity"),
        workflow_runner=runner or sandbox(),
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=STICKY_S),
        workflow_task_poller_behavior=PollerBehaviorAutoscaling(),
        activity_task_poller_behavior=PollerBehaviorAutoscaling(),
        graceful_shutdown_timeout=timedelta(seconds=GRACE_S),
        # Without these a cancelled or dying effect would be heard of seconds late.
        max_heartbeat_throttle_interval=timedelta(seconds=1),
        default_heartbeat_throttle_interval=timedelta(seconds=1),
    )
    return [runbooks, *vantage_workers(client, settings, p.registry, p.nodes)]


def vantage_workers(
    client: Client, settings: WorkerSettings, registry: Registry, nodes: Nodes
) -> Sequence[Worker]:
    """One for each vantage that this process stands at."""
    watch = Health(registry, nodes).watch
    return [
        Worker(
            client,
            task_queue=vantage_queue(vantage),
            activities=[watch],
            max_heartbeat_throttle_interval=timedelta(seconds=1),
            default_heartbeat_throttle_interval=timedelta(seconds=1),
        )
        for vantage in settings.vantages
    ]


def sandbox() -> SandboxedWorkflowRunner:
    """The SDK's sandbox; the project's own pure modules are not loaded anew for each run."""
    passed_through = (
        "qnwis",
        "activities",
        "pydantic",
        "pydantic_core",
        "yaml",
        "httpx",
        "dns",
        "cryptography",
    )
    restrictions = SandboxRestrictions.default
    return SandboxedWorkflowRunner(
        restrictions=dataclasses.replace(
            restrictions, passthrough_modules=restrictions.passthrough_modules | set(passed_through)
        )
    )
