"""`api.yaml`: whose tokens the API takes, how often one may ask, and which alerts are about which cluster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from qnwis.continuity.alerts import AlertRule
from qnwis.continuity.model import Model
from qnwis.continuity.requests import Limits
from qnwis.continuity.suspicions import AlarmLimits

from .load import validated
from .yaml_source import read_yaml

FILE = "api.yaml"

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Public-key signatures only: with a shared secret whoever checks a token could make one."""


class JwtIssuer(Model):
    """Whose JWTs are taken, and what of them says who it is and in which roles."""

    issuer: str = Field(min_length=1)
    """Exactly as the tokens' `iss` has it; without `jwks_file` also where its keys are found (OIDC)."""
    audience: str = Field(min_length=1)
    """What the tokens' `aud` has to name, so that a token for another service does not serve here."""
    jwks_file: str | None = None
    """Keys in a file, in place of discovery: a JWK set."""
    name_claim: str = "sub"
    """Who it is, as people.yaml names them. By `email` the token also has to say `email_verified: true`."""
    emails_verified: bool = False
    """The issuer verifies every email before it names it, and its tokens need not say so."""
    roles_claim: str = "roles"
    """Dotted path of the list of roles, for example `realm_access.roles`."""
    roles: Mapping[str, str] = {}
    """The issuer's name of a role to ours, where they differ."""
    algorithms: tuple[Algorithm, ...] = Field(default=("RS256", "ES256", "EdDSA"), min_length=1)
    ca_file: str | None = None
    """Whose certificates discovery trusts, in place of the usual ones."""

    @model_validator(mode="after")
    def _found_safely(self) -> Self:
        url = urlsplit(self.issuer)
        near = url.hostname in ("localhost", "127.0.0.1", "::1")
        if self.jwks_file is None and url.scheme != "https" and not (url.scheme == "http" and near):
            raise ValueError("expected an https address as issuer, or jwks_file")
        return self


class ApiFile(Model):
    """The content of `api.yaml`. Without it nobody signs in by JWT, and no alert is mapped."""

    jwt: tuple[JwtIssuer, ...] = ()
    limits: Limits = Limits()
    alarms: AlarmLimits = AlarmLimits()
    """When people are told of refused credentials, replays and floods (`notifications.yaml`)."""
    alerts: tuple[AlertRule, ...] = ()
    """The first that matches counts."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        issuers = [one.issuer for one in self.jwt]
        if len(set(issuers)) < len(issuers):
            raise ValueError("expected each issuer once")
        return self


def load_api(path: Path) -> ApiFile:
    """Raises ConfigError. No file is as an empty one."""
    return validated(ApiFile, read_yaml(path)) if path.exists() else ApiFile()
