"""Where a process of the lab runs, as data: every start goes through a place, and most are simply here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qnwis.continuity.model import Model


class Place(Model):
    """Where a party's processes run."""

    enter: tuple[str, ...] = ()
    """Put before a command, these words run it there; it keeps its pid."""
    env: Mapping[str, str] = {}
    """What its processes find in their environment there, a clock of their own for example."""

    def command(self, command: Sequence[str]) -> list[str]:
        """The command that runs there what `command` runs here."""
        return [*self.enter, *command]


HERE = Place()
CONTROL, DNS, CLIENTS, POWER = "control", "dns", "clients", "power"
"""The parties besides the nodes, which go by their ids."""
