"""What is said to a cluster's guardian: by people (pause, resume, acknowledge; how they prove it), by runs
that it did not start, and by the guardians of regions.

What people may say is an update, which answers, and a signal for the Temporal UI; a signal that is refused
shows in the view.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from .approval import prove, refused
from .guardian_state import (
    AcknowledgeRequest,
    AlertAnswer,
    AlertRequest,
    PauseRequest,
    ResumeRequest,
)
from .recording import RECORDED, Recorder
from .turns import Turns

with workflow.unsafe.imports_passed_through():
    from qnwis.config.registry import Registered
    from qnwis.continuity.access import Deed, Person
    from qnwis.continuity.guardian_record import said_by_a_person
    from qnwis.continuity.guardian_rules import Acknowledgement, PastRun, Pause, acknowledge
    from qnwis.continuity.refusal import Refusal
    from qnwis.continuity.region_wait import Heard, RegionWord, heard_after
    from qnwis.continuity.tokens import Expected, PersonRequest


class GuardianListening(ABC):
    """Hears, keeps what it heard, and wakes whoever decides by it."""

    cluster_id: str
    registered: Registered | None = None
    history: tuple[PastRun, ...]
    pause: Pause | None
    recorder: Recorder
    turns: Turns
    regions: dict[str, Heard]
    """What the regions' guardians said last, by region."""
    last_refused: str | None = None
    """The newest signal that was not obeyed, and why."""
    woken: bool
    """Something was heard that may change what is decided."""
    decisions: int
    """How often it has decided so far."""
    ending: bool
    """It goes on as new."""

    @abstractmethod
    async def _look_around(self) -> None:
        """Load what is registered, and learn from the agents who the primary is."""

    @abstractmethod
    def _remember(self, run: PastRun) -> None:
        """Keep a run for as long as a rule needs it."""

    @abstractmethod
    def _as_decided(self) -> AlertAnswer:
        """What came of the newest decision."""

    @abstractmethod
    def _show(self) -> None:
        """Show people how things stand."""

    # Runs, and guardians of regions

    @workflow.signal(description="A run that this guardian did not start has ended")
    async def run_ended(self, run: PastRun) -> None:
        await self._look_around()  # the rules to remember it by may not be loaded yet
        self._remember(run)
        self.woken = True

    @workflow.signal(description="Sent by guardians of regions, not by people: what is held of a region")
    def region_word(self, word: RegionWord) -> None:
        self.regions[word.region] = heard_after(self.regions.get(word.region), word, workflow.now())
        self.woken = True

    # Alerts

    @workflow.update(
        description="An alert from outside: look now; these rules decide, as ever: {by, reason, alert_id}"
    )
    async def alerted(self, alert: AlertRequest) -> AlertAnswer:
        before = self.decisions
        self.woken = True
        await workflow.wait_condition(lambda: self.decisions > before or self.ending)
        return self._as_decided()

    # Pause and resume

    @workflow.signal(description="Switch automatic failover off: {by, reason, token}")
    async def pause_failover(self, request: PauseRequest) -> None:
        if await self._allowed(Deed.PAUSE, request):
            self._pause(Pause(by=request.by, reason=request.reason, since=workflow.now()))

    @workflow.signal(description="Switch automatic failover on again: {by, reason, token}")
    async def resume_failover(self, request: ResumeRequest) -> None:
        if await self._allowed(Deed.RESUME, request):
            self._pause(None)

    @workflow.update(name="pause", description="The same as the signal pause_failover, with an answer")
    async def pause_answered(self, request: PauseRequest) -> None:
        await self._prove(Deed.PAUSE, request)
        self._pause(Pause(by=request.by, reason=request.reason, since=workflow.now()))

    @workflow.update(name="resume", description="The same as the signal resume_failover, with an answer")
    async def resume_answered(self, request: ResumeRequest) -> None:
        await self._prove(Deed.RESUME, request)
        self._pause(None)

    def _pause(self, pause: Pause | None) -> None:
        self.pause = pause
        self.woken = True

    # Acknowledgement

    @workflow.update(
        description="A person has looked at a run: it holds no failover back: {run_id, by, reason, token}"
    )
    async def acknowledge(self, request: AcknowledgeRequest) -> PastRun:
        person = await self._prove(Deed.ACKNOWLEDGE, request)
        history = self._acknowledged(request)
        if isinstance(history, Refusal):
            await self._record(Deed.ACKNOWLEDGE, request, person, history)
            raise refused(history)
        self._recall(history)
        return next(run for run in history if run.run_id == request.run_id)

    @workflow.signal(
        description="The same as the update acknowledge, for the UI: {run_id, by, reason, token}",
    )
    async def acknowledge_recovery(self, request: AcknowledgeRequest) -> None:
        if not await self._allowed(Deed.ACKNOWLEDGE, request):
            return
        history = self._acknowledged(request)
        if isinstance(history, Refusal):
            await self._record(Deed.ACKNOWLEDGE, request, None, history)
            workflow.logger.warning("acknowledgement refused: %s", history)
            return
        self._recall(history)

    def _acknowledged(self, request: AcknowledgeRequest) -> tuple[PastRun, ...] | Refusal:
        by_whom = Acknowledgement(by=request.by, reason=request.reason, at=workflow.now())
        return acknowledge(self.history, request.run_id, by_whom)

    def _recall(self, history: tuple[PastRun, ...]) -> None:
        self.history = history
        self.woken = True

    # Proofs

    async def _prove(self, deed: Deed, request: PersonRequest) -> Person | None:
        """Who it is; None where the policy takes people at their word. On record either way before it counts.
        Raises ApplicationError where the policy asks for a proof and there is none."""
        return await self.turns.of(lambda: self._person(deed, request))

    async def _person(self, deed: Deed, request: PersonRequest) -> Person | None:
        await workflow.wait_condition(lambda: self.registered is not None)
        if self.registered is None or not self.registered.policy.approvals:
            await self._record(deed, request, None, None)
            return None
        found = await prove(
            request.token,
            Expected(deed=deed, cluster_id=self.cluster_id, digest=request.digest),
            claimed=request.by,
        )
        if isinstance(found, Refusal):
            raise refused(found)
        return found

    async def _record(
        self, deed: Deed, request: PersonRequest, person: Person | None, refusal: Refusal | None
    ) -> None:
        """What nobody was asked to prove, and what was refused after the proof."""
        if not workflow.patched(RECORDED):
            return
        await self.recorder.recorded(
            said_by_a_person(
                self.cluster_id,
                deed,
                request.by,
                request.reason,
                refusal,
                roles=() if person is None else person.roles,
                decision_id=f"guardian-{workflow.uuid4()}",
                at=workflow.now(),
            ),
            unless=lambda: self.ending,  # whoever goes on saying things must not keep it from going on as new
        )

    async def _allowed(self, deed: Deed, request: PersonRequest) -> bool:
        """The same for a signal, which has no answer: people see the refusal in the view."""
        try:
            await self._prove(deed, request)
        except ApplicationError as error:
            self.last_refused = f"{deed} by {request.by} refused: {error.message}"
            self._show()
            return False
        return True
