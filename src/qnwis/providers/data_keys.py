"""Data keys: what is encrypted has a key of its own, wrapped by the key store, which is asked seldom.

One serves this process for a while; those of others are unwrapped once and kept in memory.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass

from .key_store import KEY_BYTES, KeyStore, KeyStoreError, Wrapped

SERVES_S = 3600.0
SERVES = 1 << 20
"""Encryptions under one data key: far below what random nonces of 96 bits allow."""
REMEMBERED = 4096
"""Unwrapped keys that are kept in memory."""


@dataclass(frozen=True)
class DataKey:
    key: bytes
    wrapped: Wrapped


class DataKeys:
    """Each method raises KeyStoreError."""

    def __init__(self, keys: KeyStore) -> None:
        self._keys = keys
        self._own: DataKey | None = None
        self._made_at = 0.0
        """By the monotonic clock, seconds."""
        self._served = 0
        self._known: OrderedDict[Wrapped, bytes] = OrderedDict()

    async def current(self) -> DataKey:
        """The key under which to encrypt once more."""
        own, now = self._own, time.monotonic()
        if own is None or self._served >= SERVES or now - self._made_at >= SERVES_S:
            key = secrets.token_bytes(KEY_BYTES)
            own = self._own = DataKey(key, await self._keys.wrap(key))
            self._made_at, self._served = now, 0
        self._served += 1
        return own

    async def unwrapped(self, wrapped: Wrapped) -> bytes:
        """The key that was wrapped, by this process or another."""
        if (known := self._known.get(wrapped)) is not None:
            self._known.move_to_end(wrapped)
            return known
        key = await self._keys.unwrap(wrapped)
        if len(key) != KEY_BYTES:
            raise KeyStoreError(f"key {wrapped.key_id} unwraps to something that is no key")
        self._known[wrapped] = key
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return key
