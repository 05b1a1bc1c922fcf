"""What every data model of the domain shares: frozen, strict about names, and one canonical JSON form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo

Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
"""An id that is safe in a workflow id, a DNS label list, a file name and a URL path."""

LONGEST_S = 366 * 86_400.0
"""No period that is configured is longer, seconds: a rule's moment has to be one that the calendar has."""
LONGEST_TTL_S = 2**31 - 1
"""Of a DNS record (RFC 2181, section 8)."""


class Model(BaseModel):
    """A value: frozen, and refusing fields it does not know, so that a typo never passes in silence.

    A digest must survive a round trip through JSON: so infinity and NaN are refused, and defaults are
    validated like given values (a default of 60 in a float field would come back as 60.0).

    A model's validator is built when it is first used: an agent that starts anew has a lease running out, and
    would spend a quarter of its start on models that it may never see.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True, defer_build=True
    )

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's, without its search for private and extra fields, which no model here has."""
        if deep:
            return super().model_copy(update=update, deep=True)
        copied = type(self).__new__(type(self))
        changes, given = update or {}, self.__pydantic_fields_set__
        _set(copied, "__dict__", {**self.__dict__, **changes})
        # A frozen model's set of given fields does not change either, so a copy may have the same one.
        _set(copied, "__pydantic_fields_set__", given if given.issuperset(changes) else given.union(changes))
        _set(copied, "__pydantic_extra__", None)
        _set(copied, "__pydantic_private__", None)
        return copied


_set = object.__setattr__
"""A frozen model's own refuses."""


CONFIGURED = "configured"
"""The context of a validation of what a person has written, though it is read by way of JSON."""


def is_stored(info: ValidationInfo) -> bool:
    """Whether a value comes from JSON, as Temporal and records keep it, and not from a person: what these ask
    for comes as an object, and what they configure with `CONFIGURED` as its context."""
    return info.mode == "json" and info.context != CONFIGURED


def at_most_if_stored(longest: float, value: object, info: ValidationInfo) -> object:
    """For a validator of the mode before. What is stored may be of before there was a limit, and no run must
    fail over what it was once given: it counts as the longest there is."""
    too_long = isinstance(value, int | float) and value > longest
    return longest if too_long and is_stored(info) else value


def build_models() -> int:
    """Build the validator of every model that is loaded; how many there are. For processes that live long:
    whatever decodes a model whose validator is not built would build one for itself, each run of a workflow
    anew."""
    found = set(_below(Model))
    for model in found:
        model.model_rebuild()
    return len(found)


def _below(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for one in model.__subclasses__():
        yield one
        yield from _below(one)


def canonical_json(value: BaseModel | Mapping[str, Any]) -> str:
    """The one JSON text of a value: keys sorted, no spaces, UTF-8. What digests are taken over."""
    data = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_digest(value: BaseModel | Mapping[str, Any]) -> str:
    """`sha256:<hex>` of the canonical JSON."""
    return "sha256:" + hashlib.sha256(canonical_json(value).encode()).hexdigest()
