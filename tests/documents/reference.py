"""Pages that are made from the code: `make reference` writes them, and a test holds them equal to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from .api import api_page
from .audit_records import audit_page
from .commands import commands_page
from .configuration import configuration_page
from .metrics import metrics_page
from .performance import performance_page
from .refusals import refusals_page

MADE = "<!-- Made by `make reference` from the code; an edit here is lost. -->"
DOCS = Path(__file__).parents[2] / "docs"
PAGES: Mapping[str, Callable[[], str]] = {
    "reference/commands.md": commands_page,
    "reference/configuration.md": configuration_page,
    "api/step27_service_api.md": api_page,
    "reference/metrics.md": metrics_page,
    "reference/refusals.md": refusals_page,
    "reference/audit-records.md": audit_page,
    "PERFORMANCE.md": performance_page,
}


def page_of(name: str) -> str:
    """A page as it stands in `docs/`. The remark is below the title, which MkDocs expects first."""
    title, _, rest = PAGES[name]().rstrip("\n").partition("\n")
    return f"{title}\n\n{MADE}\n{rest}\n"


def main() -> None:
    for name in PAGES:
        path, text = DOCS / name, page_of(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"docs/{name}: written anew")


if __name__ == "__main__":
    main()
