"""What is compared."""

from __future__ import annotations

OURS = "this project"
BARE = "a bare asyncio loop"
BLACKBOX = "blackbox exporter"
