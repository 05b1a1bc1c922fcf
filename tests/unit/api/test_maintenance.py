"""Planned maintenance through the API: what would never end is not begun."""

from __future__ import annotations

from pathlib import Path

import pytest

from .scene import ApiScene, rule_of

DRILL = {"drill": True, "back_after_s": 0, "there_by": "region_failure"}


async def test_a_round_trip_by_the_runbook_of_a_region_is_not_begun(tmp_path: Path) -> None:
    scene = ApiScene(tmp_path)
    async with scene.http() as api:
        body = {"reason": "test", "maintenance": DRILL}
        refused = await api.post("/clusters/c1/maintenance", json=body, headers=scene.acting("bob"))
    assert (refused.status_code, rule_of(refused)) == (422, "not_understood"), refused.text
    assert "expected primary_failure or planned_maintenance" in refused.json()["detail"]
    assert scene.client.asked == []


@pytest.mark.parametrize(
    "endless", [{"window_s": 1e9}, {"back_after_s": 1e9}, {"not_before": "2399-01-01T00:00:00Z"}]
)
async def test_a_window_without_an_end_is_not_begun(tmp_path: Path, endless: dict[str, object]) -> None:
    scene = ApiScene(tmp_path)
    async with scene.http() as api:
        body = {"reason": "test", "maintenance": endless}
        refused = await api.post("/clusters/c1/maintenance", json=body, headers=scene.acting("bob"))
    assert (refused.status_code, rule_of(refused)) == (422, "not_understood"), refused.text
    assert scene.client.asked == []
