"""The console's pages: there for everybody, nothing in them, under a policy that lets nothing else in."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import httpx
import pytest

from qnwis.api.app import create_app
from qnwis.api.console import AT, POLICY, pages

from .scene import ApiScene


@pytest.fixture
def api(tmp_path: Path) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(create_app(ApiScene(tmp_path).parts), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://api.test")


async def test_every_page_is_served_to_nobody_in_particular_under_the_policy(api: httpx.AsyncClient) -> None:
    async with api:
        for path in pages():
            answer = await api.get(path)
            if path in ("/", AT.rstrip("/")):
                assert (answer.status_code, answer.headers["location"]) == (307, AT)
                continue
            assert answer.status_code == 200 and answer.headers["cache-control"] == "no-store"
            assert {name: answer.headers[name] for name in POLICY} == POLICY
            assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "index.html/",
        "%2e%2e",
        "../api/v1/continuity/me",
        "%2e%2e/door.py",
        "__init__.py",
        "views",
        "views/../main.js/x",
    ],
)
async def test_nothing_else_is_open(api: httpx.AsyncClient, path: str) -> None:
    async with api:
        assert (await api.get(AT + path)).status_code == 401


def test_a_page_needs_nothing_inline_and_nothing_from_elsewhere() -> None:
    policy = POLICY["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "*" not in policy
    folder = files("qnwis.console")
    html = folder.joinpath("index.html").read_text()
    assert not re.findall(r"style=|<style|<script(?! type=\"module\" src=)|\son[a-z]+=|https?:", html)
    for name, text in _scripts():
        found = re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|https?://(?!www\.w3\.org)", text
        )
        assert found == [], name


def test_every_module_that_is_imported_is_shipped() -> None:
    shipped = dict(_scripts())
    for name, text in shipped.items():
        for found in re.findall(r'from "(\.[^"]+)"', text):
            at = Path(name).parent.joinpath(found)
            assert str(at).replace("views/../", "") in shipped, f"{name} imports {found}"


def _scripts() -> list[tuple[str, str]]:
    folder = files("qnwis.console")
    found = [(one.name, one) for one in folder.iterdir() if one.name.endswith(".js")]
    found += [(f"views/{one.name}", one) for one in folder.joinpath("views").iterdir()]
    return [(name, one.read_text()) for name, one in found]
