"""The operations console as a person uses it, in Debian's Chromium: uvicorn serves it, over real workers.

`make screenshots` keeps what is seen here in docs/images.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from playwright.async_api import Browser, FileChooser, Locator, Page, async_playwright, expect
from playwright.async_api import TimeoutError as PlaywrightTimeout

from qnwis.api.app import create_app
from qnwis.continuity.access import Deed
from qnwis.continuity.approvals import VoteRequest
from qnwis.providers.audit_store import SqliteAuditStore
from qnwis.providers.keys import new_key, public_key_of, write_key
from qnwis.signing import Signer
from tests.unit.api.scene import ApiScene

from .conftest import Setting, Stage
from .test_guardian import all_healthy, until

SHOTS = os.environ.get("QNWIS_SCREENSHOTS")
"""Folder that pictures are kept in; without it none is taken."""
DESK, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
WITHIN_MS = 60_000
"""A bound on what a page never shows, on a machine that does much else; nothing is measured by it."""
expect.set_options(timeout=WITHIN_MS)


@dataclass
class Console:
    """One cluster in memory with workers, the API on a socket, and a browser."""

    on: Stage
    scene: ApiScene
    browser: Browser
    address: str
    keys: dict[str, Ed25519PrivateKey]
    home: Path
    wrong: list[str] = field(default_factory=list)
    """Errors that the browser's console told, and requests to any other origin."""

    async def page(self, *, size: dict[str, int] = DESK, dark: bool = False) -> Page:
        context = await self.browser.new_context(
            viewport=size,  # type: ignore[arg-type]
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
        )
        page = await context.new_page()
        page.set_default_timeout(WITHIN_MS)
        page.on("console", lambda m: self._heard(m.type, f"{m.text} {m.location}"))
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("request", lambda request: self._asked(request.url))
        return page

    def _heard(self, kind: str, text: str) -> None:
        # The browser itself tells each answer of 4xx as an error; what those say is asserted on the page.
        if kind in ("error", "warning") and "Failed to load resource" not in text:
            self.wrong.append(text)

    def _asked(self, url: str) -> None:
        if not url.startswith((self.address, "blob:", self.home.as_uri())):
            self.wrong.append(url)

    async def signed_in(self, person: str, **more: Any) -> Page:
        page = await self.page(**more)
        await page.goto(f"{self.address}/console/")
        await page.keyboard.type(self.scene.jwt(person))
        await page.keyboard.press("Enter")
        await expect(page.locator("#who")).to_have_text(person)
        return page

    def key_file(self, person: str) -> Path:
        file = self.home / f"{person}.pem"
        if not file.exists():
            write_key(file, self.keys[person], person=person)
        return file

    async def run_that_waits(self) -> str:
        """A failover that bob asked for, and that waits for votes; its run id."""
        self.on.world.kill("node-1")
        async with self.scene.http() as api:
            body = {"cluster": {"cluster_id": self.on.cluster_id}, "trigger_reason": "node-1 does not answer"}
            plan = (await api.post("/plan", json=body, headers=self.scene.signed_in("bob"))).json()["plan"]
            begun = await api.post("/execute", json={"plan": plan}, headers=self.scene.acting("bob"))
            assert begun.status_code == 202, begun.text
            run_id = str(begun.json()["execution_id"])
            async with asyncio.timeout(30):
                while await self.waits(api, run_id) is None:
                    await asyncio.sleep(0.05)
        return run_id

    async def waits(self, api: httpx.AsyncClient, run_id: str) -> str | None:
        """The digest that it waits with."""
        url = f"/clusters/{self.on.cluster_id}/runs/{run_id}"
        seen = (await api.get(url, headers=self.scene.signed_in("eve"))).json()
        pending = (seen["progress"] or {}).get("approval")
        return None if pending is None else str(pending["window"]["digest"])


Open = Callable[..., Awaitable[Console]]


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on PATH; on Debian: apt-get install chromium")
    async with async_playwright() as playwright:
        # As root in a container there is no user namespace for its sandbox; it shows pages of ours alone.
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest.fixture
async def console(stage: Setting, browser: Browser, tmp_path: Path) -> AsyncIterator[Console]:
    # In pictures it is always the same; a server that other tests share keeps their runs of it.
    name = "shop" if SHOTS is not None else f"shop-{uuid.uuid4().hex[:6]}"
    on = await stage(cluster={"cluster_id": name}, approvals=True)
    assert isinstance(on.providers.audit, SqliteAuditStore)
    scene = ApiScene(
        tmp_path,
        client=on.client,
        cluster_id=on.cluster_id,
        task_queue=on.settings.task_queue,
        world=on.world,
        registry=on.settings.config_dir,
        audit=on.providers.audit,
    )
    keys = {name: new_key() for name in ("ann", "dora")}
    _people_with_keys(scene, keys)
    async with _served(scene) as address:
        made = Console(on, scene, browser, address, keys, tmp_path)
        yield made
        for context in browser.contexts:
            await context.close()
    assert made.wrong == []


def _people_with_keys(scene: ApiScene, keys: dict[str, Ed25519PrivateKey]) -> None:
    """Who votes has a key of their own; dora nothing else, of the others the API says who they are."""
    assert scene.registry is not None
    file = scene.registry / "people.yaml"
    people = yaml.safe_load(file.read_text())
    for person in people["people"]:
        if person["name"] == "dora":
            person["issuers"] = []
        if person["name"] in keys:
            person["public_key"] = public_key_of(keys[person["name"]])
    file.write_text(yaml.safe_dump(people))


@contextlib.asynccontextmanager
async def _served(scene: ApiScene) -> AsyncIterator[str]:
    config = uvicorn.Config(
        create_app(scene.parts), host="127.0.0.1", port=0, log_config=None, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())
    while not server.started:
        assert not serving.done()
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await serving


async def shot(page: Page, name: str, *, whole: bool = False) -> None:
    """A picture for the documents, of what is on the screen or of the whole page."""
    if SHOTS is not None:
        await page.evaluate(
            "document.activeElement?.blur(); document.getElementById('said')?.replaceChildren()"
        )
        await page.screenshot(path=Path(SHOTS) / f"console-{name}.png", full_page=whole)


PRESSES, OPENS_WITHIN_MS = 4, 10_000


async def tab_to(page: Page, what: Locator) -> None:
    """Go there as somebody without a mouse does; it has to be seen where one is."""
    await what.wait_for()
    for _ in range(80):
        if await what.evaluate("element => element === document.activeElement"):
            outline = await what.evaluate("element => getComputedStyle(element).outlineStyle")
            assert outline != "none", "where the focus is cannot be seen"
            return
        await page.keyboard.press("Tab")
    raise AssertionError(f"{what} is not reached by the keyboard")


async def opened_by_enter(page: Page, file: Locator) -> FileChooser:
    """A press once opened nothing, and why is not known; whoever sees that presses again."""
    for _ in range(PRESSES):
        await tab_to(page, file)
        with contextlib.suppress(PlaywrightTimeout):
            async with page.expect_file_chooser(timeout=OPENS_WITHIN_MS) as chooser:
                await page.keyboard.press("Enter")
            return await chooser.value
    raise AssertionError(f"{file} opens nothing")


async def press(page: Page, what: Locator) -> None:
    await tab_to(page, what)
    await page.keyboard.press("Enter")


async def fits(page: Page) -> None:
    """Nothing is wider than the window."""
    wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, f"{page.url} scrolls sideways, by {wide}"


async def test_a_failover_is_approved_with_the_keyboard_alone_followed_and_proved(console: Console) -> None:
    run_id = await console.run_that_waits()
    cluster_id, world = console.on.cluster_id, console.on.world
    async with console.scene.http() as api:
        digest = await console.waits(api, run_id)
    page = await console.signed_in("ann", dark=True)
    await expect(page.get_by_role("heading", level=1)).to_have_text(f"{cluster_id} waits for a vote.")
    await expect(page.locator(".board")).to_contain_text("degraded2 of 3 healthy, quorum (2)")
    await expect(page.locator(".board")).to_contain_text("nobody takes writesnot ready")
    await shot(page, "now-dark")

    await press(page, page.get_by_role("link", name="Look and decide"))
    ballot = page.get_by_role("region", name=f"{cluster_id}: node-1 → node-2")
    await expect(ballot.locator(".digest")).to_have_attribute("aria-label", str(digest))
    await expect(ballot).to_contain_text("predicted lossnone")
    await expect(ballot).to_contain_text("lag of the targetnone")
    await expect(ballot).to_contain_text("votes0 of 1")
    assert (await ballot.locator(".clock .big").inner_text()).startswith(("9:", "10:00"))
    assert await ballot.locator(".actions li").first.inner_text() == "fence primary node-1\n5.0 s"
    await shot(page, "vote-dark")

    await press(page, page.get_by_role("button", name="Hold …"))
    await page.keyboard.type("one look at the power switch first")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status")).to_have_text("the run is held before its next action")
    chooser = await opened_by_enter(page, page.get_by_label("Key file", exact=True))
    await chooser.set_files(console.key_file("ann"))
    await expect(page.get_by_text("The key of ann is in memory")).to_be_visible()
    await press(page, page.get_by_role("button", name="Approve …"))
    dialog = page.get_by_role("dialog", name="Approve this plan?")
    await press(page, dialog.get_by_role("button", name="Approve"))

    running = page.locator(".step.running")
    await expect(running).to_contain_text("Execution")
    assert world.journal == [], "it is held before its first action"
    await expect(page.locator("h1 .mark")).to_have_text("held")
    await shot(page, "held-dark", whole=True)
    await press(page, page.get_by_role("button", name="Resume …"))
    await page.keyboard.type("it is off")
    await page.keyboard.press("Enter")

    log = page.get_by_role("log")
    await expect(log).to_contain_text("It ended: completed")
    for told in ("It waits for votes", ": approved by ann", "Execution is done", "Verification is done"):
        await expect(log).to_contain_text(told)
    await expect(page.locator("h1 .mark")).to_have_text("completed")
    assert world.writable() == ["node-2"]
    await shot(page, "ended-dark", whole=True)

    await press(page, page.get_by_role("link", name="History", exact=True))
    row = page.get_by_role("row", name=f"{cluster_id} primary failure")
    await expect(row).to_contain_text("completed")
    await page.go_back()
    await press(page, page.get_by_role("link", name="Report and audit record"))
    await expect(page.get_by_role("heading", name="Timeline")).to_be_visible()
    await expect(page.locator(".timeline")).to_contain_text("Execution")
    await press(page, page.get_by_role("button", name="Verify record, bundle and log"))
    await expect(page.get_by_role("status")).to_have_text("Proved.")
    await expect(page.locator(".panel")).to_contain_text("artefacts have the SHA-256 of the manifest")
    await shot(page, "record-dark")
    async with page.expect_download() as saved:
        await press(page, page.get_by_role("button", name="Report (HTML)"))
    report = console.home / "report.html"
    await (await saved.value).save_as(report)
    alone = await console.page(size=PHONE)
    await alone.goto(report.as_uri())
    await expect(alone.get_by_role("heading", name="Timeline")).to_be_visible()
    await fits(alone)
    await alone.set_viewport_size({"width": 1000, "height": 1100})
    await shot(alone, "report")

    await page.goto(f"{console.address}/console/#/clusters/{cluster_id}")
    await expect(page.locator(".trend")).to_contain_text("failover execute1 verified")
    await shot(page, "recovered-dark", whole=True)


async def test_on_a_phone_a_plan_is_rejected_and_a_vote_by_anothers_key_refused(console: Console) -> None:
    run_id = await console.run_that_waits()
    cluster_id = console.on.cluster_id
    page = await console.signed_in("dora", size=PHONE)
    await expect(page.get_by_role("heading", level=1)).to_have_text(f"{cluster_id} waits for a vote.")
    await expect(page.locator(".board")).to_contain_text("not ready")
    await fits(page)
    await shot(page, "now-phone")
    await page.get_by_role("link", name="Look and decide").click()
    await page.get_by_label("Key file", exact=True).set_input_files(console.key_file("ann"))
    await fits(page)
    await shot(page, "vote-phone", whole=True)
    await page.get_by_role("button", name="Approve …").click()
    await page.get_by_role("dialog").get_by_role("button", name="Approve").click()
    refusal = page.get_by_role("alert")
    await expect(refusal).to_contain_text("token_of_another")
    await expect(refusal).to_contain_text("signed indora")
    await expect(refusal).to_contain_text("What would change it: Sign in as whoever votes")
    await refusal.scroll_into_view_if_needed()
    await fits(page)
    await shot(page, "refused-phone")

    await page.get_by_role("button", name="Reject …").click()
    await expect(refusal).to_contain_text("A rejection says why")
    async with console.scene.http() as api:
        digest = await console.waits(api, run_id)
    signer = Signer("dora", console.keys["dora"], timedelta(minutes=10))
    why = "the switch is being replaced"
    token = signer.token(
        Deed.REJECT,
        cluster_id=cluster_id,
        run_id=run_id,
        digest=digest,
        reason=why,
    )
    await page.get_by_label("A vote that I signed at the command line").check()
    await page.get_by_label("What it printed").fill(VoteRequest(token=token).model_dump_json(indent=2))
    await page.get_by_label("Why (a rejection needs it)").fill(why)
    await page.get_by_role("button", name="Reject …").click()
    await page.get_by_role("dialog").get_by_role("button", name="Reject").click()
    await expect(page.locator("h1 .mark")).to_have_text("rejected")
    await expect(page.locator(".verdict")).to_contain_text(f"dora against: {why}")
    assert console.on.world.journal == []
    for way in (f"clusters/{cluster_id}", "history", "records", "regions", "regions/region-1"):
        await page.goto(f"{console.address}/console/#/{way}")
        await expect(page.locator("h1")).to_be_visible()
        await fits(page)


async def test_a_guardian_is_held_by_who_may_and_a_region_waits_for_votes(console: Console) -> None:
    cluster_id = console.on.cluster_id
    guardian = await console.on.start_guardian()
    await until(guardian, all_healthy)
    viewer = await console.signed_in("eve")
    await viewer.goto(f"{console.address}/console/#/clusters/{cluster_id}")
    await expect(viewer.locator(".panel").first).to_contain_text("Guardian watching")
    await expect(viewer.get_by_role("button", name="Pause …")).to_have_count(0)

    page = await console.signed_in("bob")
    await expect(page.get_by_role("heading", level=1)).to_have_text(
        "Nothing waits for you. The cluster is healthy."
    )
    await page.get_by_role("link", name=cluster_id).click()
    await page.get_by_role("button", name="Pause …").click()
    await page.get_by_label("Why (kept in the record)").fill("a rack is being moved")
    await page.keyboard.press("Enter")
    panel = page.locator(".panel").first
    await expect(panel).to_contain_text('Automatic failover is off: bob, "a rack is being moved"')
    await expect(page.get_by_text("Would a failover work?")).to_be_visible()
    await shot(page, "cluster", whole=True)
    await page.get_by_role("button", name="Resume …").click()
    await page.get_by_label("Why (kept in the record)").fill("moved")
    await page.keyboard.press("Enter")
    await expect(panel).to_contain_text("Guardian watching")

    await page.get_by_role("link", name="Regions").click()
    await page.get_by_role("link", name="region-1").click()
    await page.get_by_role("button", name="Evacuate …").click()
    await page.get_by_label("Why (kept in the record)").fill("its power goes at six")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("region", name="1 cluster leaves region-1")).to_contain_text(
        "You started this run: somebody else has to vote."
    )
    await shot(page, "region", whole=True)
    await page.get_by_role("button", name="Abort …").click()
    await page.get_by_label("Why (kept in the record)").fill("the power stays")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Evacuation")).to_contain_text("untouched")
    await guardian.terminate()


async def test_whoever_is_not_let_in_is_told_why_and_a_token_that_ends_asks_again(console: Console) -> None:
    page = await console.page()
    await page.goto(f"{console.address}/")
    await page.get_by_label("Bearer token").fill("qnwis_000000000000_guessed")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("alert")).to_contain_text("credentials_refused")
    await shot(page, "sign-in")
    await page.get_by_label("Bearer token").fill(console.scene.jwt("eve"))
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.locator("#who")).to_have_text("eve")
    await page.evaluate("sessionStorage.setItem('qnwis-token', 'a.b.c')")
    # The page asks again by itself.
    await expect(page.get_by_role("alert")).to_contain_text("credentials_refused")
    assert await page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [0, 0, ""]
