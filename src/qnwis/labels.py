"""What stands for a person where Temporal indexes a value, and so cannot have it encrypted."""

from __future__ import annotations

import hmac

_key: bytes | None = None


def use_labels(key: bytes | None) -> None:
    """Called by a worker when it starts: from then on runs are found by a keyed pseudonym of who started
    them; with None by the name itself."""
    global _key
    _key = key


def label_of(name: str) -> str:
    """The value of a search attribute for this person. It steers nothing: a replay under another key still is
    the same run."""
    if _key is None:
        return name
    return f"person-{hmac.digest(_key, name.encode(), 'sha256').hex()[:32]}"
