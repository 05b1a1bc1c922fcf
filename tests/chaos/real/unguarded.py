"""An agent whose guard does nothing, to prove that the checker finds what the guard prevents.

    python -m tests.chaos.real.unguarded --config agent.yaml

Only a test starts it. While it runs, the agent itself still ends its database at the lease's end.
"""

from __future__ import annotations

import sys

from qnwis.agent import guarding
from qnwis.agent.__main__ import main


def _nothing(self: guarding.Guarding, until: float) -> None:
    """In place of telling the guard until when the lease lasts: there is none."""


if __name__ == "__main__":
    guarding.Guarding.tell = _nothing  # type: ignore[method-assign]
    sys.exit(main())
