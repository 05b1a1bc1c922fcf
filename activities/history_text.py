"""The history of the run that an activity belongs to, as readable JSON for its bundle."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Sequence
from typing import Any

from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowHistory
from temporalio.converter import PayloadCodec
from temporalio.service import RPCError


async def history_text() -> str | None:
    """What Temporal has of this activity's run by now; None outside of a worker, or where it does not answer:
    the bundle then says everything but how it came about."""
    info = activity.info()
    if info.workflow_id is None:
        return None
    try:
        client = activity.client()
        handle = client.get_workflow_handle(info.workflow_id, run_id=info.workflow_run_id)
        return await readable(await handle.fetch_history(), client)
    except (RPCError, RuntimeError) as error:
        activity.logger.warning("no history for the bundle: %s", error)
        return None


async def readable(history: WorkflowHistory, client: Client) -> str:
    """The history as JSON, each payload decoded: decrypted, and its JSON as JSON."""
    told = history.to_json_dict()
    return json.dumps(await _decoded(told, client.data_converter.payload_codec), ensure_ascii=False)


async def _decoded(value: Any, codec: PayloadCodec | None) -> Any:
    if isinstance(value, list):
        return [await _decoded(inner, codec) for inner in value]
    if not isinstance(value, dict):
        return value
    if set(value) <= {"metadata", "data"} and isinstance(value.get("metadata"), dict):
        payloads: Sequence[Payload] = [
            Payload(
                metadata={name: b64decode(text) for name, text in value["metadata"].items()},
                data=b64decode(value.get("data", "")),
            )
        ]
        if codec is not None:
            payloads = await codec.decode(payloads)
        return [_told(payload) for payload in payloads]
    return {name: await _decoded(inner, codec) for name, inner in value.items()}


def _told(payload: Payload) -> Any:
    text = payload.data.decode(errors="replace")
    if payload.metadata.get("encoding", b"") != b"json/plain":
        return {"encoding": payload.metadata.get("encoding", b"").decode(errors="replace"), "data": text}
    try:
        return json.loads(text)
    except ValueError:
        return text
