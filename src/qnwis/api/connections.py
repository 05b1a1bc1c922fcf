"""Connections to the API: how many there are at once, and how long one may wait for its peer.

Of its own uvicorn lets any number in, waits for a first request for ever, for the rest of one too, and for
whoever does not take the answer.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 500
"""From so many on requests are answered 503. Below the 1024 files that a process usually may have open."""
REQUEST_WITHIN_S = 10.0
"""A connection on which no request is worked on is closed after this, whatever part of one came."""
TAKEN_WITHIN_S = 30.0
"""A connection is cut off whose peer took less than `LEAST_TAKEN` of an answer in so long."""
LEAST_TAKEN = 16_384
"""Bytes, or all there was. Far below what a bad line gives: who takes a byte now and then holds it too."""


class Http(H11Protocol):
    """HTTP/1.1 as uvicorn speaks it, with an end for whoever never asks, or never takes the answer."""

    _looks: asyncio.TimerHandle | None = None
    _left = 0
    """Bytes that the peer had not taken when it was last looked."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._look_away()

    def handle_events(self) -> None:
        super().handle_events()
        if not self._is_the_peers_turn():
            self._look_away()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._is_the_peers_turn():
            self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self._is_the_peers_turn():
            self._look_away()

    def _is_the_peers_turn(self) -> bool:
        """To ask: no head of a request is complete, or it is answered already. Or to take of the answer:
        until then nothing more of it is written."""
        return self.cycle is None or self.cycle.response_complete or self.flow.write_paused

    def _watch(self) -> None:
        self._look_away()
        self._left = self.transport.get_write_buffer_size()
        within_s = TAKEN_WITHIN_S if self._left else REQUEST_WITHIN_S
        self._looks = self.loop.call_later(within_s, self._look)

    def _look(self) -> None:
        left = self.transport.get_write_buffer_size()
        if left and self._left - left < LEAST_TAKEN:
            self.transport.abort()  # to close would wait until all is taken
            return
        if not left:
            self.transport.close()
        self._watch()

    def _look_away(self) -> None:
        if self._looks is not None:
            self._looks.cancel()
            self._looks = None
