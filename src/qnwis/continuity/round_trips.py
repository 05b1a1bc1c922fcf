"""What became of moving a service there and back, and what is left to do where it does not stand where it
began."""

from __future__ import annotations

from .model import Model
from .run import RunResult


class RoundTripResult(Model):
    """There and back, or only there where that was wanted."""

    cluster_id: str
    drill: bool
    there: RunResult | None
    """None where it came to no result of its own: `why` says why."""
    back: RunResult | None = None
    """The last attempt; None where no way back was wanted, nothing had moved, or none was begun."""
    why: str = ""
    """What the last attempt of either came to."""
    left_to_do: tuple[str, ...] = ()
    """What brings the service back to where it began, a sentence each; nothing where it stands there, or was
    to stay where it moved."""

    @property
    def summary(self) -> str:
        if self.there is None and self.left_to_do:
            return f"NOT known whether it moved: {self.why}; left to do: {'; '.join(self.left_to_do)}"
        if self.there is None:
            return f"skipped: {self.why}"
        told = [f"there: run {self.there.run_id} {self.there.outcome}: {self.there.reason}"]
        if self.back is not None:
            told.append(f"back: run {self.back.run_id} {self.back.outcome}: {self.back.reason}")
        if self.left_to_do:
            told.append(f"NOT where it began ({self.why}); left to do: {'; '.join(self.left_to_do)}")
        return "; ".join(told)

    @property
    def verified(self) -> bool:
        """Both ways, and the service stands where it began; one way only where nothing was to come back."""
        if self.there is None or not self.there.verified or self.left_to_do:
            return False
        return self.back is None or (self.back.verified and self.back.new_primary == self.there.old_primary)


def left_to_do(
    cluster_id: str,
    there: RunResult | None,
    back: RunResult | None,
    *,
    wanted: bool,
    without_result: bool = False,
) -> tuple[str, ...]:
    """What a person has to see to. `wanted`: whether the service was to come back. `without_result`: the run
    there had begun, and ended without a result, terminated for example."""
    if there is None and without_result:
        look = (
            "see where the service is: its run may have moved it, and the cluster's guardian finishes or"
            " undoes what that left: qnwis-continuity status"
        )
        return_by = f"qnwis-continuity maintenance run {cluster_id} --target … --reason …"
        return (look, f"if it has moved, move it back: {return_by}") if wanted else (look,)
    if there is None or not there.moved or not wanted or (back is not None and back.verified):
        return ()
    if back is not None and back.moved:
        return (f"the service is back on {back.new_primary}, and not verified: qnwis-continuity status",)
    old = there.old_primary
    return (
        f"bring {old} back as a standby: qnwis-continuity rejoin {old} --cluster cluster.yaml",
        f"move the service back: qnwis-continuity maintenance run {cluster_id} --target {old} --reason …",
    )
