"""From settings to providers to activities to workers. The only place that knows all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from temporalio.client import Client
from temporalio.common import WorkerDeploymentVersion
from temporalio.worker import (
    Interceptor,
    PollerBehaviorAutoscaling,
    UnsandboxedWorkflowRunner,
    Worker,
    WorkerDeploymentConfig,
)

from activities.access_review import AccessReviews
from activities.audit import Audit
from activities.dns import DnsRecords
from activities.evidence import Evidence
from activities.fencing import Fencing
from activities.forcing import Forcing
from activities.guarding import Guarding
from activities.hooks import Hooks
from activities.http_application import ApplicationMoves
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
from qnwis.config.registry import Registry
from qnwis.metrics.approvals import ApprovalMetrics
from qnwis.metrics.exposition import Exposition
from qnwis.metrics.readiness import ReadinessMetrics
from qnwis.metrics.runs import RunMetrics
from qnwis.providers.agent_tls import AgentTls, AskedAgents
from qnwis.providers.all_nodes import AllNodes
from qnwis.providers.audit_place import audit_store_of
from qnwis.providers.audit_store import AuditStore
from qnwis.providers.bundles import FOLDER, Bundles
from qnwis.providers.calls import Caller
from qnwis.providers.channels import channel_notifier
from qnwis.providers.dns import Dns
from qnwis.providers.dns_by_holder import DnsByHolder
from qnwis.providers.fencing import Hook, HookByMaker, PowerHook
from qnwis.providers.http_application import Applications, HttpApplications
from qnwis.providers.key_store import FileKeyStore, key_store_of
from qnwis.providers.nodes import Nodes
from qnwis.providers.nonces import TemporalNonces
from qnwis.providers.notifier import Notifier
from qnwis.providers.patroni import HttpPatroni, Patroni
from qnwis.providers.region_checks import DatabaseChecks, RegionChecks
from qnwis.providers.region_weights import DnsWeights, RegionWeights
from qnwis.providers.service_tokens import FILE as TOKENS
from qnwis.providers.service_tokens import TokenFile
from qnwis.providers.upkeep import AskedUpkeeps, Upkeeps
from qnwis.providers.witness import Witness, witnesses_of
from qnwis.transport import Transport, transport_of
from workflows.access_review import AccessReviewRun
from workflows.guardian import Guardian
from workflows.names import FAILOVER_PREFIX, OUTCOME, guardian_id
from workflows.planned_maintenance import PlannedMaintenance
from workflows.primary_failure import PrimaryFailure
from workflows.readiness import ReadinessCheck
from workflows.region_failure import RegionFailure
from workflows.region_guardian import RegionGuardian
from workflows.reprotect import Reprotect
from workflows.review import OverrideReview
from workflows.round_trip import RoundTrip
from workflows.used_token import UsedToken

from .settings import GRACE_S, WorkerSettings
from .unversioned import Unversioned
from .vantages import ACTIVITIES, vantage_workers
from .whereabouts import Whereabouts

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
    AccessReviewRun,
)

STICKY_S = 2.0
"""How long a workflow task waits for the worker that has the workflow in memory, before another takes it."""
WORKFLOWS_HELD = 10_000
"""In memory of one worker: a guardian for each cluster, and all of them have something to do when a region is
lost. One that was let go would be replayed from its history just then."""


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
    applications: Applications = field(default_factory=lambda: HttpApplications(Transport()))
    """Of clusters with `manager: http`."""
    caller: Caller = field(default_factory=lambda: Caller(Transport()))
    """Of hooks and probes."""
    weights: RegionWeights = field(default_factory=DnsWeights)
    """By which active/active clusters share their traffic out."""
    checks: RegionChecks = field(default_factory=DatabaseChecks)
    tls: AgentTls = field(default_factory=lambda: AskedAgents(Transport()))
    upkeeps: Upkeeps = field(default_factory=lambda: AskedUpkeeps(Transport()))
    bundles: Bundles | None = None
    """Makes the bundle of each record; None where nobody wants one."""
    witnesses: tuple[Witness, ...] = ()
    """Who keeps the audit log's tree heads."""


def runbook_workers(
    client: Client,
    settings: WorkerSettings,
    metrics: Exposition | None,
    tracing: Sequence[Interceptor],
) -> Sequence[Worker]:
    """The workers of a process that runs runbooks and may stand at vantages. `metrics`: where what they
    measure is registered; `tracing`: what makes spans of their work."""
    return workers_for(client, settings, providers_for(settings), metrics=metrics, tracing=tracing)


def providers_for(settings: WorkerSettings) -> Providers:
    """Of a worker that runs runbooks."""
    assert settings.state_dir is not None, "the settings demand it"
    transport = transport_of(os.environ, settings.config_dir)
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    patroni, applications = HttpPatroni(transport), HttpApplications(transport)
    audit = audit_store_of(settings.state_dir, os.environ, asked_again=True)
    keys = key_store_of(os.environ) or FileKeyStore(settings.state_dir / "audit-keys.json")
    return Providers(
        registry=Registry(settings.config_dir),
        nodes=AllNodes(transport, patroni, applications),
        patroni=patroni,
        applications=applications,
        dns=DnsByHolder(),
        hook=HookByMaker(PowerHook(transport)),
        tls=AskedAgents(transport),
        upkeeps=AskedUpkeeps(transport),
        audit=audit,
        bundles=Bundles(audit, keys, settings.state_dir / FOLDER),
        witnesses=witnesses_of(os.environ, transport),
        notifier=channel_notifier(settings.config_dir, settings.state_dir),
    )


def runbook_activities(
    client: Client, p: Providers, metrics: Exposition | None = None
) -> list[Callable[..., Any]]:
    graded = ReadinessMetrics(metrics) if metrics is not None else None
    evidence, planning = Evidence(p.registry, p.nodes), Planning()
    past_runs, past_evacuations = PastRuns(client, FAILOVER_PREFIX, OUTCOME.name), PastEvacuations(client)
    people = People(AccessFiles(p.registry.directory), TemporalNonces(client), p.audit)
    fencing, promotion, dns = Fencing(p.nodes, p.hook), Promotion(p.nodes), DnsRecords(p.dns)
    audit = Audit(p.audit, bundles=p.bundles, witnesses=p.witnesses)
    regions = Regions(p.registry, p.nodes, p.weights, client)
    shifts = WeightShifts(p.registry, p.weights, p.checks)
    access_reviews = AccessReviews(
        AccessFiles(p.registry.directory), TokenFile(p.registry.directory / TOKENS), p.audit
    )
    forcing, switchover = Forcing(p.nodes, fencing), Switchover(p.nodes, fencing)
    moves, by_region = PatroniMoves(p.nodes, p.patroni), PatroniRegions(p.nodes, p.patroni)
    without_patroni = PatroniFencing(p.hook)
    by_application = ApplicationMoves(p.nodes, p.applications, p.hook)
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
        by_application.http_demote,
        by_application.http_take_back,
        by_application.http_fence,
        by_application.http_unfence,
        by_application.http_promote,
        by_application.preview_http_demote,
        by_application.preview_http_fence,
        by_application.preview_http_promote,
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
        access_reviews.review_access,
        audit.record,
        audit.record_region,
        audit.record_guardian,
        audit.record_review,
        regions.assess_region,
        regions.unmoved,
        regions.await_run,
        regions.watch_region,
        shifts.shift_weights,
        shifts.check_return,
        Notifications(p.notifier).notify,
        ReadinessChecks(
            p.registry,
            p.nodes,
            p.dns,
            p.audit,
            p.weights,
            p.checks,
            p.tls,
            p.upkeeps,
            graded,
            Guarding(client, guardian_id),
        ).evaluate,
    ]


def workers_for(
    client: Client,
    settings: WorkerSettings,
    p: Providers,
    *,
    metrics: Exposition | None = None,
    tracing: Sequence[Interceptor] = (),
) -> Sequence[Worker]:
    """One worker for the runbooks' queue and one for each vantage."""
    if metrics is not None:
        RunMetrics(p.audit, p.registry, metrics)
        ApprovalMetrics(client, p.registry, metrics)
    # In no sandbox: one takes a quarter of a second of CPU time to make, for each run, in the middle of a
    # failover. Recorded runs are replayed in one, and import-linter keeps clocks and lots out of workflows.
    runner = Unversioned if settings.build is None else UnsandboxedWorkflowRunner
    runbooks = Worker(
        client,
        task_queue=settings.task_queue,
        workflows=WORKFLOWS,
        activities=runbook_activities(client, p, metrics),
        max_concurrent_activities=ACTIVITIES,
        max_cached_workflows=WORKFLOWS_HELD,
        workflow_runner=runner(),
        interceptors=[Whereabouts(), *tracing],
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=STICKY_S),
        workflow_task_poller_behavior=PollerBehaviorAutoscaling(),
        activity_task_poller_behavior=PollerBehaviorAutoscaling(),
        deployment_config=_version(settings),
        graceful_shutdown_timeout=timedelta(seconds=GRACE_S),
        # Without these a cancelled or dying effect would be heard of seconds late.
        max_heartbeat_throttle_interval=timedelta(seconds=1),
        default_heartbeat_throttle_interval=timedelta(seconds=1),
    )
    return [runbooks, *vantage_workers(client, settings, p.registry, p.nodes, metrics, tracing)]


def _version(settings: WorkerSettings) -> WorkerDeploymentConfig | None:
    """Of runbooks and guardians. The watches of vantages have none: any build's guardian asks them."""
    if settings.build is None:
        return None
    version = WorkerDeploymentVersion(settings.deployment, settings.build)
    return WorkerDeploymentConfig(version=version, use_worker_versioning=True)
