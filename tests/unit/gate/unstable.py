"""Prints what depends on the hash seed, as `same_bytes` must not."""

from __future__ import annotations

print("names", *{"ann", "bob", "carl", "dora", "eve", "fay"})
