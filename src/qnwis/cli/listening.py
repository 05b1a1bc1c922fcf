"""What every command that takes secrets over HTTP shares: where it may listen without TLS."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qnwis.continuity.addresses import is_loopback

from .output import Exit, fail

TlsCert = Annotated[Path | None, typer.Option(help="Certificate (PEM).", show_default=False)]
TlsKey = Annotated[Path | None, typer.Option(help="Its private key (PEM).", show_default=False)]
BehindTls = Annotated[
    bool, typer.Option("--behind-tls", help="Something in front ends TLS: listen elsewhere without it.")
]


def see_that_nobody_listens(
    host: str, tls_cert: Path | None, tls_key: Path | None, *, behind_tls: bool
) -> None:
    """End a command that would send tokens, and what they open, in clear to another machine."""
    if (tls_cert is None) is not (tls_key is None):
        fail(Exit.USAGE, "--tls-cert goes with --tls-key")
    if tls_cert is None and not behind_tls and not is_loopback(host):
        fail(
            Exit.USAGE,
            f"--host {host}: without TLS whoever listens on the way has every token. Give --tls-cert and"
            " --tls-key, or --behind-tls where something in front of this ends TLS",
        )
