"""The file of service tokens: hashes only, readable by its owner only, replaced whole."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime
from hmac import compare_digest
from pathlib import Path

import yaml

from qnwis.config.load import validated
from qnwis.config.problem import ConfigError, Problem
from qnwis.config.yaml_source import read_yaml
from qnwis.continuity.identity import Identity
from qnwis.continuity.refusal import Refusal
from qnwis.continuity.service_tokens import ServiceToken, ServiceTokens, hash_of, service_identity, text_of
from qnwis.durable import write_private

from .errors import Refused
from .whole_files import alone

FILE = "service-tokens.yaml"


class TokenFile:
    """Read anew whenever it was replaced, so that a revocation counts from the next request on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._tokens = ServiceTokens()

    def load(self) -> ServiceTokens:
        """None where there is no file. Raises ConfigError; a file that others can write is one."""
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            return ServiceTokens()
        seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if seen != self._seen:
            if stat.st_mode & 0o077:
                mode = f"mode {stat.st_mode & 0o777:04o}"
                raise ConfigError([Problem(self._path, None, None, "", mode, "mode 0600 (chmod 600)")])
            self._tokens, self._seen = validated(ServiceTokens, read_yaml(self._path)), seen
        return self._tokens

    def identity(self, presented: str, now: datetime) -> Identity | str:
        """See `service_identity`. Raises ConfigError."""
        return service_identity(self.load(), presented, now, compare_digest)

    def issue(self, name: str, roles: tuple[str, ...], now: datetime, expires_at: datetime) -> str:
        """A new token, whose text is kept nowhere. Raises ConfigError."""
        secret, token_id = secrets.token_urlsafe(32), secrets.token_hex(6)
        token = ServiceToken(
            token_id=token_id,
            name=name,
            roles=roles,
            sha256=hash_of(secret),
            issued_at=now,
            expires_at=expires_at,
        )
        self._change(lambda held: ServiceTokens(tokens=(*held.tokens, token)))
        return text_of(token_id, secret)

    def revoke(self, token_id: str, now: datetime) -> ServiceToken:
        """Raises Refused for an unknown one, ConfigError. One that was revoked keeps its time."""

        def revoked(held: ServiceTokens) -> ServiceTokens:
            token = held.named(token_id)
            if token is None:
                raise Refused(
                    Refusal(
                        rule="token_unknown",
                        message=f"There is no service token {token_id} in {self._path}",
                        values={"token_id": token_id},
                        remedy="`qnwis-continuity tokens list` shows them.",
                    )
                )
            ended = token.model_copy(update={"revoked_at": token.revoked_at or now})
            return ServiceTokens(tokens=tuple(ended if one is token else one for one in held.tokens))

        found = self._change(revoked).named(token_id)
        assert found is not None
        return found

    def _change(self, change: Callable[[ServiceTokens], ServiceTokens]) -> ServiceTokens:
        try:
            with alone(self._path.with_name(f".{self._path.name}.lock")):
                changed = change(self.load())
                write_private(self._path, yaml.safe_dump(changed.model_dump(mode="json"), sort_keys=False))
        except OSError as error:
            expected = "a file that can be written, in the registry's folder"
            raise ConfigError([Problem(self._path, None, None, "", str(error.strerror), expected)]) from error
        return changed
