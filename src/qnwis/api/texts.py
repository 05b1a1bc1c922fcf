"""A body's texts are made of characters. JSON can escape half of one, which no digest or file takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute


class _WholeCharacters(Request):
    async def json(self) -> Any:
        value = await super().json()
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = f"\\u{ord(error.object[error.start]):04x}"
            raise json.JSONDecodeError(f"{half} is half a character", half, 0) from None
        return value


class WholeCharacters(APIRoute):
    """A route whose body is refused as no JSON where it holds a lone surrogate."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            return await handle(_WholeCharacters(request.scope, request.receive))

        return handled
