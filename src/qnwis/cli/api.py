"""`api`: serve the HTTP API, and make the key by which workers believe it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer
import yaml

from qnwis.continuity.access import Issuer
from qnwis.continuity.addresses import is_loopback
from qnwis.logs import log_to_stderr
from qnwis.providers.keys import KeyFileError, new_key, public_key_of, read_key, write_key
from qnwis.tracing.asked import TracingError

from .output import AsJson, Exit, clear_errors, fail, out, print_json
from .settings import Address, ConfigDir, StateDir

app = typer.Typer(help="Serve the HTTP API, and make its key.", no_args_is_help=True)

IssuerName = Annotated[str, typer.Option(help="Name of this API in issuers.yaml.")]
Key = Annotated[
    Path | None,
    typer.Option("--key", help="The API's own key; by default api-signing-key.pem in --state-dir."),
]


@app.command()
def serve(
    config_dir: ConfigDir,
    state_dir: StateDir,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at.")] = 8080,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate (PEM).", show_default=False)] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key (PEM).", show_default=False)] = None,
    behind_tls: Annotated[
        bool, typer.Option("--behind-tls", help="Something in front ends TLS: listen elsewhere without it.")
    ] = False,
    issuer: IssuerName = "api",
    key: Key = None,
    address: Address = None,
) -> None:
    """Serve the API until told to stop."""
    if (tls_cert is None) is not (tls_key is None):
        fail(Exit.USAGE, "--tls-cert goes with --tls-key")
    if tls_cert is None and not behind_tls and not is_loopback(host):
        fail(
            Exit.USAGE,
            f"--host {host}: without TLS whoever listens on the way has every token. Give --tls-cert and"
            " --tls-key, or --behind-tls where something in front of this ends TLS",
        )
    log_to_stderr()
    # Only this command loads the web framework.
    from qnwis.api.serve import ApiSettings, run_api

    settings = ApiSettings(
        config_dir=config_dir,
        state_dir=state_dir,
        key_file=key or state_dir / "api-signing-key.pem",
        issuer=issuer,
        host=host,
        port=port,
        tls_cert=tls_cert,
        tls_key=tls_key,
        address=address,
    )
    with clear_errors():
        try:
            asyncio.run(run_api(settings))
        except KeyFileError as error:
            fail(Exit.USAGE, f"{error}, or `qnwis-continuity api key`")
        except TracingError as error:
            fail(Exit.USAGE, str(error))


@app.command(name="key")
def make_key(
    state_dir: StateDir, issuer: IssuerName = "api", key: Key = None, as_json: AsJson = False
) -> None:
    """Make the API's key, or read the one there is, and print the entry for issuers.yaml."""
    file = key or state_dir / "api-signing-key.pem"
    try:
        if not file.exists():
            write_key(file, new_key(), person=issuer)
        public = public_key_of(read_key(file))
    except KeyFileError as error:
        fail(Exit.USAGE, str(error))
    entry = Issuer(name=issuer, public_key=public).model_dump(mode="json")
    if as_json:
        print_json(entry)
        return
    out.print(f"private key: {file} (the API signs with it who was signed in)", markup=False)
    out.print("entry for issuers.yaml; whom it may vouch for, people.yaml says (issuers):", markup=False)
    out.print(yaml.safe_dump([entry], sort_keys=False), markup=False, end="")
