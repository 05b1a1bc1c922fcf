"""Persons in the audit trail: a salted commitment where a name would stand, so that a person can be erased.

A record, its artefacts and its bundle hold `person:<hash>` for a person, and `proof:<hash>` for a public key
and for the signed token by which one proved to be somebody. What they stand for is kept with the salts,
outside of everything that is hashed and signed. Who has it can show that a commitment is of that name; once
it is erased, nobody can: the salt is 32 random bytes, so that guessing names does not help. Proofs stay.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from hashlib import sha256
from typing import Any

from .model import canonical_json

PERSON, PROOF = "person", "proof"
SALT_BYTES = 32
PERSON_FIELDS = frozenset({"approved_by", "attested_by", "by", "initiated_by", "initiator", "person"})
"""Of any model: fields that hold the name of a person (or of a part of the system that acted by itself)."""
PEOPLE_FIELDS = frozenset({"voters"})
TOKEN, PUBLIC_KEY = "token", "public_key"
_ALIAS = re.compile(rf'"?(?:{PERSON}|{PROOF}):[0-9a-f]{{64}}"?')


def commitment(kind: str, value: str, salt: bytes) -> str:
    """What stands for `value`: `person:<hex>` or `proof:<hex>`."""
    return f"{kind}:{sha256(b'qnwis commitment v1' + bytes([0]) + salt + value.encode()).hexdigest()}"


def is_alias(text: str) -> bool:
    return re.fullmatch(rf"(?:{PERSON}|{PROOF}):[0-9a-f]{{64}}", text) is not None


def people_in(value: Any, services: Collection[str] = ()) -> set[str]:
    """Every name of a person in a JSON value; `services` are names of parts of the system."""
    return {name for name in _names(value) if name and name not in services and not is_alias(name)}


def tokens_in(value: Any) -> dict[str, str]:
    """Every signed token and every public key in a JSON value, as canonical JSON: whose it is, by itself.

    A token says who signed it even without the name: its signature fits one public key alone, and its digest
    covers what the person asked for.
    """
    found: dict[str, str] = {}
    for inner in _objects(value):
        token, key = inner.get(TOKEN), inner.get(PUBLIC_KEY)
        if isinstance(token, dict):
            claim = token.get("claim")
            found[canonical_json(token)] = str(claim.get("person", "")) if isinstance(claim, dict) else ""
        if isinstance(key, str):
            found[json.dumps(key)] = str(inner.get("name", ""))
    return found


def pseudonymised(text: str, aliases: Mapping[str, str]) -> str:
    """The text with every token and every name replaced, wherever it stands as a word of its own.

    A JSON text whose values change is written anew in canonical form; another text is searched as it is.
    `aliases`: name, or token as canonical JSON, to what stands for it.
    """
    if not aliases:
        return text
    replace = _replacer(aliases)
    try:
        value = json.loads(text)
    except ValueError:
        return replace(text)
    changed = _walked(value, aliases, replace)
    return text if changed == value else canonical_json({"": changed})[4:-1]


def resolved(text: str, values: Mapping[str, str], *, in_json: bool = True) -> str:
    """The text with what each alias stands for, where that is known. `values`: alias to name or token."""

    def named(match: re.Match[str]) -> str:
        quoted = match[0]
        alias = quoted.strip('"')
        value = values.get(alias)
        if value is None:
            return quoted
        if alias.startswith(PROOF) and quoted == f'"{alias}"':
            return value
        inner = json.dumps(value, ensure_ascii=False)[1:-1] if in_json else value
        return quoted.replace(alias, inner)

    return _ALIAS.sub(named, text)


def aliases_in(text: str) -> set[str]:
    return {match.strip('"') for match in _ALIAS.findall(text)}


def _replacer(aliases: Mapping[str, str]) -> Callable[[str], str]:
    names = sorted((n for n in aliases if not aliases[n].startswith(PROOF)), key=len, reverse=True)
    if not names:
        return lambda text: text
    # "ann" is named in "rejected by ann." and not in "planned", "ann@example.com" or "joe.ann".
    word = re.compile(rf"(?<![\w@-])(?<!\w\.)(?:{'|'.join(map(re.escape, names))})(?![\w@-])(?!\.\w)")
    return lambda text: word.sub(lambda match: aliases[match[0]], text)


def _walked(value: Any, aliases: Mapping[str, str], replace: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return replace(value)
    if isinstance(value, list):
        return [_walked(inner, aliases, replace) for inner in value]
    if not isinstance(value, dict):
        return value
    return {key: _proof(key, v, aliases) or _walked(v, aliases, replace) for key, v in value.items()}


def _proof(key: str, value: Any, aliases: Mapping[str, str]) -> str | None:
    """What stands for a token or a public key; None for anything else."""
    if key == TOKEN and isinstance(value, dict):
        return aliases.get(canonical_json(value))
    if key == PUBLIC_KEY and isinstance(value, str):
        return aliases.get(json.dumps(value))
    return None


def _names(value: Any) -> Iterator[str]:
    for key, inner in _fields(value):
        if key in PERSON_FIELDS and isinstance(inner, str):
            yield from inner.split(", ") if key == "approved_by" else (inner,)
        elif key in PEOPLE_FIELDS and isinstance(inner, list):
            yield from (name for name in inner if isinstance(name, str))


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    for inner in _objects(value):
        yield from inner.items()


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _objects(inner)
