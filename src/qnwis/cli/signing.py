"""Proofs: tokens that a command signs with the person's own key, one for each deed."""

from __future__ import annotations

import getpass
import socket
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from qnwis.continuity.access import Deed
from qnwis.continuity.tokens import Token
from qnwis.providers.keys import KeyFileError, default_key, person_of, read_key
from qnwis.signing import R, Signer, Start, start_deed

from .output import Exit, fail

GOOD_FOR = timedelta(minutes=10)
"""Long enough to paste it into a form."""

KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key",
        help="Your private key; by default $QNWIS_KEY, else ~/.config/qnwis/key.pem.",
        show_default=False,
    ),
]
By = Annotated[
    str, typer.Option(help="Who; by default whom your key names, else user@host.", show_default=False)
]
Print = Annotated[
    bool, typer.Option("--print", help="Do not send it: print the JSON to paste into the Temporal UI's form.")
]


@dataclass(frozen=True)
class Me:
    """Who types, and the key that proves it where there is one."""

    name: str
    key: Ed25519PrivateKey | None

    @property
    def signer(self) -> Signer | None:
        return None if self.key is None else Signer(self.name, self.key, GOOD_FOR)

    def token(
        self,
        deed: Deed,
        *,
        cluster_id: str,
        run_id: str | None = None,
        digest: str | None = None,
        reason: str = "",
    ) -> Token | None:
        """The proof of this deed; None without a key, which suffices where a policy asks for no proof."""
        if self.signer is None:
            return None
        return self.signer.token(deed, cluster_id=cluster_id, run_id=run_id, digest=digest, reason=reason)

    def signed(self, deed: Deed, request: R, *, cluster_id: str, run_id: str | None = None) -> R:
        """The request with its proof, where there is a key to sign it with. `run_id` as a token has it."""
        if self.signer is None:
            return request
        return self.signer.signed(deed, request, cluster_id=cluster_id, run_id=run_id)


def me(key_file: Path | None, by: str = "") -> Me:
    """Ends the command when a key is named and cannot be used."""
    path = key_file or default_key()
    if key_file is None and not path.exists():
        return Me(by or f"{getpass.getuser()}@{socket.gethostname()}", None)
    try:
        signer = read_key(path)  # first: it says what is wrong with the file
    except KeyFileError as error:
        fail(Exit.USAGE, str(error))
    return Me(by or person_of(path) or f"{getpass.getuser()}@{socket.gethostname()}", signer)


def signed_start(request: Start, who: Me, deed: Deed = Deed.START) -> Start:
    """The request with its proof, where there is a key to sign it with; `deed` where a schedule starts it."""
    return who.signed(start_deed(request, deed), request, cluster_id=request.cluster_id)
