"""Answers that go on: of one identity only so many at once, so that nobody takes all that there is."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from qnwis.continuity.refusal import Refusal
from qnwis.providers.errors import Refused

MOST_AT_ONCE = 5
"""Of one identity. A browser keeps six connections to a server: one is left for everything else."""
LONGEST_S = 600.0
"""Then a stream ends, and whoever still follows asks again: with credentials that are looked at again."""


class Streams:
    """How many each identity has now, of this process."""

    def __init__(self) -> None:
        self._going_on: Counter[str] = Counter()

    @contextmanager
    def one_more(self, name: str) -> Iterator[None]:
        """Counted until it is left. Raises Refused where there are as many as may be."""
        if self._going_on[name] >= MOST_AT_ONCE:
            raise Refused(too_many_streams(name))
        self._going_on[name] += 1
        try:
            yield
        finally:
            self._going_on -= Counter([name])  # what comes to nothing is forgotten


class EventStream(StreamingResponse):
    """Server-sent events, counted from before their first byte until they have ended, however that was."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[str], streams: Streams, name: str) -> None:
        super().__init__(events)
        self._streams = streams
        self._name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._streams.one_more(self._name):
            await super().__call__(scope, receive, send)


def too_many_streams(name: str) -> Refusal:
    return Refusal(
        rule="too_many_streams",
        message=f"{name} follows {MOST_AT_ONCE} runs already; more at once are not let pass",
        values={"most_at_once": MOST_AT_ONCE},
        remedy="End one of them (close a page of the console that shows a run), or ask for the run itself.",
    )
