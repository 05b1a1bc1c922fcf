"""The Temporal UI as a person uses it, in Debian's Chromium: what is clicked and typed, and what is read."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from playwright.async_api import Error, Page, async_playwright

from .real import WITHIN_S

CLICKABLE_WITHIN_S = 20.0
"""A bound on what the page never shows; nothing is measured by it."""


@dataclass(frozen=True)
class TemporalUI:
    """One page of the browser."""

    page: Page
    address: str

    async def start_workflow(self, *, workflow_id: str, task_queue: str, kind: str, payload: str) -> None:
        """Start it by the form, and go to its run."""
        await self.page.goto(self.address)
        await self.page.get_by_role("button", name="Start Workflow").click()
        await self.page.get_by_label("Workflow ID").fill(workflow_id)
        await self.page.get_by_label("Task Queue").fill(task_queue)
        await self.page.get_by_label("Workflow Type").fill(kind)
        # It appears when the server has answered, and moves the button below it.
        await self.page.get_by_text("Task Queue is Active").wait_for()
        await self.page.locator(".cm-content").click()
        await self.page.keyboard.insert_text(payload)
        await self.page.get_by_role("button", name="Start Workflow").click()
        await self.page.get_by_role("link", name="Workflow started successfully").click()
        await self.page.get_by_role("tab", name="User Metadata").click()

    async def send_signal(self, name: str, payload: str) -> None:
        """Send it by the form, with this as its input."""
        await self.page.get_by_role("button", name="More Actions").click()
        await self.page.get_by_role("menuitem", name="Send a Signal").click()
        form = self.page.get_by_role("dialog", name="Send a Signal")
        await form.get_by_role("button", name="Select a signal").click()
        await form.get_by_role("option", name=re.compile(f"^{name} ")).click()
        await form.locator(".cm-content").click()
        await self.page.keyboard.insert_text(payload)
        await form.get_by_role("button", name="Submit").click()
        await form.wait_for(state="hidden")

    async def request_cancellation(self) -> None:
        await self.page.get_by_role("button", name="Request Cancellation").click()
        form = self.page.get_by_role("dialog", name="Cancel Workflow")
        await form.get_by_role("button", name="Confirm").click()
        await form.wait_for(state="hidden")

    async def until_checklist(self, *says: str) -> str:
        """The current details, once they say all this; the page shows what is new when R is pressed."""
        shown = ""
        try:
            async with asyncio.timeout(WITHIN_S):
                while not all(text in shown for text in says):
                    await self.page.keyboard.press("r")
                    await asyncio.sleep(0.5)
                    with contextlib.suppress(Error):  # the frame is a new one when its text is
                        frame = self.page.frame_locator("iframe").last
                        shown = await frame.locator("body").inner_text(timeout=2000)
        except TimeoutError:
            raise AssertionError(f"the checklist never said {says}; last:\n{shown}") from None
        return shown

    async def until_status(self, status: str) -> None:
        """Return once the page's header says so of the run."""
        await self.page.locator("header, main").get_by_text(status, exact=True).first.wait_for()


@contextlib.asynccontextmanager
async def temporal_ui(address: str, *, chromium: str, shots: Path) -> AsyncIterator[TemporalUI]:
    """A new browser on the UI. A failure inside leaves a picture of the page in `shots`."""
    async with async_playwright() as playwright:
        # As root in a container there is no user namespace for its sandbox; it shows one page of ours.
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            page = await browser.new_page(viewport={"width": 1400, "height": 1100})
            page.set_default_timeout(CLICKABLE_WITHIN_S * 1000)
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
