"""A wall clock of their own for some processes, which can be set while they run (libfaketime).

Only the wall clock: monotonic clocks stay true, as they do when somebody sets a machine's time.
"""

from __future__ import annotations

from pathlib import Path

from .errors import LabError
from .places import Place

PACKAGE = "libfaketime"
_LIBRARY = "faketime/libfaketimeMT.so.1"


def with_clock(place: Place, file: Path) -> Place:
    """The place with a clock that `set_clock` sets by that file. Raises LabError without libfaketime."""
    libraries = [
        found for folder in ("/usr/lib", "/usr/lib64") for found in Path(folder).glob(f"*/{_LIBRARY}")
    ]
    if not libraries:
        raise LabError(f"{_LIBRARY} not found below /usr/lib; install it (Debian: apt-get install {PACKAGE})")
    set_clock(file, 0)
    env = {
        "LD_PRELOAD": str(libraries[0]),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DONT_RESET": "1",
    }
    return place.model_copy(update={"env": {**place.env, **env}})


def set_clock(file: Path, by_s: float) -> None:
    """Within a second the clock is that much ahead of the machine's (behind it, if negative)."""
    beside = file.with_suffix(".new")
    beside.write_text(f"{by_s:+g}s\n")
    beside.replace(file)
