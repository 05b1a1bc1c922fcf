"""What becomes of a workflow that is under way when workers with a new build of this program come.

It counts where workers say which build they run (`qnwis-continuity worker --build`); otherwise any worker
takes up any workflow, and replays it.
"""

from __future__ import annotations

from temporalio.common import VersioningBehavior

PINNED = VersioningBehavior.PINNED
"""It ends on the build on which it began: half a failover is not carried on by other code."""

FOLLOWS = VersioningBehavior.AUTO_UPGRADE
"""It goes on under the current build: it has no end or waits for days, and what it starts next is of that."""
