"""What hooks and probes call, on real programs and a real HTTP server."""

from __future__ import annotations

import asyncio
import json
import os
import select
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from qnwis.continuity.hooks_file import Hook
from qnwis.providers.calls import Caller, Came
from qnwis.transport import Transport
from tests.receiver import SECRET, receiving

LONG_S = 60.0
SOON_S = 10.0


async def called(timeout_s: float = LONG_S, environment: Mapping[str, str] | None = None, **how: Any) -> Came:
    return await Caller(Transport()).make(
        Hook.model_validate({"name": "it", "before": "execution", **how}, strict=False),
        {"cluster_id": "c1"},
        environment or {"QNWIS_CLUSTER_ID": "c1"},
        default_method="POST",
        idempotency_key="r1/before-execution/it",
        timeout_s=timeout_s,
    )


async def has_ended(pid: int) -> bool:
    """Whether the process ends within seconds: a signal to kill is sent before it is obeyed."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        readable, _, _ = await asyncio.to_thread(select.select, [process], [], [], SOON_S)
    finally:
        os.close(process)
    return bool(readable)


async def test_a_command_has_its_own_environment_and_the_json_and_no_secret_of_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKERS_PASSWORD", SECRET)
    told_in = tmp_path / "told"
    script = (
        "import json, os, sys\n"
        f"json.dump([dict(os.environ), json.load(sys.stdin)], open({str(told_in)!r}, 'w'))"
    )
    came = await called(command=(sys.executable, "-c", script))
    assert (came.ok, came.detail) == (True, "exit status 0")
    environment, told = json.loads(told_in.read_text())
    assert told == {"cluster_id": "c1"} and environment["QNWIS_CLUSTER_ID"] == "c1"
    assert set(environment) - {"LC_CTYPE"} <= {"QNWIS_CLUSTER_ID", "PATH", "HOME", "LANG"}


async def test_a_program_that_fails_or_is_none_is_an_answer() -> None:
    came = await called(command=("sh", "-c", "echo no such shop >&2; exit 3"))
    assert (came.ok, came.detail) == (False, "exit status 3: no such shop")
    came = await called(command=("/no/such/program",))
    assert not came.ok and came.detail.startswith("cannot be started")


async def test_the_end_of_a_flood_of_output_is_kept_and_nothing_else() -> None:
    came = await called(
        command=("sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo the end; exit 1")
    )
    assert came.detail.endswith("the end") and len(came.detail) < 400


async def test_a_hung_command_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 1000 & echo $$ $! > {pids}; wait"
    came = await called(timeout_s=1, command=("sh", "-c", script))
    assert (came.ok, came.detail) == (False, "killed after 1 s")
    assert all([await has_ended(int(pid)) for pid in pids.read_text().split()])


async def test_what_a_command_leaves_behind_is_killed_and_not_waited_for(tmp_path: Path) -> None:
    came = await called(command=("sh", "-c", f"sleep 1000 & echo $! > {tmp_path / 'pid'}"))
    assert came.ok
    assert await has_ended(int((tmp_path / "pid").read_text()))


async def test_a_cancel_kills_the_command(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    calling = asyncio.create_task(called(command=("sh", "-c", f"echo $$ > {pipe}; exec sleep 1000")))
    pid = int(await asyncio.to_thread(pipe.read_text))
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert await has_ended(pid)


async def test_a_request_has_the_json_the_key_and_the_secret_that_nothing_repeats(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with receiving() as receiver:
        monkeypatch.setenv("HOOK_AUTH", f"Bearer {SECRET}")
        base = f"http://127.0.0.1:{receiver.port}"
        headers = {"Authorization": "env:HOOK_AUTH", "X-Kind": "hook"}
        came = await called(http={"url": f"{base}/takes/it", "headers": headers})
        assert (came.ok, came.detail) == (True, "status 200")
        assert receiver.took == [{"cluster_id": "c1"}]
        (got,) = receiver.headers
        assert (got["Authorization"], got["X-Kind"]) == (f"Bearer {SECRET}", "hook")
        assert got["Idempotency-Key"] == "r1/before-execution/it"

        refused = await called(http={"url": f"{base}/refuses/it", "headers": headers})
        assert (refused.ok, refused.detail) == (False, "status 403, not of 200 to 299: ***")
        expected = await called(http={"url": f"{base}/refuses/it", "expect_status": 403})
        assert expected.ok
        hangs = await called(timeout_s=0.5, http={"url": f"{base}/hangs/it"})
        assert (hangs.ok, hangs.detail) == (False, "no answer within 0.5 s")
        missing = await called(http={"url": "env:NOT_SET"})
        assert missing.detail == "the environment variable NOT_SET is not set on this worker"
        monkeypatch.setenv("HOOK_URL", f"http://127.0.0.1:1/{SECRET}")
        nobody = await called(http={"url": "env:HOOK_URL"})
        assert not nobody.ok and SECRET not in nobody.detail
