"""Hooks of a run that is reset, on a real Temporal server."""

from __future__ import annotations

import yaml

from qnwis.continuity.run import RunOutcome

from .conftest import Setting
from .matrix import reset, task_that_asks
from .test_interrupted_runs import current


async def test_a_run_past_return_that_is_reset_calls_its_hooks_again_and_is_not_stopped_by_them(
    stage: Setting,
) -> None:
    on = await stage()
    keys = on.settings.config_dir / "keys"
    once = f'echo "$QNWIS_IDEMPOTENCY_KEY" >> {keys}; test "$(wc -l < {keys})" = 1'
    hook = {"name": "once", "before": "execution", "command": ["sh", "-c", once], "on_failure": "stop"}
    probe = {"name": "well", "command": ["true"], "runbooks": ["primary_failure"]}
    (on.settings.config_dir / "hooks.yaml").write_text(
        yaml.safe_dump({"hooks": [hook], "steady_state": [probe]})
    )
    run = await on.start(even_if_healthy=True)
    first = await run.result()
    assert first.verified and [hook.ok for hook in first.hooks] == [True]
    done = list(on.world.journal)

    await reset(run, on.client, await task_that_asks(run, "call_hook"))
    again = await current(on).result()

    assert (again.outcome, again.run_id) == (RunOutcome.COMPLETED, first.run_id)
    assert [hook.ok for hook in again.hooks] == [False], "it fails now, and nothing stops over it"
    assert keys.read_text().splitlines() == [f"{first.run_id}/before-execution/once"] * 2
    assert on.world.journal == done
