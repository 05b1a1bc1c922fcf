"""Persons in the audit trail: a salted commitment where a name would stand, so that a person can be erased.

A record, its artefacts and its bundle hold `person:<hash>` for a person, and `proof:<hash>` for a public key
and for the signed token by which one proved to be somebody. What they stand for is kept with the salts,
outside of everything that is hashed and signed. Who has it can show that a commitment is of that name; once
it is erased, nobody can: the salt is 32 random bytes, so that guessing names does not help. Proofs stay.

A commitment that somebody typed (into a reason, or as a name) stands for nothing: it is kept as
`typed-person:<hash>`, and read as it was typed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from typing import Any

from .model import canonical_json

PERSON, PROOF = "person", "proof"
SALT_BYTES = 32
PERSON_FIELDS = frozenset({"approved_by", "attested_by", "by", "initiated_by", "initiator", "person"})
"""Of any model: fields that hold the name of a person (or of a part of the system that acted by itself)."""
PEOPLE_FIELDS = frozenset({"voters"})
TEXT_FIELDS = frozenset(
    {"about", "detail", "ended", "error", "headline", "message", "note", "notes", "reason", "remarks"}
    | {"remedy", "said", "says", "text", "title", "undelivered", "why"}
)
"""Of any model: fields that hold sentences, also where it is a single word."""
NO_PERSON_FIELDS = frozenset(
    {"action_id", "allowed_roles", "approved_at", "at", "cluster_id", "digest", "kind", "node_id"}
    | {"operation", "outcome", "plan_digest", "region", "role", "roles", "rule", "run_id", "source_node"}
    | {"status", "target_node", "timestamp", "type"}
)
"""Of any model: fields that hold no person, whatever a person is called."""
TOKEN, PUBLIC_KEY = "token", "public_key"
TYPED = "typed-"
_ALIAS = rf"(?P<typed>(?:{TYPED})*)(?P<alias>(?:{PERSON}|{PROOF}):[0-9a-f]{{64}})"
_ANY_ALIAS = re.compile(_ALIAS)


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
    """The text with every token replaced, and every name where it stands as a word of its own in a sentence,
    or is the whole of what stands there.

    A JSON text whose values change is written anew in canonical form; another text is searched as it is.
    `aliases`: name, or token as canonical JSON, to what stands for it.
    """
    if not aliases and _ANY_ALIAS.search(text) is None:
        return text
    names = {name: alias for name, alias in aliases.items() if not alias.startswith(PROOF)}
    words = _words(names)

    def hidden(key: str | None, said: str) -> str:
        return (words if _may_name(key, said, names) else _ANY_ALIAS).sub(stands_for, said)

    def stands_for(found: re.Match[str]) -> str:
        return TYPED + found[0] if found["alias"] is not None else names[found[0]]

    def inner(key: str, value: Any) -> Any:
        return _proof(key, value, aliases)

    return _rewritten(text, hidden, inner)


def resolved(text: str, values: Mapping[str, str]) -> str:
    """The text with what each alias stands for, where that is known, and with what was typed as it was.
    `values`: alias to name or token.

    A token comes back only where one was: what else looks like it was typed before that was marked.
    """
    if _ANY_ALIAS.search(text) is None:
        return text

    def named(found: re.Match[str]) -> str:
        if found["typed"]:
            return found[0].removeprefix(TYPED)
        return values.get(found["alias"], found[0]) if found["alias"].startswith(PERSON) else found[0]

    def inner(key: str, value: Any) -> Any:
        if key not in (TOKEN, PUBLIC_KEY) or not isinstance(value, str) or not value.startswith(PROOF):
            return None
        with suppress(ValueError, KeyError):
            return json.loads(values[value])
        return None

    return _rewritten(text, lambda _, said: _ANY_ALIAS.sub(named, said), inner)


def aliases_in(text: str) -> set[str]:
    """What stands for somebody; not what somebody typed."""
    return {found["alias"] for found in _ANY_ALIAS.finditer(text) if not found["typed"]}


def _words(names: Collection[str]) -> re.Pattern[str]:
    """Names as words, and aliases, which hold none."""
    if not names:
        return _ANY_ALIAS
    longest = sorted(names, key=len, reverse=True)
    # "ann" is named in "rejected by ann." and not in "planned", "ann@example.com" or "joe.ann".
    word = rf"(?<![\w@-])(?<!\w\.)(?:{'|'.join(map(re.escape, longest))})(?![\w@-])(?!\.\w)"
    return re.compile(f"{_ALIAS}|{word}")


def _may_name(key: str | None, said: str, names: Collection[str]) -> bool:
    """What has no blank is mostly for machines (moments, ids, addresses): in it a name is no part, whatever a
    person is called. `key`: of the field; None for a text that has none."""
    if key in NO_PERSON_FIELDS:
        return False
    of_people = key is None or key in TEXT_FIELDS or key in PERSON_FIELDS or key in PEOPLE_FIELDS
    return of_people or said in names or any(map(str.isspace, said))


def _rewritten(text: str, said: Callable[[str | None, str], str], inner: Callable[[str, Any], Any]) -> str:
    """`said`: what becomes of a string, by the field in which it stands; `inner`: what stands in a field, in
    place of its value; None to look into that."""
    try:
        value = json.loads(text)
        changed = _walked(None, value, said, inner)
        return text if changed == value else canonical_json({"": changed})[4:-1]
    except (ValueError, RecursionError):
        return said(None, text)


def _walked(
    key: str | None, value: Any, said: Callable[[str | None, str], str], inner: Callable[[str, Any], Any]
) -> Any:
    if isinstance(value, str):
        return said(key, value)
    if isinstance(value, list):
        return [_walked(key, one, said, inner) for one in value]
    if not isinstance(value, dict):
        return value
    found = {name: inner(name, one) for name, one in value.items()}
    return {
        name: _walked(name, one, said, inner) if found[name] is None else found[name]
        for name, one in value.items()
    }


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
