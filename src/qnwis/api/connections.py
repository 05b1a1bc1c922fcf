"""Connections to the API: how many there are at once, and how long one may say nothing.

Of its own uvicorn lets any number in, waits for a first request for ever, and for the rest of one too.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 500
"""From so many on requests are answered 503. Below the 1024 files that a process usually may have open."""
REQUEST_WITHIN_S = 10.0
"""A connection on which no request is worked on is closed after this, whatever part of one came."""


class Http(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it, with an end for whoever never asks."""

    _silent_too_long: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._look_away()

    def handle_events(self) -> None:
        super().handle_events()
        if not self._waits():
            self._look_away()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._waits() and not self.transport.is_closing():
            self._watch()

    def _waits(self) -> bool:
        """No request is worked on: its head is not complete, or it is answered already."""
        return self.cycle is None or self.cycle.response_complete

    def _watch(self) -> None:
        self._look_away()
        self._silent_too_long = self.loop.call_later(REQUEST_WITHIN_S, self.transport.close)

    def _look_away(self) -> None:
        if self._silent_too_long is not None:
            self._silent_too_long.cancel()
            self._silent_too_long = None
