"""`tokens`: tokens by which services sign in to the API. Only their hashes are kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.table import Table

from qnwis.config.access import AccessFiles
from qnwis.continuity.access import ALIASES
from qnwis.providers.service_tokens import FILE, TokenFile

from .output import AsJson, Exit, clear_errors, err, fail, out, print_json
from .settings import ConfigDir

app = typer.Typer(help="Issue, revoke and list the tokens of services.", no_args_is_help=True)

LONGEST_DAYS = 366


@app.command()
def issue(
    config_dir: ConfigDir,
    name: Annotated[str, typer.Option(help="Of the service, as records name it.")],
    role: Annotated[list[str], typer.Option(help="A role of config/rbac/continuity.yaml; may repeat.")],
    days: Annotated[int, typer.Option(min=1, max=LONGEST_DAYS, help="How long it is good for.")] = 90,
    as_json: AsJson = False,
) -> None:
    """Issue a token, and print it this once."""
    now = datetime.now(UTC)
    with clear_errors(as_json=as_json):
        rbac = AccessFiles(config_dir).load().rbac
        unknown = [one for one in role if rbac.role(one) is None]
        if unknown:
            known = ", ".join([*(one.name for one in rbac.roles), *ALIASES])
            fail(Exit.USAGE, f"--role {unknown[0]}: expected one of {known}")
        text = TokenFile(config_dir / FILE).issue(name, tuple(role), now, now + timedelta(days=days))
    if as_json:
        print_json({"token": text})
        return
    err.print(
        f"the token of {name}, good for {days} days; it is shown this once and kept nowhere:", markup=False
    )
    out.print(text, markup=False)


@app.command()
def revoke(
    config_dir: ConfigDir,
    token_id: Annotated[str, typer.Argument(help="As `list` shows it.")],
    as_json: AsJson = False,
) -> None:
    """Have a token count no more, from the next request on."""
    with clear_errors(as_json=as_json):
        token = TokenFile(config_dir / FILE).revoke(token_id, datetime.now(UTC))
    if as_json:
        print_json(token.model_dump(mode="json", exclude={"sha256"}))
    else:
        out.print(f"token {token.token_id} of {token.name} is revoked", markup=False)


@app.command(name="list")
def list_tokens(config_dir: ConfigDir, as_json: AsJson = False) -> None:
    """Which tokens there are, of whom, in which roles, and until when."""
    with clear_errors(as_json=as_json):
        found = TokenFile(config_dir / FILE).load()
    if as_json:
        print_json({"tokens": [one.model_dump(mode="json", exclude={"sha256"}) for one in found.tokens]})
        return
    table = Table("token", "service", "roles", "until", "", box=None, pad_edge=False)
    for one in found.tokens:
        end = "" if one.revoked_at is None else f"revoked {one.revoked_at:%F %T}"
        table.add_row(one.token_id, one.name, ", ".join(one.roles), f"{one.expires_at:%F %T}", end)
    out.print(table)
