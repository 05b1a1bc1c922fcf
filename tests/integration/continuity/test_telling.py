"""What a run tells people through channels, on the real Temporal server: once, beside it, and visibly."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

from temporalio.client import Client

from qnwis.continuity.run import RunOutcome
from qnwis.providers.notifier import ChannelNotifier
from qnwis.providers.sent import SentStore
from tests.receiver import SECRET, channels, impatient, receiving
from workflows.primary_failure import PrimaryFailure

from .conftest import Stage
from .matrix import reset, tasks
from .test_primary_failure import current_details


async def test_channels_that_fail_are_seen_in_the_run_and_those_that_take_hear_of_it_once(
    client: Client, tmp_path: Path
) -> None:
    store = SentStore(tmp_path / "notifications.sqlite", longest=timedelta(seconds=60))
    notifier = ChannelNotifier(tmp_path, store, impatient)
    on = Stage.set(client, tmp_path, notifier=notifier)
    async with AsyncExitStack() as running:
        receiver = await running.enter_async_context(receiving())
        channels(
            tmp_path,
            {"name": "chat", "url": receiver.url("takes")},
            {"name": "pager", "url": receiver.url("refuses"), "events": ["done", "failed"]},
            {"name": "mail", "url": receiver.url("hangs"), "events": ["started"]},
            {"name": "theirs", "url": receiver.url("takes"), "clusters": ["another"]},
        )
        for worker in on.workers():
            await running.enter_async_context(worker)
        on.world.kill("node-1")
        run = await on.start()
        result = await run.result()

        assert result.verified and result.outcome is RunOutcome.COMPLETED
        told = sorted((message["type"], message["title"]) for message in receiver.took)
        name = f"failover of {on.cluster_id}"
        assert told == [("info", f"{name} started"), ("success", f"{name} completed")]
        missed = sorted(result.notes)
        assert missed[0].startswith("notification `completed` through pager: ") and "403" in missed[0]
        assert missed[1].startswith("notification `started` through mail: no answer within ")
        assert len(missed) == 2
        progress = await run.query(PrimaryFailure.progress_view)
        assert sorted(progress.undelivered) == missed
        details = await current_details(run)
        assert all(f"⚠ {line}" in details for line in missed)

        await reset(run, client, (await tasks(run))[0])
        again = client.get_workflow_handle_for(PrimaryFailure.run, run.id)
        assert (await again.result()).run_id == result.run_id
        assert len(receiver.took) == 2, "the run is the same, and has told it"
        for handle in (run, again):
            async for event in handle.fetch_history_events():
                assert SECRET.encode() not in event.SerializeToString()
