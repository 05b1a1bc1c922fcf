"""`people`: the keys by which people prove what they do."""

from __future__ import annotations

import getpass
import socket
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.table import Table

from qnwis.config.load import load_people
from qnwis.continuity.access import Person
from qnwis.providers.keys import (
    KeyFileError,
    default_key,
    new_key,
    person_of,
    public_key_of,
    read_key,
    write_key,
)

from .output import AsJson, Exit, clear_errors, fail, out, print_json

app = typer.Typer(help="Make keys, and list the people who have one.", no_args_is_help=True)


def default_name() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


@app.command()
def key(
    name: Annotated[
        str, typer.Option(help="As records name you; by default user@host.", show_default=False)
    ] = "",
    role: Annotated[
        list[str] | None, typer.Option(help="A role of config/rbac/continuity.yaml; may repeat.")
    ] = None,
    path: Annotated[
        Path | None, typer.Option("--key", help="Where the private key goes.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key, or read the one there is, and print the entry for people.yaml."""
    file = path or default_key()
    try:
        if not file.exists():
            write_key(file, new_key(), person=name or default_name())
        public = public_key_of(read_key(file))
    except KeyFileError as error:
        fail(Exit.USAGE, str(error))
    person = Person(
        name=name or person_of(file) or default_name(),
        roles=tuple(role or ["continuity_viewer"]),
        public_key=public,
    )
    entry = person.model_dump(mode="json")
    if as_json:
        print_json(entry)
        return
    out.print(f"private key: {file} (keep it; it signs in your name)", markup=False)
    out.print("entry for people.yaml, to be added by somebody who may:", markup=False)
    out.lines(yaml.safe_dump([entry], sort_keys=False))


@app.command(name="list")
def list_people(people: Annotated[Path, typer.Option(help="people.yaml.")], as_json: AsJson = False) -> None:
    """Who may do what, as the file says."""
    with clear_errors(as_json=as_json):
        found = load_people(people)
    if as_json:
        print_json(found)
        return
    table = Table("person", "roles", "key", box=None, pad_edge=False)
    for person in found.people:
        table.add_row(
            person.name, ", ".join(person.roles), person.public_key or f"by {', '.join(person.issuers)}"
        )
    out.print(table)
