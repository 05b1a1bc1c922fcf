"""This project, as its lab has it: three nodes with agents, Temporal, a worker and three vantages."""

from __future__ import annotations

import importlib.metadata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from qnwis.lab.cluster import Lab
from qnwis.lab.control_plane import ControlPlane
from qnwis.lab.errors import LabError
from qnwis.lab.maintenance_demo import move
from qnwis.lab.postgres import APP, APP_DATABASE
from qnwis.lab.shape import Shape

from .bed import PG_BIN, PORT, Bed
from .names import OURS
from .peer import installed
from .settings import OUR_TERMS, Setting
from .settings import OURS as SETTINGS
from .systems import Running, System


class Ours(System):
    name, fences, settings = OURS, True, SETTINGS
    remarks = (
        "This project fails over from a crashed database by default; where `local_restart_s` gives it time it"
        " first starts it again, under the lease that it has.",
    )

    def missing(self) -> str | None:
        return installed()

    def version(self) -> str:
        return importlib.metadata.version("qnwis-continuity")

    @asynccontextmanager
    async def running(self, bed: Bed, setting: Setting) -> AsyncIterator[Running]:
        terms = OUR_TERMS[setting.name]
        lab = await Lab.create(
            bed.root / "lab",
            shape=Shape(
                heartbeat=terms.heartbeat,
                lease=terms.lease,
                local_restart_s=terms.local_restart_s,
                parameters=terms.parameters,
                power_switch=False,
            ),
            pg_bin=PG_BIN,
            ground=bed.network.ground,
            cache=bed.cache,
        )
        try:
            yield Cluster(lab, await ControlPlane.start(lab, lambda _: None))
        finally:
            await lab.stop()


class Cluster(Running):
    def __init__(self, lab: Lab, control: ControlPlane) -> None:
        self._lab, self._control = lab, control
        self.hosts = {node.node_id: node.hostname for node in lab.data_nodes}
        self.port, self.user, self.database = PORT, APP, APP_DATABASE
        self.password_file = lab.folder.password(APP)
        self.primary = lab.primary.node_id

    def home(self, node: str) -> Path:
        return self._lab.machine(node).home

    def data_dir(self, node: str) -> Path:
        return self._lab.machine(node).data_dir

    async def switch_over(self) -> None:
        result = await move(self._control, lambda _: None, lambda handle: handle.result())
        if not result.verified:
            raise LabError(f"the switchover ended as {result.outcome}")
