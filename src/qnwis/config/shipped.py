"""The runbooks' texts and the default configuration that come with the project."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path


def shipped(name: str) -> Path:
    """The folder `runbooks` or `config`: inside an installed wheel, or at the top of a source tree.

    Raises FileNotFoundError, naming both places, for a name that is in neither.
    """
    package = Path(str(files("qnwis")))
    places = (package / "_shipped" / name, package.parents[1] / name)
    for place in places:
        if place.is_dir():
            return place
    raise FileNotFoundError(f"no shipped folder {name!r}: looked for {places[0]} and {places[1]}")
