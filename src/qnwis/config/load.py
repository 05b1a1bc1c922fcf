"""Loads `cluster.yaml` and `policy.yaml`; a bad file gives every one of its problems at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from qnwis.continuity.access import Issuers, People, Rbac, RbacFile
from qnwis.continuity.model import CONFIGURED
from qnwis.continuity.policy import Policy
from qnwis.continuity.topology import Cluster, broken_rules

from .problem import ConfigError, Problem
from .yaml_source import Loc, YamlSource, read_yaml

M = TypeVar("M", bound=BaseModel)


def load_cluster(path: Path) -> Cluster:
    """The topology in `path`. Raises ConfigError."""
    source = read_yaml(path)
    # Pydantic checks rules between fields only once every field is right; a person wants to see all at once.
    broken = [source.problem(rule.loc, rule.expected) for rule in broken_rules(source.data)]
    try:
        return validated(Cluster, source, broken)
    except ConfigError as error:
        problems = [_without_credentials(problem) for problem in error.problems]
    raise ConfigError(problems)


def _without_credentials(problem: Problem) -> Problem:
    """Where only a variable may be named, somebody may have put the secret itself."""
    if not problem.field.endswith(".credentials"):
        return problem
    return replace(problem, value="what is not shown, because it may be a secret")


def load_policy(path: Path) -> Policy:
    """The policy in `path`. Raises ConfigError."""
    return validated(Policy, read_yaml(path))


def load_rbac(path: Path) -> Rbac:
    """Roles and approval workflows in `path`. Raises ConfigError."""
    return validated(RbacFile, read_yaml(path)).rbac


def load_people(path: Path) -> People:
    """The people in `path`. Raises ConfigError."""
    return validated(People, read_yaml(path))


def load_issuers(path: Path) -> Issuers:
    """Who may vouch for people, in `path`. Raises ConfigError."""
    return validated(Issuers, read_yaml(path))


def validated(
    model: type[M], source: YamlSource, broken: Sequence[Problem] = (), *, strict: bool = True
) -> M:
    """The model that the file describes. Raises ConfigError with every problem, `broken` among them.

    A model with short forms (text where a mapping is meant) cannot be strict.
    """
    valid, problems = None, [*source.problems, *broken]
    try:
        # By way of JSON: strictness there still takes lists and names of choices, but no `yes` for a number.
        valid = model.model_validate_json(
            json.dumps(source.data, default=str), strict=strict, context=CONFIGURED
        )
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False, include_input=False)
        problems += [source.problem(e["loc"], _expected(e, model)) for e in errors if not _is_echo(e, errors)]
    if valid is None or problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return valid


def _is_echo(error: ErrorDetails, errors: Sequence[ErrorDetails]) -> bool:
    """Whether a list counts as too short only because its items have errors of their own."""
    loc = error["loc"]
    return error["type"] == "too_short" and any(
        other["loc"][: len(loc)] == loc for other in errors if other is not error
    )


def _expected(error: ErrorDetails, model: type[BaseModel]) -> str:
    """Pydantic's message as the end of a sentence that began with `expected`."""
    return _known_field(error["loc"], model) if error["type"] == "extra_forbidden" else expectation(error)


def expectation(error: ErrorDetails) -> str:
    """The same, for whoever does not know the model: of a field that there is."""
    context = error.get("ctx", {})
    match error["type"]:
        case "missing":
            return "a value; the field is required"
        case "value_error":
            return str(context["error"]).removeprefix("expected ")
        case "string_pattern_mismatch":
            return f"text that matches {context['pattern']}"
        case "too_short":
            return f"at least {context['min_length']} entry"
        case "too_long":
            return f"at most {context['max_length']} entries"
        case "model_type":
            return "a mapping"
        case "tuple_type":
            return "a list"
        case _:
            told = error["msg"].removeprefix("Input should be ").removeprefix("String should have ")
            return str(context.get("expected") or told)


def _known_field(loc: Loc, model: type[BaseModel]) -> str:
    names = [*map(str, _fields(_owner(loc[:-1], model)))]
    near = get_close_matches(str(loc[-1]), names, n=1)
    if near:
        return f"the field `{near[0]}` (there is none of this name)"
    return f"one of the fields {', '.join(names)}"


def _owner(loc: Loc, model: type[BaseModel]) -> type[BaseModel]:
    """The model whose field stands below `loc`. On the way only fields lead to another model: numbers
    of a list, keys of a mapping and names of a choice do not."""
    is_key = False
    for part in loc:
        annotation = None if is_key else _fields(model).get(part)
        inner = _model_in(annotation)
        if inner is not None:
            model = inner
        is_key = not is_key and _is_mapping(annotation)
    return model


def _fields(model: type[BaseModel]) -> dict[str | int, Any]:
    """As a file names them, with what each is to be."""
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _is_mapping(annotation: Any) -> bool:
    kinds = (annotation, *get_args(annotation))  # in `Mapping[…] | None` too
    return any(isinstance(kind := get_origin(one), type) and issubclass(kind, Mapping) for one in kinds)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model inside an annotation such as `tuple[Node, ...]` or `Database | None`; None where none is."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner)) is not None), None)
