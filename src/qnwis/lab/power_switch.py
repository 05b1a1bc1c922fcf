"""The lab's power switch (STONITH), as a management board would be one: its own process at its own address.

    POST /nodes/{node_id}/off, POST /nodes/{node_id}/on   body {"effect_id": "..."}
    -> 200 {"changed": bool, "killed": int, "detail": "..."}

It goes by state: to switch off what is off changes nothing. Each request has a line in its journal, on disk
before it is answered.

    python -m qnwis.lab.power_switch --lab /var/tmp/qnwis-lab-0 --listen 127.77.1.3 --port 18623
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web
from pydantic import BaseModel, Field, ValidationError

from .errors import LabError
from .layout import Folder
from .nodes import machine_of
from .processes import Processes

log = logging.getLogger(__name__)


class SwitchRequest(BaseModel):
    """Further fields are for the journals of others and are ignored."""

    effect_id: str = Field(min_length=1)


class PowerSwitch:
    """Switches the nodes of one lab, one request at a time."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._processes = Processes(folder.processes, folder.logs)
        self._one_at_a_time = asyncio.Lock()

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_post("/nodes/{node_id}/{state:off|on}", self._handle)
        return application

    async def _handle(self, request: web.Request) -> web.Response:
        node_id, state = request.match_info["node_id"], request.match_info["state"]
        known = sorted(path.name for path in self._folder.nodes.iterdir())
        if node_id not in known:
            return _no(404, f"no node {node_id!r}; expected one of {', '.join(known)}")
        try:
            effect_id = SwitchRequest.model_validate_json(await request.read()).effect_id
        except ValidationError as error:
            fault = error.errors()[0]
            return _no(422, f"body: {'.'.join(map(str, fault['loc'])) or 'JSON'}: {fault['msg']}")
        async with self._one_at_a_time:
            try:
                answer = await asyncio.to_thread(self._switched, node_id, state)
            except LabError as error:
                log.error("%s %s: %s", node_id, state, error)
                return _no(500, str(error))
            self._record(node_id, state, effect_id, answer)
        return web.json_response(answer)

    def _switched(self, node_id: str, state: str) -> dict[str, object]:
        machine = machine_of(self._folder, self._processes, node_id)
        if state == "off":
            changed, killed = machine.power_off()
            detail = f"{node_id} is off; {killed} processes killed, none left"
        else:
            changed, killed = machine.power_on(), 0
            detail = f"{node_id} is on and its agent runs"
        return {"changed": changed, "killed": killed, "detail": detail}

    def _record(self, node_id: str, state: str, effect_id: str, answer: dict[str, object]) -> None:
        line = {
            "at": datetime.now(UTC).isoformat(),
            "node_id": node_id,
            "state": state,
            "effect_id": effect_id,
            **answer,
        }
        log.info("%s", answer["detail"])
        with self._folder.power_journal.open("ab") as journal:
            journal.write(json.dumps(line).encode() + b"\n")
            journal.flush()
            os.fsync(journal.fileno())


def _no(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)


def main() -> None:
    parser = argparse.ArgumentParser(prog="qnwis.lab.power_switch", description="The lab's power switch")
    parser.add_argument("--lab", type=Path, required=True, help="the lab's directory")
    parser.add_argument("--listen", required=True, help="IP address")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    application = PowerSwitch(Folder(options.lab)).application()
    web.run_app(application, host=options.listen, port=options.port, print=None, access_log=None)


if __name__ == "__main__":
    main()
