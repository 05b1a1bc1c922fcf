"""Who can be struck or cut off in a story, and whom a word for several of them means."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

VANTAGES = ("vantage-1", "vantage-2", "vantage-3")
CONTROL = ("temporal", "worker", "vantage-1")
"""What runs on the control plane's machine."""
OTHERS = ("temporal", "worker", *VANTAGES, "dns", "clients")

Party = Annotated[
    str,
    Field(
        pattern=r"^((node|witness)-[1-9]|vantage-[1-3]|region-[1-3]|temporal|worker|dns|clients|control|all)$"
    ),
]
NodeName = Annotated[str, Field(pattern=r"^node-[1-9]$")]


def data_nodes(count: int) -> tuple[str, ...]:
    return tuple(f"node-{number}" for number in range(1, count + 1))


def witnesses(count: int) -> tuple[str, ...]:
    return tuple(f"witness-{number}" for number in range(1, count + 1))


def region_of(node_id: str) -> str:
    """As in the lab: two nodes in the first region, the other data nodes in the second, witnesses apart."""
    if node_id.startswith("witness-"):
        return "region-3"
    return "region-1" if node_id in ("node-1", "node-2") else "region-2"


def expand(words: Iterable[str], nodes: Iterable[str]) -> tuple[str, ...]:
    """The single parties that these words mean, in a cluster of these nodes (witnesses included)."""
    nodes = tuple(nodes)
    found: dict[str, None] = {}
    for word in words:
        if word == "all":
            found |= dict.fromkeys((*nodes, *OTHERS))
        elif word == "control":
            found |= dict.fromkeys(CONTROL)
        elif word.startswith("region-"):
            found |= dict.fromkeys(node for node in nodes if region_of(node) == word)
        else:
            found[word] = None
    return tuple(found)
