"""The "Current Details" of the Temporal UI: Markdown on a workflow's page "User Metadata"."""

from __future__ import annotations

from temporalio import workflow

NOTHING = "\N{NO-BREAK SPACE}"


def show_details(markdown: str) -> None:
    """Show this until something else is shown.

    The UI's frame is about a line too low for its text, so what it cuts off is an empty line.
    """
    workflow.set_current_details(f"{markdown}\n\n{NOTHING}")
