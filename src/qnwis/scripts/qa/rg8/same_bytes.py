"""Prints, a line each, what must be the same bytes in every process: `name sha256`.

Run by the determinism check in processes of its own, under several hash seeds and interpreters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib.util import find_spec
from random import Random

from qnwis.config.registry import Registry
from qnwis.config.shipped import shipped
from qnwis.continuity.model import canonical_json
from qnwis.continuity.planner import make_plan
from qnwis.continuity.scenarios import at_rest
from qnwis.continuity.simulate import BEGIN, Scenario, simulate

SEEDS = (1, 42)
RUNS = 500


def texts() -> Iterator[tuple[str, str]]:
    registered = Registry(shipped("config") / "continuity").load("prod-cluster")
    cluster, policy = registered.cluster, registered.policy
    world = at_rest(cluster, policy, Random(1))
    world.lose({"node-1"})
    yield "plan", canonical_json(make_plan(cluster, policy, world.evidence(BEGIN), trigger_reason="gate"))
    for scenario in Scenario:
        for seed in SEEDS:
            yield f"{scenario.value}/{seed}", canonical_json(simulate(cluster, policy, scenario, seed))
    if find_spec("numpy") is None:
        return  # without the extra `simulator`
    from qnwis.config.access import AccessFiles
    from qnwis.montecarlo.result import study
    from qnwis.montecarlo.study import Settings
    from qnwis.montecarlo.world import load_world

    approval = AccessFiles(shipped("config") / "continuity").load_rbac().approval_workflows["manual_failover"]
    settings = Settings(cluster, policy, load_world("cloud"), approval)
    yield f"{RUNS}-failures", canonical_json(study(settings, RUNS, 42).result)


if __name__ == "__main__":
    for name, text in texts():
        print(name, hashlib.sha256(text.encode()).hexdigest())
