"""The command `qnwis-continuity`, also `python -m qnwis.cli.qnwis_continuity`.

Exit codes: 0 done (for a failover: verified); 1 it ran and did not achieve what it was for; 2 wrong usage or
a file that cannot be used; 3 refused by a rule, nothing changed; 4 nobody answered; 130 interrupted.
"""

from __future__ import annotations

import logging
import os
import sys

import typer

from . import (
    audit,
    break_glass,
    guardian,
    lab,
    maintenance,
    member,
    notify,
    people,
    readiness,
    region,
    review,
    steering,
)
from .approving import approve, reject
from .ending import finish
from .execute import execute
from .plan import plan
from .processes import agent, worker
from .rejoin import rejoin
from .simulate import simulate
from .skipping import skip
from .status import status
from .steering import abort
from .validate import validate

app = typer.Typer(
    name="qnwis-continuity",
    help="Failover runbooks as durable Temporal workflows.\n\n" + (__doc__ or "").partition("\n\n")[2],
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (
    plan,
    simulate,
    execute,
    approve,
    reject,
    abort,
    skip,
    finish,
    status,
    rejoin,
    validate,
    worker,
    agent,
):
    app.command()(command)
app.add_typer(audit.app, name="audit")
app.add_typer(break_glass.app, name="break-glass")
app.add_typer(guardian.app, name="guardian")
app.add_typer(maintenance.app, name="maintenance")
app.add_typer(member.app, name="member")
app.add_typer(notify.app, name="notify")
app.add_typer(people.app, name="people")
app.add_typer(readiness.app, name="readiness")
app.add_typer(region.app, name="region")
app.add_typer(review.app, name="review")
app.add_typer(steering.app, name="run")
app.add_typer(lab.app, name="lab")


def main() -> None:
    """Ends without Python's own clean-up: a thread of Temporal's client that still runs would abort that, and
    the exit code would be lost."""
    code = 0
    try:
        app()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
