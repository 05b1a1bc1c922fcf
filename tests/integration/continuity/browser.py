"""The Temporal UI as a person uses it, in Debian's Chromium: what is clicked and typed, and what is read."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from playwright.async_api import Error, Locator, Page, async_playwright, expect

from .real import WITHIN_S

SHOWN_WITHIN_S = 120.0
"""A bound on what the page never shows; nothing is measured by it."""
REFRESHED_EVERY_S = 1.5
"""A person presses R less often; each time the page reads the run's whole history and draws it anew."""
STILL = """
addEventListener("DOMContentLoaded", () => {
  const style = document.createElement("style");
  style.textContent = "*, *::before, *::after { animation: none !important; transition: none !important }";
  document.head.append(style);
});
"""
"""Nobody watches what moves on the page, and without a graphics card each of its frames costs a core."""


@dataclass(frozen=True)
class TemporalUI:
    """One page of the browser."""

    page: Page
    address: str

    async def start_workflow(self, *, workflow_id: str, task_queue: str, kind: str, payload: str) -> None:
        """Start it by the form, and go to its run."""
        page = self.page
        await page.goto(self.address)
        await press(page.get_by_role("button", name="Start Workflow"))
        await page.get_by_label("Workflow ID").fill(workflow_id)
        await page.get_by_label("Task Queue").fill(task_queue)
        await page.get_by_label("Workflow Type").fill(kind)
        # It appears when the server has answered.
        await page.get_by_text("Task Queue is Active").wait_for()
        await self._type(page.locator(".cm-content"), payload)
        async with page.expect_response(
            lambda r: r.request.method == "POST" and workflow_id in r.url
        ) as sent:
            await press(page.get_by_role("button", name="Start Workflow"))
        answer = await sent.value
        assert answer.ok, await answer.text()
        # The link that says so is gone after seconds; the run's address stays.
        await page.goto(f"{self.address}/namespaces/default/workflows/{workflow_id}")
        await press(page.get_by_role("tab", name="User Metadata"))

    async def send_signal(self, name: str, payload: str) -> None:
        """Send it by the form, with this as its input."""
        await press(self.page.get_by_role("button", name="More Actions"))
        await press(self.page.get_by_role("menuitem", name="Send a Signal"))
        form = self.page.get_by_role("dialog", name="Send a Signal")
        await press(form.get_by_role("button", name="Select a signal"))
        await press(form.get_by_role("option", name=re.compile(f"^{name} ")))
        await self._type(form.locator(".cm-content"), payload)
        await press(form.get_by_role("button", name="Submit"))
        await form.wait_for(state="hidden")

    async def request_cancellation(self) -> None:
        await press(self.page.get_by_role("button", name="Request Cancellation"))
        form = self.page.get_by_role("dialog", name="Cancel Workflow")
        await press(form.get_by_role("button", name="Confirm"))
        await form.wait_for(state="hidden")

    async def _type(self, field: Locator, text: str) -> None:
        await field.focus()
        await self.page.keyboard.insert_text(text)

    async def until_checklist(self, *says: str) -> str:
        """The current details, once they say all this; the page shows what is new when R is pressed."""
        shown = ""
        try:
            async with asyncio.timeout(WITHIN_S):
                while not all(text in shown for text in says):
                    await self.page.keyboard.press("r")
                    await asyncio.sleep(REFRESHED_EVERY_S)
                    with contextlib.suppress(Error):  # the frame is a new one when its text is
                        frame = self.page.frame_locator("iframe").last
                        shown = await frame.locator("body").inner_text(timeout=2000)
        except TimeoutError:
            raise AssertionError(f"the checklist never said {says}; last:\n{shown}") from None
        return shown

    async def until_status(self, status: str) -> None:
        """Return once the page's header says so of the run."""
        await self.page.locator("header, main").get_by_text(status, exact=True).first.wait_for()


async def press(what: Locator) -> None:
    """Click it once it is shown and enabled. A pointer would also wait until it stands still for two frames,
    which a busy machine with a page that grows by each event may not draw in minutes."""
    await what.wait_for()
    await expect(what).to_be_enabled(timeout=SHOWN_WITHIN_S * 1000)
    await what.dispatch_event("click")


@contextlib.asynccontextmanager
async def temporal_ui(address: str, *, chromium: str, shots: Path) -> AsyncIterator[TemporalUI]:
    """A new browser on the UI. A failure inside leaves a picture of the page in `shots`."""
    async with async_playwright() as playwright:
        # As root in a container there is no user namespace for its sandbox; it shows one page of ours.
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            page = await browser.new_page(viewport={"width": 1400, "height": 1100})
            page.set_default_timeout(SHOWN_WITHIN_S * 1000)
            await page.add_init_script(STILL)
            try:
                yield TemporalUI(page, address)
            except BaseException as error:
                with contextlib.suppress(Error):
                    shot = shots / "failed.png"
                    await page.screenshot(path=shot, full_page=True)
                    error.add_note(f"the page is shown in {shot}")
                raise
        finally:
            await browser.close()
